"""GPTQ: round a matrix column by column, each error mended in the columns still to come.

Frantar et al. 2022 (arXiv 2210.17323) in the form of #1394: row grids by standard deviation,
columns in order of falling Hessian diagonal. Where the Hessians come from is in `hessian.py`, which
tensors are rounded this way is decided in `rules.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fairway.quant.grid import sigma_scale, usable_step
from fairway.quant.hessian import Hessian, HessianFactor, factor_hessian
from fairway.quant.quantized import FineColumns, QuantizedTensor, fine_mask, top_code
from fairway.quant.schemes import RoundRows, quantized

BLOCK = 128  # columns whose errors are mended among themselves before the rest hears of them


class FineGroups(NamedTuple):
    """Groups of neighbouring columns that get a grid of their own (`awq.py` chooses them)."""

    starts: tuple[int, ...]
    size: int
    bits: int


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

    def quantize_with_groups(
        self, tensor: Tensor, hessian: Hessian, groups: FineGroups, clip_factor: float
    ) -> QuantizedTensor:
        """The same with some columns on a finer grid, which ends as many deviations out (#1908)."""
        clip_sigmas = self.clip_sigmas * clip_factor
        codes, scale = gptq_many([tensor], [hessian], self.bits, clip_sigmas, groups)[0]
        fine = sigma_scale(tensor, groups.bits, clip_sigmas)
        return QuantizedTensor(
            codes=codes,
            scale=scale,
            bits=self.bits,
            shape=tuple(tensor.shape),
            fine=FineColumns(starts=groups.starts, size=groups.size, bits=groups.bits, scale=fine),
        )


def gptq_many(
    weights: Sequence[Tensor],
    hessians: Sequence[Hessian],
    bits: int,
    clip_sigmas: float,
    groups: FineGroups | None = None,
) -> list[tuple[Tensor, Tensor]]:
    """Codes (R, C) int8 and scale (R,) float16 of each weight (R, C), all of one shape.

    hessians  (C, C) of each: X^T X of the layer's inputs, in any unit
    groups    columns whose codes are on a grid of their own, which ends where the others' does
    """
    factors = [h if isinstance(h, HessianFactor) else factor_hessian(h) for h in hessians]
    batch = HessianFactor(*(torch.stack(field) for field in zip(*factors, strict=True)))
    stacked = torch.stack(list(weights))
    num, _, columns = stacked.shape
    if batch.upper.shape != (num, columns, columns):
        raise ValueError(
            f"a weight with {columns} columns meets a Hessian of width {batch.upper.size(-1)}; "
            f"the Hessian must come from the inputs of the same layer"
        )
    scale = sigma_scale(stacked, bits, clip_sigmas)
    grids = [Grid(usable_step(scale), top_code(bits))] * columns
    if groups is not None:
        step = usable_step(sigma_scale(stacked, groups.bits, clip_sigmas))
        for column in fine_mask(groups.starts, groups.size, columns).nonzero().flatten().tolist():
            grids[column] = Grid(step, top_code(groups.bits))
    codes = _round_columns(stacked, batch, grids)
    return list(zip(codes, scale, strict=True))


class Grid(NamedTuple):
    """Where a column's codes lie: steps (N, R) float32, codes -top..top."""

    step: Tensor
    top: int


@torch.no_grad()
def _round_columns(weight: Tensor, factor: HessianFactor, grids: Sequence[Grid]) -> Tensor:
    """Codes (N, R, C) of weight (N, R, C), each column on its grid; grids that differ are of one
    weight (N = 1), whose columns come in an order of their own."""
    columns = weight.size(2)
    one = all(grid is grids[0] for grid in grids)
    in_order = grids if one else [grids[column] for column in factor.order[0].tolist()]
    # Transposed, so that a column of the weight, and all that is done to it, is contiguous.
    pending = weight.float().transpose(1, 2)  # (N, C, R)
    pending = pending.gather(1, factor.order[:, :, None].expand_as(pending)).contiguous()
    pending.mul_(factor.alive[:, :, None])
    rounded = torch.empty_like(pending, dtype=torch.int8)
    upper = factor.upper
    pivots = upper.diagonal(dim1=1, dim2=2)

    # Errors travel in two hops, so that most of the arithmetic is matrix products: within a block
    # at once, beyond it at its end. The published code does the same sums in the same order, and
    # its codes come out equal; finer blocks turn a few ties.
    for start in range(0, columns, BLOCK):
        end = min(start + BLOCK, columns)
        errors = torch.empty_like(pending[:, start:end])
        for column in range(start, end):
            step, top = in_order[column]
            now = pending[:, column]  # (N, R)
            codes = (now / step).round_().clamp_(-top, top)
            rounded[:, column] = codes
            error = now.sub_(codes.mul_(step)).div_(pivots[:, column, None])
            errors[:, column - start] = error
            if column + 1 < end:
                pull = upper[:, column, column + 1 : end, None]
                pending[:, column + 1 : end].addcmul_(pull, error[:, None], value=-1)
        if end < columns:
            pull = upper[:, start:end, end:].transpose(1, 2)
            pending[:, end:].baddbmm_(pull, errors, alpha=-1)
    back = factor.order.argsort(dim=1)[:, :, None].expand_as(rounded)
    return rounded.gather(1, back).transpose(1, 2).contiguous()
