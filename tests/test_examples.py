"""The examples say what the command line understands."""

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fairway.cli import COMMANDS
from fairway.cli.parsing import ask

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
CLUSTER = EXAMPLES / "cluster"
FILES = ("slurm.sbatch", "skypilot.yaml", "kubernetes.yaml")


def fairway_runs(text: str) -> list[list[str]]:
    """What follows `-m fairway run`, with 1 for every variable."""
    joined = re.sub(r"\\\n\s*", "", text)
    plain = re.sub(r"\$\w+|\$\{[^}]*\}", "1", joined)
    found = re.findall(r"-m fairway run ([^&\n]*)", plain)
    return [shlex.split(words) for words in found]


@pytest.mark.parametrize("name", FILES)
def test_every_command_parses_and_goes_on_by_itself(name: str) -> None:
    (words,) = fairway_runs((CLUSTER / name).read_text())
    found = ask(COMMANDS, ["run", *words]).parsed()
    assert found["how"].resume == "auto"
    assert "runs/" in str(found["out"])


@pytest.mark.parametrize("name", FILES)
def test_every_command_meets_by_c10d_and_restarts(name: str) -> None:
    text = (CLUSTER / name).read_text()
    assert "--rdzv-backend c10d" in text
    assert "--max-restarts 3" in text


def test_the_files_are_what_their_readers_take() -> None:
    sky = yaml.safe_load((CLUSTER / "skypilot.yaml").read_text())
    assert {"resources", "setup", "run", "num_nodes"} <= sky.keys()
    *_, job = yaml.safe_load_all((CLUSTER / "kubernetes.yaml").read_text())
    pod = job["spec"]["template"]["spec"]
    assert (job["kind"], pod["restartPolicy"]) == ("Job", "OnFailure")
    assert pod["terminationGracePeriodSeconds"] >= 60
    mounts = {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]}
    subprocess.run(["bash", "-n", CLUSTER / "slurm.sbatch"], check=True)


def test_the_notebook_is_the_script() -> None:
    pytest.importorskip("nbformat")
    made = load(EXAMPLES / "to_notebook.py").notebook((EXAMPLES / "python_api.py").read_text())
    held = json.loads((EXAMPLES / "python_api.ipynb").read_text())
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in held["cells"]]
    assert cells == [(cell.cell_type, cell.source) for cell in made.cells], (
        "run python examples/to_notebook.py"
    )


@pytest.mark.slow
@pytest.mark.examples
def test_the_notebook_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    held = nbformat.read(EXAMPLES / "python_api.ipynb", as_version=4)
    client = nbclient.NotebookClient(held, timeout=500, kernel_name="python3")
    client.execute()
    shown = "".join(
        output.get("text", "") for cell in held.cells for output in cell.get("outputs", [])
    )
    assert "proved: True  audit: legal" in shown
    assert "illegal" in shown


@pytest.mark.slow
@pytest.mark.examples
def test_a_first_day_from_the_built_wheel(tmp_path: Path) -> None:
    """What a newcomer does, in miniature, with nothing of the source tree but the examples."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", tmp_path, ROOT], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", site, wheel], check=True)
    place = "import fairway; print(fairway.__file__)"
    env = {
        **os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(site), "QUICK": "1",
        "WORK": str(tmp_path / "day"), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    used = subprocess.run(
        [sys.executable, "-c", place], env=env, cwd=tmp_path, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert used.stdout.startswith(str(site))
    done = subprocess.run(
        ["bash", EXAMPLES / "first_day.sh"], env=env, cwd=tmp_path, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    day = tmp_path / "day"
    assert json.loads((day / "run" / "result.json").read_text())["proof"]["holds"]
    assert json.loads((day / "proof.json").read_text())["holds"]  # with the learner of one's own
    assert (day / "sample.again").read_bytes() == (day / "sample.bin").read_bytes()
    assert (day / "run" / "report.html").is_file()
    for package, written in (
        ("transformers", "exported/config.json"), ("lm_eval", "asked.json"),
        ("uvicorn", "served.json"),
    ):  # fmt: skip
        there = importlib.util.find_spec(package) is not None
        assert (day / written).is_file() == there


def load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
