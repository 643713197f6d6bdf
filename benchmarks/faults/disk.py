"""A disk that is full, read-only, over its quota or gone, at each stage of a run. Needs root.

    python benchmarks/faults/disk.py                               # 4 faults at 7 stages
    python benchmarks/faults/disk.py --faults quota gone           # those that need no root
    python benchmarks/faults/disk.py --stages pack prove

A run in miniature works in a small file system of its own. When it begins a stage, the fault sets
in. It must end with exit status 2 and one line; what was written whole before must still be whole;
and once the fault is over, the same command with `--resume auto` must finish with the artifact and
the score of an undisturbed run. A JSON line for each, then a table; exit status 1 where one failed.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from started import MOST_SECONDS, VERSES, start

from fairway.artifact.loaded_model import load_model
from fairway.cli import main as fairway
from fairway.result import read_result
from fairway.runs.description import read_recipe, read_run
from fairway.runtime.files import file_sha256
from fairway.tokens import shards
from fairway.train.checkpoints import Checkpoints

RECIPE = f"{Path(__file__).with_name('started.py')}:by_steps"
STAGES = ("prepare", "train", "calibrate", "pack", "score and learn", "prove", "report")
ROOM = 16 << 20  # bytes of the file system, some ten times what a run needs
QUOTA = 2000  # bytes of a file: less than any that a run writes at a later stage, but its log


def command(data: Path, out: Path) -> Callable[[], int]:
    words = ["run", RECIPE, str(data), "--out", str(out), "--resume", "auto", "--threads", "1"]
    words += ["--proof-tokens", "20", "--audit-seconds", "0", "--compute-dtype", "float32"]
    return lambda: fairway([*words, "--checkpoint-seconds", "0.05"])


def preparation(source: Path, out: Path) -> Callable[[], int]:
    words = ["prepare", str(out), str(source), "--vocab-size", "300", "--val-fraction", "0.1"]
    return lambda: fairway([*words, "--workers", "1"])


@contextmanager
def file_system(place: Path, mounted: bool) -> Any:
    """A small one at `place`; a plain folder where the fault does not need more."""
    place.mkdir()
    if mounted:
        words = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(place)]
        subprocess.run(words, check=True)
    try:
        yield place
    finally:
        while os.path.ismount(place):
            subprocess.run(["umount", "-l", str(place)], check=True)


class Fault:
    """One kind; `begin` is called in the run's own process, `end` in this one."""

    mounted = True

    def __init__(self, place: Path) -> None:
        self.place = place

    def begin(self) -> None: ...
    def end(self) -> None: ...


class Full(Fault):
    """No byte is left."""

    def begin(self) -> None:
        with (self.place / "filler").open("wb", buffering=0) as file:
            for size in (1 << 16, 1):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    continue

    def end(self) -> None:
        (self.place / "filler").unlink()


class ReadOnly(Fault):
    def begin(self) -> None:
        # Lazily: files that are open for writing would forbid it.
        words = ["mount", "-o", "remount,ro", str(self.place)]
        if subprocess.run(words, check=False, capture_output=True).returncode:
            subprocess.run(["mount", "--bind", str(self.place), str(self.place)], check=True)
            words = ["mount", "-o", "remount,ro,bind", str(self.place)]
            subprocess.run(words, check=True)

    def end(self) -> None:
        if subprocess.run(
            ["mount", "-o", "remount,rw", str(self.place)], check=False, capture_output=True
        ).returncode or not os.access(self.place, os.W_OK):
            subprocess.run(["umount", "-l", str(self.place)], check=True)


class Quota(Fault):
    """Files may not grow beyond what is little for any but a log."""

    mounted = False

    def begin(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (QUOTA, QUOTA))


class Gone(Fault):
    """The folder that is written into is removed."""

    mounted = False

    def begin(self) -> None:
        for path in self.place.iterdir():
            away = self.place.with_name(f"{self.place.name} {path.name} gone")
            path.rename(away)  # at once, whatever is being written there
            shutil.rmtree(away)


