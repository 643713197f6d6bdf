"""Hessians of linear layers: collected from any model by hooks, factored for rounding with them."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

DAMPING = 0.01  # of the mean diagonal, added to the diagonal


class HessianFactor(NamedTuple):
    """What rounding needs to know of a Hessian; the same for every grid, so computed once.

    order  (C,) int64: columns by falling diagonal
    alive  (C,) bool, in that order: False where the input channel was always zero
    upper  (C, C) float32: upper Cholesky factor of the inverse Hessian, in that order
    """

    order: Tensor
    alive: Tensor
    upper: Tensor

    def to(self, device: torch.device) -> "HessianFactor":
        return HessianFactor(*(field.to(device) for field in self))


Hessian = Tensor | HessianFactor  # (C, C) float, or its factor


class Calibration(NamedTuple):
    """What the layers of a model read on calibration text, by the name of their weight.

    hessians   (C, C) float32 each: X^T X per batch
    input_rms  (C,) float32 each: root mean square of every input
    """

    hessians: dict[str, Tensor]
    input_rms: dict[str, Tensor]

    def only(self, names: Collection[str]) -> "Calibration":
        """That of some weights."""
        return Calibration(*({n: t for n, t in part.items() if n in names} for part in self))


def factor_hessian(hessian: Tensor, damping: float = DAMPING) -> HessianFactor:
    """The factor of a Hessian (C, C).

    Raises ValueError when it is not finite, or too far from positive definite.
    """
    hessian = hessian.float().clone()
    diagonal = hessian.diagonal()  # a view: writing to it writes to the Hessian
    if not bool(torch.isfinite(diagonal).all()):
        raise ValueError("a Hessian holds NaN or infinity; the model's activations overflow")
    dead = diagonal == 0
    diagonal.masked_fill_(dead, 1.0)
    diagonal.add_(damping * diagonal.mean())
    order = diagonal.argsort(descending=True)
    lower, failed = torch.linalg.cholesky_ex(hessian[order][:, order])
    inverse = torch.cholesky_inverse(lower)
    upper, failed_again = torch.linalg.cholesky_ex(inverse, upper=True)
    if bool(failed + failed_again):
        raise ValueError(
            f"a Hessian of width {len(order)} is not positive definite at damping {damping}; "
            f"collect it from more calibration batches, or raise the damping"
        )
    return HessianFactor(order, ~dead[order], upper)


def factor_hessians(hessians: Mapping[str, Tensor]) -> dict[str, Hessian]:
    """Hessians made ready for many calls of `quantize`, as when a size is searched for.

    Layers that read the same input have equal Hessians; each is factored once.
    """
    factors: dict[str, Hessian] = {}
    for name, hessian in hessians.items():
        twin = next((n for n in factors if torch.equal(hessians[n], hessian)), None)
        factors[name] = factor_hessian(hessian) if twin is None else factors[twin]
    return factors


class SumsOverRanks(Protocol):
    def sum(self, value: Tensor) -> Tensor:
        """The total over all ranks, on every rank."""
        ...


def collect_hessians(
    model: nn.Module,
    batches: Iterable[Tensor],
    forward: Callable[[nn.Module, Tensor], object] | None = None,
    ranks: SumsOverRanks | None = None,
) -> dict[str, Tensor]:
    """The Hessians of `collect_calibration` alone."""
    return collect_calibration(model, batches, forward, ranks).hessians


@torch.no_grad()
def collect_calibration(
    model: nn.Module,
    batches: Iterable[Tensor],
    forward: Callable[[nn.Module, Tensor], object] | None = None,
    ranks: SumsOverRanks | None = None,
) -> Calibration:
    """What every linear layer reads: X^T X of its inputs per batch, and their root mean square.

    batches  token ids (B, T), moved to the model's device
    forward  how the model is run on one batch; `model(tokens)` when None
    ranks    sums Hessians and counts over processes that saw different batches
    returns  by the name of its weight. A layer that runs several times per pass counts each time;
             one that never ran has no entry. A model without a `head` of its own gets the entry
             "embed.weight" from the output of its `final_norm`, which is what the tied head reads.
    """
    layers = {f"{name}.weight": m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    totals: dict[str, Tensor] = {}
    inputs: dict[str, int] = defaultdict(int)  # how many rows each total is the sum of
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
        inputs[name] += x.numel() // x.size(-1)

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
    count = torch.tensor([float(num_batches), *map(float, inputs.values())], device=device)
    if ranks is not None:
        count = ranks.sum(count.double())
        totals = {name: ranks.sum(total) for name, total in totals.items()}
    num_batches, *num_inputs = count.tolist()
    if num_batches == 0:
        raise ValueError("no calibration batch was given; GPTQ needs at least one")
    rms = {
        name: (totals[name].diagonal() / number).sqrt()
        for name, number in zip(inputs, num_inputs, strict=True)
    }
    return Calibration({name: total / num_batches for name, total in totals.items()}, rms)
