"""Optimizers for learning at test time: steps at a rate given each time, plain tensors as state."""

from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from fairway.runtime.distributed import Ranks

Optimizer = Literal["sgd", "adamw", "muon"]

# Matrices that steer rather than transform: small, and never rounded by the quantizer.
CONTROLS = (
    "residual_mix",
    "skip_weights",
    "skip_gates",
    "attention.gate",
    "lane_carry",
    "lane_route",
)


def is_control(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim < 2 or name.endswith(CONTROLS)


def is_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Of a block, and orthogonalized where the optimizer is Muon."""
    return name.startswith("blocks.") and not is_control(name, parameter)


class StepSettings(Protocol):
    """What an optimizer reads of a learner's settings (`Sgd` says what each means)."""

    @property
    def optimizer(self) -> Optimizer: ...
    @property
    def lr(self) -> float: ...
    @property
    def momentum(self) -> float: ...
    @property
    def betas(self) -> tuple[float, float]: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def rates(self) -> tuple[tuple[str, float], ...]: ...


class Stepper(Protocol):
    """An optimizer as the loop sees it."""

    def step(self, lr: float) -> None: ...

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None: ...


def new_stepper(config: StepSettings, trained: Mapping[str, nn.Parameter], ranks: Ranks) -> Stepper:
    """The optimizer that `config` names, on weights by name."""
    if config.optimizer == "muon":
        return MuonStepper(trained, config, ranks)
    return TorchStepper(config.optimizer, trained, config)


class TorchStepper:
    """A `torch.optim` optimizer with one group for each rate."""

    def __init__(
        self, kind: Literal["sgd", "adamw"], named: Mapping[str, nn.Parameter], config: StepSettings
    ) -> None:
        by_rate: dict[float, list[nn.Parameter]] = {}
        for name, parameter in named.items():
            by_rate.setdefault(rate_of(name, config.rates), []).append(parameter)
        groups = [{"params": members, "rate": rate} for rate, members in by_rate.items()]
        decay = config.weight_decay
        self.named = dict(named)
        self.optimizer: torch.optim.Optimizer = (
            torch.optim.SGD(groups, lr=0.0, momentum=config.momentum, weight_decay=decay)
            if kind == "sgd"
            else torch.optim.AdamW(groups, lr=0.0, betas=config.betas, weight_decay=decay)
        )

    def step(self, lr: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["rate"]
        self.optimizer.step()

    def state_dict(self) -> dict[str, Tensor]:
        return {
            f"{name}/{key}": value
            for name, parameter in self.named.items()
            for key, value in self.optimizer.state[parameter].items()
            if isinstance(value, Tensor)
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.optimizer.state.clear()
        for path, value in state.items():
            name, _, key = path.rpartition("/")
            parameter = self.named[name]
            # AdamW counts its steps on the CPU, wherever the weights are.
            device = value.device if key == "step" else parameter.device
            self.optimizer.state[parameter][key] = value.to(device, copy=True)


class MuonStepper:
    """Muon on the blocks' matrices, SGD on everything else."""

    def __init__(
        self, named: Mapping[str, nn.Parameter], config: StepSettings, ranks: Ranks
    ) -> None:
        from fairway.train.muon import Muon, MuonConfig  # most evaluations never need it

        by_rate: dict[float, dict[str, nn.Parameter]] = {}
        rest = {}
        for name, parameter in named.items():
            if is_matrix(name, parameter):
                by_rate.setdefault(rate_of(name, config.rates), {})[name] = parameter
            else:
                rest[name] = parameter
        shape = MuonConfig(lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay)
        dtype = _dtype_of_products(named.values())
        self.muons = [
            (rate, Muon(matrices, shape, dtype=dtype, ranks=ranks))
            for rate, matrices in by_rate.items()
        ]
        self.rest = TorchStepper("sgd", rest, config) if rest else None

    def step(self, lr: float) -> None:
        for rate, muon in self.muons:
            muon.lr = lr * rate
            muon.step()
        if self.rest is not None:
            self.rest.step(lr)

    def state_dict(self) -> dict[str, Tensor]:
        state = {} if self.rest is None else self.rest.state_dict()
        for _, muon in self.muons:
            state |= {f"{name}/muon": value for name, value in muon.state_dict().items()}
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        saved = {
            key.removesuffix("/muon"): value
            for key, value in state.items()
            if key.endswith("/muon")
        }
        for _, muon in self.muons:
            muon.load_state_dict({name: saved[name] for name in muon.state_dict()})
        if self.rest is not None:
            rest = {key: value for key, value in state.items() if not key.endswith("/muon")}
            self.rest.load_state_dict(rest)


def _dtype_of_products(parameters: Collection[Tensor]) -> torch.dtype:
    """In which to orthogonalize: as fast as the device allows, unless the weights are float64."""
    if any(parameter.dtype == torch.float64 for parameter in parameters):
        return torch.float64
    on_cpu = all(parameter.device.type == "cpu" for parameter in parameters)
    return torch.float32 if on_cpu else torch.bfloat16


def rate_of(name: str, rates: Sequence[tuple[str, float]]) -> float:
    return next((rate for pattern, rate in rates if fnmatchcase(name, pattern)), 1.0)
