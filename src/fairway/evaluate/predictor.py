"""Score, then learn: the only walk over the validation text, and what may take part in it.

A predictor never sees the stream. It is handed a chunk to price, and only after the price is booked
the same chunk to learn from; `score_stream` fixes that order for everybody. How predictors learn
is in `ttt.py`; how a chunk's positions are chosen is in `windows.py`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fairway.evaluate.bpb import Score
from fairway.evaluate.windows import Window, document_windows, sliding_windows
from fairway.model.cache import Cache
from fairway.model.gpt import GPT


@dataclass(frozen=True)
class ChunkPlan:
    """What a chunk prices, known before any token is: the schedule is static.

    windows  what to price, in order; each target of the stream is in exactly one window of a plan
    rows     for each window the document it belongs to; all 0 when documents are not kept apart
    span     for each run of text the chunk owns, [begin, end) in the stream: its targets are
             tokens begin + 1 .. end - 1, all of them priced by this chunk or an earlier one
    """

    index: int
    num_chunks: int
    windows: tuple[Window, ...]
    rows: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]

    @property
    def is_last(self) -> bool:
        return self.index == self.num_chunks - 1


@dataclass(frozen=True)
class Chunk:
    """A plan with its tokens, and nothing beyond them.

    texts      for each window, tokens[start : stop], int64
    span_texts for each span, tokens[begin : end], int64
    num_bytes  bytes of the original text that the targets stand for
    """

    plan: ChunkPlan
    texts: tuple[Tensor, ...]
    span_texts: tuple[Tensor, ...]
    num_bytes: int

    @property
    def num_targets(self) -> int:
        return sum(window.num_targets for window in self.plan.windows)


class Predictor(Protocol):
    """A model that may adapt to text, but only to text it has already been graded on."""

    def score(self, chunk: Chunk) -> Tensor:
        """Nats (num_targets,) float64 of the chunk's targets, window after window.

        Leaves no trace: scoring twice gives the same prices, and nothing learned.
        """
        ...

    def learn(self, chunk: Chunk) -> None:
        """Update internal state from a chunk whose score is already booked."""
        ...

    def reader(self, plan: ChunkPlan) -> "Reader":
        """The same prices one token at a time, for a decoder that does not know the next one.

        Windows must be read in the plan's order; those of different rows may run in step.
        """
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
        """Tell what came: (rows,) int64."""
        ...


def plan_chunks(num_tokens: int, context: int, stride: int, chunk_tokens: int) -> list[ChunkPlan]:
    """One stream in file order, cut into chunks of `chunk_tokens` (#549, #1413).

    A window belongs to the chunk in which its first priced token's predecessor lies, so when a
    chunk is learned from, every one of its targets has been priced.
    """
    if chunk_tokens < stride or chunk_tokens % stride:
        raise ValueError(
            f"chunk_tokens={chunk_tokens} is not a multiple of stride={stride}; a window would be "
            "priced by one chunk and learned from in another"
        )
    num_chunks = max(1, -(-(num_tokens - 1) // chunk_tokens))
    windows: list[list[Window]] = [[] for _ in range(num_chunks)]
    for window in sliding_windows(0, num_tokens, context, stride):
        windows[min((window.score_from - 1) // chunk_tokens, num_chunks - 1)].append(window)
    return [
        ChunkPlan(
            index,
            num_chunks,
            tuple(mine),
            (0,) * len(mine),
            ((index * chunk_tokens, min((index + 1) * chunk_tokens + 1, num_tokens)),),
        )
        for index, mine in enumerate(windows)
    ]


def plan_documents(
    starts: Sequence[int], num_tokens: int, context: int, stride: int, rows: int
) -> list[ChunkPlan]:
    """Documents kept apart, `rows` of them side by side, in file order; one chunk per stride.

    Chunk k of a group holds the k-th window of each of its documents.
    """
    per_document: list[list[Window]] = [[] for _ in starts]
    for document, window in document_windows(starts, num_tokens, context, stride):
        per_document[document].append(window)
    drafts: list[tuple[list[Window], list[int]]] = []
    for first in range(0, len(starts), rows):
        group = range(first, min(first + rows, len(starts)))
        for step in range(max(len(per_document[d]) for d in group)):
            present = [d for d in group if step < len(per_document[d])]
            if present:
                drafts.append(([per_document[d][step] for d in present], present))
    return [
        ChunkPlan(
            index,
            len(drafts),
            tuple(windows),
            tuple(documents),
            tuple((w.score_from - 1, w.stop) for w in windows),
        )
        for index, (windows, documents) in enumerate(drafts)
    ]


def cut_chunk(plan: ChunkPlan, tokens: Tensor, target_bytes: Tensor) -> Chunk:
    """The tokens of one plan, copied, so that nothing handed on reaches into the stream.

    tokens (n,) int64; target_bytes (n - 1,): bytes of tokens[1:]
    """
    return Chunk(
        plan,
        tuple(tokens[w.start : w.stop].clone() for w in plan.windows),
        tuple(tokens[begin:end].clone() for begin, end in plan.spans),
        sum(int(target_bytes[w.score_from - 1 : w.stop - 1].sum()) for w in plan.windows),
    )


def read_chunks(
    plans: Iterable[ChunkPlan], tokens: Tensor, target_bytes: Tensor
) -> Iterator[Chunk]:
    return (cut_chunk(plan, tokens, target_bytes) for plan in plans)


def score_stream(
    predictor: Predictor,
    chunks: Iterable[Chunk],
    observe: Callable[[Chunk, Tensor], None] | None = None,
) -> Score:
    """The only function that walks the validation text, so the only place that fixes the order.

    observe  told of each chunk and its prices after they are booked (progress, curves)
    """
    total = Score()
    for chunk in chunks:
        with torch.inference_mode():  # no graph is recorded, so nothing can be trained on yet
            nats = predictor.score(chunk)
        total.add(nats, chunk.num_bytes)
        if observe is not None:
            observe(chunk, nats)
        predictor.learn(chunk)
    return total


class Frozen:
    """A model as it is, over sliding windows.

    rows  windows per forward pass
    """

    def __init__(self, model: GPT, rows: int = 16) -> None:
        self.model, self.rows = model.eval(), rows

    def score(self, chunk: Chunk) -> Tensor:
        return score_windows(self.model, chunk, self.rows)

    def learn(self, chunk: Chunk) -> None:
        """A frozen model learns nothing."""

    def reader(self, plan: ChunkPlan) -> Reader:
        return ModelReader(self.model, plan)


def score_windows(model: GPT, chunk: Chunk, rows: int) -> Tensor:
    """Nats (num_targets,) float64 of a chunk's targets; equally shaped windows share a pass."""
    device = model.embed.weight.device
    by_shape: dict[tuple[int, int], list[int]] = {}
    for i, window in enumerate(chunk.plan.windows):
        by_shape.setdefault((window.num_inputs, window.num_targets), []).append(i)
    nats: list[Tensor] = [torch.empty(0)] * len(chunk.texts)
    for (num_inputs, num_targets), members in by_shape.items():
        for begin in range(0, len(members), rows):
            batch = members[begin : begin + rows]
            tokens = torch.stack([chunk.texts[i] for i in batch]).to(device)
            logits = model(tokens[:, :-1], start=num_inputs - num_targets)
            targets = tokens[:, -num_targets:]
            priced = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), targets.flatten(), reduction="none"
            )
            for i, row in zip(batch, priced.view(len(batch), -1).double().cpu(), strict=True):
                nats[i] = row
    return torch.cat(nats) if nats else torch.empty(0, dtype=torch.float64)


