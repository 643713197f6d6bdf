"""How far an evaluation has come, in a file: read after an interruption, written between chunks."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fairway.evaluate.bpb import Score
from fairway.evaluate.chunks import Chunk, ChunkPlan
from fairway.evaluate.clocked import Budget, Clocked, lesson_size
from fairway.evaluate.curves import Curve
from fairway.evaluate.documents import DocumentNats
from fairway.evaluate.pace import Pace
from fairway.evaluate.predictor import Predictor
from fairway.runtime.distributed import Ranks
from fairway.runtime.tensor_file import read_tensors, write_tensors
from fairway.tokens.val_text import ValText

DOCUMENTS = "nats of documents"  # a tensor beside the predictor's


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """Where an evaluation leaves what it needs to go on after an interruption.

    keep  leave the file at the end too: the same evaluation then only reads its result
    """

    path: Path
    every_seconds: float = 60.0
    keep: bool = False


@dataclass
class State:
    """How far an evaluation has come; with the predictor's state, all it needs to go on."""

    next_chunk: int
    learned: list[int]
    seconds: float
    score: Score
    curve: Curve
    documents: DocumentNats

    @classmethod
    def from_facts(cls, facts: Any, documents: DocumentNats) -> "State":
        """Inverse of `facts`; the file's hash stands for its types."""
        score, curve = Score(**facts["score"]), Curve(**facts["curve"])
        return cls(**facts | {"score": score, "curve": curve, "documents": documents})

    def facts(self) -> dict[str, Any]:
        """All but the documents, which are too many for JSON."""
        held = {name: value for name, value in vars(self).items() if name != "documents"}
        return held | {"score": asdict(self.score), "curve": asdict(self.curve)}

    def book(self, chunk: Chunk, nats: Tensor, score_seconds: float) -> None:
        self.documents.add(chunk.plan, nats)
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


class Saved:
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
        self.starts = text.document_starts
        self.identity = "" if config is None else _identity(plans, text, ranks, identity)

    @property
    def path(self) -> Path | None:
        if self.config is None or self.ranks.world_size == 1:
            return None if self.config is None else self.config.path
        of_rank = f"rank{self.ranks.rank}of{self.ranks.world_size}"
        return self.config.path.with_name(f"{self.config.path.name}.{of_rank}")

    def load(self, predictor: Predictor) -> State:
        """Where all ranks stand; the beginning where they stand at different chunks."""
        path, fresh = self.path, State(0, [], 0.0, Score(), Curve(), DocumentNats(self.starts))
        if path is None:
            return fresh
        if not self.ranks.is_main:  # whose node may have no such folder
            path.parent.mkdir(parents=True, exist_ok=True)
        state, tensors = fresh, {}
        if path.exists():
            tensors, facts = read_tensors(path, "the checkpoint of an evaluation")
            if facts.get("identity") != self.identity:
                raise ValueError(
                    f"{path} is the checkpoint of another evaluation: model, settings, seed, text, "
                    "plan or number of ranks differ; delete it to start anew, or name another file"
                )
            if DOCUMENTS not in tensors:
                raise ValueError(
                    f"{path} was written by an earlier version; delete it to start anew"
                )
            documents = DocumentNats(self.starts)
            documents.nats[:] = tensors.pop(DOCUMENTS).numpy()
            state = State.from_facts(facts["progress"], documents)
        places = self.ranks.all_gather(torch.tensor([state.next_chunk, state.seconds]).double())
        if not bool((places[:, 0] == places[0, 0]).all()):
            fresh.seconds = float(places[:, 1].max())  # they are spent all the same
            return fresh
        if state.next_chunk:
            predictor.load_state_dict(tensors)
        self.saved_at = state.seconds
        return state

    def save(self, predictor: Predictor, state: State, *, now: bool = False) -> None:
        """If it is time, or asked for; all ranks ask together."""
        path = self.path
        if path is None or self.config is None:
            return
        due = now or state.seconds - self.saved_at >= self.config.every_seconds
        if not bool(self.ranks.broadcast(torch.tensor(due).double())):
            return
        self.saved_at = state.seconds
        facts = {"identity": self.identity, "progress": state.facts()}
        # Cloned: tensors that share memory cannot be written, and views would drag all of it along.
        tensors = {
            name: t.detach().clone(memory_format=torch.contiguous_format).cpu()
            for name, t in predictor.state_dict().items()
        }
        tensors[DOCUMENTS] = torch.from_numpy(state.documents.nats)
        draft = path.with_name(path.name + ".part")
        write_tensors(draft, tensors, facts)
        self.ranks.barrier()  # so that no rank's file is of another chunk than its peers'
        os.replace(draft, path)

    def end(self, predictor: Predictor, state: State) -> None:
        """The evaluation is complete: nothing is left to go on with, or only to be read."""
        if self.config is not None and self.config.keep:
            self.save(predictor, state, now=True)
        elif self.path is not None:
            self.path.unlink(missing_ok=True)


def _identity(plans: Sequence[ChunkPlan], text: ValText, ranks: Ranks, given: Sequence[str]) -> str:
    """Equal for evaluations that give the same nats in the same order."""
    digest = hashlib.sha256(json.dumps([*given, ranks.world_size]).encode())
    for tensor in (text.tokens, text.target_bytes):
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.contiguous().numpy().data)
    for plan in plans:
        digest.update(repr((plan.windows, plan.rows, plan.spans, plan.places)).encode())
    return digest.hexdigest()
