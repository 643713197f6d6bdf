"""How learning rate, momentum, decay, context and batch move over a run.

Pure functions of progress, which is 0 at the first step and 1 when the budget is spent, in steps
or in seconds alike. Schedules counted in steps under a wall clock have ruined runs of the field: a
warmdown of 3,000 steps decays from the first step on a slow machine, a taper set for step 14,000
never begins in a run that ends at step 4,900. No optimizer, no model and no clock is here.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

Shape = Literal["linear", "cosine"]


def _check_share(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name}={value}; it is a share of the whole, so between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class Warmdown:
    """The descent of the learning rate at the end of a run.

    The floor is where the descent stops, not where it aims: the rate falls as if towards zero and
    then stays at `floor`, as the field's scripts do (#1787).
    """

    # share of the run spent descending, 0 for a constant rate; None: `steps` says how long
    fraction: float | None = 0.72
    # number of steps it takes, counted back from the end as the scripts up to #691 do: a run that
    # is shorter begins below its peak. None: `fraction` says how long
    steps: int | None = None
    floor: float = 0.0  # share of the peak below which the rate never goes
    shape: Shape = "linear"  # shape of the descent

    def __post_init__(self) -> None:
        if (self.fraction is None) == (self.steps is None):
            raise ValueError(
                f"Warmdown(fraction={self.fraction}, steps={self.steps}); give exactly one of "
                f"them, the other None"
            )
        if self.fraction is not None:
            _check_share("Warmdown.fraction", self.fraction)
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"Warmdown.steps={self.steps}; a constant rate is fraction=0.0")
        _check_share("Warmdown.floor", self.floor)
        if self.shape not in get_args(Shape):
            raise ValueError(
                f"Warmdown.shape={self.shape!r}; choose one of {', '.join(get_args(Shape))}, "
                f"or use D2Z for a straight line to zero from the first step"
            )


D2Z = Warmdown(fraction=1.0, floor=0.0)  # straight to zero from the first step


def steps_left(progress: float, step: int, steps: int | None = None) -> float:
    """How many steps follow `step` finished ones: of `steps` in all, or as long as those were.

    >>> steps_left(0.25, 100), steps_left(0.25, 100, steps=400), steps_left(0.0, 0)
    (300.0, 300, inf)
    """
    if steps is not None:
        return steps - step
    return step * (1.0 - progress) / progress if progress else math.inf


def lr_scale(progress: float, warmdown: Warmdown, steps_left: float = math.inf) -> float:
    """Multiplier on every learning rate: 1, then down to the floor.

    steps_left  asked for by a warmdown in steps alone

    >>> [lr_scale(p, Warmdown(fraction=0.5, floor=0.1)) for p in (0.0, 0.5, 0.75, 0.99)]
    [1.0, 1.0, 0.5, 0.1]
    """
    if warmdown.fraction == 0.0:
        return 1.0
    if warmdown.fraction is None:
        assert warmdown.steps is not None
        remaining = min(1.0, max(0.0, steps_left) / warmdown.steps)
    else:
        remaining = min(1.0, max(0.0, 1.0 - progress) / warmdown.fraction)
    if warmdown.shape == "cosine":
        remaining = 0.5 - 0.5 * math.cos(math.pi * remaining)
    return max(warmdown.floor, remaining)


@dataclass(frozen=True, kw_only=True)
class MomentumWarmup:
    """The momentum of the matrices' optimizer rises in a line from `start` to its full value.

    Exactly one of `fraction` and `steps` says how long: steps repeat what the records did (1,500
    of about 4,900), a fraction means the same on any machine.
    """

    start: float = 0.92  # momentum of the first step
    fraction: float | None = None  # share of the run it takes; None: `steps` says how long
    steps: int | None = None  # number of steps it takes; None: `fraction` says how long

    def __post_init__(self) -> None:
        _check_share("MomentumWarmup.start", self.start)
        if (self.fraction is None) == (self.steps is None):
            raise ValueError(
                f"MomentumWarmup(fraction={self.fraction}, steps={self.steps}); give exactly one, "
                f"for example fraction=0.3"
            )
        if self.fraction is not None:
            _check_share("MomentumWarmup.fraction", self.fraction)
        if self.steps is not None and self.steps < 0:
            raise ValueError(f"MomentumWarmup.steps={self.steps} is negative")


def momentum(progress: float, step: int, full: float, warmup: MomentumWarmup | None) -> float:
    """Momentum of the step that follows `step` finished ones, rising from `warmup.start` to `full`.

    >>> [momentum(p, 0, 0.99, MomentumWarmup(start=0.95, fraction=0.5)) for p in (0.0, 0.25, 1.0)]
    [0.95, 0.97, 0.99]
    """
    if warmup is None:
        return full
    done, whole = progress, warmup.fraction
    if whole is None:
        done, whole = step, warmup.steps
    share = min(1.0, done / whole) if whole else 1.0
    return (1.0 - share) * warmup.start + share * full


@dataclass(frozen=True, kw_only=True)
class DecayTaper:
    """Weight decay falls in a straight line to a share of itself, late in the run (#1729)."""

    start: float = 0.7  # share of the run after which it begins
    final: float = 0.5  # share of the decay left at the end

    def __post_init__(self) -> None:
        _check_share("DecayTaper.start", self.start)
        _check_share("DecayTaper.final", self.final)


def decay_scale(progress: float, taper: DecayTaper | None) -> float:
    """Multiplier on every weight decay.

    >>> [decay_scale(p, DecayTaper(start=0.5, final=0.5)) for p in (0.25, 0.5, 0.75, 1.0)]
    [1.0, 1.0, 0.75, 0.5]
    """
    if taper is None or progress <= taper.start:
        return 1.0
    share = min(1.0, (progress - taper.start) / (1.0 - taper.start))
    return 1.0 - share * (1.0 - taper.final)


@dataclass(frozen=True, kw_only=True)
class Curriculum:
    """A whole number that changes at given points: context length, or micro-batches per step.

    Each stage is (progress until which it holds, value); the last holds until 1.
    """

    stages: tuple[tuple[float, int], ...]

    def __post_init__(self) -> None:
        ends = [end for end, _ in self.stages]
        if not ends or ends != sorted(set(ends)) or ends[0] <= 0.0 or ends[-1] != 1.0:
            raise ValueError(
                f"Curriculum stages end at {ends}; they must rise above 0 and end at 1.0, for "
                f"example ((0.1, 1024), (0.7, 2048), (1.0, 3072))"
            )
        if any(value < 1 for _, value in self.stages):
            raise ValueError(f"Curriculum values {[v for _, v in self.stages]} must be at least 1")


def current(progress: float, curriculum: Curriculum) -> int:
    """The value of the stage that `progress` lies in.

    >>> [current(p, Curriculum(stages=((0.1, 1024), (1.0, 2048)))) for p in (0.0, 0.1, 1.0)]
    [1024, 2048, 2048]
    """
    for end, value in curriculum.stages:
        if progress < end:
            return value
    return curriculum.stages[-1][1]


class ContextWarmup:
    """The learning rate rises anew after each change of the context (#2014).

    steps    how many it takes; 0: the rate stays as it is
    context  of the last step; None: there was none yet
    since    steps that were finished when it changed; None: it has not changed
    """

    def __init__(self, contexts: Curriculum | None, steps: int) -> None:
        self.contexts, self.steps = contexts, steps
        self.context: int | None = None
        self.since: int | None = None

    def scale(self, progress: float, step: int) -> float:
        """Multiplier on the rate of the step after `step` finished ones.

        >>> warmup = ContextWarmup(Curriculum(stages=((0.5, 8), (1.0, 16))), steps=4)
        >>> [warmup.scale(step / 10, step) for step in range(10)]
        [1.0, 1.0, 1.0, 1.0, 1.0, 0.25, 0.5, 0.75, 1.0, 1.0]
        """
        if self.contexts is None or not self.steps:
            return 1.0
        context = current(progress, self.contexts)
        if self.context is not None and context != self.context:
            self.since = step
        self.context = context
        return 1.0 if self.since is None else min(1.0, (step + 1 - self.since) / self.steps)


@dataclass(frozen=True, kw_only=True)
class When:
    """A point in the run: progress reached, or the learning rate below a share of its peak.

    Depth recurrence is usually switched on by progress (#1394), late rounding and tight averaging
    by the learning rate (#414).
    """

    progress: float | None = None  # share of the run; None: lr_scale_below says when
    lr_scale_below: float | None = None  # share of the peak rate; None: progress says when

    def __post_init__(self) -> None:
        if (self.progress is None) == (self.lr_scale_below is None):
            raise ValueError(
                f"When(progress={self.progress}, lr_scale_below={self.lr_scale_below}); "
                f"give exactly one"
            )
        if self.progress is not None:
            _check_share("When.progress", self.progress)
        if self.lr_scale_below is not None and not 0.0 < self.lr_scale_below <= 1.0:
            raise ValueError(f"When.lr_scale_below={self.lr_scale_below}; must be in (0, 1]")

    def reached(self, progress: float, lr_scale: float) -> bool:
        if self.progress is not None:
            return progress >= self.progress
        assert self.lr_scale_below is not None
        return lr_scale < self.lr_scale_below
