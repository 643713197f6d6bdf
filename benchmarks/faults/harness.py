"""Read damaged files in a process that may die, hang or ask for too much, and say how it went."""

import contextlib
import multiprocessing
import os
import resource
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from kinds import Sample

SECONDS = 10.0  # after which a reading hangs
MEMORY = 3 << 29  # bytes beyond what a process takes at rest; asking for more is an error
LONGEST_LINE = 1000


class Case(NamedTuple):
    """data  what stands in the place of the sample's file"""

    fault: str
    data: bytes


class Outcome(NamedTuple):
    """verdict  refused (in one line), same (as the true file), other (accepted, not the same),
    traceback, hang, died
    """

    case: Case
    verdict: str
    message: str
    seconds: float
    peak_mb: float


def read_all(sample: Sample, cases: Iterable[Case], *, apart: bool = False) -> Iterator[Outcome]:
    """Each case read; a process that ends or hangs is replaced.

    apart  a fresh process for each case: slower, and memory is measured from rest
    """
    expected = sample.read(sample.folder)
    worker: _Worker | None = None
    try:
        for case in cases:
            if worker is None:
                worker = _Worker(sample)
            outcome = worker.read(case, expected)
            yield outcome
            if apart or outcome.verdict in ("hang", "died"):
                worker.close()
                worker = None
    finally:
        if worker is not None:
            worker.close()


class _Worker:
    def __init__(self, sample: Sample) -> None:
        fork = multiprocessing.get_context("fork")
        self.here, there = fork.Pipe()
        self.process = fork.Process(target=_serve, args=(sample, there, self.here), daemon=True)
        self.process.start()
        there.close()

    def read(self, case: Case, expected: str) -> Outcome:
        begin = time.perf_counter()
        try:
            self.here.send_bytes(case.data)
            if not self.here.poll(SECONDS):
                return Outcome(case, "hang", "", time.perf_counter() - begin, 0.0)
            verdict, message, peak, seconds = self.here.recv()
        except (EOFError, OSError):
            self.process.join(5)
            return Outcome(case, "died", f"exit status {self.process.exitcode}", 0.0, 0.0)
        if verdict == "read":
            verdict = "same" if message == expected else "other"
        return Outcome(case, verdict, message, seconds, peak / 1e6)

    def close(self) -> None:
        if self.process.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGKILL)
        self.process.join()
        self.here.close()


def _serve(sample: Sample, pipe: Connection, parents: Connection) -> None:
    """Write what comes over the sample's file, read it, tell what happened."""
    parents.close()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what libraries print on the way
    place = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=place) as scratch:
        folder = Path(scratch) / "files"
        shutil.copytree(sample.folder, folder)
        used = _memory("VmSize")
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        while True:
            try:
                data = pipe.recv_bytes()
            except EOFError:
                return
            (folder / sample.name).write_bytes(data)
            _reset_peak()
            rest = _memory("VmRSS")
            begin = time.perf_counter()
            verdict, message = _read(sample, folder)
            seconds = time.perf_counter() - begin
            pipe.send((verdict, message, max(0, _memory("VmHWM") - rest), seconds))


def _read(sample: Sample, folder: Path) -> tuple[str, str]:
    try:
        return "read", sample.read(folder)
    except (ValueError, OSError) as error:  # what the command line turns into one line
        message = str(error)
        plain = message.strip() and message.isprintable() and len(message) <= LONGEST_LINE
        return ("refused" if plain else "traceback"), message[:2000]
    except BaseException:
        return "traceback", traceback.format_exc()[-2000:]


def _memory(field: str) -> int:
    """Bytes, of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {field} in /proc/self/status")


def _reset_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
