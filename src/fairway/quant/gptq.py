"""GPTQ: round a matrix column by column, each error mended in the columns still to come.

Frantar et al. 2022 (arXiv 2210.17323) in the form of #1394: row grids by standard deviation,
columns in order of falling Hessian diagonal. Where the Hessians come from is in `hessian.py`, which
tensors are rounded this way is decided in `rules.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fairway.quant.grid import sigma_scale, usable_step
from fairway.quant.hessian import Hessian, HessianFactor, factor_hessian
from fairway.quant.quantized import QuantizedTensor, top_code
from fairway.quant.schemes import RoundRows, quantized

BLOCK = 128  # columns whose errors are mended among themselves before the rest hears of them
STRIP = 16  # columns within a block that are mended one by one


@dataclass(frozen=True)
class Gptq(RoundRows):
    """GPTQ on grids that end `clip_sigmas` deviations out (#1394). Needs a Hessian.

    Errors are mended after training; for training and for predicting bytes this is plain rounding
    on the same grids.
    """

    needs_hessian = True
    sweep_elements = 2**23

    def quantize(
        self, tensors: Sequence[Tensor], hessians: Sequence[Hessian], clip_factor: float
    ) -> list[QuantizedTensor]:
        if tensors[0].ndim != 2:
            raise ValueError(
                f"shape {tuple(tensors[0].shape)}; Gptq rounds matrices only, so split it or give "
                f"it RoundRows"
            )
        rounded = gptq_many(tensors, hessians, self.bits, self.clip_sigmas * clip_factor)
        return [
            quantized(codes, scale, self.bits, tensor)
            for (codes, scale), tensor in zip(rounded, tensors, strict=True)
        ]


def gptq_many(
    weights: Sequence[Tensor],
    hessians: Sequence[Hessian],
    bits: int,
    clip_sigmas: float,
) -> list[tuple[Tensor, Tensor]]:
    """Codes (R, C) int8 and scale (R,) float16 of each weight (R, C), all of one shape.

    hessians  (C, C) of each: X^T X of the layer's inputs, in any unit
    """
    factors = [h if isinstance(h, HessianFactor) else factor_hessian(h) for h in hessians]
    batch = HessianFactor(*(torch.stack(field) for field in zip(*factors, strict=True)))
    codes, scale = _round_columns(torch.stack(list(weights)), batch, bits, clip_sigmas)
    return list(zip(codes, scale, strict=True))


@torch.no_grad()
def _round_columns(
    weight: Tensor, factor: HessianFactor, bits: int, clip_sigmas: float
) -> tuple[Tensor, Tensor]:
    """Codes (N, R, C) and scale (N, R) of weight (N, R, C)."""
    num, _, columns = weight.shape
    if factor.upper.shape != (num, columns, columns):
        raise ValueError(
            f"a weight with {columns} columns meets a Hessian of width {factor.upper.size(-1)}; "
            f"the Hessian must come from the inputs of the same layer"
        )
    scale = sigma_scale(weight, bits, clip_sigmas)
    step, top = usable_step(scale), top_code(bits)
    # Transposed, so that a column of the weight, and all that is done to it, is contiguous.
    pending = weight.float().transpose(1, 2)  # (N, C, R)
    pending = pending.gather(1, factor.order[:, :, None].expand_as(pending)).contiguous()
    pending.mul_(factor.alive[:, :, None])
    rounded = torch.empty_like(pending, dtype=torch.int8)
    upper = factor.upper
    pivots = upper.diagonal(dim1=1, dim2=2)

    # Errors travel in three hops, so that most of the arithmetic is matrix products: within a
    # strip at once, within a block at the end of each strip, beyond it at the end of the block.
    for start in range(0, columns, BLOCK):
        end = min(start + BLOCK, columns)
        errors = torch.empty_like(pending[:, start:end])
        for left in range(start, end, STRIP):
            right = min(left + STRIP, end)
            for column in range(left, right):
                now = pending[:, column]  # (N, R)
                codes = (now / step).round_().clamp_(-top, top)
                rounded[:, column] = codes
                error = now.sub_(codes.mul_(step)).div_(pivots[:, column, None])
                errors[:, column - start] = error
                if column + 1 < right:
                    pull = upper[:, column, column + 1 : right, None]
                    pending[:, column + 1 : right].addcmul_(pull, error[:, None], value=-1)
            if right < end:
                pull = upper[:, left:right, right:end].transpose(1, 2)
                strip = errors[:, left - start : right - start]
                pending[:, right:end].baddbmm_(pull, strip, alpha=-1)
        if end < columns:
            pull = upper[:, start:end, end:].transpose(1, 2)
            pending[:, end:].baddbmm_(pull, errors, alpha=-1)
    back = factor.order.argsort(dim=1)[:, :, None].expand_as(rounded)
    return rounded.gather(1, back).transpose(1, 2).contiguous(), scale
