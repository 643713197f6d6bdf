"""Which optimizer steps which parameter: every one exactly once, or an error that names it.

A parameter without an optimizer stays at its first value and nobody notices (it cost the field
0.055 bits per byte once). So groups *claim* parameters by name and number of dimensions, and the
claims must not leave out or share any. How Muon steps is in `muon.py`, when and by how much is
decided by the caller through `Optimizers.set`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal, cast

import torch
from torch import Tensor, nn

from fairway.runtime.distributed import Ranks
from fairway.runtime.tensor_file import under
from fairway.train.muon import (
    DividedOptimizer,
    MatrixOptimizer,
    MatrixOptimizerConfig,
    MuonConfig,
)

Group = Literal["matrices", "embed", "head", "scalars"]
ADAMW_GROUPS: tuple[Group, ...] = ("embed", "head", "scalars")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A group claims the parameters whose name fits a pattern and whose dimensions fit."""

    group: Group  # settings that step these parameters
    names: tuple[str, ...]  # shell patterns; `*` also spans dots
    but_not: tuple[str, ...] = ()  # patterns of names that it leaves to others
    num_dims: tuple[int, ...]  # numbers of dimensions that fit: 2 for a matrix

    def holds(self, name: str, parameter: Tensor) -> bool:
        return (
            parameter.ndim in self.num_dims
            and any(fnmatchcase(name, pattern) for pattern in self.names)
            and not any(fnmatchcase(name, pattern) for pattern in self.but_not)
        )


# A module's `weight` maps vectors to vectors. A bare two-dimensional parameter (gates per head,
# mixes, skip weights) is a handful of vectors, for which orthogonality means nothing.
CLAIMS: tuple[Claim, ...] = (
    Claim(
        group="matrices",
        names=(
            *("blocks.*.weight", "embed_up.weight", "head_down.weight"),
            *("*.project.weight", "extra_heads.*.weight"),
        ),
        num_dims=(2,),
    ),
    Claim(group="embed", names=("embed.weight", "*.table.weight"), num_dims=(2,)),
    Claim(group="head", names=("head.weight",), num_dims=(2,)),
    Claim(group="scalars", names=("*",), but_not=("*.weight",), num_dims=(2, 3)),
    Claim(group="scalars", names=("*",), num_dims=(0, 1)),
)


@dataclass(frozen=True, kw_only=True)
class AdamWGroup:
    lr: float  # peak learning rate, which the schedule scales
    weight_decay: float = 0.0  # decoupled: each step shrinks the weights by lr * weight_decay

    def __post_init__(self) -> None:
        if self.lr < 0 or self.weight_decay < 0:
            raise ValueError(f"{self}: neither may be negative")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Muon, or another optimizer, for matrices and AdamW for the rest; defaults are #1493's."""

    muon: MuonConfig | MatrixOptimizerConfig = field(default_factory=MuonConfig)
    embed: AdamWGroup = field(default_factory=lambda: AdamWGroup(lr=0.03, weight_decay=0.085))
    head: AdamWGroup = field(default_factory=lambda: AdamWGroup(lr=0.008))
    scalars: AdamWGroup = field(default_factory=lambda: AdamWGroup(lr=0.02, weight_decay=0.02))
    betas: tuple[float, float] = (0.9, 0.95)  # AdamW's, of every group
    eps: float = 1e-8  # AdamW's, of every group
    claims: tuple[Claim, ...] = CLAIMS

    def __post_init__(self) -> None:
        if not all(0.0 <= beta < 1.0 for beta in self.betas) or self.eps <= 0:
            raise ValueError(
                f"betas={self.betas} must lie in [0, 1) and eps={self.eps} be positive"
            )


def group_parameters(
    model: nn.Module, claims: tuple[Claim, ...] = CLAIMS
) -> dict[Group, dict[str, nn.Parameter]]:
    """Every parameter that learns, by group and name; ValueError unless claimed by one group."""
    groups: dict[Group, dict[str, nn.Parameter]] = {"matrices": {}}
    groups.update((group, {}) for group in ADAMW_GROUPS)
    problems = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        claimants: set[Group] = {claim.group for claim in claims if claim.holds(name, parameter)}
        if len(claimants) == 1:
            groups[claimants.pop()][name] = parameter
        else:
            owners = " and ".join(sorted(claimants)) or "no group"
            problems.append(f"{name} {tuple(parameter.shape)} belongs to {owners}")
    if problems:
        raise ValueError(
            f"{'; '.join(problems)}. Every parameter needs exactly one optimizer: add to or narrow "
            f"a pattern in OptimizerConfig.claims, or freeze the parameter with "
            f"requires_grad_(False)."
        )
    return groups


