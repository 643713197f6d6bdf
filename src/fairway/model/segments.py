"""Parts of one row that attention keeps apart: documents, and what of one is longer than allowed.

What stands in front of the blocks reads the row as it is; from there on each part is a row of its
own, padded on the right, so nothing is spent on scores between parts.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fairway.runtime.device import send
from fairway.runtime.kernels import attend


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
        return x[0, send(self.places, x.device)]


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


class Parts(NamedTuple):
    """How one long row is attended to in training: in blocks, each of which sees the one before.

    A part is no longer than a block, so this is all that it can see. Unlike `Segments` the shapes
    do not depend on the text, and nothing is padded.

    block    tokens of a block; divides the row
    longest  tokens after which a document is cut, at most `block`
    """

    block: int
    longest: int


def places_in_parts(opens: Tensor, longest: int) -> Tensor:
    """(T,) int64: how far into its part each token stands; parts as of `document_segments`.

    opens  (T,) True at the first token of each document

    >>> places_in_parts(torch.tensor([False, True, False, False, False, True]), 3).tolist()
    [0, 0, 1, 2, 0, 0]
    """
    index = torch.arange(len(opens), device=opens.device)
    opened = torch.where(opens, index, 0).cummax(0).values
    return (index - opened) % longest


def neighbour_mask(places: Tensor, block: int) -> Tensor:
    """(T / block, block, 2 * block): what a block's queries see of the one before and of it."""
    part = (places == 0).cumsum(0).view(-1, block)
    before = torch.cat((torch.zeros_like(part[:1]), part[:-1]))
    same = part[:, :, None] == torch.cat((before, part), dim=1)[:, None, :]
    return same & torch.ones_like(same).tril(block)


def attend_to_neighbours(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attention of one row by blocks: q (1, H, T, K), k and v (1, Hkv, T, K) -> (1, H, T, K).

    mask  as `neighbour_mask` makes it
    """

    def blocks(x: Tensor) -> Tensor:  # (T / block, H, block, K)
        return x[0].unflatten(1, mask.shape[:2]).transpose(0, 1)

    def two(x: Tensor) -> Tensor:
        own = blocks(x)
        return torch.cat((torch.cat((torch.zeros_like(own[:1]), own[:-1])), own), dim=2)

    y = attend(blocks(q), two(k), two(v), mask)
    return y.transpose(0, 1).flatten(1, 2)[None]
