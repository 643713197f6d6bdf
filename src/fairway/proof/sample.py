"""The beginning of a text, read in batches and token by token, and all that was rounded on the way
as it was before; what `guard.py` compares."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import takewhile

import torch
from torch import Tensor

from fairway.evaluate.chunks import Chunk, ChunkPlan, cut_chunk
from fairway.evaluate.config import EvaluateConfig, make_settled_predictor
from fairway.evaluate.ledger import Ledger, Margins, Ties
from fairway.evaluate.settled import SettledPredictor
from fairway.model.gpt import GPT
from fairway.proof.bitstream import in_step, read_in_step
from fairway.proof.prefix import Prefix, prefix_of
from fairway.proof.reproducible import Checkpoints
from fairway.proof.split_reader import SplitReader
from fairway.tokens.val_text import ValText

READ_TARGETS = 256  # that are read token by token, half of them at most before the first lesson
FEW_TARGETS = 64  # the same, where what is coded may be short
LESSON_TARGETS = 2048  # of the first lesson, at most
MOST_KEPT = 1 << 18  # values of a tensor, for comparing


class Watching(Ledger):
    """A ledger that also keeps what it was given, before it is rounded."""

    def __init__(self, margins: Margins, told: Ties | None = None) -> None:
        super().__init__(margins, told)
        self.logits: dict[int, Tensor] = {}  # by position
        # by how much was settled before, and name
        self.learned: dict[str, Tensor] = {}
        self.gradients: dict[str, Tensor] = {}

    def ends(self, logits: Tensor, positions: Tensor) -> Tensor:
        for position, row in zip(positions.tolist(), logits.cpu(), strict=True):
            self.logits.setdefault(position, row.clone())
        return super().ends(logits, positions)

    def settle(self, state: Mapping[str, Tensor]) -> None:
        for name, value in state.items():
            if value.dtype == torch.float64:
                self.learned[f"{self.settled}/{name}"] = _spread(value)
        super().settle(state)

    def settle_gradients(self, gradients: Mapping[str, Tensor], *, one_by_one: bool) -> None:
        for name, value in gradients.items():
            self.gradients[f"{self.settled}/{name}"] = _spread(value)
        super().settle_gradients(gradients, one_by_one=one_by_one)

    def seen(self) -> dict[str, Tensor]:
        logits = {f"logits/{position}": row for position, row in self.logits.items()}
        learned = {f"learned/{name}": value for name, value in self.learned.items()}
        return logits | learned | {f"gradients/{k}": value for k, value in self.gradients.items()}


def _spread(values: Tensor) -> Tensor:
    """Values that are kept of a tensor: of a large one so many, all over it."""
    flat = values.detach().reshape(-1)
    return flat[:: -(-flat.numel() // MOST_KEPT) or 1].cpu().clone()


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The beginning of a text, and how it is read.

    tokens        (n,) int64
    read_targets  that are read token by token
    """

    config: EvaluateConfig
    prefix: Prefix
    tokens: Tensor
    seed: int
    read_targets: int = READ_TARGETS

    @classmethod
    def of(
        cls,
        config: EvaluateConfig,
        text: ValText,
        bos_id: int,
        seed: int,
        read_targets: int = READ_TARGETS,
    ) -> "Sample":
        """As much as gives one whole lesson, unless that is long, and a little after it."""
        learns = config.ttt is not None
        lesson = min(config.learner.excerpt_tokens(), LESSON_TARGETS) if learns else 0
        most = min(lesson + read_targets // (2 if learns else 1), text.num_targets)
        prefix = prefix_of(config, text.tokens, bos_id, num_targets=most)
        return cls(
            config=config,
            prefix=prefix,
            tokens=prefix.of(text).tokens.long(),
            seed=seed,
            read_targets=read_targets,
        )

    def read(self) -> Iterator[tuple[ChunkPlan, list[int]]]:
        """The chunks of the sample, and which windows of each are read token by token: as if there
        were more to come, so that every chunk is learned from."""
        left = self.read_targets
        plans = self.prefix.plans(self.config)
        most = max(self.prefix.num_chunks, len(plans) + 1)
        for plan in plans:
            if left <= 0:
                return
            most_here = self.read_targets // (1 if self.config.ttt is None else 2)
            room, chosen = min(left, most_here), []
            for i in takewhile(lambda _: room > 0, range(len(plan.windows))):  # noqa: B023
                chosen.append(i)
                room -= plan.windows[i].num_targets
                left -= plan.windows[i].num_targets
            yield replace(plan, num_chunks=most), chosen

    def chunk(self, plan: ChunkPlan) -> Chunk:
        no_bytes = torch.zeros(len(self.tokens) - 1, dtype=torch.long)
        return cut_chunk(plan, ValText(self.tokens, no_bytes, ()))

    def predictor(self, model: GPT, ledger: Ledger) -> SettledPredictor:
        return make_settled_predictor(model, self.config, seed=self.seed, ledger=ledger)

    def score(self, model: GPT, ledger: Ledger) -> None:
        """In batches, as an encoder does."""
        predictor = self.predictor(model, ledger)
        for plan, _ in self.read():
            chunk = self.chunk(plan)
            predictor.score(chunk)
            predictor.learn(chunk)

    def read_slowly(self, model: GPT, ledger: Ledger) -> None:
        """Token by token, one row at a time."""
        predictor = self.predictor(model, ledger)
        filled = self.prefix.given(model.config.bos_id)
        source, checkpoints = _Told(self.tokens), Checkpoints(len(self.tokens))
        for plan, chosen in self.read():
            reader = SplitReader(predictor, plan, 1)
            for members in in_step(plan, 1, 0):
                if members[0] in chosen:
                    read_in_step(reader, plan, members, filled, source, checkpoints)
            for window in plan.windows:  # what was not read is known all the same
                known = slice(window.score_from, window.stop)
                filled[known] = self.tokens[known]
            predictor.learn(self.chunk(plan))


class _Told:
    """A source that knows every token."""

    def __init__(self, tokens: Tensor) -> None:
        self.tokens = tokens

    def take(self, positions: Tensor, given: Tensor) -> Tensor:
        return self.tokens[positions]
