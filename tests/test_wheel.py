"""The wheel that people install holds all that is needed, and says who it is for."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import fairway

ROOT = Path(__file__).parents[1]
EXTRAS = ("report", "tune", "hub", "lm-eval", "serve", "bytes", "track", "slurm")


@pytest.mark.slow
def test_the_wheel_works_where_no_source_is(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    built = [*pip, "wheel", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(built, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name == f"fairway-{fairway.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as held:
        names = set(held.namelist())
        (metadata,) = (name for name in names if name.endswith("METADATA"))
        said = held.read(metadata).decode()
    package = (ROOT / "src" / "fairway").rglob("*")
    files = {p.relative_to(ROOT / "src") for p in package if p.is_file()}
    assert {str(file) for file in files if "__pycache__" not in file.parts} <= names
    assert {f"Provides-Extra: {extra}" for extra in EXTRAS} <= set(said.splitlines())
    subprocess.run(
        [*pip, "install", "--no-deps", "--target", str(tmp_path / "site"), str(wheel)], check=True
    )
    code = (
        "import fairway, sys; from fairway.cli import main\n"
        "assert fairway.__file__.startswith(sys.argv[1]), fairway.__file__\n"
        "sys.exit(main(['recipes']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "site")],
        env={"PYTHONPATH": str(tmp_path / "site"), "PATH": ""},
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, "pr1413" in done.stdout) == (0, True), done.stderr
