"""How long the rest of an evaluation will take, judged by the chunks behind it.

Machines hiccup. One chunk that took a hundred times as long as its neighbours says little of the
rest; chunks that take three times as long since a while say much. So no estimate hangs on a single
chunk, and each follows what is recent.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

MARGIN = 1.03  # the rest may take this much longer than what was measured
RECENT, LATEST = 16, 8  # chunks that are enough for a mean, and for a median
QUANTILE = 0.75  # of recent lessons: what the next one will likely not exceed
STALL = 20.0  # times the median; whatever took longer than that counts as no more


@dataclass
class Pace:
    """Seconds per unit of work: per target scored, per target (or planned second) learned from."""

    score: list[float] = field(default_factory=list)
    lesson: list[float] = field(default_factory=list)

    def scored(self, seconds: float, targets: int) -> None:
        if targets:
            self.score.append(seconds / targets)

    def learned(self, seconds: float, size: float) -> None:
        if size > 0:
            self.lesson.append(seconds / size)

    def rest_seconds(self, targets: int) -> float:
        """Scoring so many more targets: the mean of the later half, unless the last are slower."""
        if not self.score:
            return 0.0
        later = self.score[-max(RECENT, len(self.score) // 2) :]
        most = STALL * statistics.median(later)
        mean = statistics.fmean(min(rate, most) for rate in later)
        latest = statistics.median(self.score[-LATEST:])
        return MARGIN * targets * max(mean, latest)

    def lesson_seconds(self, size: float) -> float | None:
        """A lesson of that size; None before the first."""
        recent = sorted(self.lesson[-RECENT:])
        if not recent:
            return None
        return size * recent[math.ceil(QUANTILE * (len(recent) - 1))]


def as_ranges(chunks: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Rising chunk numbers as runs [first, stop).

    >>> as_ranges([0, 1, 2, 5, 7, 8])
    ((0, 3), (5, 6), (7, 9))
    """
    runs: list[tuple[int, int]] = []
    for chunk in chunks:
        if runs and runs[-1][1] == chunk:
            runs[-1] = (runs[-1][0], chunk + 1)
        else:
            runs.append((chunk, chunk + 1))
    return tuple(runs)
