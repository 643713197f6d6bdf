"""How far an evaluation has come, in a file: read after an interruption, written between chunks."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch

from fairway.evaluate.bpb import Score
from fairway.evaluate.chunks import ChunkPlan
from fairway.evaluate.curves import Curve
from fairway.evaluate.predictor import Predictor
from fairway.runtime.distributed import Ranks
from fairway.runtime.identity import difference
from fairway.runtime.tensor_file import Json, read_tensors, write_tensors
from fairway.tokens.val_text import ValText


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """Where an evaluation leaves what it needs to go on after an interruption.

    identity  what is evaluated and how, as JSON: another's checkpoint is refused by it
    keep      leave the file at the end too: the same evaluation then only reads its result
    """

    path: Path
    every_seconds: float = 60.0
    identity: str = "{}"
    keep: bool = False


@dataclass(kw_only=True)
class State:
    """With the predictor's state, all that an evaluation needs to go on."""

    next_chunk: int = 0
    learned_chunks: int
    seconds: float = 0.0
    score: Score = field(default_factory=Score)
    curve: Curve = field(default_factory=Curve)


class _Found(NamedTuple):
    tensors: dict[str, torch.Tensor]
    state: State


class Saved:
    """The checkpoint of one evaluation, one file for each rank."""

    def __init__(
        self,
        config: CheckpointConfig | None,
        plans: Sequence[ChunkPlan],
        text: ValText,
        ranks: Ranks,
    ) -> None:
        self.config, self.ranks, self.num_chunks = config, ranks, len(plans)
        self.saved_at = 0.0
        shape = repr([(plan.windows[:1], plan.num_targets) for plan in plans])
        digest = hashlib.sha256(shape.encode())
        digest.update(text.tokens.numpy().tobytes())
        self.identity: dict[str, Json] = {"text and plan": digest.hexdigest()}
        if config is not None:
            self.identity |= json.loads(config.identity)

    @property
    def path(self) -> Path | None:
        if self.config is None or self.ranks.world_size == 1:
            return None if self.config is None else self.config.path
        of_rank = f"{self.config.path.name}.rank{self.ranks.rank}of{self.ranks.world_size}"
        return self.config.path.with_name(of_rank)

    def load(self, predictor: Predictor) -> State:
        """What is there, if all ranks have it of the same chunk; else the beginning.

        Raises ValueError where it is damaged, or of another evaluation.
        """
        fresh = State(learned_chunks=self.num_chunks)
        if self.path is None:
            return fresh
        found = self._read(self.path) if self.path.exists() else None
        place = torch.tensor(-1 if found is None else found.state.next_chunk)
        places = set(self.ranks.all_gather(place).tolist())
        if found is None or len(places) > 1:
            return fresh
        predictor.load_state_dict(found.tensors)
        self.saved_at = found.state.seconds
        return found.state

    def _read(self, path: Path) -> _Found:
        tensors, facts = read_tensors(path, "a checkpoint of scoring")
        other = difference(facts.get("identity"), self.identity)
        if other is not None:
            raise ValueError(
                f"{path} is the checkpoint of another evaluation ({other}); delete it to start "
                f"anew, or name another file"
            )
        progress = facts["progress"]
        assert isinstance(progress, dict)
        booked = {"score": Score(**progress["score"]), "curve": Curve(**progress["curve"])}  # type: ignore[arg-type]
        return _Found(tensors, State(**(progress | booked)))  # type: ignore[arg-type]

    def save(self, predictor: Predictor, state: State, *, now: bool = False) -> None:
        """If it is time, or asked for; all ranks ask together."""
        path = self.path
        if path is None or self.config is None:
            return
        due = now or state.seconds - self.saved_at >= self.config.every_seconds
        if not bool(self.ranks.broadcast(torch.tensor(due, dtype=torch.float64))):
            return
        self.saved_at = state.seconds
        # Cloned: tensors that share memory cannot be written, and views would drag all of it along.
        tensors = {
            name: t.detach().clone().cpu().contiguous()
            for name, t in predictor.state_dict().items()
        }
        path.parent.mkdir(parents=True, exist_ok=True)  # on nodes other than the first
        write_tensors(path, tensors, {"identity": self.identity, "progress": asdict(state)})

    def end(self, predictor: Predictor, state: State) -> None:
        """The evaluation is complete."""
        if self.config is not None and self.config.keep:
            self.save(predictor, state, now=True)
        elif self.path is not None:
            self.path.unlink(missing_ok=True)
