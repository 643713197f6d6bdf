"""Every benchmark, briefly, as one table: whether they run, and about how much. `make bench`.

The figures are of tiny settings; for figures to quote, run a benchmark by itself. Exit status 1
says that one could not be run at all; no figure is ever wrong.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from measuring.rows import Row, Value, machine_name
from measuring.small_run import make_run
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

HERE = Path(__file__).parent
# house.py counts the source, and has a target of its own; record.py installs PyTorch once more
OTHERS = {"all.py", "house.py", "record.py", "table.py"}
NEEDS = {
    "evaluate.py": ("run", "data"),
    "plan.py": ("data",),
    "pmatic.py": ("run", "data"),
    "proof.py": ("run", "data"),
    "serve.py": ("run",),
    "start.py": ("data",),
    "train.py": ("data",),
    "travel.py": ("run", "data"),
}


def run_briefly(file: Path, arguments: list[str]) -> tuple[list[Row], str]:
    """The measurements that `file` prints, and what went wrong, if anything did."""
    command = [sys.executable, str(file), *arguments, "--brief"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    return rows, said[-1] if done.returncode else ""


def shown(value: Value) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def add_rows(table: Table, benchmark: str, rows: list[Row], problem: str) -> None:
    for row in rows:
        values = {key: value for key, value in row.items() if key not in ("name", "machine")}
        told = "\n".join(f"{key} {shown(value)}" for key, value in values.items())
        table.add_row(benchmark, str(row["name"]), told)
    if problem:
        table.add_row(benchmark, "could not be run", problem, style="red")
    table.add_section()


def main() -> int:
    # So small a model gains little from a second thread, and on a busy machine loses much by it.
    torch.set_num_threads(int(os.environ.setdefault("OMP_NUM_THREADS", "1")))
    console, failed = Console(), 0
    table = Table("benchmark", "measured", "found", title=machine_name(), title_justify="left")
    files = [file for file in sorted(HERE.glob("*.py")) if file.name not in OTHERS]
    with (
        tempfile.TemporaryDirectory() as folder,
        Progress(console=Console(stderr=True), transient=True) as progress,
    ):
        bar = progress.add_task("a small run to measure", total=1 + len(files))
        made = dict(zip(("run", "data"), map(str, make_run(Path(folder))), strict=True))
        for file in files:
            progress.update(bar, advance=1, description=file.name)
            arguments = [made[need] for need in NEEDS.get(file.name, ())]
            rows, problem = run_briefly(file, arguments)
            add_rows(table, file.stem, rows, problem)
            failed += bool(problem)
    console.print(table)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
