"""The examples say what the command line understands."""

import importlib.util
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from fairway.cli import COMMANDS
from fairway.cli.parsing import ask

CLUSTER = Path(__file__).parents[1] / "examples" / "cluster"
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


def test_seeds_run_as_an_array_of_local_processes(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    example = load(CLUSTER / "submitit_seeds.py")
    seed = example.Seed("pocket", "data", tmp_path / "run", 7, ["--train.steps", "2"])
    found = ask(COMMANDS, seed.command[3:]).parsed()
    assert (found["fields"].seed, found["out"].name, found["how"].resume) == (7, "run-7", "auto")


@pytest.mark.slow
def test_a_seed_without_data_fails_with_its_words(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, CLUSTER / "submitit_seeds.py", "pocket", tmp_path / "none", tmp_path / "x",
         "--seeds", "1", "--cluster", "local", "--logs", tmp_path / "logs", "--minutes", "1"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert time.monotonic() - began < 60
    said = "".join(path.read_text() for path in (tmp_path / "logs").glob("*.err"))
    assert "no data folder at" in said


def load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
