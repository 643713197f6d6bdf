"""kill -9 at random moments of a run, at every stage; then the same command until it is done.

    python benchmarks/faults/kills.py [--kills 60] [--seed 0]

Each run is a miniature of fixed steps and is killed once or several times, at moments drawn over
the whole of an undisturbed one, then left to finish. Its artifact must equal the undisturbed one's,
its log must only have grown, and no partial file may be left. Prints a JSON line for each run and a
table of the stages that were hit.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fairway.prepare import prepare_documents

RUN = Path(__file__).parents[2] / "tests" / "pipeline" / "killed_run.py"
VERSES = [f"{i} green bottles hanging on the wall, {i * 7} more. ".encode() * 6 for i in range(40)]


def start(data: Path, out: Path, resume: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(RUN), str(data), str(out), resume],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def stage_of(out: Path) -> str:
    """The stage that the log had begun last, and not ended."""
    log, open_stages = out / "train.log", []
    lines = log.read_text().splitlines() if log.exists() else []
    for line in lines:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue  # the last line of a run that was killed
        if entry.get("event") == "begin":
            open_stages = [entry["stage"]]
        elif entry.get("event") == "end":
            open_stages = []
    return open_stages[0] if open_stages else "between stages"


def one_run(data: Path, out: Path, whole: Path, moments: list[float]) -> dict[str, object]:
    """Kill at each of the moments (seconds after a start), then let it finish."""
    hit, log, status = [], b"", 0
    for moment in [*moments, None]:
        process = start(data, out, "auto")
        try:
            status = process.wait(180 if moment is None else moment)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            hit.append(stage_of(out))
        now = (out / "train.log").read_bytes() if (out / "train.log").exists() else b""
        if not now.startswith(log):
            return {"ok": False, "why": "the log was cut", "hit": hit}
        log = now
        if moment is None and status:
            error = process.stderr.read() if process.stderr else ""
            return {"ok": False, "why": error.strip()[-300:], "hit": hit}
    same = (out / "model.fwy").read_bytes() == (whole / "model.fwy").read_bytes()
    left = [path.name for path in out.iterdir() if "partial" in path.name]
    return {"ok": same and not left, "same_artifact": same, "left": left, "hit": hit}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--brief", action="store_true", help="three kills")
    args = parser.parse_args()
    chance, wanted = random.Random(args.seed), 3 if args.brief else args.kills
    with tempfile.TemporaryDirectory() as folder:
        data, whole = Path(folder) / "data", Path(folder) / "whole"
        prepare_documents(data, VERSES[:-1], VERSES[-1:], vocab_size=300, source="a song")
        began = time.perf_counter()
        if start(data, whole, "no").wait(300):
            sys.exit("the undisturbed run failed")
        seconds = time.perf_counter() - began
        hits: Counter[str] = Counter()
        runs = failed = 0
        while sum(hits.values()) < wanted:
            moments = [chance.uniform(0.35, 1.0) * seconds for _ in range(chance.randint(1, 4))]
            found = one_run(data, Path(folder) / f"run{runs}", whole, moments)
            runs, failed = runs + 1, failed + (not found["ok"])
            hits.update(found["hit"])  # type: ignore[arg-type]
            print(json.dumps(found), flush=True)
    table = Table(
        "stage", "kills", title=f"{sum(hits.values())} kills, {runs} runs, {failed} failed"
    )
    for stage, number in hits.most_common():
        table.add_row(stage, str(number))
    Console().print(table)


if __name__ == "__main__":
    main()
