"""In which order documents are scored, and which of them side by side. Index arithmetic only.

An order by length is as good a code as any other: lengths are told beforehand, a proof carries and
counts them, and from then on every token depends on those scored before it. It is not the order of
the file, so whoever judges such a score must judge it in its own order.
"""

from collections.abc import Sequence
from typing import Literal

Order = Literal["file", "longest_first", "shortest_first"]


def document_batches(lengths: Sequence[int], rows: int, order: Order) -> list[list[int]]:
    """Batches of at most `rows` documents in the order of scoring.

    lengths  tokens of each document, the BOS that ends it included

    In an order by length each batch holds documents that are about equally long, from short to
    long, and of equals the first of the file first. They are counted off from the shortest on, so
    the batch that may be incomplete is that of the longest (#1530). A BOS that ends the text opens
    a document in which there is nothing to score; it is in no batch.

    >>> document_batches([9, 3, 5, 4, 7], 2, "longest_first")
    [[0], [2, 4], [1, 3]]
    """
    documents = list(range(len(lengths)))
    if order != "file":
        documents = [document for document in documents if lengths[document] > 1]
        documents.sort(key=lambda document: lengths[document])
    batches = [documents[begin : begin + rows] for begin in range(0, len(documents), rows)]
    return batches[::-1] if order == "longest_first" else batches


def stride_of(longest: int, stride: int, short_strides: Sequence[tuple[int, int]]) -> int:
    """Targets of a window in a batch whose longest document has so many tokens (#2014).

    short_strides  (most tokens, stride), rising; where none holds, `stride`

    >>> [stride_of(tokens, 48, ((256, 8), (2000, 24))) for tokens in (256, 257, 2001)]
    [8, 24, 48]
    """
    return next((short for most, short in short_strides if longest <= most), stride)
