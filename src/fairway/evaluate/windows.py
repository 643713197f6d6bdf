"""Which positions a forward pass scores, and how much context they see.

Index arithmetic only: no model, no tensor, no file. Whoever wants to know whether every token is
scored exactly once needs to read this file and nothing else.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple


class Window(NamedTuple):
    """The model reads tokens[start : stop - 1]; its predictions of [score_from, stop) count."""

    start: int
    score_from: int
    stop: int

    @property
    def num_inputs(self) -> int:
        return self.stop - 1 - self.start

    @property
    def num_targets(self) -> int:
        return self.stop - self.score_from


def check_window_shape(context: int, stride: int) -> None:
    if context < 1 or not 1 <= stride <= context:
        raise ValueError(
            f"context={context}, stride={stride}: needs 1 <= stride <= context, else tokens "
            "between two windows are never scored"
        )


def sliding_windows(first: int, stop: int, context: int, stride: int) -> Iterator[Window]:
    """Windows that score tokens first+1 .. stop-1 once each, the tail included.

    The first window scores all its targets; each later one starts `stride` further on and scores
    its last `stride` targets (#50, without the repeated tail that #1218 removed). Tokens before
    `first` are never read.

    >>> [tuple(w) for w in sliding_windows(0, 12, context=4, stride=3)]
    [(0, 1, 5), (3, 5, 8), (6, 8, 11), (9, 11, 12)]
    """
    check_window_shape(context, stride)
    if stop - first < 2:
        return  # a document of one token has nothing to predict
    yield Window(first, first + 1, min(first + context + 1, stop))
    start = first + stride
    while start + context - stride + 1 < stop:
        yield Window(start, start + context - stride + 1, min(start + context + 1, stop))
        start += stride


def growing_windows(first: int, stop: int, context: int, stride: int) -> Iterator[Window]:
    """Windows of `stride` targets from the first token on, each with up to `context` tokens.

    What `sliding_windows` scores at once, its first `context` targets, comes here stride by stride
    too, so that something can be learned after each (#1530).

    >>> [tuple(w) for w in growing_windows(0, 12, context=4, stride=3)]
    [(0, 1, 4), (2, 4, 7), (5, 7, 10), (7, 10, 12)]
    """
    check_window_shape(context, stride)
    for begin in range(first + 1, stop, stride):
        end = min(begin + stride, stop)
        yield Window(max(first, end - 1 - context), begin, end)


def document_windows(
    starts: Sequence[int], stop: int, context: int, stride: int
) -> Iterator[tuple[int, Window]]:
    """(document, window) pairs of windows that never read across the start of a document.

    starts  position of each document's BOS, ascending, the first one 0
    stop    number of tokens in the stream

    The BOS that opens the next document is scored as the last target of the document before it,
    as the field's per-document evaluation does (#77): whoever decodes must learn that it ended.
    """
    for document, (first, last) in enumerate(document_spans(starts, stop)):
        for window in sliding_windows(first, last, context, stride):
            yield document, window


def document_spans(starts: Sequence[int], stop: int) -> list[tuple[int, int]]:
    """[first, last) of each document, the BOS that ends it included.

    >>> document_spans([0, 3], 5)
    [(0, 4), (3, 5)]
    """
    return [
        (first, starts[document + 1] + 1 if document + 1 < len(starts) else stop)
        for document, first in enumerate(starts)
    ]
