"""A file cut into segments that are read side by side, and the plan that scores them.

A single stream is decoded one token after another, each waiting for the one before. Segments wait
only for themselves, so 32 of them take little longer than one; each starts without context, which
is what the speed costs. Index arithmetic only.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from fairway.evaluate.chunks import ChunkPlan
from fairway.evaluate.windows import Window, growing_windows, sliding_windows

TOKENS_PER_SEGMENT = 16_384  # beyond this a further segment costs under half a percent in size
MOST_SEGMENTS = 32


def choose_segments(num_tokens: int) -> int:
    """As many segments as cost little: one for each 16,384 tokens, at most 32."""
    return max(1, min(MOST_SEGMENTS, num_tokens // TOKENS_PER_SEGMENT))


def segment_bounds(num_tokens: int, num_segments: int) -> list[int]:
    """Edges (num_segments + 1,) of segments as equally long as can be, the longer ones first.

    >>> segment_bounds(10, 4)
    [0, 3, 6, 8, 10]
    """
    short, longer = divmod(num_tokens, num_segments)
    return [i * short + min(i, longer) for i in range(num_segments + 1)]


def plan_segments(
    bounds: Sequence[int], context: int, stride: int, chunk_tokens: int | None
) -> list[ChunkPlan]:
    """Chunks over the segments [bounds[i], bounds[i + 1]), all of them at the same place.

    Each segment's first token is given (its BOS) and scored by nobody, unlike that of a document.

    chunk_tokens  targets in a chunk, all segments together; None: one window of each segment, as
                  adapters of its own need it
    """
    share = None if chunk_tokens is None else share_of(chunk_tokens, len(bounds) - 1, stride)
    drafts: dict[int, _Draft] = defaultdict(_Draft)
    for segment, (first, last) in enumerate(pairwise(bounds)):
        cut = growing_windows if share is None else sliding_windows
        own = list(cut(first, last, context, stride))
        for number, window in enumerate(own):
            draft = drafts[number if share is None else (window.score_from - 1 - first) // share]
            draft.windows.append(window)
            draft.rows.append(segment)
            if share is None:
                draft.ends.append(number == len(own) - 1)
                draft.spans.append((window.score_from - 1, window.stop))
        if share is not None:
            for chunk, begin in enumerate(range(first, last - 1, share)):
                drafts[chunk].spans.append((begin, min(begin + share + 1, last)))
    return [
        ChunkPlan(
            index,
            len(drafts),
            tuple(drafts[index].windows),
            tuple(drafts[index].rows),
            tuple(drafts[index].spans),
            tuple(drafts[index].ends),
            0,
            tuple(drafts[index].rows) if share is None else (),
            len(bounds) - 1 if share is None else 0,
        )
        for index in range(len(drafts))
    ]


@dataclass
class _Draft:
    """A chunk being filled."""

    windows: list[Window] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    spans: list[tuple[int, int]] = field(default_factory=list)
    ends: list[bool] = field(default_factory=list)


def share_of(chunk_tokens: int, num_segments: int, stride: int) -> int:
    """Targets of one segment in a chunk: a multiple of the stride, so that no window straddles."""
    return max(1, round(chunk_tokens / num_segments / stride)) * stride
