"""One evaluation from the first chunk to the last, inside its time, and after an interruption.

Where a lesson would leave too little time to score the rest, it is skipped; the next one is given
if the clock allows it then. The score stays what it was, a legal one, and names the chunks that
were learned from, so that a decoder can do the same. How long the rest will take is estimated in
`pace.py`, who learns from what is decided in `clocked.py`; whether an evaluation will fit is judged
beforehand, in `planner.py`.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fairway.artifact.config_json import config_to_json
from fairway.evaluate.bpb import Score
from fairway.evaluate.chunks import Chunk, ChunkPlan, cut_chunk
from fairway.evaluate.clocked import Budget, Chunks, Clocked, Now, lesson_size
from fairway.evaluate.config import EvaluateConfig
from fairway.evaluate.curves import Curve
from fairway.evaluate.pace import Pace, as_ranges
from fairway.evaluate.predictor import ALONE, Predictor, score_stream
from fairway.runtime.distributed import Ranks
from fairway.runtime.tensor_file import read_tensors, write_tensors
from fairway.tokens.val_text import ValText


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What `evaluate_in_time` found.

    learned      the chunks that were learned from, as runs [first, stop)
    num_lessons  how many chunks could have been learned from: those with targets after them
    """

    score: Score
    num_chunks: int
    learned: tuple[tuple[int, int], ...]
    num_lessons: int
    seconds: float
    budget_seconds: float | None
    curve: Curve

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
        if self.budget_seconds is not None and self.seconds > self.budget_seconds:
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


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """Where an evaluation leaves what it needs to go on after an interruption."""

    path: Path
    every_seconds: float = 60.0


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
    on_chunk: Callable[[Chunk, Tensor], None] | None = None,
    ranks: Ranks = ALONE,
    now: Now = time.perf_counter,
) -> Evaluation:
    """Score `text` with `predictor`, chunk after chunk.

    budget_seconds  lessons are skipped where they would leave too little time for the rest
    lesson_seconds  how long learning from each chunk will take, as far as `planner.py` knows, or
                    the longest of these
    spent_seconds   gone from the budget already: making the predictor, which may compile
    learned         the only chunks to learn from: the schedule of an earlier evaluation
    checkpoint      go on from there if it exists, and leave one now and then
    identity        all that decides the nats beside text and plans: hash of the model file,
                    settings, seed. A checkpoint of another identity is refused
    on_chunk        called with each chunk and its nats (num_targets,) once they are booked
    """
    saved = _Saved(checkpoint, plans, text, ranks, (identity, str(learned)))
    state = saved.load(predictor)
    budget = Budget(budget_seconds, lesson_seconds, state.seconds + spent_seconds)
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

    score_stream(clocked, chunks(), book, booked=state.score)
    saved.remove()
    return Evaluation(
        score=state.score,
        num_chunks=len(plans),
        learned=as_ranges(clocked.learned),
        num_lessons=num_lessons(plans),
        seconds=clocked.spent_seconds,
        budget_seconds=budget_seconds,
        curve=state.curve,
    )


def evaluation_identity(artifact_sha256: str, config: EvaluateConfig, seed: int) -> str:
    """What decides the nats of an artifact's evaluation, beside the text, as one line."""
    settings = json.dumps(config_to_json(config), sort_keys=True)
    return f"artifact {artifact_sha256}, seed {seed}, {settings}"


def num_lessons(plans: Sequence[ChunkPlan]) -> int:
    """Chunks with targets after them: learning from any other would show in no score."""
    return max((i for i, plan in enumerate(plans) if plan.num_targets), default=0)


