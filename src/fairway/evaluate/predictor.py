"""Score, then learn: the only walk over the validation text, and what may take part in it.

A predictor never sees the stream. It is handed a chunk to score, and only after the score is booked
the same chunk to learn from; `score_stream` fixes that order for everybody. The simplest predictor,
a model that does not learn, is in `frozen.py`; those that learn are in `learners/`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from fairway.evaluate.bpb import Score
from fairway.evaluate.chunks import Chunk, ChunkPlan
from fairway.evaluate.window_batch import WindowBatch
from fairway.model.gpt import GPT
from fairway.runtime.distributed import Ranks

ALONE = Ranks()


class Predictor(Protocol):
    """A model that may adapt to text, but only to text on which it was already scored."""

    def score(self, chunk: Chunk) -> Tensor:
        """Nats (num_targets,) float64 of the chunk's targets, window after window.

        Leaves no trace: scoring twice gives the same nats, and nothing is learned.
        """
        ...

    def learn(self, chunk: Chunk) -> None:
        """Update internal state from a chunk whose score is already booked."""
        ...

    def skip(self, chunk: Chunk) -> None:
        """Go on without learning from a chunk, for lack of time: note at most what has ended."""
        ...

    def reader(self, plan: ChunkPlan) -> "Reader":
        """The same distributions token by token, for a decoder that does not know the next one.

        Windows must be read in the plan's order; those of different rows may run in step.
        """
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Everything learned so far, as tensors: an interrupted evaluation goes on from it."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None: ...


class ModelPredictor(Predictor, Protocol):
    """A predictor around a model whose logits others may mix with distributions of their own."""

    model: GPT
    ranks: Ranks

    def batches(self, chunk: Chunk) -> Iterator[tuple[WindowBatch, Tensor]]:
        """This rank's share of the chunk: each batch with its logits (B, targets, V) float32."""
        ...


class Rounding(Protocol):
    """Rounds gradients by name, in place, see `Ledger.settle_gradients`."""

    def __call__(self, gradients: Mapping[str, Tensor], *, one_by_one: bool) -> None: ...


@runtime_checkable
class RoundsGradients(Protocol):
    """A predictor that may learn with an optimizer to which gradients are to come rounded."""

    def round_gradients(self, rounding: Rounding) -> None:
        """From now on."""
        ...


class Reader(Protocol):
    """Reads some rows in step: all of them stand at the same place of equally long windows."""

    def start(self, windows: Sequence[int], histories: Tensor) -> None:
        """Open one window per row.

        windows    index of each row's window in the plan
        histories  (rows, h) int64: tokens[window.start : window.score_from], equally long
        """
        ...

    def log_probs(self) -> Tensor:
        """(rows, V) float64, normalized: the distribution of each row's next token."""
        ...

    def push(self, tokens: Tensor) -> None:
        """Read what came: (rows,) int64."""
        ...


def score_stream(
    predictor: Predictor,
    chunks: Iterable[Chunk],
    on_chunk: Callable[[Chunk, Tensor], None] | None = None,
    booked: Score | None = None,
) -> Score:
    """The only function that walks the validation text, so the only place that fixes the order.

    on_chunk  called with each chunk and its nats (num_targets,) once they are booked
    booked    what earlier chunks cost, where a walk goes on that was interrupted; added to
    """
    total = Score() if booked is None else booked
    for chunk in chunks:
        with torch.inference_mode():  # no graph is recorded, so nothing can be trained on yet
            nats = predictor.score(chunk)
        total.add(nats, chunk.num_bytes)
        if on_chunk is not None:
            on_chunk(chunk, nats)
        predictor.learn(chunk)
    return total
