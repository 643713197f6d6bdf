"""Chunks: what is scored together and then learned from, known before any token is read.

Index arithmetic, and the copies of tokens that it is about; how windows lie is in `windows.py`,
which documents are scored side by side, and in which order, in `orders.py`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from torch import Tensor

from fairway.evaluate.orders import Order, document_batches, stride_of
from fairway.evaluate.windows import Window, document_spans, document_windows, growing_windows
from fairway.tokens.val_text import ValText


@dataclass(frozen=True)
class ChunkPlan:
    """What a chunk scores, known before any token is: the schedule is static.

    windows  what to score, in order; each target of the stream is in exactly one window of a plan
    rows     for each window the row it is read in: windows of one row follow one another, those of
             different rows know nothing of each other; the document, or 0 for one long text
    spans    for each run of text the chunk owns, [begin, end) in the stream: its targets are
             tokens begin + 1 .. end - 1, all of them scored by this chunk or an earlier one
    ends     for each window whether it is its row's last, where rows go on from chunk to chunk;
             empty where they do not, and what one row read may help all others in the next chunk
    batch    number of the batch of documents, in the order of scoring, where they are kept apart
    places   for each window the place of its document within the batch; as `ends`, else empty
    batch_size  documents of the batch, those included that the chunk has no window of
    """

    index: int
    num_chunks: int
    windows: tuple[Window, ...]
    rows: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    ends: tuple[bool, ...] = ()
    batch: int = 0
    places: tuple[int, ...] = ()
    batch_size: int = 0

    @property
    def is_last(self) -> bool:
        return self.index == self.num_chunks - 1

    @property
    def num_targets(self) -> int:
        return sum(window.num_targets for window in self.windows)

    @property
    def offsets(self) -> list[int]:
        """Where each window's nats begin among the chunk's; the total comes last."""
        return list(accumulate((w.num_targets for w in self.windows), initial=0))

    @property
    def num_inputs(self) -> int:
        """Tokens that go into a model when the chunk is scored."""
        return sum(window.num_inputs for window in self.windows)

    @property
    def span_targets(self) -> int:
        return sum(end - begin - 1 for begin, end in self.spans)

    @property
    def lasting_inputs(self) -> int:
        """Tokens read by the windows whose row goes on after them."""
        ends = self.ends or (False,) * len(self.windows)
        return sum(w.num_inputs for w, last in zip(self.windows, ends, strict=True) if not last)


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


def plan_chunks(
    num_tokens: int,
    context: int,
    stride: int,
    chunk_tokens: int,
    document_starts: Sequence[int] | None = None,
) -> list[ChunkPlan]:
    """One stream in file order, cut into chunks of `chunk_tokens` (#549, #1413).

    A window belongs to the chunk in which its first target's predecessor lies, so when a chunk is
    learned from, every one of its targets has been scored.

    document_starts  position of each document's BOS: windows then never read across one
    """
    if chunk_tokens < stride or chunk_tokens % stride:
        raise ValueError(
            f"chunk_tokens={chunk_tokens} is not a multiple of stride={stride}; a window would be "
            "scored by one chunk and learned from in another"
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
    starts: Sequence[int],
    num_tokens: int,
    context: int,
    stride: int,
    rows: int,
    order: Order = "file",
    short_strides: Sequence[tuple[int, int]] = (),
) -> list[ChunkPlan]:
    """Documents kept apart, `rows` of them side by side; one chunk per stride.

    Chunk k of a batch holds the k-th window of each of its documents.

    order          of the batches: `orders.py`
    short_strides  the stride of batches of short documents instead of `stride`: `orders.stride_of`
    """
    spans = document_spans(starts, num_tokens)
    lengths = [last - first for first, last in spans]
    drafts: list[_Draft] = []
    for number, batch in enumerate(document_batches(lengths, rows, order)):
        own = stride_of(max(lengths[d] for d in batch), stride, short_strides)
        windows = [list(growing_windows(*spans[d], context, min(own, context))) for d in batch]
        for step in range(max(map(len, windows))):
            present = [place for place in range(len(batch)) if step < len(windows[place])]
            drafts.append(
                _Draft(
                    number,
                    # In file order what is incomplete is the end, and a part's end is the middle
                    # of the whole: there every batch counts as complete.
                    rows if order == "file" else len(batch),
                    tuple(present),
                    tuple(batch[place] for place in present),
                    tuple(windows[place][step] for place in present),
                    tuple(step + 1 == len(windows[place]) for place in present),
                )
            )
    return [
        ChunkPlan(
            index,
            len(drafts),
            draft.windows,
            draft.documents,
            tuple((w.score_from - 1, w.stop) for w in draft.windows),
            draft.ends,
            draft.batch,
            draft.places,
            draft.batch_size,
        )
        for index, draft in enumerate(drafts)
    ]


class _Draft(NamedTuple):
    """A chunk before it is known how many there are."""

    batch: int
    batch_size: int
    places: tuple[int, ...]
    documents: tuple[int, ...]
    windows: tuple[Window, ...]
    ends: tuple[bool, ...]


def cut_chunk(plan: ChunkPlan, text: ValText) -> Chunk:
    """The tokens of one plan, copied, so that nothing handed on reaches into the stream."""
    tokens, target_bytes = text.tokens, text.target_bytes
    return Chunk(
        plan,
        tuple(tokens[w.start : w.stop].clone() for w in plan.windows),
        tuple(tokens[begin:end].clone() for begin, end in plan.spans),
        sum(int(target_bytes[w.score_from - 1 : w.stop - 1].sum()) for w in plan.windows),
    )


def read_chunks(plans: Iterable[ChunkPlan], text: ValText) -> Iterator[Chunk]:
    return (cut_chunk(plan, text) for plan in plans)
