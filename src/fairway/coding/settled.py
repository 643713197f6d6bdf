"""Logits to integer slices by integers alone: what settled arithmetic codes with.

A logit becomes a whole number of steps, 256 to each factor of two. From there on everything is
integers, and sums of integers are the same in any order: powers of two come from one table, and
dividing by their sum is one division of integers for a whole distribution. How logits are rounded
alike on every machine is in `evaluate/ledger.py`.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fairway.coding.symbols import STEPS, UNIT_BITS, exp2_units

STEPS_PER_OCTAVE = 256  # rounding to them costs about 3e-7 nats per token
ONE = 1 << UNIT_BITS
LOWEST = 31 * STEPS_PER_OCTAVE  # at which no unit is left but the one that every symbol gets
SHIFT = 32
_FINER = np.int32(STEPS // STEPS_PER_OCTAVE)
UNITS = torch.from_numpy(exp2_units(np.arange(-LOWEST, 1, dtype=np.int32) * _FINER))


class Slices(NamedTuple):
    """Of n symbols: [start, start + size) of [0, total), each (n,) int64."""

    start: Tensor
    size: Tensor
    total: Tensor

    def nats(self) -> Tensor:
        """(n,) float64: what each symbol costs, as the coder counts it."""
        return (self.total.double() / self.size.double()).log()


def settled_ends(steps: Tensor) -> Tensor:
    """Where the slice of each symbol ends and the next begins; none is empty.

    steps    (n, V) float64 whole numbers: logits in steps; overwritten
    returns  (n, V) int64, rising to about 2**30 + V
    """
    below = steps.sub_(steps.amax(-1, keepdim=True)).clamp_(min=-float(LOWEST))
    place = below.add_(float(LOWEST)).int()
    units = UNITS.to(steps.device).index_select(0, place.flatten()).view_as(place)
    ends = running_sums(units)
    # At most 2**30 after that, since ends * (2**62 // ends) is at most 2**62.
    share = torch.div(1 << (UNIT_BITS + SHIFT), ends[:, -1:], rounding_mode="floor")
    ends.mul_(share).bitwise_right_shift_(SHIFT)
    return ends.add_(torch.arange(1, ends.size(1) + 1, device=ends.device))


def running_sums(units: Tensor) -> Tensor:
    """(n, V) int64 sums of whole numbers along each row, the last one included."""
    if units.device.type == "cpu":  # where NumPy's are four times as fast
        return torch.from_numpy(np.cumsum(units.numpy(), axis=-1, dtype=np.int64))
    return units.cumsum(-1, dtype=torch.long)


def log_probs_of(ends: Tensor) -> Tensor:
    """(n, V) float64: what the slices that end there (n, V) stand for."""
    sizes = ends.diff(dim=-1, prepend=ends.new_zeros(ends.size(0), 1))
    return (sizes.double() / ends[:, -1:].double()).log()


def slices_of(ends: Tensor, symbols: Tensor) -> Slices:
    """The slices of symbols (n,) among those that end at `ends` (n, V)."""
    stop = ends.gather(-1, symbols[:, None])[:, 0]
    before = ends.gather(-1, (symbols - 1).clamp_min(0)[:, None])[:, 0]
    start = before.where(symbols > 0, 0)
    return Slices(start, stop - start, ends[:, -1])
