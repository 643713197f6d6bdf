"""One evaluation from the first chunk to the last, inside its time, and after an interruption.

When the time left is only just enough to score the rest, learning stops for good; the score stays
what it was, a legal one, and says from which chunk on nothing was learned, so that a decoder can do
the same. Whether an evaluation will fit is judged beforehand, in `planner.py`.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fairway.evaluate.bpb import Score
from fairway.evaluate.chunks import Chunk, ChunkPlan, cut_chunk
from fairway.evaluate.curves import Curve
from fairway.evaluate.predictor import (
    ALONE,
    Predictor,
    Reader,
    score_stream,
)
from fairway.evaluate.saved import CheckpointConfig, Saved, State
from fairway.runtime.distributed import Ranks
from fairway.runtime.stopping import Stop
from fairway.tokens.val_text import ValText

Now = Callable[[], float]
MARGIN = 1.05  # the rest may take this much longer than what was measured so far


class LearnsUntil:
    """A predictor that learns from the first `learned_chunks` chunks and from none after them.

    A decoder follows with it the schedule that a clock decided while scoring.
    """

    def __init__(self, predictor: Predictor, learned_chunks: int) -> None:
        self.predictor, self.learned_chunks = predictor, learned_chunks

    def score(self, chunk: Chunk) -> Tensor:
        return self.predictor.score(chunk)

    def learn(self, chunk: Chunk) -> None:
        if chunk.plan.index < self.learned_chunks:
            self.predictor.learn(chunk)

    def reader(self, plan: ChunkPlan) -> Reader:
        return self.predictor.reader(plan)

    def state_dict(self) -> dict[str, Tensor]:
        return self.predictor.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.predictor.load_state_dict(state)


class Clocked(LearnsUntil):
    """Learns as long as the rest could still be scored in time without learning further.

    total_targets   of the whole evaluation
    lesson_seconds  how long learning from one chunk may take, as far as known beforehand
    spent_seconds   already used, by what came before the first chunk or by an interrupted run
    """

    def __init__(
        self,
        predictor: Predictor,
        num_chunks: int,
        *,
        total_targets: int,
        budget_seconds: float | None = None,
        lesson_seconds: float = 0.0,
        spent_seconds: float = 0.0,
        ranks: Ranks = ALONE,
        now: Now = time.perf_counter,
    ) -> None:
        super().__init__(predictor, num_chunks)
        self.budget_seconds, self.ranks, self.now = budget_seconds, ranks, now
        self.targets_left = total_targets
        self.began = now() - spent_seconds
        self.score_seconds = self.learn_seconds = 0.0  # of the last chunk
        self.slowest_score, self.slowest_lesson = 0.0, lesson_seconds  # per target, per chunk

    @property
    def spent_seconds(self) -> float:
        return self.now() - self.began

    def score(self, chunk: Chunk) -> Tensor:
        begin = self.now()
        nats = super().score(chunk)
        self.score_seconds, self.learn_seconds = self.now() - begin, 0.0
        self.targets_left -= chunk.num_targets
        if chunk.num_targets:
            # The slowest chunk, not the mean: learning that goes on too long cannot be undone.
            self.slowest_score = max(self.slowest_score, self.score_seconds / chunk.num_targets)
        return nats

    def learn(self, chunk: Chunk) -> None:
        if chunk.plan.index >= self.learned_chunks or not self.targets_left:
            return  # the time for it is over, or nobody would see what it taught
        if not self._in_time():
            self.learned_chunks = chunk.plan.index
            return
        begin = self.now()
        super().learn(chunk)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.learn_seconds = self.now() - begin
        self.slowest_lesson = max(self.slowest_lesson, self.learn_seconds)

    def _in_time(self) -> bool:
        """Whether one more lesson leaves enough time; decided by rank 0 for all."""
        if self.budget_seconds is None:
            return True
        rest = MARGIN * self.targets_left * self.slowest_score
        expected = self.spent_seconds + self.slowest_lesson + rest
        fits = torch.tensor(expected <= self.budget_seconds, dtype=torch.float64)
        return bool(self.ranks.broadcast(fits))


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What `evaluate_in_time` found.

    learned_chunks  how many chunks, from the first, were learned from where the predictor learns
    """

    score: Score
    num_chunks: int
    learned_chunks: int
    seconds: float
    budget_seconds: float | None
    curve: Curve

    @property
    def note(self) -> str | None:
        """What the reader of the score must know about its time, or None."""
        if self.learned_chunks < self.num_chunks:
            return (
                f"time ran short: from chunk {self.learned_chunks + 1} of {self.num_chunks} on "
                "nothing was learned"
            )
        if self.budget_seconds is not None and self.seconds > self.budget_seconds:
            return (
                f"took {self.seconds:.0f} s of {self.budget_seconds:.0f} s: even without learning, "
                "this stride does not fit; choose a larger one"
            )
        return None


