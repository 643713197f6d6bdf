"""Every row that docs/performance.md promises for two cores, in one call, each under two minutes.

    python benchmarks/table.py [--only training decoding ...]

Runs the benchmark behind each row, with nothing else beside it, and prints its figures under what
they are measured against. Quote only what a quiet machine printed. What needs a GPU is printed by
`benchmarks/gpu.sh`, and bits per byte after 180 seconds by `make demo`.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROWS: dict[str, tuple[str, list[str]]] = {
    "training": ("1.0x of the best peer", ["steps.py", "pocket", "--repeats", "10"]),
    "baseline": (
        "1.1x of nanoGPT",
        ["steps.py", "naive_baseline", "--repeats", "2", "--eager"],
    ),
    "learning": ("1.5x of the published loop", ["evaluate.py", "--epochs"]),
    "mixture": ("10x of its plain form", ["mixture.py", "--tokens", "20000", "--repeats", "1"]),
    "decoding": (
        "3x frozen, 2x with its own learning, of the plain pass",
        ["decoding.py", "--tokens", "1024", "--repeats", "2"],
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--brief", action="store_true", help="the row that is fastest to print")
    args = parser.parse_args()
    failed = 0
    for name in ["mixture"] if args.brief else args.only:
        target, (file, *arguments) = ROWS[name]
        print(f"{name}: at least {target}", flush=True)
        command = [sys.executable, str(HERE / file), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        for line in done.stdout.splitlines():
            if line.startswith("{"):
                row = json.loads(line)
                told = (f"{k} {v:,.4g}" for k, v in row.items() if isinstance(v, float))
                print(f"  {row['name']}: {', '.join(told)}", flush=True)
        if done.returncode:
            print(f"  could not be run: {(done.stderr.strip().splitlines() or [''])[-1]}")
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
