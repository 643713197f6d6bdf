"""How far a run has come: progress from 0 to 1, counted in steps or in seconds.

A clock only tells the time; what happens at which progress is in `schedule.py`, and who asks is
`loop.py`. Seconds are those of rank 0, so that all ranks stop after the same step.
"""

import statistics
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

import torch

from fairway.runtime.distributed import Ranks


class Clock(Protocol):
    """Asked once before every step, by every rank; at 1 the run is over."""

    def progress(self, step: int) -> float:
        """Share of the budget spent when `step` steps are finished."""
        ...


class StepClock:
    """A fixed number of steps: the same run on any machine."""

    def __init__(self, steps: int) -> None:
        if steps < 1:
            raise ValueError(f"a run of {steps} steps trains nothing; give at least 1")
        self.steps = steps

    def progress(self, step: int) -> float:
        return min(1.0, step / self.steps)


class WallClock:
    """A fixed number of seconds, begun by the first question.

    seconds          the whole budget
    reserve_seconds  kept back for what must follow inside the same budget (Hessians, for one)
    spent_seconds    already used by the run that this one continues
    now              seconds on any monotonous clock

    A step is begun only if, lasting as long as the ones before it, it would end no later than half
    its own length past the budget. So runs end half a step early or late, never a whole one late.
    """

    MEMORY = 8  # steps whose median is the length of the next; few, since loops make steps longer

    def __init__(
        self,
        seconds: float,
        *,
        reserve_seconds: float = 0.0,
        spent_seconds: float = 0.0,
        ranks: Ranks | None = None,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        if not 0.0 <= reserve_seconds < seconds:
            raise ValueError(
                f"{seconds} s of training less a reserve of {reserve_seconds} s leaves nothing; "
                f"raise the one or lower the other"
            )
        self.budget = seconds - reserve_seconds
        self.spent_before = spent_seconds
        self.ranks, self.now = ranks or Ranks(), now
        self.began: float | None = None
        self.lengths: deque[float] = deque(maxlen=self.MEMORY)
        self.asked = 0.0

    @property
    def spent(self) -> float:
        """Seconds used so far, those of the run before this one included."""
        return self.spent_before + (0.0 if self.began is None else self.now() - self.began)

    def progress(self, step: int) -> float:
        first = self.began is None
        if first:
            self.began = self.now()
        spent = torch.tensor(self.spent, dtype=torch.float64)
        spent = self.ranks.broadcast(spent).item()
        if not first:
            self.lengths.append(spent - self.asked)
        self.asked = spent
        expected = statistics.median(self.lengths) if self.lengths else 0.0
        if spent + expected / 2 >= self.budget:
            return 1.0
        return spent / self.budget
