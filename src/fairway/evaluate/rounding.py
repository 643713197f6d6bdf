"""Many numbers rounded to a grid at once, in place: plain, and the same in C++ (`settling.cpp`)."""

import ctypes
import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from fairway.coding.settled import LOWEST, ONE, SHIFT, STEPS_PER_OCTAVE, UNITS, settled_ends
from fairway.evaluate.dither import PERIOD, offsets
from fairway.runtime.native import library

NAME = "settling"
STEPS_PER_NAT = STEPS_PER_OCTAVE / math.log(2)
MOST_LOGIT = float(1 << 16)  # beyond it float64 is too coarse beside the margin
_ROUND = 1.5 * 2.0**52  # adding and taking away rounds to whole numbers, halves to even
_BLOCK = 1 << 17  # logits rounded at once, so that they stay in the processor's cache

Near = list[tuple[int, bool]]  # places next to a boundary, and whether each was rounded up


@dataclass(frozen=True, kw_only=True)
class Grid:
    """How one kind of values is rounded.

    dither       how much of an offset each value gets (`dither.py`)
    significant  bits that a value keeps, where that many are finer than the grid or coarser; None:
                 all lie on one grid
    least        exponent, in steps of the grid, below which values keep no more bits
    """

    dither: float = 0.25
    significant: int | None = None
    least: int = 0

    def finer(self, steps: Tensor) -> Tensor:
        """By how much each value's own steps are finer than the grid's."""
        if self.significant is None:
            return torch.ones_like(steps)
        bits = torch.frexp(steps).exponent.clamp_min_(self.least)
        return torch.ldexp(torch.ones_like(steps), self.significant - bits)


@dataclass(frozen=True)
class Rounding:
    """How one tensor is rounded.

    scale   steps of the grid to one, a power of two
    first   where in the table the offsets of its values begin
    margin  steps
    """

    grid: Grid
    scale: float
    first: int
    margin: float

    def exact(self, values: Tensor, begin: int | Tensor) -> tuple[Tensor, Tensor]:
        """Values (n,) in steps, each with its offset, and how many of these steps one is.

        begin  place of the first, or the place of each
        """
        table = offsets(values.device)
        if isinstance(begin, int):
            at = self.first + begin % PERIOD
            offset = table[at : at + len(values)]
        else:
            offset = table[self.first + begin % PERIOD]
        steps = values * self.scale  # exact, like the way back
        finer = self.grid.finer(steps)
        return (steps * finer).add_(offset, alpha=self.grid.dither), finer * self.scale


def round_values(flat: Tensor, how: Rounding) -> Near:
    """Round flat (n,) float64, in place."""
    functions = library(NAME, tuned=True)
    if functions is None or flat.device.type != "cpu" or not flat.is_contiguous():
        return round_values_plain(flat, how)
    significant = -1 if how.grid.significant is None else how.grid.significant
    functions.settle.restype = ctypes.c_int64
    number = functions.settle(
        ctypes.c_void_p(flat.data_ptr()),
        ctypes.c_int64(len(flat)),
        ctypes.c_double(how.scale),
        ctypes.c_void_p(offsets(flat.device).data_ptr()),
        *map(ctypes.c_int64, (PERIOD, how.first)),
        ctypes.c_double(how.grid.dither),
        *map(ctypes.c_int64, (significant, how.grid.least)),
        ctypes.c_double(how.margin),
    )
    if not flat.is_inference():
        increment_version(flat)  # behind PyTorch's back, and copies may be kept of what was there
    if not number:
        return []
    places, ups = torch.empty(number, dtype=torch.long), torch.empty(number, dtype=torch.int8)
    functions.settle_near(ctypes.c_void_p(places.data_ptr()), ctypes.c_void_p(ups.data_ptr()))
    return list(zip(places.tolist(), map(bool, ups.tolist()), strict=True))


def round_values_plain(flat: Tensor, how: Rounding) -> Near:
    found: Near = []
    for begin in range(0, len(flat), PERIOD):
        part = flat[begin : begin + PERIOD]
        exact, scale = how.exact(part, begin)
        steps = (exact + _ROUND).sub_(_ROUND)
        # Added to what is compared, not taken from the half: a margin may be less than its ulp.
        near = (exact - steps).abs_().add_(scale / how.scale * how.margin) > 0.5
        if bool(near.any()):
            places = near.nonzero()[:, 0]
            ups = (steps > exact)[places].tolist()
            found += [(begin + place, up) for place, up in zip(places.tolist(), ups, strict=True)]
        torch.div(steps, scale, out=part)
    return found


def round_logits(logits: Tensor) -> Tensor:
    """Logits (n, V) as whole numbers of steps."""
    steps = logits * STEPS_PER_NAT
    return steps.add_(_ROUND).sub_(_ROUND)


def check_range(steps: Tensor) -> None:
    """ValueError unless the largest steps (n, V) of each row are numbers the grid can take."""
    if not bool((steps.amax(-1).abs() < MOST_LOGIT * STEPS_PER_NAT).all()):
        raise ValueError(
            f"the model's logits are not finite, or beyond {MOST_LOGIT:,.0f}: settled arithmetic "
            "cannot round them; evaluate with arithmetic='native', or mend the model"
        )


def round_ends(logits: Tensor, margin: float) -> tuple[Tensor, list[int]]:
    """Where the slices of logits (n, V) end (`settled_ends`), (n, V) int64, and the rows that hold
    a logit within a margin of a boundary.

    margin  nats
    """
    functions = library(NAME, tuned=True)
    if functions is None or logits.device.type != "cpu":
        return _round_ends_plain(logits, margin)
    logits = logits.contiguous()
    rows, vocab = logits.shape
    ends, near = torch.empty(rows, vocab, dtype=torch.long), torch.empty(rows, dtype=torch.int8)
    functions.settled_ends.restype = ctypes.c_int64
    found = functions.settled_ends(
        ctypes.c_void_p(logits.data_ptr()),
        *map(ctypes.c_int64, (rows, vocab)),
        *map(ctypes.c_double, (STEPS_PER_NAT, margin * STEPS_PER_NAT)),
        ctypes.c_double(MOST_LOGIT * STEPS_PER_NAT),
        ctypes.c_void_p(UNITS.data_ptr()),
        *map(ctypes.c_int64, (LOWEST, ONE << SHIFT)),
        *(ctypes.c_void_p(x.data_ptr()) for x in (ends, near)),
    )
    if not found:
        return ends, []
    odd = (near > 1).nonzero()[:, 0]
    if len(odd):  # not all of a row's logits are finite, which is no fault where they are low
        ends[odd], _ = _round_ends_plain(logits[odd], margin)
    return ends, near.nonzero()[:, 0].tolist()


def _round_ends_plain(logits: Tensor, margin: float) -> tuple[Tensor, list[int]]:
    num, vocab = logits.shape
    step = num if logits.is_cuda else max(1, _BLOCK // vocab)
    parts, near = [logits.new_empty(0, vocab, dtype=torch.long)], []
    for begin in range(0, num, step):
        part = logits[begin : begin + step]
        steps = round_logits(part)
        check_range(steps)
        off = (part * STEPS_PER_NAT).sub_(steps).abs_().amax(-1) > 0.5 - margin * STEPS_PER_NAT
        near += [begin + row for row in off.nonzero()[:, 0].tolist()] if bool(off.any()) else []
        parts.append(settled_ends(steps))
    return torch.cat(parts[1:]) if len(parts) != 2 else parts[1], near
