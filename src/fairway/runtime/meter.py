"""Where a rank stands among the collectives, and how long it has waited in them.

Written by the thread that works, read by the threads of `watchdog.py`. Nothing is sent from here.
"""

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

STRAGGLER_RATIO, STRAGGLER_SHARE = 1.3, 0.1  # of the median, of the time: from here it is said


@dataclass(frozen=True)
class Reading:
    """entered   collectives so far: all ranks enter the same ones, in the same order
    waiting   seconds in the present one; None outside
    patience  seconds that the others may still take for theirs before they count as stuck; None
              where one rank may lawfully work alone for long
    total     seconds in lockstep
    waited    those of them that were spent in collectives
    """

    entered: int = 0
    waiting: float | None = None
    patience: float | None = None
    total: float = 0.0
    waited: float = 0.0


class Meter:
    """One per process. `lockstep` is where all ranks do the same work from one collective to the
    next, so that waiting for a peer means that it is slow: the steps of training."""

    PATIENCE = 4.0  # a peer may take so many times as long as we ever did between two collectives

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now
        self.entered = 0
        self._inside: float | None = None  # since when
        self._lockstep: float | None = None  # since when
        self._left = 0.0  # when the last collective ended
        self._longest: float | None = None  # seconds between two collectives in lockstep
        self._total = self._host_waited = self._device_waited = 0.0
        self._events: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()

    @contextmanager
    def lockstep(self) -> Iterator[None]:
        self._lockstep, self._longest = self.now(), None
        try:
            yield
        finally:
            self._total += self.now() - self._lockstep
            self._lockstep = self._longest = None

    @contextmanager
    def collective(self, device: torch.device) -> Iterator[None]:
        """One that is waited for at once."""
        with self.launching(), self.waiting(device):
            yield

    @contextmanager
    def launching(self) -> Iterator[None]:
        """One begins, to be waited for later."""
        self.entered += 1
        yield

    @contextmanager
    def waiting(self, device: torch.device) -> Iterator[None]:
        """For one that was begun. On CUDA that returns before it has happened; the stream of the
        work that waits says how long it took."""
        self._enter()
        began = _event(device)
        try:
            yield
        finally:
            ended = _event(device)
            if began is not None and ended is not None and self._lockstep is not None:
                self._events.append((began, ended))
            self._leave()

    @property
    def waiting_share(self) -> float | None:
        """Of the seconds in lockstep, those in which this rank stood still for the others; None
        before any. On a GPU it is the GPU that waits, as its events tell, whatever its host does.
        """
        reading = self.read()
        waited = self._device_waited or reading.waited
        return waited / reading.total if reading.total else None

    def read(self) -> Reading:
        now, inside, since, longest = self.now(), self._inside, self._lockstep, self._longest
        waiting = None if inside is None else now - inside
        in_lockstep = since is not None
        return Reading(
            entered=self.entered,
            waiting=waiting,
            patience=self.PATIENCE * longest if in_lockstep and longest is not None else None,
            total=self._total + (now - since if since is not None else 0.0),
            waited=max(
                self._host_waited + (waiting if waiting and in_lockstep else 0.0),
                self._device_waited,
            ),
        )

    def _enter(self) -> None:
        now = self.now()
        if self._lockstep is not None and self._left > self._lockstep:
            self._longest = max(self._longest or 0.0, now - self._left)
        self._inside = now

    def _leave(self) -> None:
        now, inside = self.now(), self._inside
        if self._lockstep is not None and inside is not None:
            self._host_waited += now - inside
        self._inside, self._left = None, now
        while self._events and self._events[0][1].query():
            began, ended = self._events.popleft()
            self._device_waited += began.elapsed_time(ended) / 1000


@dataclass(frozen=True)
class Spell:
    """Of `total` seconds in lockstep, a rank spent `waited` in collectives."""

    total: float
    waited: float

    @classmethod
    def between(cls, before: Reading, after: Reading) -> "Spell":
        return cls(after.total - before.total, after.waited - before.waited)

    @property
    def working(self) -> float:
        """Share of the time."""
        return 1.0 - min(1.0, self.waited / self.total)


@dataclass(frozen=True)
class Straggler:
    """ratio  of its own work to the median rank's
    share  of everybody's time that goes into waiting for it
    """

    rank: int
    ratio: float
    share: float

    def __str__(self) -> str:
        return (
            f"takes {self.ratio:.1f} times as long as the median: {self.share:.0%} of each step "
            f"is spent waiting for it"
        )


def straggler(spells: Sequence[Spell]) -> Straggler | None:
    """The rank that the others wait for, if there is one worth a word.

    >>> print(straggler([Spell(60, 33), Spell(60, 5), Spell(60, 32), Spell(60, 34)]))
    takes 2.0 times as long as the median: 47% of each step is spent waiting for it
    """
    if min(spell.total for spell in spells) < 1.0:
        return None  # not in lockstep: one may work while the others wait
    working = [spell.working for spell in spells]
    slowest = working.index(max(working))
    median = statistics.median_low(working)  # of two, the other one
    found = Straggler(slowest, working[slowest] / max(median, 0.01), working[slowest] - median)
    worth = found.ratio >= STRAGGLER_RATIO and found.share >= STRAGGLER_SHARE
    return found if worth else None


def overdue(mine: Reading, peer_seconds: float) -> bool:
    """Whether a rank with this reading has waited so long that whoever is behind is stuck."""
    if mine.waiting is None or mine.patience is None:
        return False
    return mine.waiting > max(peer_seconds, mine.patience)


def _event(device: torch.device) -> torch.cuda.Event | None:
    if device.type != "cuda":
        return None
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event
