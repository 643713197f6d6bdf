"""A step is timed as a run takes it: with its loop off and on, and by the clock that is given."""

from collections.abc import Callable
from dataclasses import replace
from itertools import count

import pytest
import torch

from fairway.planning import steps
from fairway.planning.steps import LEAST_ERROR, loop_share, step_seconds
from fairway.recipes.recipe import Recipe
from fairway.recipes.registry import recipe, smoke
from fairway.runtime.run_log import RunLog
from fairway.runtime.setup import Runtime


@pytest.fixture
def runtime() -> Runtime:
    return Runtime(torch.device("cpu"), log=RunLog(quiet=True))


@pytest.fixture
def looped(monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.setattr(steps, "MEASURE_SECONDS", 0.0)
    small = smoke(recipe("pr1413"))
    assert small.model.loop is not None
    return replace(small, train=replace(small.train, loops_at=0.25))


def ticking(*seconds: float) -> Callable[[], float]:
    """A clock between whose even and odd readings so many seconds pass, in turn."""
    at, readings = 0.0, count()

    def now() -> float:
        nonlocal at
        reading = next(readings)
        at += seconds[reading // 2 % len(seconds)] if reading % 2 else 0.0
        return at

    return now


def test_a_step_is_the_mean_of_both_phases_weighed(looped: Recipe, runtime: Runtime) -> None:
    assert loop_share(looped) == 0.75
    # Two steps of each phase are taken, of which the first sets things up.
    found = step_seconds(looped, runtime, now=ticking(9.0, 1.0, 9.0, 3.0))
    assert found.value == pytest.approx(0.25 * 1.0 + 0.75 * 3.0)
    assert found.error == LEAST_ERROR


def test_the_error_is_how_far_apart_steps_were(
    looped: Recipe, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "WARM_UP_STEPS", 0)
    plain = replace(
        looped,
        model=replace(looped.model, loop=None),
        train=replace(looped.train, loops_at=None),
    )
    found = step_seconds(plain, runtime, now=ticking(1.0, 3.0))
    assert (found.value, found.error) == (2.0, 0.5)
