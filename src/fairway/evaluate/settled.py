"""Any predictor around a model in settled arithmetic: the same code on any machine.

Everything is computed in float64. The logits, and after each lesson all that was learned, are
rounded to grids that every machine agrees on (`ledger.py`); the softmax is integers
(`coding/settled.py`). So reading in batches and token by token agree, on any device, with any
number of rows and threads, and nats are those of the code.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from fairway.coding.settled import Slices, log_probs_of, slices_of
from fairway.evaluate.chunks import Chunk, ChunkPlan
from fairway.evaluate.ledger import NOWHERE, Ledger
from fairway.evaluate.predictor import ModelPredictor, Predictor, Reader, RoundsGradients
from fairway.evaluate.window_batch import WindowBatch
from fairway.model.gpt import GPT
from fairway.runtime.tensor_file import under


class SettledPredictor(Predictor, Protocol):
    """A predictor whose nats are those of integer slices.

    scored  the slices of the targets of the chunk that was scored last
    """

    model: GPT
    ledger: Ledger
    scored: Slices


class SettledReader(Reader, Protocol):
    """A reader whose distributions are integers."""

    def ends(self) -> Tensor:
        """(rows, V) int64: where the slices of each row's next token end."""
        ...


class LogitReader(Reader, Protocol):
    """A reader that keeps the logits its distributions come from: (rows, V), None at first."""

    logits: Tensor | None


def settled_model(model: GPT) -> GPT:
    """A copy in float64 throughout."""
    device = model.embed.weight.device
    if device.type not in ("cpu", "cuda"):
        raise ValueError(
            f"settled arithmetic needs float64, which {device.type} does not compute in; use "
            "--device cpu, or evaluate with arithmetic='native'"
        )
    model = copy.deepcopy(model).double()
    model.compute_dtype = torch.float64
    return model


class Settled:
    """`base`, rounded. What was learned is settled after every lesson.

    learned  the predictor within it that learns in floats; None: `base` itself
    """

    def __init__(
        self, base: ModelPredictor, ledger: Ledger, learned: ModelPredictor | None = None
    ) -> None:
        self.base, self.ledger, self.learned = base, ledger, learned or base
        self.model, self.ranks = base.model, base.ranks
        self.scored = Slices(*torch.zeros(3, 0, dtype=torch.long))
        if isinstance(self.learned, RoundsGradients):
            self.learned.round_gradients(ledger.settle_gradients)

    def batches(self, chunk: Chunk) -> Iterator[tuple[WindowBatch, Tensor]]:
        return self.base.batches(chunk)

    def distributions(self, chunk: Chunk) -> Iterator[tuple[int, Tensor]]:
        """This rank's windows: the number of each, and its `SettledReader.ends`, (targets, V)."""
        for one, logits in self.base.batches(chunk):
            for row, i, length in zip(logits, one.members, one.num_targets, strict=True):
                first = chunk.plan.windows[i].score_from
                yield i, self.ledger.ends(row[:length], torch.arange(first, first + length))

    @torch.inference_mode()
    def score(self, chunk: Chunk) -> Tensor:
        offsets, parts = chunk.plan.offsets, torch.zeros(3, chunk.num_targets, dtype=torch.long)
        for i, ends in self.distributions(chunk):
            came = chunk.texts[i][-ends.size(0) :].to(ends.device)
            found = slices_of(ends, came)
            parts[:, offsets[i] : offsets[i + 1]] = torch.stack(found).cpu()
        self.scored = Slices(*self.ranks.sum(parts))
        return self.scored.nats()

    def learn(self, chunk: Chunk) -> None:
        self.base.learn(chunk)
        state = self.learned.state_dict()
        self.ledger.settle(state)
        self.learned.load_state_dict(state)

    def skip(self, chunk: Chunk) -> None:
        self.base.skip(chunk)

    def reader(self, plan: ChunkPlan) -> "ModelSettledReader":
        return ModelSettledReader(self.base.reader(plan), plan, self.ledger)

    def state_dict(self) -> dict[str, Tensor]:
        state = {f"base/{name}": value for name, value in self.base.state_dict().items()}
        return state | {f"ledger/{name}": value for name, value in self.ledger.state().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.base.load_state_dict(under("base/", state))
        self.ledger.load_state(under("ledger/", state))


class ModelSettledReader:
    """Reads with `base`, and rounds what it reads."""

    def __init__(self, base: Reader, plan: ChunkPlan, ledger: Ledger) -> None:
        if not hasattr(base, "logits"):
            raise ValueError(
                f"{type(base).__name__} does not keep the logits that its distributions come from, "
                "which settled arithmetic rounds; evaluate with arithmetic='native'"
            )
        self.base: LogitReader = base  # type: ignore[assignment]
        self.plan, self.ledger = plan, ledger
        self.positions = self.stops = torch.zeros(0, dtype=torch.long)

    def start(self, windows: Sequence[int], histories: Tensor) -> None:
        self.base.start(windows, histories)
        self.positions = torch.tensor([self.plan.windows[i].score_from for i in windows])
        self.stops = torch.tensor([self.plan.windows[i].stop for i in windows])

    def ends(self) -> Tensor:
        if self.base.logits is None:
            raise ValueError("nothing was read yet: call start() with a window's history first")
        # A row that idles beyond its window's end stands nowhere: the ties there are not its own.
        positions = torch.where(self.positions < self.stops, self.positions, NOWHERE)
        return self.ledger.ends(self.base.logits, positions).cpu()

    def log_probs(self) -> Tensor:
        return log_probs_of(self.ends())

    def push(self, tokens: Tensor) -> None:
        self.base.push(tokens)
        self.positions = self.positions + 1
