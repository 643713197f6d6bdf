"""A run in odd circumstances: it must be right, or end with one line.

    python benchmarks/faults/circumstances.py [--only NAME...]

Two at once in one folder, a clock that is set back or far ahead, streams closed, LANG=C, odd file
names, no file descriptors left, no home, no place for temporary files, no folder to stand in.
Prints a JSON line for each; exit status 1 where one was neither right nor one line.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from samples import model_bytes
from started import MOST_SECONDS, VERSES, start

from fairway.cli import main as fairway
from fairway.prepare import prepare_documents

RECIPE = f"{Path(__file__).with_name('started.py')}:by_steps"
NAMES = {
    "spaces and quotes": "a 'run' of \"mine\" $HOME *",
    "a line break": "two\nlines",
    "a leading dash": "-run",
    "Unicode": "caf\u00e9 \u1112\u1161\u11ab \U0001f469",
    "no UTF-8": os.fsdecode(b"caf\xe9 \xff"),
    "200 letters": "x" * 200,
    "300 letters": "x" * 300,
}
Case = Callable[[Path], tuple[int | None, str]]


class Cases:
    """Each is called with a folder of its own; returns exit status and all that was said."""

    def __init__(self, data: Path, model: Path) -> None:
        self.data, self.model = data, model
        self.found: dict[str, Case] = {
            "two runs in one folder": self.two_runs,
            "another run, with --overwrite, meanwhile": lambda at: self.two_runs(
                at, "--overwrite", "--seed", "5"
            ),
            "two preparations in one folder": self.two_preparations,
            "clock set back a day": lambda at: self.trained(at, lambda: shift(-86_400)),
            "clock a year ahead": lambda at: self.trained(at, lambda: shift(31_536_000)),
            "standard input closed": lambda at: self.trained(at, lambda: os.close(0)),
            "all streams closed": self.closed,
            "LANG=C": self.plain_locale,
            "no file descriptors, from the start": lambda at: self.trained(
                at, lambda: few_descriptors(0)
            ),
            "no file descriptors, later": lambda at: self.trained(at, lambda: few_descriptors(3)),
            "no file descriptors, compressing": self.compressed_with_few,
            "no home": lambda at: self.trained(at, lambda: os.environ.pop("HOME", None)),
            "no place for temporary files": lambda at: self.trained(at, no_temporary),
            "no folder to stand in": lambda at: self.trained(at, lambda: stand_nowhere(at)),
        }
        for kind, name in NAMES.items():
            self.found[f"run folder named {kind}"] = lambda at, n=name: self.trained(at, None, n)
        for kind in ("a line break", "no UTF-8"):
            name = NAMES[kind]
            self.found[f"files named {kind}"] = lambda at, n=name: self.round_trip(at, n)

    def trained(
        self, at: Path, before: Callable[[], object] | None, name: str = "out"
    ) -> tuple[int | None, str]:
        """`fairway train`, after something was done to its process."""

        def work() -> int:
            if before is not None:
                before()
            return fairway(self.words("train", at / name))

        return ended(work, at)

    def words(self, command: str, out: Path, *more: str) -> list[str]:
        words = [command, RECIPE, str(self.data), f"--out={out}", "--threads", "1"]
        return [*words, "--compute-dtype", "float32", *more]

    def two_runs(self, at: Path, *more: str) -> tuple[int | None, str]:
        """The second one's answer, while the first is held in its training."""
        first = start(
            lambda: fairway(self.words("train", at / "out")),
            at / "first.errors",
            lambda name: time.sleep(600) if name == "train" else None,
        )
        if not first.wait_for("train"):
            return 3, "the first one did not begin"
        try:
            return ended(lambda: fairway(self.words("train", at / "out", *more)), at)
        finally:
            first.end(9, 0.0)
            first.close()

    def two_preparations(self, at: Path) -> tuple[int | None, str]:
        source = at / "song.txt"
        source.write_bytes(b"\0".join(VERSES))
        words = ["prepare", str(at / "data"), str(source), "--vocab-size", "290"]
        words += ["--val-fraction", "0.2", "--workers", "1"]
        first = start(lambda: fairway(words), at / "first.errors")
        second = ended(lambda: fairway(words), at)
        first.process.join(MOST_SECONDS)
        other = first.close()
        if other not in (0, 2) or (other, second[0]) == (2, 2):
            return 3, f"{other} {(at / 'first.errors').read_text()} {second}"
        return second

    def closed(self, at: Path) -> tuple[int | None, str]:
        words = self.words("train", at / "out")
        told = subprocess.list2cmdline([sys.executable, "-m", "fairway", *words])
        done = subprocess.run(["bash", "-c", f"exec {told} <&- >&- 2>&-"], check=False)
        return done.returncode, ""

    def plain_locale(self, at: Path) -> tuple[int | None, str]:
        """A process of its own: what text is, Python decides when it starts."""
        env = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        words = self.words("train", at / "caf\u00e9")
        command = [sys.executable, "-m", "fairway", *words]
        done = subprocess.run(
            command, env=env, capture_output=True, check=False, timeout=MOST_SECONDS
        )
        return done.returncode, done.stderr.decode("utf-8", "replace")

    def compressed_with_few(self, at: Path) -> tuple[int | None, str]:
        (at / "text").write_bytes(b"to be or not to be")

        def work() -> int:
            few_descriptors(1)
            return fairway(["compress", str(self.model), str(at / "text"), str(at / "packed")])

        return ended(work, at)

    def round_trip(self, at: Path, name: str) -> tuple[int | None, str]:
        source, packed, back = (at / f"{name}{end}" for end in ("", ".fwc", ".back"))
        source.write_bytes(b"to be or not to be")

        def work() -> int:
            model = str(self.model)
            return fairway(["compress", model, str(source), str(packed)]) or fairway(
                ["decompress", model, str(packed), str(back)]
            )

        status, said = ended(work, at)
        same = status or back.read_bytes() == source.read_bytes()
        return (status, said) if same else (3, "other bytes came back")


