"""A matrix in float32 that multiplies in whatever precision its input has.

Weights are kept in float32 for the optimizer and the quantizer; the activations' type decides the
arithmetic, so one model trains in bfloat16 and is scored in float32 without being converted. Only
settled arithmetic converts a copy, to float64 (`evaluate/settled.py`).
"""

from torch import Tensor, nn

from fairway.runtime.kernels import linear, scaled_cast


class Linear(nn.Linear):
    """y = (row_scale * W) x without bias.

    Scaling the rows of the (small) matrix equals scaling each output, and costs nothing beside
    multiplying the (large) activations.
    """

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__(in_dim, out_dim, bias=False)

    def forward(self, input: Tensor, row_scale: Tensor | None = None) -> Tensor:
        """(..., in_dim) -> (..., out_dim); row_scale (out_dim,) or None."""
        return linear(input, scaled_cast(self.weight, row_scale, input))
