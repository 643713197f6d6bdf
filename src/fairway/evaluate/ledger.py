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

from fairway.coding.settled import STEPS_PER_OCTAVE, settled_ends
from fairway.evaluate.dither import PERIOD, first_offset, offsets
from fairway.runtime.limits import require_within

MOST_LOGIT = float(1 << 16)  # beyond it float64 is too coarse beside the margin
NOWHERE = -1  # position of logits that are for no target
_ROUND = 1.5 * 2.0**52  # adding and taking away rounds to whole numbers, halves to even
_BLOCK = 1 << 17  # values rounded at once, so that they stay in the processor's cache
_NOTHING = 2.0**-200
# Parts of a state's names that say that its values are means of squares.
SECOND_MOMENTS = frozenset({"exp_avg_sq", "second"})
WEIGHTS = frozenset({"weights", "bank", "aside"})  # the same, of what the model computes with
_STEPS_PER_NAT = STEPS_PER_OCTAVE / math.log(2)


@dataclass(frozen=True, kw_only=True)
class _Grid:
    """How one kind of values is rounded.

    bits         by which it is coarser than `Margins.state_bits`
    dither       how much of an offset each value gets (`dither.py`)
    significant  bits that a value keeps, where that many are finer than the grid or coarser; None:
                 all lie on one grid
    least        exponent, in steps of the grid, below which values keep no more bits
    """

    bits: int = 0
    dither: float = 0.25
    significant: int | None = None
    least: int = 0

    def finer(self, steps: Tensor) -> Tensor:
        """By how much each value's own steps are finer than the grid's."""
        assert self.significant is not None
        bits = torch.frexp(steps).exponent.clamp_min_(self.least)
        return torch.ldexp(torch.ones_like(steps), self.significant - bits)


OF_WEIGHTS, OF_MOMENTS, ROOTS = _Grid(dither=1.0), _Grid(), _Grid(significant=5, least=-2)
# Gradients that are divided by their own size, and matrices of them. Few of them may be ties, and a
# lesson has many: hence no finer.
ONE_BY_ONE, OF_MATRICES = _Grid(significant=5, least=3), _Grid(bits=2)


class Deviates(ValueError):
    """This machine computes values that lie further off than any margin allows."""