class Optimizers:
    """That of the matrices and AdamW as one; build it with `build_optimizers`.

    owners  the rank that needs a parameter's gradient, where only one does
    """

    def __init__(
        self,
        config: OptimizerConfig,
        matrix_optimizer: MatrixOptimizer,
        adamw_groups: Mapping[Group, Mapping[str, Tensor]],
    ) -> None:
        self.matrix_optimizer = matrix_optimizer
        self.owners: Mapping[str, int] = getattr(matrix_optimizer, "owners", {})
        self.adamw_parameters = {
            name: parameter for group in adamw_groups.values() for name, parameter in group.items()
        }
        groups = [
            {"params": list(parameters.values()), "peak": getattr(config, group)}
            for group, parameters in adamw_groups.items()
            if parameters
        ]
        self.adamw = None
        if groups:
            self.adamw = torch.optim.AdamW(groups, betas=config.betas, eps=config.eps, fused=True)
        self.set()

    @property
    def parameters(self) -> dict[str, Tensor]:
        """All that are stepped, by name."""
        return {**self.matrix_optimizer.parameters, **self.adamw_parameters}

    def set(
        self, *, lr_scale: float = 1.0, momentum: float | None = None, decay_scale: float = 1.0
    ) -> None:
        """Scale every learning rate and decay from its peak; `momentum` is that of the matrices."""
        self.matrix_optimizer.set(lr_scale=lr_scale, momentum=momentum, decay_scale=decay_scale)
        if self.adamw is not None:
            for group in self.adamw.param_groups:
                group["lr"] = lr_scale * group["peak"].lr
                group["weight_decay"] = decay_scale * group["peak"].weight_decay

    def step(self) -> None:
        if self.owners:
            cast(DividedOptimizer, self.matrix_optimizer).step(beside=self._step_adamw)
        else:
            self.matrix_optimizer.step()
            self._step_adamw()

    def _step_adamw(self) -> None:
        if self.adamw is not None:
            self.adamw.step()

    def zero_grad(self) -> None:
        for parameter in self.parameters.values():
            parameter.grad = None

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors only, named `adamw.PARAMETER.QUANTITY`, and `muon.` before those of the matrices.

        Learning rates, momentum and decays are not state: `set` gives them before every step.
        """
        matrices = self.matrix_optimizer.state_dict()
        state = {f"muon.{name}": tensor for name, tensor in matrices.items()}
        if self.adamw is not None:
            for name, parameter in self.adamw_parameters.items():
                for quantity, tensor in self.adamw.state[parameter].items():
                    state[f"adamw.{name}.{quantity}"] = tensor
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state_dict` of optimizers of the same model."""
        saved: dict[str, dict[str, Tensor]] = {}
        for key, tensor in under("adamw.", state).items():
            name, quantity = key.rsplit(".", 1)
            saved.setdefault(name, {})[quantity] = tensor
        if unknown := sorted(saved.keys() - self.adamw_parameters.keys()):
            raise ValueError(
                f"saved AdamW state of {', '.join(unknown)}, which AdamW does not step"
            )
        if saved and (missing := sorted(self.adamw_parameters.keys() - saved.keys())):
            raise ValueError(f"no saved AdamW state of {', '.join(missing)}")
        self.matrix_optimizer.load_state_dict(under("muon.", state))
        if self.adamw is not None:
            self.adamw.state.clear()  # before the first step there is none, and so it stays
            for name, quantities in saved.items():
                parameter = self.adamw_parameters[name]
                self.adamw.state[parameter] = {
                    quantity: tensor.to(parameter.device, copy=True)
                    for quantity, tensor in quantities.items()
                }


def build_optimizers(
    model: nn.Module,
    config: OptimizerConfig,
    *,
    muon_dtype: torch.dtype = torch.bfloat16,
    ranks: Ranks | None = None,
) -> Optimizers:
    """Optimizers for every parameter of `model` that learns.

    muon_dtype  in which Muon orthogonalizes; pass what `choose_compute_dtype` found to be fast
    """
    groups = group_parameters(model, config.claims)
    matrix_optimizer = config.muon.build(
        groups["matrices"], dtype=muon_dtype, ranks=ranks or Ranks()
    )
    return Optimizers(config, matrix_optimizer, {group: groups[group] for group in ADAMW_GROUPS})
