"""Every kind of file that fairway reads, damaged and forged: what becomes of reading it. By hand.

    python benchmarks/faults/files.py             # about half an hour
    python benchmarks/faults/files.py --brief     # a minute; also a test

A JSON line for each kind of file and fault, then a table. Exit status 1 where anything was wrongly
accepted, ended in a traceback, hung, or took more than a gigabyte.
"""

import argparse
import json
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

# Files may ask for several threads: on a busy machine those must not spin, nor take much memory.
os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "OMP_STACKSIZE": "512k"}
import torch
from bombs import bombs
from damage import cuts, extensions, flips
from fuzz import fuzz
from harness import Case, Outcome, read_all
from kinds import Sample
from samples import make_samples

FULL = {"flips": 5000, "cuts": 500, "extensions": 500, "fuzz": 2000}
BRIEF = {"flips": 60, "cuts": 30, "extensions": 20, "fuzz": 60}
MOST_MB, MOST_SECONDS = 1000.0, 2.0
# What a checksum keeps unchanged: any other reading of it would be wrong. Kinds without one hold
# what they say, so that other content is another file.
CHECKED = {"flip", "truncation", "extension"}
UNCHECKED = {
    "SentencePiece", "shard without hashes", ".npy", "JSON lines", "Parquet",
}  # fmt: skip


class Tally:
    """Outcomes of one kind of file under one fault."""

    def __init__(self, sample: Sample, fault: str) -> None:
        self.sample, self.fault = sample, fault
        self.verdicts: Counter[str] = Counter()
        self.worst_mb = self.worst_seconds = 0.0
        self.examples: list[str] = []

    def add(self, outcome: Outcome) -> None:
        verdict = outcome.verdict
        checked = self.fault in CHECKED and self.sample.kind not in UNCHECKED
        if verdict == "other" and (checked or self.sample.unique or self.fault == "bomb"):
            verdict = "wrong"
        if verdict == "same" and self.fault == "bomb":
            verdict = "wrong"
        if verdict == "refused" and self.fault == "bomb" and outcome.seconds > MOST_SECONDS:
            verdict = "slow"
        if outcome.peak_mb > MOST_MB:
            self.verdicts["large"] += 1
        self.verdicts[verdict] += 1
        self.worst_mb = max(self.worst_mb, outcome.peak_mb)
        self.worst_seconds = max(self.worst_seconds, outcome.seconds)
        if verdict not in ("refused", "same", "other") and len(self.examples) < 20:
            last = [line[-150:] for line in outcome.message.strip().splitlines()[-3:]]
            self.examples.append(f"{outcome.case.fault}: {verdict}: {' | '.join(last)}")

    @property
    def failed(self) -> int:
        bad = ("wrong", "traceback", "hang", "died", "slow", "large")
        return sum(self.verdicts[name] for name in bad)

    def row(self) -> dict[str, str | int | float]:
        names = ("refused", "same", "other", "wrong", "traceback", "hang", "died", "slow")
        return {
            "kind": self.sample.kind,
            "fault": self.fault,
            "tried": sum(self.verdicts[name] for name in names),
            **{name: self.verdicts[name] for name in names},
            "peak_mb": round(self.worst_mb, 1),
            "seconds": round(self.worst_seconds, 2),
        }


def campaign(
    samples: Iterable[Sample], sizes: dict[str, int], seed: int, apart: bool, bombed: bool
) -> list[Tally]:
    """Print a row for each kind of file and fault.

    apart   each handmade file in a process of its own
    bombed  whether there are any
    """
    found = []
    for sample in samples:
        data, random_ = sample.data, random.Random(f"{seed} {sample.kind}")
        faults: dict[str, Iterable[Case]] = {
            "flip": flips(data, sizes["flips"], random_),
            "truncation": cuts(data, sizes["cuts"], random_),
            "extension": extensions(data, sizes["extensions"], random_),
            "bomb": bombs(sample) if bombed else (),
            "fuzz": fuzz(sample, sizes["fuzz"], random_),
        }
        for fault, cases in faults.items():
            tally = Tally(sample, fault)
            for outcome in read_all(sample, cases, apart=apart and fault == "bomb"):
                tally.add(outcome)
            if tally.verdicts:
                print(json.dumps(tally.row()), flush=True)
                for example in tally.examples:
                    print(f"    {example}", file=sys.stderr)
                found.append(tally)
    return found


def table(tallies: list[Tally]) -> str:
    rows = [tally.row() for tally in tallies]
    heads = list(rows[0])
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += ["| " + " | ".join(str(row[head]) for head in heads) + " |" for row in rows]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--brief", action="store_true", help="some of each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=(), help="these kinds")
    for name, number in FULL.items():
        parser.add_argument(f"--{name}", type=int, help=f"so many at most; {number:,}")
    parser.add_argument("--no-bombs", action="store_true", help="only what chance does")
    args = parser.parse_args()
    sizes = dict(BRIEF if args.brief else FULL)
    sizes |= {name: getattr(args, name) for name in sizes if getattr(args, name) is not None}
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        samples = make_samples(Path(folder))
        chosen = [s for kind, s in samples.items() if not args.only or kind in args.only]
        tallies = campaign(chosen, sizes, args.seed, not args.brief, not args.no_bombs)
    print(table(tallies))
    failed = sum(tally.failed for tally in tallies)
    print(f"{sum(int(t.row()['tried']) for t in tallies):,} files, {failed:,} failures")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
