"""A run in miniature as a process of its own, forked from one that has loaded everything.

It dies as any process does; only what Python takes to start is saved.
"""

import json
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from fairway.pipeline.story import RunOptions
from fairway.recipes.recipe import Recipe
from fairway.recipes.registry import recipe, smoke
from fairway.runtime.run_log import RunLog
from fairway.runtime.stopping import Stopped

VERSES = [f"{i} green bottles hanging on the wall, {i * 7} more. ".encode() * 6 for i in range(40)]
# Every stage of a run is in it: Hessians to calibrate, learning and a mixture while it is scored.
BY_STEPS = smoke(recipe("pocket"), steps=30)
CLOCKED = replace(
    BY_STEPS,
    train=replace(BY_STEPS.train, steps=None, seconds=6.0, reserve_seconds=1.5),
    budget=replace(BY_STEPS.budget, eval_seconds=60.0),
)
OPTIONS = RunOptions(
    proof_tokens=20,
    audit_seconds=0.3,
    compute_dtype="float32",
    compiled=False,
    threads=1,
    checkpoint_seconds=0.05,
    resume="auto",
)
MOST_SECONDS = 240.0  # that a run may take on a busy machine
GRACE_SECONDS = 20.0  # after which who was asked to stop must have ended


def by_steps() -> Recipe:
    """For the command line, which takes a recipe as FILE.py:FUNCTION."""
    return BY_STEPS


@dataclass
class Started:
    """A run in a process group of its own; `stages` is the pipe on which it names its stages."""

    process: Any
    stages: int

    def wait_for(self, stage: str) -> bool:
        """Whether the stage began before the run ended."""
        while select.select([self.stages], [], [], MOST_SECONDS)[0]:
            said = os.read(self.stages, 4096)
            if not said:
                return False
            if stage in said.decode().split("\n"):
                return True
        return False

    def end(self, number: int, after: float) -> bool:
        """Send a signal after so many seconds; whether the run was still there."""
        self.process.join(after)
        if self.process.exitcode is not None:
            return False
        os.killpg(self.process.pid, number)
        self.process.join(MOST_SECONDS if number == signal.SIGKILL else GRACE_SECONDS)
        return True

    def close(self) -> int | None:
        os.close(self.stages)
        return self.process.exitcode


def start(
    work: Callable[[], object], errors: Path, on_stage: Callable[[str], object] = str
) -> Started:
    """work      what the process does; an int that it returns is the exit status
    errors    file to which all that it says is added
    on_stage  called in it before each stage, with the stage's name
    """
    here, there = os.pipe()
    arguments = (work, there, here, errors, on_stage)
    process = get_context("fork").Process(target=_work, args=arguments)
    process.start()
    os.close(there)
    return Started(process, here)


def _work(
    work: Callable[[], object],
    pipe: int,
    other: int,
    errors: Path,
    on_stage: Callable[[str], object],
) -> None:
    """In the child: as the command line does it, and with a word before each stage."""
    os.setsid()
    os.close(other)
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    os.dup2(2, 1)
    plain = RunLog.stage

    def told(log: RunLog, name: str, *, total: float | None = None) -> AbstractContextManager:
        os.write(pipe, f"{name}\n".encode())
        on_stage(name)
        return plain(log, name, total=total)

    RunLog.stage = told  # type: ignore[method-assign, assignment]
    status = 0
    try:
        found = work()
        status = found if isinstance(found, int) else 0
    except Stopped as stop:
        status = 128 + stop.signal
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        status = 2
    except BaseException:
        traceback.print_exc()
        status = 3
    sys.stderr.flush()
    os._exit(status)


def entries(log: Path) -> list[dict[str, Any]]:
    """Of a log whose lines may have been cut where a run was killed."""
    found = []
    for line in log.read_bytes().split(b"\n") if log.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return [entry for entry in found if isinstance(entry, dict)]


def open_stage(log: Path) -> str:
    """The stage that was begun last and not ended."""
    last = next((e for e in reversed(entries(log)) if e.get("event") in ("begin", "end")), {})
    return str(last["stage"]) if last.get("event") == "begin" else "between stages"
