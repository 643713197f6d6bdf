"""The part of a block that looks at one position at a time: up, bend, down."""

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from fairway.model.linear import Linear
from fairway.runtime.kernels import leaky_relu_squared
from fairway.runtime.limits import require_within


@dataclass(frozen=True, kw_only=True)
class MlpConfig:
    ratio: float = 4.0  # width of the hidden layer as a multiple of the model's
    # between the two matrices; swiglu has a third one
    activation: Literal["leaky_relu_squared", "swiglu"] = "leaky_relu_squared"
    slope: float = 0.0  # slope of the leaky ReLU below zero; 0 is the squared ReLU

    def __post_init__(self) -> None:
        require_within(self, ratio=(1 / 64, 64), slope=(-10, 10))


class MLP(nn.Module):
    def __init__(self, model_dim: int, config: MlpConfig) -> None:
        super().__init__()
        hidden = int(config.ratio * model_dim)
        self.slope = config.slope
        self.up = Linear(model_dim, hidden)
        self.gate = Linear(model_dim, hidden) if config.activation == "swiglu" else None
        self.down = Linear(hidden, model_dim)

    def forward(self, x: Tensor, output_scale: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D), each channel of the output times `output_scale` (D,)."""
        hidden = self.up(x)
        if self.gate is None:
            hidden = leaky_relu_squared(hidden, self.slope)
        else:
            hidden = hidden * F.silu(self.gate(x))
        return self.down(hidden, output_scale)
