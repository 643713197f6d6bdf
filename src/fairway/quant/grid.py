"""A matrix rounded to integer codes, one symmetric grid per row.

Three ways to choose where a row's grid ends: a multiple of its standard deviation, a percentile of
its magnitudes, or the best of several percentiles. How rounding errors are passed on to columns not
yet rounded is in `gptq.py`, which tensor gets which grid in `rules.py`.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from fairway.quant.lowrank import LowRank

BASELINE_PERCENTILE = 0.9999984  # of the int8 baseline (launch)
SEARCHED_PERCENTILES = (0.999, 0.9995, 0.9999, 0.99999, 1.0)  # of GPTQ-lite (#414)


def top_code(bits: int) -> int:
    """Codes of a `bits`-wide grid span -top..+top.

    >>> [top_code(bits) for bits in (2, 6, 8)]
    [1, 31, 127]
    """
    if not 2 <= bits <= 8:
        raise ValueError(f"bits={bits}; codes are int8, so a grid has 2 to 8 bits")
    return 2 ** (bits - 1) - 1


@dataclass(frozen=True, kw_only=True, eq=False)
class QuantizedTensor:
    """Integer codes, a scale per row, and how they become a weight again.

    codes     (R, C) int8, within -top_code(bits)..top_code(bits)
    scale     (R,) float16: the width of one step
    shape     of the weight; its last dimension is C
    low_rank  a correction added to codes * scale (#1797), or None
    """

    codes: Tensor
    scale: Tensor
    bits: int
    shape: tuple[int, ...]
    low_rank: "LowRank | None" = None

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

    def dequantize(self) -> Tensor:
        """The weight that the codes stand for, float32, in its own shape."""
        weight = dequantize_rows(self.codes, self.scale)
        if self.low_rank is not None:
            weight = weight + self.low_rank.correction()
        return weight.reshape(self.shape)


def sigma_scale(weight: Tensor, bits: int, clip_sigmas: float) -> Tensor:
    """Step widths (..., R) float16 of grids that end `clip_sigmas` deviations out (#1394).

    The deviation is that of the row, unbiased: (..., R, C) float.
    """
    if clip_sigmas <= 0:
        raise ValueError(f"clip_sigmas={clip_sigmas}; it must be above 0, 12.85 is usual at 6 bits")
    top = top_code(bits)
    weight = weight.float()
    deviation = weight.std(dim=-1, correction=min(1, weight.size(-1) - 1))
    return _to_half((clip_sigmas * deviation / top).clamp_min(1e-10))


def round_to_grid(weight: Tensor, scale: Tensor, bits: int) -> Tensor:
    """Nearest codes (..., R, C) int8 of weight (..., R, C) on grids of step `scale` (..., R)."""
    top = top_code(bits)
    step = usable_step(scale)[..., None]
    return (weight.float() / step).round().clamp(-top, top).to(torch.int8)


def usable_step(scale: Tensor) -> Tensor:
    """`scale` as float32, with 1 where it is 0: such a row holds nothing and all its codes are 0.

    >>> usable_step(torch.tensor([0.5, 0.0], dtype=torch.float16)).tolist()
    [0.5, 1.0]
    """
    step = scale.float()
    return torch.where(step > 0, step, 1.0)


def quantize_rows(weight: Tensor, bits: int, clip_sigmas: float) -> tuple[Tensor, Tensor]:
    """Round each row to a grid that ends `clip_sigmas` standard deviations out (SDClip, #1394).

    weight       (R, C) float
    clip_sigmas  wider clips fewer outliers, rounds the bulk more coarsely, and leaves codes that
                 compress better: about one bit less per doubling
    returns      codes (R, C) int8 and scale (R,) float16, with weight ~= codes * scale[:, None]
    """
    scale = sigma_scale(weight, bits, clip_sigmas)
    return round_to_grid(weight, scale, bits), scale


def quantize_rows_percentile(
    weight: Tensor, bits: int, percentile: float = BASELINE_PERCENTILE, min_scale: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Round each row to a grid that ends at a percentile of its magnitudes (launch baseline).

    weight     (R, C) float
    min_scale  narrowest step allowed. The published scripts keep it at 1 / top_code(bits), which
               leaves small weights few codes; 0 lets every row use its whole grid.
    returns    codes (R, C) int8 and scale (R,) float16
    """
    weight = weight.float()
    clip = _row_percentile(weight.abs(), percentile)
    scale = _to_half((clip / top_code(bits)).clamp_min(min_scale))
    return round_to_grid(weight, scale, bits), scale


def quantize_rows_searched(
    weight: Tensor, bits: int, min_scale: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Round each row to whichever of five percentile grids leaves the least squared error (#414).

    weight     (R, C) float
    min_scale  as in `quantize_rows_percentile`
    returns    codes (R, C) int8 and scale (R,) float16
    """
    weight = weight.float()
    best: tuple[Tensor, Tensor, Tensor] | None = None
    for percentile in SEARCHED_PERCENTILES:
        codes, scale = quantize_rows_percentile(weight, bits, percentile, min_scale)
        error = (weight - dequantize_rows(codes, scale)).square().sum(dim=1)
        if best is None:
            best = codes, scale, error
            continue
        better = error < best[2]
        best = (
            torch.where(better[:, None], codes, best[0]),
            torch.where(better, scale, best[1]),
            torch.where(better, error, best[2]),
        )
    assert best is not None
    return best[0], best[1]


def dequantize_rows(codes: Tensor, scale: Tensor) -> Tensor:
    """Inverse of rounding, up to the rounding: (..., R, C) int8, (..., R) float16 -> float32."""
    return codes.float() * scale.float()[..., None]


def _row_percentile(magnitudes: Tensor, percentile: float) -> Tensor:
    # Interpolated by hand between two order statistics: torch.quantile refuses wide matrices.
    ordered = magnitudes.sort(dim=1).values
    place = percentile * (ordered.size(1) - 1)
    below = min(int(place), ordered.size(1) - 1)
    above = min(below + 1, ordered.size(1) - 1)
    return torch.lerp(ordered[:, below], ordered[:, above], place - below)


def _to_half(scale: Tensor) -> Tensor:
    half = scale.half()
    if torch.compiler.is_compiling():  # as in qat.py, where looking would split the graph
        return half
    if not bool(torch.isfinite(half).all()):
        largest = scale.nan_to_num(nan=math.inf).max().item()
        raise ValueError(
            f"a row's step of {largest:g} does not fit float16: the weights hold NaN, infinity or "
            f"values in the millions; train with a smaller learning rate or clip the gradients"
        )
    return half
