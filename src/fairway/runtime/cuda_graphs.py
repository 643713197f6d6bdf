"""A loss of one shape as CUDA graphs: recorded once, then launched whole, forward and backward.

Small steps at test time keep a host busy with launches while the GPU waits for them. What is
computed is the same; the twin is the loss itself, which serves all other shapes and devices. No GPU
has confirmed what it saves.
"""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

Loss = Callable[[Tensor, Tensor], Tensor]


class _Recorded(nn.Module):
    """Parameters and loss together, as the recorder wants them."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model, self.loss = model, loss
        self.training = model.training  # a graph is replayed in the mode that it was recorded in

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        return self.loss(tokens, targets)


def graphed_loss(model: nn.Module, loss: Loss, rows: int, context: int, vocab_size: int) -> Loss:
    """`loss` for (rows, context) tokens, recorded on random ones; on other devices as it is.

    Whatever it depends on beside tokens and weights (number types, loops, kernels) stays as it is
    now. Weights may change in place alone. No gradient is left behind.
    """
    device = next(model.parameters()).device
    if device.type != "cuda":
        return loss
    generator = torch.Generator().manual_seed(0)  # the run's own numbers stay as they are
    tokens = torch.randint(vocab_size, (rows, context), generator=generator).to(device)
    recorded = torch.cuda.make_graphed_callables(
        _Recorded(model, loss), (tokens, tokens.clone()), allow_unused_input=True
    )
    return cast(Loss, recorded)
