"""What a run says while it works: JSON lines into a file, progress onto the screen.

The file is for programs and keeps every number; the screen is for people and keeps still. Progress
goes to standard error only, so that standard output stays what the command answers. No number is
computed here, and PyTorch is not imported.
"""

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from fairway.runtime.progress import Progress, silent

if TYPE_CHECKING:
    from rich.progress import Progress as Display

LINE_SECONDS = 5.0  # least time between two plain lines
LINE_SHARE = 0.1  # ... which also wait for this much of the stage
SILENCE_SECONDS = 30.0  # ... but not for longer than this
MOST_UNWRITTEN = 100  # lines kept where there is no file for them


class RunLog:
    """One run's log; use as a context manager or `close` it.

    path      file of JSON lines, added to when it exists; None keeps the lines until `keep_in`
    quiet     nothing on the screen (ranks other than the first, tests)
    screen    where people look; a live display if it is a terminal, else a line now and then
    progress  called with all that is said and with every update of a stage, whose name is the text
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        quiet: bool = False,
        screen: IO[str] | None = None,
        progress: Progress = silent,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.screen = screen if screen is not None else sys.stderr
        self.quiet, self.progress, self.now = quiet, progress, now
        self.began = now()
        self.file: IO[str] | None = None
        self._unwritten: list[str] = []  # said before there was a file
        if path is not None:
            self.keep_in(path)
        self._live: Display | None = None  # while a stage runs on a terminal

    def keep_in(self, path: Path) -> None:
        """Add to this file from now on, and first what was said before."""
        path.parent.mkdir(parents=True, exist_ok=True)
        torn = _ends_within_a_line(path)
        self.file = path.open("a", encoding="utf-8")
        if torn:  # by a full disk, or a kill: what comes now has lines of its own
            self.file.write("\n")
        self.file.writelines(self._unwritten)
        self.file.flush()
        self._unwritten = []

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None

    def write(self, event: str, **values: object) -> None:
        """One JSON line: the event, seconds since the log began, and any plain values."""
        line = {"event": event, "seconds": round(self.now() - self.began, 3), **values}
        text = json.dumps(_plain(line), allow_nan=False) + "\n"
        if self.file is None:
            self._unwritten = [*self._unwritten, text][-MOST_UNWRITTEN:]
            return
        self.file.write(text)
        self.file.flush()  # a run that is killed has said all it knew

    def say(self, text: str) -> None:
        """A line for people, kept in the file too."""
        self.write("say", text=text)
        self.progress(text=text)
        self._print(text)

    @contextmanager
    def stage(self, name: str, *, total: float | None = None) -> Iterator["Stage"]:
        """A part of the run with a beginning and an end; `total` is what `done` counts up to.

        Its `update` is a `Progress`, for whatever takes long inside.
        """
        self.write("begin", stage=name, total=total)
        stage = Stage(self, name, total)
        if not self.quiet and self.screen.isatty():
            with _live_display(self, stage):
                yield stage
        else:
            yield stage
        spent = self.now() - stage.began
        self.write("end", stage=name, done=stage.done, spent=round(spent, 3), **stage.numbers)
        self._print(f"{name}: {_duration(spent)}{_listed(stage.numbers)}")

    def _print(self, text: str) -> None:
        if self.quiet:
            return
        if self._live is not None:
            self._live.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=self.screen, flush=True)


class Stage:
    """Handed out by `RunLog.stage`."""

    def __init__(self, log: RunLog, name: str, total: float | None) -> None:
        self.log, self.name, self.total = log, name, total
        self.began = log.now()
        self.done = 0.0
        self.numbers: dict[str, float] = {}
        self._printed_at, self._printed_done = self.began, 0.0
        self._show: Callable[[Stage], None] = _show_line

    def update(
        self, done: float = 0.0, total: float = 0.0, *, text: str = "", **numbers: float
    ) -> None:
        """A `Progress`: numbers and text are kept in the file, bare progress is only shown.

        Numbers are plain ones: whoever has a tensor knows when reading it is cheap.
        """
        self.done, self.total = done or self.done, total or self.total
        if text:
            self.log.write(self.name, text=text)
            if not (done or numbers):
                self.log.progress(text=text)
                return
        if numbers:
            self.numbers = numbers
            self.log.write("update", stage=self.name, done=done, **numbers)
        self.log.progress(self.done, self.total or 0.0, text=text or self.name, **numbers)
        if not self.log.quiet:
            self._show(self)


def _ends_within_a_line(path: Path) -> bool:
    if not path.is_file() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def _show_line(stage: Stage) -> None:
    now = stage.log.now()
    silence = now - stage._printed_at
    step = (stage.done - stage._printed_done) / stage.total if stage.total else 1.0
    if silence < LINE_SECONDS or (step < LINE_SHARE and silence < SILENCE_SECONDS):
        return
    stage._printed_at, stage._printed_done = now, stage.done
    share = ""
    if stage.total:
        left = (now - stage.began) * max(0.0, stage.total / stage.done - 1) if stage.done else None
        share = f" {min(1.0, stage.done / stage.total):.0%}"
        share += f", {_duration(left)} left" if left is not None else ""
    stage.log._print(f"{stage.name}:{share or f' {stage.done:g}'}{_listed(stage.numbers)}")


@contextmanager
def _live_display(log: RunLog, stage: Stage) -> Iterator[None]:
    # Imported here: it takes a tenth of a second, which commands that show nothing should not pay.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as TimeLeftColumn
    from rich.table import Column

    display = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None, table_column=Column(min_width=8, ratio=1)),
        TextColumn("{task.percentage:>3.0f}%" if stage.total else "{task.completed:g}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeLeftColumn(),
        TextColumn("{task.fields[numbers]}", table_column=Column(ratio=1, no_wrap=True)),
        expand=True,  # a narrow screen cuts the numbers, and keeps bar and time left
        console=Console(file=log.screen),
        transient=True,  # the stage's closing line replaces it
        redirect_stdout=False,  # standard output is the command's answer, not ours
        redirect_stderr=False,
    )
    with display:
        task = display.add_task(stage.name, total=stage.total, numbers="")

        def show(stage: Stage) -> None:
            display.update(
                task, completed=stage.done, total=stage.total, numbers=_listed(stage.numbers, "")
            )

        stage._show, log._live = show, display
        try:
            yield
        finally:
            log._live = None


def _plain(value: object) -> object:
    """As JSON has it: numbers that are not finite become their names, paths their text."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return str(value) if isinstance(value, Path) else value


def _listed(numbers: dict[str, float], before: str = ", ") -> str:
    texts = [f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in numbers.items()]
    return before + ", ".join(texts) if texts else ""


def _duration(seconds: float) -> str:
    """
    >>> [_duration(s) for s in (0.04, 7.26, 75.0, 7322.0)]
    ['0.0 s', '7.3 s', '1 min 15 s', '2 h 2 min']
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
