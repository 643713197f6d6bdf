"""Noticing, at the right step and without stalling a GPU, that training has diverged.

A loss that is read is a GPU that waits. So loss and gradient norms are copied to the host in the
background and looked at when they have arrived, one or two steps later; the error names the step
they belong to all the same. On a CPU there is nothing to wait for and every step is looked at.
"""

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor


class TrainingDiverged(ValueError):
    """A loss or a gradient is not a finite number.

    step    the step it happened in, counted from 1
    tensor  name of the first parameter concerned, or None when only the loss is
    """

    def __init__(self, step: int, tensor: str | None, message: str) -> None:
        super().__init__(message)
        self.step, self.tensor = step, tensor


class Arrived(NamedTuple):
    """The newest step whose loss is known on the host."""

    step: int
    loss: float


class _Record(NamedTuple):
    step: int
    rate: float
    values: Tensor  # (1 + P,) loss, then the norm of each gradient
    arrived: torch.cuda.Event | None


def to_host(values: Tensor) -> tuple[Tensor, torch.cuda.Event]:
    """A copy of what is on a GPU, whole once the event has happened."""
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    host.copy_(values, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()
    return host, arrived


class DivergenceWatch:
    """Looks at the loss and the gradient norms (P,) of `parameters`, in their order.

    arrived  the last of them; on a CPU always the last step
    """

    def __init__(self, parameters: Mapping[str, Tensor], device: torch.device) -> None:
        self.parameters, self.device = parameters, device
        self.records: deque[_Record] = deque()
        self.arrived: Arrived | None = None

    def check(self, step: int, loss: Tensor, norms: Tensor, *, rate: float) -> None:
        """Take note of a step; on a CPU also judge it, before the weights are touched."""
        values = torch.cat([loss.detach().reshape(1).float(), norms.float()])
        if self.device.type == "cpu":
            self._judge(_Record(step, rate, values, None))
        else:
            self.records.append(_Record(step, rate, *to_host(values)))

    def settle(self, *, in_flight: int) -> None:
        """Wait until at most `in_flight` noted steps are unfinished, judging the others."""
        while len(self.records) > in_flight:
            record = self.records.popleft()
            assert record.arrived is not None
            record.arrived.synchronize()
            self._judge(record)

    def _judge(self, record: _Record) -> None:
        finite = record.values.isfinite()
        if finite.all():
            self.arrived = Arrived(record.step, record.values[0].item())
            return
        raise TrainingDiverged(record.step, *self._told(record, finite))

    def _told(self, record: _Record, finite: Tensor) -> tuple[str | None, str]:
        """The first tensor that is not finite, and the message."""
        # On a GPU the weights have been stepped since and prove nothing. They were finite before:
        # the step before this one was judged too.
        weights = self.parameters.items() if record.arrived is None else ()
        name = next((name for name, weight in weights if not weight.isfinite().all()), None)
        where = f"the weight {name}"
        if name is None and not finite[1:].all():
            name = list(self.parameters)[int((~finite[1:]).nonzero()[0])]
            where = f"the gradient of {name}"
        if name is None:
            where = "none of the weights and gradients, only the loss"
        return name, (
            f"training diverged in step {record.step}: the loss is {record.values[0].item():.6g}, "
            f"and the first tensor that is not finite is {where}. The learning rates stood at "
            f"{record.rate:.3g} of their peaks: lower them (optimizer.muon.lr first), lower "
            f"grad_clip, or train in float32."
        )
