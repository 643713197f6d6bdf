"""Rounding during training: the forward pass sees rounded weights, the gradient passes through.

Attached to a finished model from outside, so no layer knows of it. A flag read inside `forward`
would be folded into the compiled graph and never noticed again (that is how late QAT was dead code
in #315); a parametrization changes the module's type, which `torch.compile` guards on.
"""

from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fairway.quant.quantized import top_code
from fairway.quant.rules import QuantConfig, scheme_for
from fairway.train.loop import Milestone
from fairway.train.schedule import When


class FakeRounding(Protocol):
    def fake_round(self, rows: Tensor) -> Tensor:
        """Rows (R, C) as training sees them, float32."""
        ...


@dataclass(frozen=True, kw_only=True)
class LinearRounding:
    """The late rounding of #414: every linear layer whatever its size, no embedding.

    A row's grid ends at its largest entry, in float32 steps that are never narrower than the
    published 1 / top_code(bits): a row within -1..1 sees the same grid as any other.
    """

    bits: int = 6  # bits of a code

    def __post_init__(self) -> None:
        top_code(self.bits)  # refuses a width that it does not know

    def fake_round(self, rows: Tensor) -> Tensor:
        top = top_code(self.bits)
        step = (rows.float().abs().amax(dim=1, keepdim=True) / top).clamp_min(1.0 / top)
        return (rows.float() / step).round() * step


class FakeRound(nn.Module):
    """weight -> the weight as it would be read back, with the identity's gradient."""

    def __init__(self, rounding: FakeRounding) -> None:
        super().__init__()
        self.rounding = rounding

    def forward(self, weight: Tensor) -> Tensor:
        with torch.no_grad():
            rows = weight.reshape(-1, weight.size(-1))
            change = (self.rounding.fake_round(rows) - rows).reshape(weight.shape)
        return weight + change


def attach(model: nn.Module, config: QuantConfig | LinearRounding) -> list[str]:
    """Round the weights of `model` in every forward pass from now on; returns their names.

    config  the rules of packing, so that training sees what will ship, or a rounding of its own

    The parameters stay the same objects, so optimizers keep working, but their names gain a
    "parametrizations" until `detach`; `plain_name` gives the old one back.
    """
    attached = []
    for name, parameter in list(model.named_parameters()):
        path, _, leaf = name.rpartition(".")
        module = model.get_submodule(path)
        rounding = _rounding_of(plain_name(name), parameter, module, config)
        if rounding is None:
            continue
        if "parametrizations" in name:
            raise ValueError(
                f"{plain_name(name)!r} is rounded already; call `detach` before `attach`"
            )
        parametrize.register_parametrization(module, leaf, FakeRound(rounding))
        attached.append(name)
    if not attached:
        raise ValueError(
            "no parameter is rounded by these rules; compare their patterns with the names in "
            "`model.state_dict()` and min_elements with the sizes"
        )
    return attached


def late_rounding(when: When | None, config: QuantConfig | LinearRounding) -> list[Milestone]:
    """What makes training see rounded weights from `when` on (#414); None: nothing does."""

    def round_from_here(model: nn.Module) -> None:
        attach(model, config)

    return [] if when is None else [Milestone("rounding", when, round_from_here)]


def _rounding_of(
    name: str, parameter: Tensor, module: nn.Module, config: QuantConfig | LinearRounding
) -> FakeRounding | None:
    if isinstance(config, LinearRounding):
        rounded_already = isinstance(module, parametrize.ParametrizationList)
        linear = isinstance(module, nn.Linear) and name.endswith("weight")
        return config if linear or rounded_already else None
    scheme = scheme_for(name, parameter, config)
    return scheme if scheme.rounds else None


def detach(model: nn.Module) -> None:
    """Take every rounding off again; the weights are those the optimizer holds, unrounded."""
    for module in list(model.modules()):
        if not parametrize.is_parametrized(module):
            continue
        by_name = cast(dict[str, parametrize.ParametrizationList], module.parametrizations)
        for leaf in [n for n, p in by_name.items() if any(isinstance(f, FakeRound) for f in p)]:
            parametrize.remove_parametrizations(module, leaf, leave_parametrized=False)


def plain_name(name: str) -> str:
    """The name a parameter has when no rounding is attached.

    >>> plain_name("blocks.0.mlp.up.parametrizations.weight.original")
    'blocks.0.mlp.up.weight'
    """
    return name.replace("parametrizations.", "").removesuffix(".original")