FAULTS: dict[str, type[Fault]] = {
    "full": Full, "read-only": ReadOnly, "quota": Quota, "gone": Gone,
}  # fmt: skip


def before_first_shard(begin: Callable[[], None]) -> None:
    """Call it once something is about to be written."""
    plain = shards.write_shard

    def after_fault(path: Path, tokens: np.ndarray) -> None:
        begin()
        plain(path, tokens)

    shards.write_shard = after_fault


def torn(out: Path) -> str | None:
    """The first file of a run folder that is there and not whole."""
    try:
        run = read_run(out)
        if run is None:
            return None
        read_recipe(out)
        Checkpoints(out, run["made_with"]).newest()
        if (out / "result.json").exists():
            read_result(out)
        if (out / "model.fwy").exists():
            load_model(out / "model.fwy")
    except ValueError as error:
        return str(error)
    return None


def one(kind: str, stage: str, folder: Path, data: Path, source: Path) -> dict[str, Any]:
    """The fault at the beginning of that stage; then without it."""
    made = FAULTS[kind]
    errors, whole = folder / f"{kind} {stage}.errors", folder / "whole"
    with file_system(folder / f"{kind} {stage}", made.mounted) as place:
        out, fault = place / "out", made(place)
        preparing = stage == "prepare"
        work = preparation(source, out) if preparing else command(data, out)

        def on_stage(name: str) -> None:
            if name == stage:
                before_first_shard(fault.begin) if preparing else fault.begin()

        first = start(work, errors, on_stage)
        first.process.join(MOST_SECONDS)
        status, said = first.close(), errors.read_text()
        last = said.strip().splitlines()[-1] if said.strip() else ""
        found = {"fault": kind, "stage": stage, "status": status, "said": last[-200:]}
        plain = status == 2 and last.startswith("fairway ") and "Traceback" not in said
        fault.end()
        broken = None if preparing else torn(out)
        second = start(work, errors)
        second.process.join(MOST_SECONDS)
        again = second.close()
        same = again == 0 and not differs(out, data if preparing else whole, preparing)
        left = [p.name for p in out.rglob("*partial*")] if out.is_dir() else []
        found |= {"again": again, "same": same, "torn": broken, "left": left}
        if again:
            found["then"] = errors.read_text().strip().splitlines()[-1][-200:]
        return found | {"ok": plain and same and broken is None and not left}


def differs(out: Path, whole: Path, preparing: bool) -> bool:
    if preparing:
        return any(file_sha256(p) != file_sha256(out / p.name) for p in whole.iterdir())
    model = (out / "model.fwy").read_bytes() != (whole / "model.fwy").read_bytes()
    return model or read_result(out).score != read_result(whole).score


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", nargs="*", default=tuple(FAULTS), choices=tuple(FAULTS))
    parser.add_argument("--stages", nargs="*", default=STAGES, choices=STAGES)
    args = parser.parse_args()
    table, tried, failed = Table("stage", *args.faults), 0, 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data, source = folder / "data", folder / "song.txt"
        texts = [b"%d. " % i + verse for i, verse in enumerate(VERSES * 5)]
        source.write_bytes(b"\0".join(texts))
        for work in (preparation(source, data), command(data, folder / "whole")):
            begun = start(work, folder / "errors")
            begun.process.join(MOST_SECONDS)
            if begun.close():
                sys.exit(f"without any fault: {(folder / 'errors').read_text()[-500:]}")
        for stage in args.stages:
            row = []
            for kind in args.faults:
                found = one(kind, stage, folder, data, source)
                print(json.dumps(found), flush=True)
                tried, failed = tried + 1, failed + (not found["ok"])
                row.append("ok" if found["ok"] else "FAILED")
            table.add_row(stage, *row)
    table.title = f"{tried} faults, {failed} failures"
    Console().print(table)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
