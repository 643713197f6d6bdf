"""Learning from some chunks and not from others: because a list says so, or a clock."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fairway.evaluate.chunks import Chunk, ChunkPlan
from fairway.evaluate.pace import Pace
from fairway.evaluate.predictor import ALONE, Predictor, Reader
from fairway.runtime.distributed import Ranks

Now = Callable[[], float]
Chunks = Sequence[tuple[int, int]]  # runs [first, stop) of chunk numbers, rising


class LearnsFrom:
    """A predictor that learns from some chunks only.

    A decoder follows with it the schedule that a clock decided while scoring.

    chunks  those to learn from, as runs [first, stop); None: all of them
    """

    def __init__(self, predictor: Predictor, chunks: Chunks | None = None) -> None:
        self.predictor, self.chunks = predictor, chunks

    def allows(self, index: int) -> bool:
        """Whether there may be a lesson from that chunk."""
        return self.chunks is None or any(first <= index < stop for first, stop in self.chunks)

    def score(self, chunk: Chunk) -> Tensor:
        return self.predictor.score(chunk)

    def learn(self, chunk: Chunk) -> None:
        if self.allows(chunk.plan.index):
            self.predictor.learn(chunk)
        else:
            self.predictor.skip(chunk)

    def skip(self, chunk: Chunk) -> None:
        self.predictor.skip(chunk)

    def reader(self, plan: ChunkPlan) -> Reader:
        return self.predictor.reader(plan)

    def state_dict(self) -> dict[str, Tensor]:
        return self.predictor.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.predictor.load_state_dict(state)


def following(predictor: Predictor, chunks: Chunks | None) -> Predictor:
    """The predictor that learns from these chunks only; itself where it learns from all."""
    return predictor if chunks is None else LearnsFrom(predictor, chunks)


class Budget(NamedTuple):
    """What an evaluation may take, and what is known of it beforehand.

    seconds   of the whole evaluation; None sets no limit
    lessons   how long learning from each chunk was planned to take, or the longest
    spent     already used, by what came before the first chunk or by an interrupted run
    """

    seconds: float | None = None
    lessons: float | Sequence[float] = 0.0
    spent: float = 0.0


class Clocked(LearnsFrom):
    """Learns whenever the rest can be scored in time after the lesson.

    targets_left  that are not scored yet
    pace          of the chunks behind, where an evaluation goes on
    learned       numbers of the chunks learned from, rising
    """

    def __init__(
        self,
        predictor: Predictor,
        chunks: Chunks | None,
        *,
        targets_left: int,
        budget: Budget = Budget(),  # noqa: B008 (frozen)
        pace: Pace | None = None,
        learned: Sequence[int] = (),
        ranks: Ranks = ALONE,
        now: Now = time.perf_counter,
    ) -> None:
        super().__init__(predictor, chunks)
        self.targets_left, self.budget, self.pace = targets_left, budget, pace or Pace()
        self.ranks, self.now = ranks, now
        self.began = now() - budget.spent
        self.score_seconds = self.learn_seconds = 0.0  # of the last chunk
        self.learned = list(learned)

    @property
    def spent_seconds(self) -> float:
        return self.now() - self.began

    def score(self, chunk: Chunk) -> Tensor:
        begin = self.now()
        nats = super().score(chunk)
        self.score_seconds, self.learn_seconds = self.now() - begin, 0.0
        self.targets_left -= chunk.num_targets
        self.pace.scored(self.score_seconds, chunk.num_targets)
        return nats

    def learn(self, chunk: Chunk) -> None:
        if not self.targets_left:
            return  # nobody would see what it taught
        if not self.allows(chunk.plan.index) or not self._in_time(chunk):
            self.predictor.skip(chunk)
            return
        begin = self.now()
        self.predictor.learn(chunk)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.learn_seconds = self.now() - begin
        self.pace.learned(self.learn_seconds, lesson_size(self.budget, chunk.plan))
        self.learned.append(chunk.plan.index)

    def _in_time(self, chunk: Chunk) -> bool:
        """Whether this lesson leaves enough time; decided by rank 0 for all."""
        if self.budget.seconds is None:
            return True
        lesson = self.pace.lesson_seconds(lesson_size(self.budget, chunk.plan))
        if lesson is None:
            lesson = planned_seconds(self.budget, chunk.plan)
        expected = self.spent_seconds + lesson + self.pace.rest_seconds(self.targets_left)
        fits = torch.tensor(expected <= self.budget.seconds, dtype=torch.float64)
        return bool(self.ranks.broadcast(fits))


def planned_seconds(budget: Budget, plan: ChunkPlan) -> float:
    """How long learning from that chunk was planned to take."""
    lessons = budget.lessons
    return lessons if isinstance(lessons, int | float) else lessons[plan.index]


def lesson_size(budget: Budget, plan: ChunkPlan) -> float:
    """What a lesson's seconds are measured against: the planned ones, or the targets in it."""
    if isinstance(budget.lessons, int | float):
        return float(max(1, plan.num_targets))
    return budget.lessons[plan.index]
