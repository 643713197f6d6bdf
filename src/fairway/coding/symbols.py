"""Arithmetic coding of text: one symbol after another, each under its own distribution.

A float distribution becomes integer slices (`integer_cdf`), and a range coder turns slices into
bytes. Both ends must get bit-identical log-probabilities; from there on everything is integers,
except one multiplication and one rounding that IEEE 754 fixes to the last bit, so the bytes depend
on no machine. Where the log-probabilities come from is not here.

Why a range coder of our own beside the library `constriction`, which codes the weights: its
categorical models take float probabilities and round them to 24 bits inside, at least one unit per
symbol, which costs 0.0007 bits per symbol at V = 8,192; with float32 they can even panic. Slices of
30 bits cost under 0.00002, are defined by integers alone, and Python is no bottleneck: making the
slices takes longer than coding them.
"""

from collections.abc import Sequence
from math import isqrt, log
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

UNIT_BITS = 30  # a probability of 1 is 2**30 units
_STEP_BITS = 10
STEPS = 1 << _STEP_BITS  # of log2 p, per halving
_HALVINGS = 31  # at which no unit is left but the one that every symbol gets
_TOLERANCE = 0.01  # how far from 1 the probabilities may sum

FOREIGN = "the coded text is damaged, or was coded under another model"
Ints: TypeAlias = "Sequence[int] | NDArray[np.int64]"

_STATE_BITS, _WORD_BITS = 64, 16
_TOP = 1 << _STATE_BITS
_BOTTOM = 1 << (_STATE_BITS - _WORD_BITS)
_STATE_BYTES, _WORD_BYTES = _STATE_BITS // 8, _WORD_BITS // 8
_WIDTH_BYTES = _STATE_BYTES + 1  # a width may be 2**64


def _powers_of_two() -> NDArray[np.int32]:
    """floor(2**(UNIT_BITS + i / STEPS)) for i below STEPS, by integer square roots alone."""
    one = 1 << 128
    root = 2 * one
    for _ in range(_STEP_BITS):
        root = isqrt(root * one)
    powers, value = [], one
    for _ in range(STEPS):
        powers.append(value >> (128 - UNIT_BITS))
        value = value * root >> 128
    return np.array(powers, dtype=np.int32)


_POWERS = _powers_of_two()


def exp2_units(steps: NDArray[np.int32]) -> NDArray[np.int32]:
    """2**(steps / STEPS) in units of 2**-UNIT_BITS, rounded down; steps from -31 * STEPS to 0.

    >>> (exp2_units(np.array([0, -STEPS])) == [2**30, 2**29]).all()
    np.True_
    """
    return _POWERS[steps & (STEPS - 1)] >> -(steps >> _STEP_BITS)


def integer_cdf(log_probs: ArrayLike) -> NDArray[np.int64]:
    """Integer slices of a distribution: symbol s owns cdf[s] to cdf[s + 1], which is never empty.

    log_probs  (..., V) float32 or float64, in nats, summing to 1 as probabilities
    returns    (..., V + 1) int64 from 0 to about 2**30

    Raises ValueError for NaN, for logits, and for probabilities that miss 1 by over a hundredth.
    """
    # float32 whatever is given, so that both ends cut the same slices from the same numbers.
    log_probs = np.asarray(log_probs, dtype=np.float32)
    if log_probs.size == 0 or not log_probs.max() <= _TOLERANCE:
        found = "none at all" if log_probs.size == 0 else f"one of {log_probs.max():g}"
        raise ValueError(
            f"expected log-probabilities (at most 0), found {found}; apply log_softmax first"
        )
    # Fixed-point log2 p, so that p itself comes out of a table and not out of the machine's exp.
    scaled = log_probs * np.float32(STEPS / log(2))
    scaled = np.clip(np.rint(scaled, out=scaled), -_HALVINGS * STEPS, 0, out=scaled)
    steps = scaled.astype(np.int32)
    units = exp2_units(steps)
    units += 1  # nothing is impossible, at the cost of V / 2**30 of the probability
    cdf = np.zeros((*units.shape[:-1], units.shape[-1] + 1), dtype=np.int64)
    np.cumsum(units, axis=-1, out=cdf[..., 1:])
    total = (cdf[..., -1] - units.shape[-1]) / (1 << UNIT_BITS)
    if np.abs(total - 1).max() > _TOLERANCE:
        worst = float(total.flat[np.abs(total - 1).argmax()])
        raise ValueError(
            f"probabilities sum to {worst:g} instead of 1; apply log_softmax over the whole "
            f"vocabulary, in float32 or better"
        )
    return cdf


