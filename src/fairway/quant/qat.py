"""Rounding during training: the forward pass sees rounded weights, the gradient passes through.

Attached to a finished model from outside, so no layer knows of it. A flag read inside `forward`
would be folded into the compiled graph and never noticed again (that is how late QAT was dead code
in #315); a parametrization changes the module's type, which `torch.compile` guards on.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fairway.quant.grid import (
    dequantize_rows,
    quantize_rows,
    quantize_rows_percentile,
)
from fairway.quant.rules import (
    Gptq,
    KeepFloat,
    KeepHalf,
    PercentileRows,
    QuantConfig,
    RoundRows,
    Scheme,
    SearchRows,
    scheme_for,
)


class FakeRound(nn.Module):
    """weight -> the weight as it would be read back, with the identity's gradient."""

    def __init__(self, scheme: Scheme) -> None:
        super().__init__()
        self.scheme = scheme

    def forward(self, weight: Tensor) -> Tensor:
        with torch.no_grad():
            rows = weight.reshape(-1, weight.size(-1))
            rounding = (dequantize_rows(*_round(rows, self.scheme)) - rows).reshape(weight.shape)
        return weight + rounding


def _round(rows: Tensor, scheme: Scheme) -> tuple[Tensor, Tensor]:
    match scheme:
        # Errors mended by GPTQ after training are, for training, rounding on the same grid.
        case Gptq(bits, clip_sigmas) | RoundRows(bits, clip_sigmas):
            return quantize_rows(rows, bits, clip_sigmas)
        # As in #414: while training, the grid of the largest entry stands for the searched one.
        case SearchRows(bits, min_scale) | PercentileRows(bits, min_scale):
            return quantize_rows_percentile(rows, bits, 1.0, min_scale)
        case _:
            raise AssertionError(f"{scheme} does not round")


def attach(model: nn.Module, config: QuantConfig) -> list[str]:
    """Round the weights of `model` in every forward pass from now on; returns their names.

    The parameters stay the same objects, so optimizers keep working, but their names gain a
    "parametrizations" until `detach`; `plain_name` gives the old one back.
    """
    attached = []
    for name, parameter in list(model.named_parameters()):
        scheme = scheme_for(plain_name(name), parameter, config)
        if isinstance(scheme, KeepHalf | KeepFloat):
            continue
        path, _, leaf = name.rpartition(".")
        module = model.get_submodule(path)
        if "parametrizations" in name:
            raise ValueError(
                f"{plain_name(name)!r} is rounded already; call `detach` before `attach`"
            )
        parametrize.register_parametrization(module, leaf, FakeRound(scheme))
        attached.append(name)
    if not attached:
        raise ValueError(
            "no parameter is rounded by these rules; compare their patterns with the names in "
            "`model.state_dict()` and min_elements with the sizes"
        )
    return attached


def detach(model: nn.Module) -> None:
    """Take every rounding off again; the weights are those the optimizer holds, unrounded."""
    for module in list(model.modules()):
        if not parametrize.is_parametrized(module):
            continue
        by_name = cast(dict[str, Any], module.parametrizations)
        for leaf in [n for n, p in by_name.items() if any(isinstance(f, FakeRound) for f in p)]:
            parametrize.remove_parametrizations(module, leaf, leave_parametrized=False)


def plain_name(name: str) -> str:
    """The name a parameter has when no rounding is attached.

    >>> plain_name("blocks.0.mlp.up.parametrizations.weight.original")
    'blocks.0.mlp.up.weight'
    """
    return name.replace("parametrizations.", "").removesuffix(".original")
