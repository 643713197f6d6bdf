"""Seconds from the start of `fairway train` to its first step, as its log has it. By hand.

    python benchmarks/start.py [DATA]

A process of its own each time; the first of each kind warms the caches of disk and compilers and is
printed as cold, the fastest of the others as warm. Eager steps, and compiled ones.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measuring.rows import show
from measuring.small_run import given_or_small_data

RECIPE = "pocket"
MOST_SECONDS = 300.0


def has_begun(log: Path) -> bool:
    """Whether a step is in the log."""
    if not log.is_file():
        return False
    lines = log.read_text().splitlines(keepends=True)
    return any(json.loads(line).get("step", 0) >= 1 for line in lines if line.endswith("\n"))


def seconds_to_first_step(data: Path, option: str) -> tuple[float, float]:
    """By the clock, and of the processor."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        words = ["train", RECIPE, str(data), "--out", str(out), option]
        begin = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "fairway", *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            while not has_begun(out / "train.log"):
                if process.poll() is not None:
                    assert process.stderr is not None
                    raise SystemExit(f"`fairway {' '.join(words)}` ended: {process.stderr.read()}")
                if time.perf_counter() - begin > MOST_SECONDS:
                    raise SystemExit(f"no step after {MOST_SECONDS:.0f} s")
                time.sleep(0.01)
            seconds = time.perf_counter() - begin
        finally:
            before = os.times().children_user
            process.kill()
            process.communicate()
        return seconds, os.times().children_user - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--repeats", type=int, default=2, help="warm ones")
    parser.add_argument("--brief", action="store_true", help="eager steps, once")
    args = parser.parse_args()
    kinds = {"eager": "--no-compiled", "compiled": "--compiled"}
    with given_or_small_data(args.data) as data:
        for kind, option in kinds.items():
            cold, _ = seconds_to_first_step(data, option)
            repeats = 1 if args.brief else args.repeats
            warm, processor = min(seconds_to_first_step(data, option) for _ in range(repeats))
            show(
                f"start to first step, {kind}",
                cold_seconds=cold,
                seconds=warm,
                processor_seconds=processor,
            )
            if args.brief:
                return


if __name__ == "__main__":
    main()