def _row_blocks(num_rows: int, vocab: int) -> list[slice]:
    """Rows to slice at once: as many as stay in the processor's cache between two passes."""
    step = max(1, 65_536 // vocab)
    return [slice(start, start + step) for start in range(0, num_rows, step)]


class TextEncoder:
    """Symbols to bytes, first in, first out.

    Invariant between symbols: 2**48 <= width <= 2**64 and 0 <= low < 2**64. A total of about 2**30
    therefore wastes less than 2**-17 of the interval.
    """

    def __init__(self) -> None:
        self._low, self._width, self._out = 0, _TOP, bytearray()

    def push(self, log_probs: ArrayLike, symbol: int) -> None:
        """Append one symbol, coded by log_probs (V,)."""
        self.push_many(np.asarray(log_probs)[None], [symbol])

    def push_many(self, log_probs: ArrayLike, symbols: Sequence[int] | NDArray) -> None:
        """Append B symbols, symbol b coded by log_probs[b]; log_probs is (B, V)."""
        log_probs, symbols = np.asarray(log_probs), np.asarray(symbols)
        num, vocab = log_probs.shape
        if symbols.shape != (num,) or (num and not 0 <= symbols.min() <= symbols.max() < vocab):
            raise ValueError(
                f"symbols {symbols.tolist()} under {num} distributions over {vocab} symbols; one "
                f"symbol below that number is needed for each"
            )
        for rows in _row_blocks(num, vocab):
            cdf, chosen = integer_cdf(log_probs[rows]), symbols[rows]
            each = np.arange(len(chosen))
            starts, ends = cdf[each, chosen].tolist(), cdf[each, chosen + 1].tolist()
            for start, end, total in zip(starts, ends, cdf[:, -1].tolist(), strict=True):
                self._push(start, end - start, total)

    def push_slices(self, starts: Ints, sizes: Ints, totals: Ints) -> None:
        """Append n symbols by their slices, each of a total of about 2**30."""
        parts = (np.asarray(part).tolist() for part in (starts, sizes, totals))
        for start, size, total in zip(*parts, strict=True):
            if not 0 <= start < start + size <= total:
                raise ValueError(f"a slice from {start}, of {size}, does not lie within {total}")
            self._push(start, size, total)

    def _push(self, start: int, size: int, total: int) -> None:
        unit = self._width // total
        self._low, self._width = self._low + unit * start, unit * size
        if self._low >= _TOP:
            self._low -= _TOP
            self._carry()
        while self._width < _BOTTOM:
            self._out += (self._low >> (_STATE_BITS - _WORD_BITS)).to_bytes(_WORD_BYTES, "big")
            self._low, self._width = (self._low << _WORD_BITS) % _TOP, self._width << _WORD_BITS

    def _carry(self) -> None:
        """Add one to the bytes already written, as to one long number."""
        place = len(self._out) - 1
        while self._out[place] == 0xFF:
            self._out[place] = 0
            place -= 1
        self._out[place] += 1

    def state(self) -> bytes:
        """All that an encoder needs to go on in another process."""
        head = self._low.to_bytes(_STATE_BYTES, "big") + self._width.to_bytes(_WIDTH_BYTES, "big")
        return head + self._out

    @classmethod
    def from_state(cls, state: bytes) -> "TextEncoder":
        """Inverse of `state`."""
        encoder, head = cls(), _STATE_BYTES + _WIDTH_BYTES
        encoder._low = int.from_bytes(state[:_STATE_BYTES], "big")
        encoder._width = int.from_bytes(state[_STATE_BYTES:head], "big")
        encoder._out = bytearray(state[head:])
        return encoder

    def finish(self) -> bytes:
        """All bytes; as few after the last symbol as still name a point of its slice."""
        for num_bytes in range(_STATE_BYTES + 1):
            grain = _TOP >> (8 * num_bytes)
            point = -(-self._low // grain) * grain
            if point < self._low + self._width:
                break
        else:
            raise AssertionError("a slice of width 2**48 holds a multiple of 2**0")
        if point >= _TOP:
            point -= _TOP
            self._carry()
        return bytes(self._out + point.to_bytes(_STATE_BYTES, "big")[:num_bytes])


class TextDecoder:
    """Bytes to symbols: the mirror of `TextEncoder`, given the same log-probabilities.

    Raises ValueError where it can tell that the bytes are not from that encoder; it cannot always,
    so what is stored should carry a checksum.
    """

    def __init__(self, data: bytes) -> None:
        self._data, self._place, self._width = data, _STATE_BYTES, _TOP
        # What the encoder left out at the end reads as zeros.
        self._offset = int.from_bytes(data[:_STATE_BYTES].ljust(_STATE_BYTES, b"\0"), "big")

    def pop(self, log_probs: ArrayLike) -> int:
        """The next symbol, under log_probs (V,)."""
        return int(self.pop_many(np.asarray(log_probs)[None])[0])

    def pop_many(self, log_probs: ArrayLike) -> NDArray[np.int64]:
        """The next B symbols (B,), symbol b under log_probs[b]; log_probs is (B, V)."""
        log_probs = np.asarray(log_probs)
        blocks = _row_blocks(*log_probs.shape)
        symbols = [self._pop(cdf) for rows in blocks for cdf in integer_cdf(log_probs[rows])]
        return np.array(symbols, dtype=np.int64)

    def pop_slices(self, ends: NDArray[np.int64]) -> NDArray[np.int64]:
        """The next B symbols (B,), given where their slices end (B, V), rising from above 0."""
        return np.array([self._pop_end(row) for row in ends], dtype=np.int64)

    def finish(self) -> None:
        """Say that all symbols were read; raises ValueError when bytes are left."""
        left = len(self._data) - self._place
        if left > 0:
            raise ValueError(
                f"{left} bytes follow the last symbol; fewer symbols were read than were written"
            )

    def _pop(self, cdf: NDArray[np.int64]) -> int:
        unit = self._width // int(cdf[-1])
        symbol = int(cdf.searchsorted(self._offset // unit, side="right")) - 1
        if symbol == len(cdf) - 1:
            raise ValueError(FOREIGN)
        self._narrow(unit, int(cdf[symbol]), int(cdf[symbol + 1]))
        return symbol

    def _pop_end(self, ends: NDArray[np.int64]) -> int:
        unit = self._width // int(ends[-1])
        symbol = int(ends.searchsorted(self._offset // unit, side="right"))
        if symbol == len(ends):
            raise ValueError(FOREIGN)
        self._narrow(unit, int(ends[symbol - 1]) if symbol else 0, int(ends[symbol]))
        return symbol

    def _narrow(self, unit: int, start: int, stop: int) -> None:
        """Go on within [start, stop) units of the interval."""
        self._offset -= unit * start
        self._width = unit * (stop - start)
        while self._width < _BOTTOM:
            word = self._data[self._place : self._place + _WORD_BYTES].ljust(_WORD_BYTES, b"\0")
            self._offset = (self._offset << _WORD_BITS) | int.from_bytes(word, "big")
            self._width <<= _WORD_BITS
            self._place += _WORD_BYTES
            if self._place > len(self._data) + _STATE_BYTES:
                raise ValueError(
                    f"the coded text ends early: {len(self._data)} bytes hold fewer symbols than "
                    f"were asked for, so it was cut off or coded under another model"
                )