class ModelReader:
    """Prices one token at a time with cached keys and values, exactly as a window sees them."""

    def __init__(self, model: GPT, plan: ChunkPlan) -> None:
        self.model, self.plan = model, plan
        self.cache: Cache | None = None
        self.logits: Tensor | None = None

    @torch.inference_mode()
    def start(self, windows: Sequence[int], histories: Tensor) -> None:
        # The cache is as long as the window's inputs: rotary angles depend on that length.
        context = max(self.plan.windows[i].num_inputs for i in windows)
        fits = self.cache is not None and (
            self.cache.tokens.shape == (len(windows), context)
        )
        if fits and self.cache is not None:
            self.cache.clear()
        else:
            self.cache = self.model.new_cache(len(windows), context)
        self._advance(histories)

    def log_probs(self) -> Tensor:
        if self.logits is None:
            raise ValueError("nothing was read yet: call start() with a window's history first")
        return torch.log_softmax(self.logits.double(), dim=-1)

    @torch.inference_mode()
    def push(self, tokens: Tensor) -> None:
        if self.cache is not None and self.cache.length < self.cache.context:
            self._advance(tokens[:, None])

    def _advance(self, tokens: Tensor) -> None:
        device = self.model.embed.weight.device
        last = tokens.size(1) - 1
        self.logits = self.model(tokens.to(device), start=last, cache=self.cache)[:, -1].cpu()