@dataclass
class _State:
    """How far an evaluation has come; with the predictor's state, all it needs to go on."""

    next_chunk: int
    learned: list[int]
    seconds: float
    score: Score
    curve: Curve

    @classmethod
    def from_facts(cls, facts: Any) -> "_State":
        """Inverse of `asdict`; the file's hash stands for its types."""
        return cls(**facts | {"score": Score(**facts["score"]), "curve": Curve(**facts["curve"])})

    def book(self, chunk: Chunk, nats: Tensor, score_seconds: float) -> None:
        self.curve.add(
            tokens=chunk.num_targets,
            num_bytes=chunk.num_bytes,
            nats=nats.sum().item(),
            score_seconds=score_seconds,
        )

    def advance(self, plan: ChunkPlan, clocked: Clocked) -> None:
        """`plan` is done with, as `clocked` timed it."""
        self.curve.learn_seconds[-1] = clocked.learn_seconds
        self.next_chunk = plan.index + 1
        self.seconds = clocked.spent_seconds
        self.learned = clocked.learned

    def pace(self, plans: Sequence[ChunkPlan], budget: Budget) -> Pace:
        """Of the chunks behind."""
        pace = Pace()
        for plan, seconds in zip(plans, self.curve.score_seconds, strict=False):
            pace.scored(seconds, plan.num_targets)
        for index in self.learned:
            pace.learned(self.curve.learn_seconds[index], lesson_size(budget, plans[index]))
        return pace


class _Saved:
    """The checkpoint of one evaluation: the predictor's tensors, and the state as JSON beside."""

    def __init__(
        self,
        config: CheckpointConfig | None,
        plans: Sequence[ChunkPlan],
        text: ValText,
        ranks: Ranks,
        identity: Sequence[str],
    ) -> None:
        self.config, self.ranks = config, ranks
        self.saved_at = 0.0
        self.identity = "" if config is None else _identity(plans, text, ranks, identity)

    @property
    def path(self) -> Path | None:
        if self.config is None or self.ranks.world_size == 1:
            return None if self.config is None else self.config.path
        return self.config.path.with_name(f"{self.config.path.name}.rank{self.ranks.rank}")

    def load(self, predictor: Predictor) -> _State:
        """Where all ranks stand; the beginning where they stand at different chunks."""
        path, fresh = self.path, _State(0, [], 0.0, Score(), Curve())
        if path is None:
            return fresh
        state, tensors = fresh, {}
        if path.exists():
            tensors, facts = read_tensors(path, "the checkpoint of an evaluation")
            if facts.get("identity") != self.identity:
                raise ValueError(
                    f"{path} is the checkpoint of another evaluation: model, settings, seed, text, "
                    "plan or number of ranks differ; delete it to start anew, or name another file"
                )
            state = _State.from_facts(facts["progress"])
        places = self.ranks.all_gather(torch.tensor([state.next_chunk, state.seconds]).double())
        if not bool((places[:, 0] == places[0, 0]).all()):
            fresh.seconds = float(places[:, 1].max())  # they are spent all the same
            return fresh
        if state.next_chunk:
            predictor.load_state_dict(tensors)
        self.saved_at = state.seconds
        return state

    def save(self, predictor: Predictor, state: _State) -> None:
        path = self.path
        if path is None or self.config is None:
            return
        due = torch.tensor(state.seconds - self.saved_at >= self.config.every_seconds).double()
        if not bool(self.ranks.broadcast(due)):
            return
        self.saved_at = state.seconds
        facts = {"identity": self.identity, "progress": asdict(state)}
        # Cloned: tensors that share memory cannot be written, and views would drag all of it along.
        tensors = {
            name: t.detach().clone(memory_format=torch.contiguous_format).cpu()
            for name, t in predictor.state_dict().items()
        }
        draft = path.with_name(path.name + ".part")
        write_tensors(draft, tensors, facts)
        self.ranks.barrier()  # so that no rank's file is of another chunk than its peers'
        os.replace(draft, path)

    def remove(self) -> None:
        """The evaluation is complete: nothing is left to go on with."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def _identity(plans: Sequence[ChunkPlan], text: ValText, ranks: Ranks, given: Sequence[str]) -> str:
    """Equal for evaluations that give the same nats in the same order."""
    digest = hashlib.sha256(json.dumps([*given, ranks.world_size]).encode())
    for tensor in (text.tokens, text.target_bytes):
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.contiguous().numpy().data)
    for plan in plans:
        digest.update(repr((plan.windows, plan.rows, plan.spans)).encode())
    return digest.hexdigest()
