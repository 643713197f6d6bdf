"""Rounding during training: the forward pass sees rounded weights, the gradient passes through.

Attached to a finished model from outside, so no layer knows of it. A flag read inside `forward`
would be folded into the compiled graph and never noticed again (that is how late QAT was dead code
in #315); a parametrization changes the module's type, which `torch.compile` guards on.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fairway.quant.rules import QuantConfig, scheme_for
from fairway.quant.schemes import Scheme
from fairway.train.loop import Milestone
from fairway.train.schedule import When


class FakeRound(nn.Module):
    """weight -> the weight as it would be read back, with the identity's gradient."""

    def __init__(self, scheme: Scheme) -> None:
        super().__init__()
        self.scheme = scheme

    def forward(self, weight: Tensor) -> Tensor:
        with torch.no_grad():
            rows = weight.reshape(-1, weight.size(-1))
            rounding = (self.scheme.fake_round(rows) - rows).reshape(weight.shape)
        return weight + rounding


def attach(model: nn.Module, config: QuantConfig) -> list[str]:
    """Round the weights of `model` in every forward pass from now on; returns their names.

    The parameters stay the same objects, so optimizers keep working, but their names gain a
    "parametrizations" until `detach`; `plain_name` gives the old one back.
    """
    attached = []
    for name, parameter in list(model.named_parameters()):
        scheme = scheme_for(plain_name(name), parameter, config)
        if not scheme.rounds:
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


def late_rounding(when: When | None, config: QuantConfig) -> list[Milestone]:
    """What makes training see rounded weights from `when` on (#414); None: nothing does."""

    def round_from_here(model: nn.Module) -> None:
        attach(model, config)

    return [] if when is None else [Milestone("rounding", when, round_from_here)]


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
