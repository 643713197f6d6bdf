"""What rounding leaves of a weight, and how it becomes a weight again."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor


def top_code(bits: int) -> int:
    """Codes of a `bits`-wide grid span -top..+top.

    >>> [top_code(bits) for bits in (2, 6, 8)]
    [1, 31, 127]
    """
    if not 2 <= bits <= 8:
        raise ValueError(f"bits={bits}; codes are int8, so a grid has 2 to 8 bits")
    return 2 ** (bits - 1) - 1


@dataclass(frozen=True, kw_only=True, eq=False)
class LowRank:
    """A (R, K) and B (K, C) as signed codes; a code c stands for (c + 1/2) * scale.

    a_codes  (R, K) int8, a_scale (K,) float16: one scale per component
    b_codes  (K, C) int8, b_scale (K, ceil(C / group)) float16
    zeros    a code c stands for c * scale, so that there is a zero (#1797)
    """

    a_codes: Tensor
    a_scale: Tensor
    b_codes: Tensor
    b_scale: Tensor
    a_bits: int
    b_bits: int
    group: int
    zeros: bool = False

    def __post_init__(self) -> None:
        rank, columns = self.b_codes.shape
        groups = -(-columns // self.group)
        if (
            self.a_codes.size(1) != rank
            or self.a_scale.shape != (rank,)
            or self.b_scale.shape != (rank, groups)
        ):
            raise ValueError(
                f"A {tuple(self.a_codes.shape)} with {tuple(self.a_scale.shape)} scales and B "
                f"{(rank, columns)} with {tuple(self.b_scale.shape)} scales do not belong together"
            )

    def correction(self) -> Tensor:
        """A @ B, float32 (R, C)."""
        offset = 0.0 if self.zeros else 0.5
        a = (self.a_codes.float() + offset) * self.a_scale.float()
        steps = self.b_scale.float().repeat_interleave(self.group, dim=1)
        return a @ ((self.b_codes.float() + offset) * steps[:, : self.b_codes.size(1)])


@dataclass(frozen=True, kw_only=True, eq=False)
class FineColumns:
    """Groups of neighbouring columns whose grid is finer than that of the others (#1908).

    starts  first column of each group, rising; no two groups overlap
    size    number of columns of a group
    bits    of their codes
    scale   (R,) float16: the width of their step, one per row for all groups
    """

    starts: tuple[int, ...]
    size: int
    bits: int
    scale: Tensor

    def __post_init__(self) -> None:
        top_code(self.bits)
        apart = all(b - a >= self.size for a, b in pairwise(self.starts))
        if not self.starts or self.starts[0] < 0 or self.size < 1 or not apart:
            raise ValueError(
                f"groups of {self.size} columns at {self.starts[:8]} must rise and not overlap"
            )
        if self.scale.dtype != torch.float16 or self.scale.ndim != 1:
            raise ValueError(
                f"the scale of fine columns is {self.scale.dtype} {tuple(self.scale.shape)}; "
                f"expected float16 (R,)"
            )

    def mask(self, columns: int) -> Tensor:
        """(C,) bool: the columns that are in a group."""
        return fine_mask(self.starts, self.size, columns)


def fine_mask(starts: Sequence[int], size: int, columns: int) -> Tensor:
    """(C,) bool: the columns that are in a group of `size` at one of `starts`."""
    mask = torch.zeros(columns, dtype=torch.bool)
    for start in starts:
        if start + size > columns:
            raise ValueError(f"columns {start} to {start + size} of a matrix with {columns}")
        mask[start : start + size] = True
    return mask


@dataclass(frozen=True, kw_only=True, eq=False)
class QuantizedTensor:
    """Integer codes, a scale per row, and how they become a weight again.

    codes     (R, C) int8, within -top_code(bits)..top_code(bits), but for fine columns
    scale     (R,) float16: the width of one step
    shape     of the weight; its last dimension is C
    low_rank  a correction added to codes * scale (#1797), or None
    fine      columns whose codes are on a grid of their own (#1908), or None
    """

    codes: Tensor
    scale: Tensor
    bits: int
    shape: tuple[int, ...]
    low_rank: LowRank | None = None
    fine: FineColumns | None = None

    def __post_init__(self) -> None:
        if self.codes.dtype != torch.int8 or self.scale.dtype != torch.float16:
            raise ValueError(
                f"codes are {self.codes.dtype} and scale is {self.scale.dtype}; a QuantizedTensor "
                f"holds int8 codes and float16 scales"
            )
        if self.codes.ndim != 2 or self.scale.shape != self.codes.shape[:1]:
            raise ValueError(
                f"codes {tuple(self.codes.shape)} with scale {tuple(self.scale.shape)}; expected "
                f"(R, C) with (R,)"
            )
        if math.prod(self.shape) != self.codes.numel() or self.codes.numel() == 0:
            raise ValueError(f"{self.codes.numel()} codes cannot fill shape {self.shape}")
        for codes, bits in self.code_matrices():
            if not codes.numel():
                continue
            low, high = (end.item() for end in codes.aminmax())
            if max(-low, high) > top_code(bits):
                raise ValueError(f"codes from {low} to {high} do not fit {bits} bits")
        if self.fine is not None and self.fine.scale.shape != self.scale.shape:
            raise ValueError(
                f"fine columns have scales {tuple(self.fine.scale.shape)} for "
                f"{tuple(self.scale.shape)} rows"
            )

    def code_matrices(self) -> list[tuple[Tensor, int]]:
        """Codes (R, columns) of one width, with their bits: plain columns, then fine ones."""
        if self.fine is None:
            return [(self.codes, self.bits)]
        fine = self.fine.mask(self.codes.size(1)).to(self.codes.device)
        return [(self.codes[:, ~fine], self.bits), (self.codes[:, fine], self.fine.bits)]

    def dequantize(self) -> Tensor:
        """The weight that the codes stand for, float32, in its own shape."""
        weight = dequantize_rows(self.codes, self.scale)
        if self.fine is not None:
            mask = self.fine.mask(self.codes.size(1)).to(self.codes.device)
            weight[:, mask] = dequantize_rows(self.codes[:, mask], self.fine.scale)
        if self.low_rank is not None:
            weight = weight + self.low_rank.correction()
        return weight.reshape(self.shape)


def dequantize_rows(codes: Tensor, scale: Tensor) -> Tensor:
    """Inverse of rounding, up to the rounding: (..., R, C) int8, (..., R) float16 -> float32."""
    return codes.float() * scale.float()[..., None]


def dequantize(tensors: Mapping[str, QuantizedTensor | Tensor]) -> dict[str, Tensor]:
    """The weights that quantized tensors stand for, float32."""
    return {
        name: t.dequantize() if isinstance(t, QuantizedTensor) else t.float()
        for name, t in tensors.items()
    }
