"""Score, then learn: the only walk over the validation text, and what may take part in it.

A predictor never sees the stream. It is handed a chunk to price, and only after the price is booked
the same chunk to learn from; `score_stream` fixes that order for everybody. The simplest predictor,
a model that does not learn, is here too; those that learn are in `learners/`, how a chunk's
positions are chosen is in `windows.py`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from fairway.evaluate.bpb import Score
from fairway.evaluate.cached import CachedReader, cached_batches, cached_runs
from fairway.evaluate.window_batch import WindowBatch, group_windows, make_window_batch
from fairway.evaluate.windows import Window, document_windows
from fairway.model.adapters import Adapters
from fairway.model.cache import Cache
from fairway.model.gpt import GPT
from fairway.runtime.distributed import Ranks

ALONE = Ranks()


@dataclass(frozen=True)
class ChunkPlan:
    """What a chunk prices, known before any token is: the schedule is static.

    windows  what to price, in order; each target of the stream is in exactly one window of a plan
    rows     for each window the row it is read in: windows of one row follow one another, those of
             different rows know nothing of each other; the document, or 0 for one long text
    spans    for each run of text the chunk owns, [begin, end) in the stream: its targets are
             tokens begin + 1 .. end - 1, all of them priced by this chunk or an earlier one
    ends     for each window whether it is its row's last, where rows go on from chunk to chunk;
             empty where they do not, and what one row read may help all others in the next chunk
    """

    index: int
    num_chunks: int
    windows: tuple[Window, ...]
    rows: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    ends: tuple[bool, ...] = ()

    @property
    def is_last(self) -> bool:
        return self.index == self.num_chunks - 1

    @property
    def num_targets(self) -> int:
        return sum(window.num_targets for window in self.windows)

    @property
    def offsets(self) -> list[int]:
        """Where each window's prices begin among the chunk's; the total comes last."""
        return list(accumulate((w.num_targets for w in self.windows), initial=0))


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
        return self.plan.num_targets


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

    def state_dict(self) -> dict[str, Tensor]:
        """Everything learned so far, as tensors: an interrupted evaluation goes on from it."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None: ...


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


