"""Rounding alike on every machine: what lies near two roundings is written down, or looked up.

Machines differ in the last bits of float64. A value is rounded to a grid that is coarse beside such
differences, so all of them find the same point of it, except where the value lies within their
differences of a boundary between two points. Whoever encodes sees how near a boundary each value
lies; where it is nearer than a margin, far above any difference, a tie is noted: which value, and
which way it went. Whoever decodes takes the ties as told and rounds everything else. Nothing else
has to be alike, so sums may be taken in any order and functions from any library.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fairway.coding.settled import settled_ends
from fairway.evaluate.dither import first_offset
from fairway.evaluate.rounding import (
    STEPS_PER_NAT,
    Grid,
    Rounding,
    check_range,
    round_ends,
    round_logits,
    round_values,
)
from fairway.runtime.limits import require_within

NOWHERE = -1  # position of logits that are for no target
_NOTHING = 2.0**-200
# Parts of a state's names that say that its values are means of squares.
SECOND_MOMENTS = frozenset({"exp_avg_sq", "second"})
WEIGHTS = frozenset({"weights", "bank", "aside"})  # the same, of what the model computes with
OF_WEIGHTS, OF_MOMENTS, ROOTS = Grid(dither=1.0), Grid(), Grid(significant=5, least=-2)
# Gradients that are divided by their own size, and matrices of them, by so many bits coarser than
# what is learned: few of them may be ties, and a lesson has many.
ONE_BY_ONE, OF_MATRICES, COARSER = Grid(significant=5, least=8), Grid(), 2
ONE_BY_ONE_BEFORE = Grid(significant=5, least=1)  # where files name no margin of gradients


class Deviates(ValueError):
    """This machine computes values that lie further off than any margin allows."""


@dataclass(frozen=True, kw_only=True)
class Margins:
    """How near a boundary a value is announced, and how coarse what is learned is rounded.

    logit       nats; logits themselves are rounded to 1/256 of a factor of two, 0.0027 nats
    state       share of the power of two that spans a tensor of what was learned
    gradient    the same, of a gradient that is rounded before its step; None: of files from before
                there was such a margin, which rounded only what is taken one by one
    state_bits  what is learned is rounded to 2**-state_bits of that power
    """

    logit: float = 1e-11
    state: float = 2.0**-40
    gradient: float | None = 2.0**-40
    state_bits: int = 14

    def __post_init__(self) -> None:
        bounds = (1e-16, 1e-6)
        require_within(self, logit=(1e-15, 1e-4), state=bounds, gradient=bounds, state_bits=(4, 40))
        # Beside 2**-10 of a step that a point of the grid keeps from boundaries (`dither.py`), and
        # roots of second moments are rounded up to 2**7 times as fine.
        margin = max(self.state, self.gradient or 0.0)
        if margin > 2.0 ** -(self.state_bits + 11):
            raise ValueError(f"a margin of {margin:g} is none beside {self.state_bits} bits")


Places = dict[int, bool]  # by place: whether it was rounded up


@dataclass(frozen=True)
class Ties:
    """Values that lay within a margin of a boundary.

    logits  by position in the stream * vocabulary + symbol
    state   by number, counted over all that was ever settled, lesson after lesson
    """

    logits: Places = field(default_factory=dict)
    state: Places = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.logits) + len(self.state)


class Ledger:
    """Rounds, and keeps the ties: notes them, or follows those it was told.

    told  of the encoder; None: they are noted in `ties`
    """

    def __init__(self, margins: Margins, told: Ties | None = None) -> None:
        self.margins, self.told = margins, told
        self.ties = Ties() if told is None else told
        self.settled = 0  # values of what was learned, so far
        self._by_position: dict[int, list[tuple[int, bool]]] = {}
        self._state_places: list[int] | None = None

    def ends(self, logits: Tensor, positions: Tensor) -> Tensor:
        """Where the slices of all symbols end, (n, V) int64 (see `settled_ends`).

        logits     (n, V) float64
        positions  (n,) in the stream, of the targets that these logits are for; `NOWHERE` has no
                   ties
        """
        ends, near = round_ends(logits, self.margins.logit)
        rows = near if self.told is None else self._told_rows(positions, logits.size(1))
        if rows:  # whichever way these rounded, the way that is told counts
            chosen = torch.tensor(rows, device=logits.device)
            ends[chosen] = settled_ends(self._steps(logits[chosen], positions[rows]))
        return ends

    def _steps(self, logits: Tensor, positions: Tensor) -> Tensor:
        """Logits (n, V) as whole numbers of steps, ties noted or followed."""
        steps = round_logits(logits)
        check_range(steps)
        if self.told is not None:
            self._follow(steps, logits, positions)
            return steps
        limit = 0.5 - self.margins.logit * STEPS_PER_NAT
        exact = logits * STEPS_PER_NAT
        near = ((exact - steps).abs() > limit) & (positions != NOWHERE).to(exact.device)[:, None]
        for row, symbol in near.nonzero().tolist():
            up = float(steps[row, symbol]) > float(exact[row, symbol])
            self.ties.logits[int(positions[row]) * logits.size(1) + symbol] = up
        return steps

    def _told_rows(self, positions: Tensor, vocab: int) -> list[int]:
        """Which rows of so many positions hold an announced tie."""
        if not self.ties.logits:
            return []
        if not self._by_position:
            for place, up in self.ties.logits.items():
                position, symbol = divmod(place, vocab)
                self._by_position.setdefault(position, []).append((symbol, up))
        return [row for row, at in enumerate(positions.tolist()) if at in self._by_position]

    def _follow(self, steps: Tensor, logits: Tensor, positions: Tensor) -> None:
        for row, position in enumerate(positions.tolist()):
            for symbol, up in self._by_position[position]:
                exact = float(logits[row, symbol] * STEPS_PER_NAT)
                allowed = 2 * self.margins.logit * STEPS_PER_NAT
                steps[row, symbol] = _as_told(exact, up, allowed, f"token {position:,}")

    @torch.no_grad()
    def settle(self, state: Mapping[str, Tensor]) -> None:
        """Round what was learned, in place, tensor after tensor; only float64 is rounded.

        Weights are dithered as far as rounding allows, and optimizers' moments hardly, for they
        are divided by one another: what was next to nothing must not become a step of the grid.
        Second moments are rounded by their roots, which are of the size of gradients, and to
        five significant bits, since a quotient by one that became zero would be no number.
        """
        for name, values in state.items():
            if values.dtype != torch.float64 or not values.numel():
                continue
            parts = set(name.split("/"))
            if parts & SECOND_MOMENTS:
                roots = values.sqrt()
                self._settle(roots, name, ROOTS)
                values.copy_(roots.square_())
            else:
                self._settle(values, name, OF_WEIGHTS if parts & WEIGHTS else OF_MOMENTS)

    @torch.no_grad()
    def settle_gradients(self, gradients: Mapping[str, Tensor], *, one_by_one: bool) -> None:
        """The same of gradients, before an optimizer that makes much of small ones.

        What two machines make of a gradient differs by little beside the largest one, which may be
        much beside the smallest, and such an optimizer takes a step of full length for either.

        one_by_one  each is divided by its own size, as Adam does, so small ones keep more bits;
                    else it is matrices whose singular values are made alike
        """
        grid, coarser = (ONE_BY_ONE, 0) if one_by_one else (OF_MATRICES, COARSER)
        if self.margins.gradient is None:
            if not one_by_one:
                return
            grid = ONE_BY_ONE_BEFORE
        for name, values in gradients.items():
            if values.numel():
                self._settle(
                    values,
                    f"the gradient of {name}",
                    grid,
                    margin=self.margins.gradient,
                    bits=self.margins.state_bits - coarser,
                )

    def state(self) -> dict[str, Tensor]:
        """What an interrupted evaluation goes on with."""
        ties = {"logits": self.ties.logits, "state": self.ties.state}
        tensors = {
            name: torch.tensor([list(places), list(places.values())], dtype=torch.long).view(2, -1)
            for name, places in ties.items()
        }
        return tensors | {"settled": torch.tensor(self.settled)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.settled = int(state["settled"])
        if self.told is None:
            self.ties = Ties(*(_places(state[name]) for name in ("logits", "state")))

    def _settle(
        self,
        values: Tensor,
        name: str,
        grid: Grid,
        *,
        margin: float | None = None,
        bits: int | None = None,
    ) -> None:
        """Round one tensor; with other margins and bits than those of what was learned, if any."""
        margin = self.margins.state if margin is None else margin
        bits = self.margins.state_bits if bits is None else bits
        first = self.settled
        self.settled += 1 + values.numel()
        largest = float(torch.linalg.vector_norm(values, float("inf")))
        if not math.isfinite(largest):
            raise ValueError(
                f"what was learned in {name} is no longer finite; lower the learning rate"
            )
        if largest < _NOTHING:
            values.zero_()
            return
        scale = 2.0 ** (bits - self._exponent(largest, first, margin))
        how = Rounding(grid, scale, first_offset(first), margin * 2.0**bits)
        flat = values.contiguous().view(-1)
        told = [] if self.told is None else self._told_here(first + 1, len(flat))
        before = flat[told]
        near = round_values(flat, how)
        if self.told is None:
            self.ties.state.update({first + 1 + place: up for place, up in near})
        elif told:
            self._follow_state(flat, told, before, how, first + 1, name)
        if flat.data_ptr() != values.data_ptr():
            values.copy_(flat.view_as(values))

    def _follow_state(
        self, flat: Tensor, told: list[int], before: Tensor, how: Rounding, first: int, name: str
    ) -> None:
        """Round anew what was announced.

        told    places in flat (n,), of which the first has the number `first`
        before  what was there
        """
        places = torch.tensor(told, device=flat.device)
        exact, scale = how.exact(before, places)
        for place, value, by in zip(told, exact.tolist(), scale.tolist(), strict=True):
            allowed = 2 * by / how.scale * how.margin
            up = self.ties.state[first + place]
            flat[place] = _as_told(value, up, allowed, f"{name}, value {place:,}") / by

    def _exponent(self, largest: float, place: int, margin: float) -> int:
        """Of the power of two that spans a tensor, which is settled like any value.

        Three quarters of the largest magnitude decide: numbers on a grid never lie at a boundary.
        """
        part, exponent = math.frexp(0.75 * largest)
        lower = part < 0.5 * (1.0 + 4.0 * margin)
        if not lower and part <= 1.0 - 2.0 * margin:
            return exponent
        bound = exponent - 1 if lower else exponent
        if self.told is None:
            self.ties.state[place] = exponent > bound
            return exponent
        return bound + self.ties.state.get(place, exponent > bound)

    def _told_here(self, first: int, number: int) -> list[int]:
        """The announced places among `number` values, of which the first has this number."""
        if self._state_places is None:
            self._state_places = sorted(self.ties.state)
        begin = bisect_left(self._state_places, first)
        end = bisect_left(self._state_places, first + number)
        return [place - first for place in self._state_places[begin:end]]


def _places(pairs: Tensor) -> Places:
    places, ups = pairs.tolist()
    return dict(zip(places, map(bool, ups), strict=True))


def _as_told(exact: float, up: bool, allowed: float, where: str) -> float:
    """The whole number below or above a value that was announced to lie halfway between both."""
    low = math.floor(exact)
    if abs(exact - low - 0.5) > allowed:
        raise Deviates(f"{where}: an announced tie is none here")
    return float(low + up)
