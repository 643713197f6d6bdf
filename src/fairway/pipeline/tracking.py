"""A run's numbers in the tools that people watch runs with, where they ask for it; else nowhere.

A tracker is told what the run's log is told, through the one callback there is (`Progress`), so
that whoever has a tracker of their own passes it as `progress`. Nothing is sent unless asked for.
"""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from fairway.artifact.config_json import config_to_json
from fairway.pipeline.options import Tracking
from fairway.recipes.recipe import Recipe
from fairway.runtime.extras import extra
from fairway.runtime.launched import is_first_process
from fairway.runtime.limits import one_line
from fairway.runtime.progress import Progress

PROJECT = "fairway"  # where the user's own settings name none


class Tracker(Protocol):
    """What is told the numbers of each stage."""

    def log(self, numbers: dict[str, float], step: int) -> None:
        """numbers by "stage/name", after so many steps or other units of that stage"""
        ...

    def close(self) -> None: ...


@contextmanager
def tracked(
    name: Tracking | None, recipe: Recipe, out: Path, progress: Progress
) -> Iterator[Progress]:
    """`progress`, and beside it the tracker of that name, opened by the first process alone.

    Raises ValueError where its package is missing.
    """
    if name is None or not is_first_process():
        yield progress
        return
    tracker = TRACKERS[name](recipe, out)
    try:
        yield _both(name, tracker, progress)
    finally:
        tracker.close()


def _both(name: str, tracker: Tracker, progress: Progress) -> Progress:
    """A tracker that fails is told no more, and the run goes on: its numbers are in its own log."""
    failed = False

    def call(done: float = 0.0, total: float = 0.0, *, text: str = "", **numbers: float) -> None:
        nonlocal failed
        progress(done, total, text=text, **numbers)
        if failed or not numbers:
            return
        try:
            tracker.log({f"{text or 'run'}/{k}": value for k, value in numbers.items()}, int(done))
        except Exception as error:
            failed = True
            warnings.warn(f"{name} failed ({one_line(error)}) and is told no more", stacklevel=2)

    return call


class TensorBoard:
    """Event files in the run folder, read by `tensorboard --logdir`."""

    def __init__(self, recipe: Recipe, out: Path) -> None:
        with extra("track", "--track tensorboard"):
            from torch.utils.tensorboard.writer import SummaryWriter
        self._writer = SummaryWriter(str(out / "tensorboard"))
        self._writer.add_text("recipe", f"```\n{config_to_json(recipe)}\n```")

    def log(self, numbers: dict[str, float], step: int) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class Board:
    """A service of the shape of wandb, which trackio shares: init, log, finish.

    Its steps must rise over the whole run, and ours begin anew with each stage: they are an axis of
    their own, "stage/step".
    """

    def __init__(self, module: str, recipe: Recipe, out: Path, **settings: Any) -> None:
        with extra("track", f"--track {module}"):
            self._module = import_module(module)
        project = os.environ.get(f"{module.upper()}_PROJECT", PROJECT)
        config = config_to_json(recipe)
        self._module.init(project=project, name=out.resolve().name, config=config, **settings)

    def log(self, numbers: dict[str, float], step: int) -> None:
        stage = next(iter(numbers)).partition("/")[0]
        self._module.log({**numbers, f"{stage}/step": step})

    def close(self) -> None:
        self._module.finish()


TRACKERS: dict[Tracking, Callable[[Recipe, Path], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": lambda recipe, out: Board("wandb", recipe, out, dir=str(out)),
    "trackio": lambda recipe, out: Board("trackio", recipe, out),
}