def plan_chunks(
    num_tokens: int,
    context: int,
    stride: int,
    chunk_tokens: int,
    document_starts: Sequence[int] | None = None,
) -> list[ChunkPlan]:
    """One stream in file order, cut into chunks of `chunk_tokens` (#549, #1413).

    A window belongs to the chunk in which its first priced token's predecessor lies, so when a
    chunk is learned from, every one of its targets has been priced.

    document_starts  position of each document's BOS: windows then never read across one
    """
    if chunk_tokens < stride or chunk_tokens % stride:
        raise ValueError(
            f"chunk_tokens={chunk_tokens} is not a multiple of stride={stride}; a window would be "
            "priced by one chunk and learned from in another"
        )
    num_chunks = max(1, -(-(num_tokens - 1) // chunk_tokens))
    windows: list[list[Window]] = [[] for _ in range(num_chunks)]
    rows: list[list[int]] = [[] for _ in range(num_chunks)]
    starts = (0,) if document_starts is None else document_starts
    for document, window in document_windows(starts, num_tokens, context, stride):
        chunk = min((window.score_from - 1) // chunk_tokens, num_chunks - 1)
        windows[chunk].append(window)
        rows[chunk].append(document)
    return [
        ChunkPlan(
            index,
            num_chunks,
            tuple(windows[index]),
            tuple(rows[index]),
            ((index * chunk_tokens, min((index + 1) * chunk_tokens + 1, num_tokens)),),
        )
        for index in range(num_chunks)
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
            tuple(w is per_document[d][-1] for w, d in zip(windows, documents, strict=True)),
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
    booked: Score | None = None,
) -> Score:
    """The only function that walks the validation text, so the only place that fixes the order.

    observe  told of each chunk and its prices after they are booked (progress, curves)
    booked   what earlier chunks cost, where a walk goes on that was interrupted; added to
    """
    total = Score() if booked is None else booked
    for chunk in chunks:
        with torch.inference_mode():  # no graph is recorded, so nothing can be trained on yet
            nats = predictor.score(chunk)
        total.add(nats, chunk.num_bytes)
        if observe is not None:
            observe(chunk, nats)
        predictor.learn(chunk)
    return total


def price(
    plan: ChunkPlan, batches: Iterable[tuple[WindowBatch, Tensor]], ranks: Ranks = ALONE
) -> Tensor:
    """Nats (num_targets,) float64 of a chunk, from this rank's passes and their logits.

    Every rank gets every price, and none before all of them are fixed.
    """
    nats = torch.zeros(plan.num_targets, dtype=torch.float64)
    offsets = plan.offsets
    for one, logits in batches:
        priced = F.cross_entropy(logits.flatten(0, 1), one.targets.flatten(), reduction="none")
        priced = priced.view(len(one.members), -1).double().cpu()
        for i, row, length in zip(one.members, priced, one.num_targets, strict=True):
            nats[offsets[i] : offsets[i] + length] = row[:length]
    return ranks.sum(nats)


class Frozen:
    """A model as it is, over sliding windows; the base of every predictor around a model.

    rows    windows per forward pass
    ranks   share the windows of each chunk
    cached  windows in a run that share keys and values, approximately (`cached.py`); None: none do
    """

    def __init__(
        self, model: GPT, rows: int = 16, ranks: Ranks = ALONE, cached: int | None = None
    ) -> None:
        self.model, self.rows, self.ranks, self.cached = model.eval(), rows, ranks, cached

    @property
    def device(self) -> torch.device:
        return self.model.embed.weight.device

    def batches(self, chunk: Chunk) -> Iterator[tuple[WindowBatch, Tensor]]:
        """This rank's share of the chunk: each pass with its logits (B, targets, V) float32."""
        windows = chunk.plan.windows
        if self.cached is not None:
            runs = cached_runs(chunk.plan, self.cached)
            mine = [runs[i] for i in self._share(len(runs))]
            yield from cached_batches(self.model, chunk, mine, self.rows)
            return
        mine = self._share(len(windows))
        for members in group_windows(windows, mine, self.rows, self.model.config.train_context):
            one = make_window_batch(chunk, members, self.device)
            yield one, self.model(one.inputs, start=one.start)

    def _share(self, number: int) -> range:
        """Which of so many pieces of work are this rank's."""
        share = -(-number // self.ranks.world_size)
        return range(number)[self.ranks.rank * share : (self.ranks.rank + 1) * share]

    @torch.inference_mode()
    def score(self, chunk: Chunk) -> Tensor:
        return price(chunk.plan, self.batches(chunk), self.ranks)

    def learn(self, chunk: Chunk) -> None:
        """A frozen model learns nothing."""

    def reader(self, plan: ChunkPlan) -> Reader:
        if self.cached is not None:
            return CachedReader(self.model, plan, self.cached)
        return ModelReader(self.model, plan)

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """A frozen model has nothing to restore."""


class ModelReader:
    """Prices one token at a time with cached keys and values, exactly as a window sees them.

    adapters  the low-rank additions for the rows of the windows named, or None for none
    """

    def __init__(
        self,
        model: GPT,
        plan: ChunkPlan,
        adapters: Callable[[Sequence[int]], Adapters | None] = lambda windows: None,
    ) -> None:
        self.model, self.plan = model, plan
        self.choose_adapters, self.adapters = adapters, None
        self.cache: Cache | None = None
        self.logits: Tensor | None = None

    @torch.inference_mode()
    def start(self, windows: Sequence[int], histories: Tensor) -> None:
        # The cache is as long as the window's inputs: rotary angles depend on that length.
        context = max(self.plan.windows[i].num_inputs for i in windows)
        shape = (len(windows), context)
        if self.cache is not None and self.cache.tokens.shape == shape:
            self.cache.clear()
        else:
            self.cache = self.model.new_cache(*shape)
        self.adapters = self.choose_adapters(windows)
        self._advance(histories)

    @torch.inference_mode()
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
        logits = self.model(tokens.to(device), start=last, cache=self.cache, adapters=self.adapters)
        self.logits = logits[:, -1].cpu()
