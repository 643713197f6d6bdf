"""What a pause learns from, cut as #1610 and its descendants cut it. Index arithmetic only.

finished documents, joined ──> pieces, each with a rate of its own; the last is not learned from
piece ──> rows of whole contexts, what is left over is not learned from ──> segments
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def pause_pieces(texts: Sequence[Tensor], chunk_tokens: int) -> list[Tensor]:
    """Pieces of `chunk_tokens` targets each, the last one shorter.

    texts  (n,) int64 each: a document with the BOS that ends it

    A piece's first token is the last target of the piece before it.

    >>> texts = [torch.tensor([1, 5, 1]), torch.tensor([1, 6, 7, 1])]
    >>> [piece.tolist() for piece in pause_pieces(texts, 4)]
    [[1, 5, 1, 1, 6], [6, 7, 1]]
    """
    if not texts:
        return []
    joined = torch.cat(list(texts))
    begins = range(0, len(joined) - 1, chunk_tokens)
    return [joined[begin : begin + chunk_tokens + 1] for begin in begins]


def packed_rows(piece: Tensor, context: int, sequences: int) -> list[Tensor]:
    """Runs of up to `sequences` whole contexts and their targets; less than a context is left out.

    >>> [row.tolist() for row in packed_rows(torch.arange(8), context=2, sequences=2)]
    [[0, 1, 2, 3, 4], [4, 5, 6]]
    """
    whole = (len(piece) - 1) // context
    return [
        piece[first * context : min(first + sequences, whole) * context + 1]
        for first in range(0, whole, sequences)
    ]
