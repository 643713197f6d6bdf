"""A rank killed or stopped at random moments of a run: how long the other lives, and what it says.
By hand.

    python benchmarks/faults/ranks.py --moments 5

Starts two ranks under torchrun on the built-in text, waits for a random moment after the first line
of the log, lets rank 1 fall out, and prints one JSON line per trial: the stage that the log was in,
the seconds until rank 0 had ended, and who named rank 1's process: rank 0, or torchrun, which sees
its own children die and ends the others at once.
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
from pathlib import Path

from fairway.demo import prepare_builtin

RUN = (
    "--threads 1 --train.seconds 12 --budget.eval-seconds 15 --tokens.val-tokens 3000 "
    "--proof-tokens 0 --audit-seconds 0 --compute-dtype float32"
)
SECONDS = 24.0  # of run, about, in which a moment is chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--moments", type=int, default=5, help="for each kind of fault")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        data = prepare_builtin(Path(folder) / "data", 2048).path
        for kind in (signal.SIGKILL, signal.SIGSTOP):
            hit = number = 0
            while hit < args.moments:
                out, number = Path(folder) / f"run-{kind.name}-{number}", number + 1
                found = trial(data, out, kind, rng.uniform(0.0, SECONDS))
                hit += found["stage"] != "over"  # by then the run had ended: no moment of it
                print(json.dumps(found), flush=True)


def trial(data: Path, out: Path, kind: signal.Signals, moment: float) -> dict[str, object]:
    """One run whose rank 1 gets the signal `moment` seconds after the log began."""
    said = out.with_suffix(".said")
    command = ["-m", "fairway", "run", "pocket", str(data), "--out", str(out), *RUN.split()]
    with said.open("wb") as file:
        torchrun = subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
             *command],
            stdout=file, stderr=file, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    while not (out / "train.log").exists():
        time.sleep(0.1)
    time.sleep(moment)
    ranks = {rank_of(pid): pid for pid in children(torchrun.pid)}
    if not {"0", "1"} <= ranks.keys():
        torchrun.wait()
        return {"fault": kind.name, "moment": round(moment, 1), "stage": "over"}
    stage = stage_of(out / "train.log")
    os.kill(ranks["1"], kind)
    began = time.monotonic()
    while alive(ranks["0"]):
        time.sleep(0.05)
    ended = time.monotonic() - began
    torchrun.wait()
    return {
        "fault": kind.name,
        "moment": round(moment, 1),
        "stage": stage,
        "seconds_until_ended": round(ended, 1),
        "seconds_until_torchrun_ended": round(time.monotonic() - began, 1),
        "named_by": named_by(said.read_text(), ranks["1"]),
    }


def named_by(said: str, pid: int) -> str:
    if f"process {pid})" in said:
        return "rank 0"
    return "torchrun" if f"(pid: {pid})" in said else "nobody"


def stage_of(log: Path) -> str:
    """The last stage that the log says has begun."""
    events = [json.loads(line) for line in log.read_text().splitlines()]
    return [event["stage"] for event in events if event["event"] == "begin"][-1]


def children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in path.read_text().split()] if path.exists() else []


def rank_of(pid: int) -> str:
    try:
        lines = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return ""
    return next((line[5:].decode() for line in lines if line.startswith(b"RANK=")), "")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


if __name__ == "__main__":
    main()
