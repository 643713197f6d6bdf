"""GPTQ: round a matrix column by column, each error mended in the columns still to come.

Frantar et al. 2022 (arXiv 2210.17323) in the form of #1394: row grids by standard deviation,
columns in order of falling Hessian diagonal. Also the Hessians themselves, collected from any model
by hooks. Which tensors are rounded this way is decided in `rules.py`.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from fairway.quant.grid import sigma_scale, top_code, usable_step

DAMPING = 0.01  # of the mean diagonal, added to the diagonal
BLOCK = 128  # columns whose errors are mended among themselves before the rest hears of them
STRIP = 16  # columns within a block that are mended one by one


class HessianFactor(NamedTuple):
    """What rounding needs to know of a Hessian; the same for every grid, so computed once.

    order  (C,) int64: columns by falling diagonal
    alive  (C,) bool, in that order: False where the input channel was always zero
    upper  (C, C) float32: upper Cholesky factor of the inverse Hessian, in that order
    """

    order: Tensor
    alive: Tensor
    upper: Tensor


def factor_hessian(hessian: Tensor, damping: float = DAMPING) -> HessianFactor:
    """The factor of a Hessian (C, C), or of a batch of them (N, C, C) with N first in each field.

    Raises ValueError when a Hessian is not finite, or too far from positive definite.
    """
    hessian = hessian.float().clone()
    diagonal = hessian.diagonal(dim1=-2, dim2=-1)  # a view: writing to it writes to the Hessian
    if not bool(torch.isfinite(diagonal).all()):
        raise ValueError("a Hessian holds NaN or infinity; the model's activations overflow")
    dead = diagonal == 0
    diagonal.masked_fill_(dead, 1.0)
    diagonal.add_(damping * diagonal.mean(dim=-1, keepdim=True))
    order = diagonal.argsort(dim=-1, descending=True)
    width = hessian.size(-1)
    hessian = hessian.gather(-2, order[..., :, None].expand(*order.shape, width))
    hessian = hessian.gather(-1, order[..., None, :].expand(*order.shape[:-1], width, width))
    lower, failed = torch.linalg.cholesky_ex(hessian)
    inverse = torch.cholesky_inverse(lower)
    upper, failed_again = torch.linalg.cholesky_ex(inverse, upper=True)
    if bool((failed + failed_again).any()):
        raise ValueError(
            f"a Hessian of width {width} is not positive definite at damping {damping}; collect "
            f"it from more calibration batches, or raise the damping"
        )
    return HessianFactor(order, ~dead.gather(-1, order), upper)


def gptq(
    weight: Tensor,
    hessian: Tensor | HessianFactor,
    bits: int,
    clip_sigmas: float,
) -> tuple[Tensor, Tensor]:
    """Codes (R, C) int8 and scale (R,) float16 of weight (R, C), given the Hessian (C, C).

    The Hessian is X^T X of the layer's inputs, in any unit.
    """
    factor = hessian if isinstance(hessian, HessianFactor) else factor_hessian(hessian)
    batch = HessianFactor(*(field[None] for field in factor))
    codes, scale = _round_columns(weight[None], batch, bits, clip_sigmas)
    return codes[0], scale[0]


def gptq_many(
    weights: Sequence[Tensor],
    hessians: Sequence[Tensor | HessianFactor],
    bits: int,
    clip_sigmas: float,
) -> list[tuple[Tensor, Tensor]]:
    """`gptq` of many matrices of one shape in one sweep; the result for each, in order."""
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
                told = errors[:, left - start : right - start]
                pending[:, right:end].baddbmm_(pull, told, alpha=-1)
        if end < columns:
            pull = upper[:, start:end, end:].transpose(1, 2)
            pending[:, end:].baddbmm_(pull, errors, alpha=-1)
    back = factor.order.argsort(dim=1)[:, :, None].expand_as(rounded)
    return rounded.gather(1, back).transpose(1, 2).contiguous(), scale


class SumsOverRanks(Protocol):
    def sum(self, value: Tensor) -> Tensor:
        """The total over all ranks, on every rank."""
        ...


@torch.no_grad()
def collect_hessians(
    model: nn.Module,
    batches: Iterable[Tensor],
    forward: Callable[[nn.Module, Tensor], Any] | None = None,
    ranks: SumsOverRanks | None = None,
) -> dict[str, Tensor]:
    """X^T X of the inputs of every linear layer, per batch, under the name of its weight.

    batches  token ids (B, T), moved to the model's device
    forward  how the model is run on one batch; `model(tokens)` when None
    ranks    sums Hessians and counts over processes that saw different batches
    returns  float32 (C, C) each. A layer that runs several times per pass counts each time; one
             that never ran has no entry. A model without a `head` of its own gets the entry
             "embed.weight" from the output of its `final_norm`, which is what the tied head reads.
    """
    layers = {f"{name}.weight": m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    totals: dict[str, Tensor] = {}
    last: tuple[Tensor, int, Tensor] | None = None  # an input, its version, its product

    def add(name: str, x: Tensor) -> None:
        nonlocal last
        # Query, key and value read one tensor: its product is computed once.
        version = -1 if x.is_inference() else x._version
        if last is None or last[0] is not x or last[1] != version or version < 0:
            rows = x.detach().flatten(0, -2).float()
            last = x, version, rows.T @ rows
        total = totals.get(name)
        totals[name] = last[2].clone() if total is None else total.add_(last[2])

    def read_input(name: str) -> Callable[..., None]:
        return lambda module, args: add(name, args[0])

    handles = [m.register_forward_pre_hook(read_input(name)) for name, m in layers.items()]
    norm = getattr(model, "final_norm", None)
    if isinstance(norm, nn.Module) and getattr(model, "head", None) is None:
        handles.append(
            norm.register_forward_hook(lambda *arguments: add("embed.weight", arguments[-1]))
        )
    device = next(model.parameters()).device
    was_training, num_batches = model.training, 0
    model.eval()
    try:
        for tokens in batches:
            tokens = tokens.to(device)
            model(tokens) if forward is None else forward(model, tokens)
            num_batches += 1
    finally:
        for handle in handles:
            handle.remove()
        model.train(was_training)
    count = torch.tensor([float(num_batches)], device=device)
    if ranks is not None:
        count = ranks.sum(count)
        totals = {name: ranks.sum(total) for name, total in totals.items()}
    if count.item() == 0:
        raise ValueError("no calibration batch was given; GPTQ needs at least one")
    return {name: total / count.item() for name, total in totals.items()}
