"""What is added to a value before it is rounded, so that rounding favours neither way.

Nearest rounding of what is learned has two faults. A momentum that decays from a point of the grid
is a fraction with a small denominator (0.729 k), which lies exactly between two points for one k in
a thousand; every one of them would be a tie. And steps smaller than half the grid's would be lost,
lesson after lesson. So each value is rounded beside an offset of its own, from a table that every
machine makes alike; what already lies on the grid stays there.
"""

import functools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

PERIOD = 1 << 16
_BITS = 20  # offsets are odd multiples of 2**-(_BITS + 1), before they are made less than a half
_WITHIN = 1.0 - 2.0**-9  # which leaves a point of the grid 2**-10 of a step away from any boundary


@functools.cache
def offsets(device: torch.device) -> Tensor:
    """(2 * PERIOD,) float64 in (-1/2, 1/2), the second half being the first again."""
    drawn = (_mixed(np.arange(PERIOD)) >> np.uint64(64 - _BITS)).astype(np.float64)
    spread = ((2 * drawn + 1) / 2 ** (_BITS + 1) - 0.5) * _WITHIN
    return torch.from_numpy(np.concatenate((spread, spread))).to(device)


def first_offset(number: int) -> int:
    """Where in the table the values begin of which `number` were settled before."""
    return int(_mixed(np.array([number]))[0]) % PERIOD


def _mixed(numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
    """SplitMix64 (Steele, Lea & Flood 2014) of whole numbers."""
    mixed = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
