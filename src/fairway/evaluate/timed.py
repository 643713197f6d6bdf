"""One evaluation from the first chunk to the last, inside its time, and after an interruption.

Where a lesson would leave too little time to score the rest, it is skipped; the next one is given
if the clock allows it then. The score stays what it was, a legal one, and names the chunks that
were learned from, so that a decoder can do the same. How long the rest will take is estimated in
`pace.py`, who learns from what is decided in `clocked.py`; whether an evaluation will fit is judged
beforehand, in `planner.py`.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fairway.artifact.config_json import config_to_json
from fairway.evaluate.bpb import Score
from fairway.evaluate.chunks import Chunk, ChunkPlan, cut_chunk
from fairway.evaluate.clocked import Budget, Chunks, Clocked, Now
from fairway.evaluate.config import EvaluateConfig
from fairway.evaluate.curves import Curve
from fairway.evaluate.documents import DocumentNats
from fairway.evaluate.pace import as_ranges
from fairway.evaluate.predictor import ALONE, Predictor, score_stream
from fairway.evaluate.saved import CheckpointConfig, Saved, State
from fairway.runtime.distributed import Ranks
from fairway.runtime.stopping import Stop
from fairway.tokens.val_text import ValText


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What `evaluate_in_time` found.

    learned      the chunks that were learned from, as runs [first, stop)
    num_lessons  how many chunks could have been learned from: those with targets after them
    documents    what each document cost
    """

    score: Score
    num_chunks: int
    learned: tuple[tuple[int, int], ...]
    num_lessons: int
    seconds: float
    budget_seconds: float | None
    curve: Curve
    documents: DocumentNats

    @property
    def over_time(self) -> bool:
        return self.budget_seconds is not None and self.seconds > self.budget_seconds

    @property
    def lessons_given(self) -> int:
        return sum(stop - first for first, stop in self.learned)

    @property
    def schedule(self) -> tuple[tuple[int, int], ...] | None:
        """What a decoder must be told beside the settings: `learned`, or None: from every chunk."""
        return None if self.lessons_given == self.num_lessons else self.learned

    @property
    def note(self) -> str | None:
        """What the reader of the score must know about its time, or None."""
        notes = []
        if self.schedule is not None:
            notes.append(
                f"time ran short: {self.lessons_given:,} of {self.num_lessons:,} lessons were "
                f"given, from chunks {shown_ranges(self.learned)}"
            )
        if self.budget_seconds is not None and self.over_time:
            mend = (
                "choose a larger stride or fewer epochs"
                if self.lessons_given
                else "even without learning, this stride does not fit; choose a larger one"
            )
            took = f"took {self.seconds:.1f} s of {self.budget_seconds:.1f} s"
            notes.append(f"over time: {took}; {mend}")
        return "; ".join(notes) or None


def shown_ranges(runs: Chunks, most: int = 8) -> str:
    """Runs of chunks, counted from 1, for people.

    >>> shown_ranges(((0, 3), (5, 6))), shown_ranges(())
    ('1-3, 6', 'none')
    """
    told = [f"{a + 1}-{b}" if b > a + 1 else f"{b}" for a, b in runs[:most]]
    more = [f"and {len(runs) - most} more runs"] if len(runs) > most else []
    return ", ".join(told + more) or "none"


def evaluate_in_time(
    predictor: Predictor,
    plans: Sequence[ChunkPlan],
    text: ValText,
    *,
    budget_seconds: float | None = None,
    lesson_seconds: float | Sequence[float] = 0.0,
    spent_seconds: float = 0.0,
    learned: Chunks | None = None,
    checkpoint: CheckpointConfig | None = None,
    identity: str = "",
    stop: Stop | None = None,
    on_chunk: Callable[[Chunk, Tensor], None] | None = None,
    ranks: Ranks = ALONE,
    now: Now = time.perf_counter,
) -> Evaluation:
    """Score `text` with `predictor`, chunk after chunk.

    budget_seconds  lessons are skipped where they would leave too little time for the rest
    lesson_seconds  how long learning from each chunk will take, as far as `planner.py` knows, or
                    the longest of these
    spent_seconds   gone from the budget already: making the predictor, which may compile, and
                    all that an interrupted evaluation had spent, where the caller knows of more
                    than its checkpoint does
    learned         the only chunks to learn from: the schedule of an earlier evaluation
    checkpoint      go on from there if it exists, and leave one now and then
    identity        all that decides the nats beside text and plans: hash of the model file,
                    settings, seed. A checkpoint of another identity is refused
    stop            looked at between two chunks, where `Stopped` is raised if it was asked
    on_chunk        called with each chunk and its nats (num_targets,) once they are booked
    """
    saved = Saved(checkpoint, plans, text, ranks, (identity, str(learned)))
    state = saved.load(predictor)
    budget = Budget(budget_seconds, lesson_seconds, max(state.seconds, spent_seconds))
    clocked = Clocked(
        predictor,
        learned,
        targets_left=sum(plan.num_targets for plan in plans[state.next_chunk :]),
        budget=budget,
        pace=state.pace(plans, budget),
        learned=state.learned,
        ranks=ranks,
        now=now,
    )

    def book(chunk: Chunk, nats: Tensor) -> None:
        state.book(chunk, nats, clocked.score_seconds)
        if on_chunk is not None:
            on_chunk(chunk, nats)

    def chunks() -> Iterator[Chunk]:
        for plan in plans[state.next_chunk :]:
            yield cut_chunk(plan, text)
            # Whoever asks for the next chunk is done with this one: scored, booked, learned from.
            state.advance(plan, clocked)
            saved.save(predictor, state)
            if state.next_chunk < len(plans):
                _stop_if_asked(stop, saved, predictor, state, ranks)

    score_stream(clocked, chunks(), book, booked=state.score)
    saved.end(predictor, state)
    return Evaluation(
        score=state.score,
        num_chunks=len(plans),
        learned=as_ranges(clocked.learned),
        num_lessons=num_lessons(plans),
        seconds=clocked.spent_seconds,
        budget_seconds=budget_seconds,
        curve=state.curve,
        documents=state.documents,
    )


def evaluation_identity(artifact_sha256: str, config: EvaluateConfig, seed: int) -> str:
    """What decides the nats of an artifact's evaluation, beside the text, as one line."""
    settings = json.dumps(config_to_json(config), sort_keys=True)
    return f"artifact {artifact_sha256}, seed {seed}, {settings}"


def num_lessons(plans: Sequence[ChunkPlan]) -> int:
    """Chunks with targets after them: learning from any other would show in no score."""
    return max((i for i, plan in enumerate(plans) if plan.num_targets), default=0)


def _stop_if_asked(
    stop: Stop | None, saved: Saved, predictor: Predictor, state: State, ranks: Ranks
) -> None:
    """All ranks after the same chunk, and with a checkpoint where one is kept."""
    if stop is None or not int(ranks.sum(torch.tensor(int(stop.asked)))):
        return
    saved.save(predictor, state, now=True)
    kept = "" if saved.path is None else f"; everything is kept in {saved.path}"
    raise stop.stopped(f"stopped by {stop.name} after chunk {state.next_chunk}{kept}")