def evaluate_in_time(
    predictor: Predictor,
    plans: Sequence[ChunkPlan],
    text: ValText,
    *,
    budget_seconds: float | None = None,
    lesson_seconds: float = 0.0,
    spent_seconds: float = 0.0,
    learned_chunks: int | None = None,
    checkpoint: CheckpointConfig | None = None,
    stop: Stop | None = None,
    on_chunk: Callable[[Chunk, Tensor], None] | None = None,
    ranks: Ranks = ALONE,
    now: Now = time.perf_counter,
) -> Evaluation:
    """Score `text` with `predictor`, chunk after chunk.

    budget_seconds  learning stops where going on would leave too little time for the rest
    lesson_seconds  how long learning from one chunk may take, as far as `planner.py` knows
    spent_seconds   gone from the budget already: making the predictor, which may compile, and
                    all that an interrupted evaluation had spent, as far as the caller knows more
                    of it than the checkpoint
    learned_chunks  where learning stops in any case: the schedule of an earlier evaluation
    checkpoint      go on from there if it exists, and leave one now and then
    stop            looked at between two chunks, where `Stopped` is raised if it was asked
    on_chunk        called with each chunk and its nats (num_targets,) once they are booked
    """
    saved = Saved(checkpoint, plans, text, ranks)
    state = saved.load(predictor)
    clocked = Clocked(
        predictor,
        min(state.learned_chunks, len(plans) if learned_chunks is None else learned_chunks),
        total_targets=sum(plan.num_targets for plan in plans[state.next_chunk :]),
        budget_seconds=budget_seconds,
        lesson_seconds=lesson_seconds,
        spent_seconds=max(state.seconds, spent_seconds),
        ranks=ranks,
        now=now,
    )

    def book(chunk: Chunk, nats: Tensor) -> None:
        _book(state, chunk, nats, clocked.score_seconds)
        if on_chunk is not None:
            on_chunk(chunk, nats)

    def chunks() -> Iterator[Chunk]:
        for plan in plans[state.next_chunk :]:
            yield cut_chunk(plan, text)
            # Whoever asks for the next chunk is done with this one: scored, booked, learned from.
            _advance(state, plan, clocked)
            saved.save(predictor, state)
            if state.next_chunk < len(plans):
                _stop_if_asked(stop, saved, predictor, state, ranks)

    score_stream(clocked, chunks(), book, booked=state.score)
    saved.end(predictor, state)
    return Evaluation(
        score=state.score,
        num_chunks=len(plans),
        learned_chunks=clocked.learned_chunks,
        seconds=clocked.spent_seconds,
        budget_seconds=budget_seconds,
        curve=state.curve,
    )


def _book(state: State, chunk: Chunk, nats: Tensor, score_seconds: float) -> None:
    state.curve.add(
        tokens=chunk.num_targets,
        num_bytes=chunk.num_bytes,
        nats=nats.sum().item(),
        score_seconds=score_seconds,
    )


def _advance(state: State, plan: ChunkPlan, clocked: Clocked) -> None:
    """`plan` is done with, as `clocked` timed it."""
    state.curve.learn_seconds[-1] = clocked.learn_seconds
    state.next_chunk = plan.index + 1
    state.seconds = clocked.spent_seconds
    state.learned_chunks = clocked.learned_chunks


def _stop_if_asked(
    stop: Stop | None, saved: Saved, predictor: Predictor, state: State, ranks: Ranks
) -> None:
    """All ranks after the same chunk, and with a checkpoint where one is kept."""
    if stop is None or not int(ranks.sum(torch.tensor(int(stop.asked)))):
        return
    saved.save(predictor, state, now=True)
    kept = "" if saved.path is None else f"; everything is kept in {saved.path}"
    raise stop.stopped(
        f"stopped by {stop.name} after chunk {state.next_chunk} of {saved.num_chunks}{kept}"
    )
