"""A matrix rounded to integer codes, one symmetric grid per row, and the bytes that these take.

A row's grid ends at a multiple of its standard deviation or at a percentile of its magnitudes. Who
uses which is in `schemes.py`; how rounding errors are passed on to columns not yet rounded, in
`gptq.py`.
"""

import math

import torch
from torch import Tensor

from fairway.quant.quantized import top_code


def sigma_scale(weight: Tensor, bits: int, clip_sigmas: float) -> Tensor:
    """Step widths (..., R) float16 of grids that end `clip_sigmas` deviations out (#1394).

    The deviation is that of the row, unbiased: (..., R, C) float. Wider clips fewer outliers and
    rounds the bulk more coarsely, into codes that compress better: a bit less per doubling.
    """
    top = top_code(bits)
    weight = weight.float()
    deviation = weight.std(dim=-1, correction=min(1, weight.size(-1) - 1))
    return _to_half((clip_sigmas * deviation / top).clamp_min(1e-10))


def percentile_scale(
    weight: Tensor, bits: int, percentile: float, min_scale: float = 0.0
) -> Tensor:
    """Step widths (R,) float16 of grids that end at a percentile of each row's magnitudes.

    weight     (R, C) float
    min_scale  narrowest step allowed
    """
    clip = _row_percentile(weight.float().abs(), percentile)
    return _to_half((clip / top_code(bits)).clamp_min(min_scale))


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


def coded_bytes(rows: Tensor, scale: Tensor, bits: int) -> int:
    """Bytes that rows (R, C) will take on grids of step `scale` (R,), without coding any.

    By the entropy of Gaussian codes of the width that each column has, which is about
    bits - log2(clip_sigmas) + 1.05 per weight (#1394).
    """
    width = (rows / usable_step(scale)[:, None]).square().mean(dim=0).sqrt()  # (C,)
    num_rows, num_columns = rows.shape
    code_bits = num_rows * gaussian_bits(width, bits).sum().item()
    learning_bits = num_columns * (1 + 0.5 * math.log2(num_rows))  # of each column's width
    scale_bits = 12 * num_rows  # sign and exponent of a float16 hardly vary
    return math.ceil((code_bits + learning_bits + scale_bits) / 8)


def gaussian_bits(width: Tensor, bits: int) -> Tensor:
    """Entropy in bits (n,) of Gaussian codes of the given standard deviations (n,), in steps."""
    edges = torch.arange(-top_code(bits), top_code(bits) + 2, device=width.device) - 0.5
    edges = edges.double()
    edges[0], edges[-1] = -torch.inf, torch.inf  # clipped codes fall on the outermost
    mass = torch.special.ndtr(edges / width.double().clamp_min(1e-6)[:, None]).diff(dim=1)
    return -torch.special.xlogy(mass, mass).sum(dim=1) / math.log(2)


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
