"""Weights averaged over the steps of a run: calmer than the last ones, and better once rounded.

Either every step with exponentially fading weight (EMA; #287, #401) or a plain mean of every so
many steps near the end (SWA; #162, only while the learning rate is low: #374). The caller passes
each step of the training loop to `update`; nothing here knows how steps are made.
"""

# torch names its foreach functions as if they were private.
# pyright: reportPrivateImportUsage=false

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from fairway.train.loop import Step


@dataclass(frozen=True, kw_only=True)
class EmaConfig:
    """Exponential moving average over every step."""

    decay: float = 0.9965  # share of the average that each step keeps
    # Begin with decay (1 + n) / (10 + n) after n updates while that is less: a short run then does
    # not average in its first, random weights. The records, thousands of steps long, do without.
    warm_start: bool = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.decay < 1.0:
            raise ValueError(f"EmaConfig.decay={self.decay}; must lie in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class SwaConfig:
    """Mean of every `every`-th step at which the learning rate is low."""

    every: int = 50  # number of steps from one that counts to the next
    lr_scale_below: float = 0.2  # only while the learning rate is below this share of its peak

    def __post_init__(self) -> None:
        if self.every < 1 or not self.lr_scale_below > 0.0:
            raise ValueError(f"{self}: every must be at least 1 and lr_scale_below positive")


class Average(Protocol):
    """Weights that follow those of a model in training."""

    def update(self, step: Step) -> None:
        """Take note of the model as it is after `step`."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged weights: the model's own names, float32 where they are floats."""
        ...

    def checkpoint(self) -> dict[str, Tensor]:
        """What `restore` needs to go on with the average of a stopped run."""
        ...

    def restore(self, tensors: Mapping[str, Tensor]) -> None: ...


def build_average(model: nn.Module, config: EmaConfig | SwaConfig | None) -> Average:
    """The average a recipe asks for; None is the last weights, unaveraged."""
    if config is None:
        return LastWeights(model)
    if isinstance(config, EmaConfig):
        return Ema(model, config.decay, warm_start=config.warm_start)
    return Swa(model, config.every, lr_scale_below=config.lr_scale_below)


class LastWeights:
    """No average: the weights as training left them."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def update(self, step: Step) -> None:
        pass

    def state_dict(self) -> dict[str, Tensor]:
        return {name: _as_float32(tensor) for name, tensor in self.model.state_dict().items()}

    def checkpoint(self) -> dict[str, Tensor]:
        return {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        pass


class _Shadow:
    """A float32 copy of every floating tensor of a model's state, and how often it was updated."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.count = 0
        live = {
            name: tensor.detach()
            for name, tensor in model.state_dict(keep_vars=True).items()
            if tensor.is_floating_point()
        }
        # Tied weights have two names and one storage; averaging them twice would be one too many.
        first_names: dict[int, str] = {}
        self.first_name = {
            name: first_names.setdefault(tensor.data_ptr(), name) if tensor.numel() else name
            for name, tensor in live.items()
        }
        self.live = {name: live[name] for name in dict.fromkeys(self.first_name.values())}
        self.shadow = {name: tensor.float().clone() for name, tensor in self.live.items()}

    @torch.no_grad()
    def move(self, weight: float) -> None:
        """Move the shadow towards the live weights by `weight` of the way."""
        live = [tensor.float() for tensor in self.live.values()]
        torch._foreach_lerp_(list(self.shadow.values()), live, weight)
        self.count += 1

    @torch.no_grad()
    def fade(self, decay: float) -> None:
        """Keep `decay` of the shadow, the rest from the live weights; rounded as the scripts do."""
        live = [tensor.float() for tensor in self.live.values()]
        torch._foreach_mul_(list(self.shadow.values()), decay)
        torch._foreach_add_(list(self.shadow.values()), live, alpha=1.0 - decay)
        self.count += 1

    def state_dict(self) -> dict[str, Tensor]:
        state = {name: _as_float32(tensor) for name, tensor in self.model.state_dict().items()}
        state.update((name, self.shadow[first].clone()) for name, first in self.first_name.items())
        return state

    def checkpoint(self) -> dict[str, Tensor]:
        return {"count": torch.tensor(self.count), **self.shadow}

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        if tensors.keys() != {"count", *self.shadow}:
            odd = ", ".join(sorted(tensors.keys() ^ {"count", *self.shadow}))
            raise ValueError(f"saved average and model differ in {odd}; resume with its recipe")
        self.count = int(tensors["count"])
        for name, shadow in self.shadow.items():
            shadow.copy_(tensors[name])


class Ema(_Shadow):
    """shadow <- decay * shadow + (1 - decay) * weights, from the weights at construction on."""

    def __init__(self, model: nn.Module, decay: float, *, warm_start: bool = False) -> None:
        super().__init__(model)
        self.decay, self.warm_start = decay, warm_start

    def update(self, step: Step) -> None:
        decay = self.decay
        if self.warm_start:
            decay = min(decay, (1 + self.count) / (10 + self.count))
        self.fade(decay)


class Swa(_Shadow):
    """The mean over the steps that qualify; until one has, asking for it is an error."""

    def __init__(self, model: nn.Module, every: int, *, lr_scale_below: float) -> None:
        super().__init__(model)
        self.every, self.lr_scale_below = every, lr_scale_below

    def update(self, step: Step) -> None:
        if step.number % self.every == 0 and step.lr_scale < self.lr_scale_below:
            self.move(1.0 / (self.count + 1))

    def state_dict(self) -> dict[str, Tensor]:
        if self.count == 0:
            raise ValueError(
                f"no step was averaged: none that is a multiple of {self.every} had a learning "
                f"rate below {self.lr_scale_below} of its peak; lower `every`, raise "
                f"`lr_scale_below`, or let the warmdown go lower"
            )
        return super().state_dict()


def _as_float32(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    return tensor.float().clone() if tensor.is_floating_point() else tensor.clone()