@dataclass(frozen=True, kw_only=True)
class Margins:
    """How near a boundary a value is announced, and how coarse what is learned is rounded.

    logit       nats; logits themselves are rounded to 1/256 of a factor of two, 0.0027 nats
    state       share of the power of two that spans a tensor of what was learned
    gradient    the same, of a gradient that is rounded before its step
    state_bits  what is learned is rounded to 2**-state_bits of that power
    """

    logit: float = 1e-11
    state: float = 2.0**-40
    gradient: float = 2.0**-40
    state_bits: int = 14

    def __post_init__(self) -> None:
        bounds = (1e-16, 1e-6)
        require_within(self, logit=(1e-15, 1e-4), state=bounds, gradient=bounds, state_bits=(4, 40))
        # Beside 2**-10 of a step that a point of the grid keeps from boundaries (`dither.py`), and
        # roots of second moments are rounded up to 2**7 times as fine.
        margin = max(self.state, self.gradient)
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
        num, vocab = logits.shape
        step = num if logits.is_cuda else max(1, _BLOCK // vocab)
        parts = [
            settled_ends(self._steps(logits[begin : begin + step], positions[begin : begin + step]))
            for begin in range(0, num, step)
        ]
        return torch.cat(parts) if len(parts) != 1 else parts[0]

    def _steps(self, logits: Tensor, positions: Tensor) -> Tensor:
        """Logits (n, V) as whole numbers of steps."""
        off = logits * _STEPS_PER_NAT
        steps = off + _ROUND
        steps -= _ROUND
        _check_range(steps.amax(-1))
        near = off.sub_(steps).abs_().amax(-1) > 0.5 - self.margins.logit * _STEPS_PER_NAT
        if self.told is not None:
            self._follow(steps, logits, positions)
        elif bool(near.any()):
            self._note(steps, logits, positions, near.nonzero()[:, 0].tolist())
        return steps

    def _note(self, steps: Tensor, logits: Tensor, positions: Tensor, rows: list[int]) -> None:
        vocab, limit = logits.size(1), 0.5 - self.margins.logit * _STEPS_PER_NAT
        for row in rows:
            if int(positions[row]) == NOWHERE:
                continue
            place = int(positions[row]) * vocab
            exact = logits[row] * _STEPS_PER_NAT
            for symbol in ((exact - steps[row]).abs() > limit).nonzero()[:, 0].tolist():
                up = float(steps[row, symbol]) > float(exact[symbol])
                self.ties.logits[place + symbol] = up

    def _follow(self, steps: Tensor, logits: Tensor, positions: Tensor) -> None:
        vocab = logits.size(1)
        if not self._by_position and self.ties.logits:
            for place, up in self.ties.logits.items():
                position, symbol = divmod(place, vocab)
                self._by_position.setdefault(position, []).append((symbol, up))
        if not self._by_position:
            return
        for row, position in enumerate(positions.tolist()):
            for symbol, up in self._by_position.get(position, ()):
                exact = float(logits[row, symbol] * _STEPS_PER_NAT)
                allowed = 2 * self.margins.logit * _STEPS_PER_NAT
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
                self._settle(roots, name, ROOTS, self.margins.state)
                values.copy_(roots.square_())
            else:
                grid = OF_WEIGHTS if parts & WEIGHTS else OF_MOMENTS
                self._settle(values, name, grid, self.margins.state)

    @torch.no_grad()
    def settle_gradients(self, gradients: Mapping[str, Tensor], *, one_by_one: bool) -> None:
        """The same of gradients, before an optimizer that makes much of small ones.

        What two machines make of a gradient differs by little beside the largest one, which may be
        much beside the smallest, and such an optimizer takes a step of full length for either.

        one_by_one  each is divided by its own size, as Adam does, so small ones keep more bits;
                    else it is matrices whose singular values are made alike
        """
        for name, values in gradients.items():
            if values.numel():
                grid = ONE_BY_ONE if one_by_one else OF_MATRICES
                self._settle(values, f"the gradient of {name}", grid, self.margins.gradient)

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

    def _settle(self, values: Tensor, name: str, grid: "_Grid", margin: float) -> None:
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
        bits = self.margins.state_bits - grid.bits
        scale = 2.0 ** (bits - self._exponent(largest, first, margin))
        table, at = offsets(values.device), first_offset(first)
        flat = values.reshape(-1)
        for begin in range(0, len(flat), PERIOD):
            part = flat[begin : begin + PERIOD]
            steps = part * scale  # exact, like the way back
            finer = 1.0 if grid.significant is None else grid.finer(steps)
            steps = (steps * finer).add_(table[at : at + len(part)], alpha=grid.dither)
            margins = finer * (margin * 2.0**bits)
            self._round(steps, margins, first + 1 + begin, f"{name} from value {begin:,} on")
            torch.div(steps, scale * finer, out=part)
        if flat.data_ptr() != values.data_ptr():
            values.copy_(flat.view_as(values))

    def _round(self, steps: Tensor, margins: Tensor | float, first: int, where: str) -> None:
        """Round to whole numbers, in place.

        margins  in steps
        first    number of the first among all values that were ever settled
        """
        exact = steps.clone()
        steps.add_(_ROUND).sub_(_ROUND)
        if self.told is None:
            # Added to what is compared, not taken from the half: a margin may be less than its ulp.
            near = (exact - steps).abs_().add_(margins) > 0.5
            if bool(near.any()):
                for place in near.nonzero()[:, 0].tolist():
                    self.ties.state[first + place] = bool(steps[place] > exact[place])
            return
        for place in self._told_here(first, len(steps)):
            allowed = 2 * float(margins[place] if isinstance(margins, Tensor) else margins)
            up = self.ties.state[first + place]
            steps[place] = _as_told(float(exact[place]), up, allowed, where)

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


def _check_range(top: Tensor) -> None:
    """ValueError unless the largest steps of each row are numbers the grid can take."""
    if not bool((top.abs() < MOST_LOGIT * _STEPS_PER_NAT).all()):
        raise ValueError(
            f"the model's logits are not finite, or beyond {MOST_LOGIT:,.0f}: settled arithmetic "
            "cannot round them; evaluate with arithmetic='native', or mend the model"
        )