def ended(work: Callable[[], object], at: Path) -> tuple[int | None, str]:
    started = start(work, at / "errors")
    started.process.join(MOST_SECONDS)
    if started.process.exitcode is None:
        started.end(9, 0.0)
    return started.close(), (at / "errors").read_text(errors="replace")


def shift(seconds: float) -> None:
    """The clock on the wall jumps once it has been looked at a few times."""
    plain, calls = time.time, 0

    def shifted() -> float:
        nonlocal calls
        calls += 1
        return plain() + (seconds if calls > 3 else 0.0)

    time.time = shifted


def few_descriptors(more: int) -> None:
    """No more than are open now, and so many."""
    opened = max(map(int, os.listdir("/proc/self/fd"))) + more
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened, opened))


def no_temporary() -> None:
    os.environ["TMPDIR"] = "/nowhere"
    tempfile.tempdir = None


def stand_nowhere(at: Path) -> None:
    place = at / "place"
    place.mkdir()
    os.chdir(place)
    place.rmdir()


def judged(status: int | None, said: str) -> dict[str, Any]:
    lines = said.strip().splitlines()
    last = lines[-1] if lines else ""
    refused = status in (1, 2) and last.startswith("fairway ") and "Traceback" not in said
    answer = "right" if status == 0 else "one line" if refused else "WRONG"
    told = ascii(last[-240:])[1:-1] if answer != "WRONG" else said[-900:]
    return {"status": status, "answer": answer, "said": told if status else ""}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=())
    args = parser.parse_args()
    tried = wrong = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data, model = folder / "data", folder / "model.fwy"
        prepare_documents(data, VERSES[:-1], VERSES[-1:], vocab_size=300, source="a song")
        model.write_bytes(model_bytes())
        for number, (kind, case) in enumerate(Cases(data, model).found.items()):
            if args.only and kind not in args.only:
                continue
            at = folder / f"case{number}"
            at.mkdir()
            found = {"case": kind, **judged(*case(at))}
            print(json.dumps(found), flush=True)
            tried, wrong = tried + 1, wrong + (found["answer"] == "WRONG")
    print(f"{tried} circumstances, {wrong} of them wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
