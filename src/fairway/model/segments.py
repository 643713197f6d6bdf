"""Parts of one row that attention keeps apart: documents, and what of one is longer than allowed.

What stands in front of the blocks reads the row as it is; from there on each part is a row of its
own, padded on the right, so nothing is spent on scores between parts.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Segments:
    """
    places  (S, L) int64: for each part its positions in the row, padded with any of them
    own     (S, L): which of these are no padding
    """

    places: Tensor
    own: Tensor

    @classmethod
    def of(cls, spans: list[tuple[int, int]]) -> "Segments":
        """Of parts [begin, end) of a row."""
        begins = torch.tensor([begin for begin, _ in spans])[:, None]
        lengths = torch.tensor([end - begin for begin, end in spans])[:, None]
        steps = torch.arange(int(lengths.max()))
        return cls(begins + torch.minimum(steps, lengths - 1), steps < lengths)

    def take(self, x: Tensor) -> Tensor:
        """(1, T, D) -> (S, L, D)."""
        return x[0, self.places.to(x.device)]


def document_segments(tokens: Tensor, bos_id: int, longest: int) -> list[tuple[int, int]]:
    """[begin, end) of each part of tokens (T,): from each BOS on, and every `longest` tokens.

    >>> document_segments(torch.tensor([7, 1, 5, 5, 5, 1]), bos_id=1, longest=3)
    [(0, 1), (1, 4), (4, 5), (5, 6)]
    """
    marks = (tokens == bos_id).nonzero()[:, 0].tolist()
    begins = [0, *(mark for mark in marks if mark)]
    ends = [*begins[1:], len(tokens)]
    return [
        (part, min(part + longest, end))
        for begin, end in zip(begins, ends, strict=True)
        for part in range(begin, end, longest)
    ]
