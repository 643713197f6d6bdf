"""Entropy coding of weight codes, adaptive: what was decoded tells how to code what follows.

Rows of one grid look alike: near Gaussian, all of the same width. So one histogram for a matrix
leaves little to gain, and general compressors find little more. But columns differ: the width of a
column follows how loud its input channel is, and embeddings of rare tokens repeat each other. Hence

- the width of each column is estimated from the rows above; each width class has a histogram that
  starts Gaussian and learns;
- a matrix may start from the column widths of an earlier one (query, key, value and the first MLP
  matrix read the same channels);
- a row may name an earlier row that it resembles, and is then coded as the difference.

Encoder and decoder run one function, `_walk`, over one model, in integers: counts, sums and
divisions. Tables go to the range coder of `constriction` as float64 that hold whole numbers, and
its own arithmetic is a fixed sequence of IEEE operations, so the bytes depend on no machine; a test
holds them still across versions. (Not as float32: sums of 24 bits overshoot, and the coder panics.)
"""

from collections.abc import Sequence
from itertools import pairwise
from math import isqrt
from typing import NamedTuple, Protocol

import constriction
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from fairway.coding.symbols import STEPS, UNIT_BITS, exp2_units

Codes = NDArray[np.int8]
Ints = NDArray[np.int64]

# Width classes: class b stands for a standard deviation of 2**((b - UNIT_CLASS) / 8).
NUM_CLASSES, UNIT_CLASS = 72, 24
# Levels of resemblance: at level s the reference explains all but 2**(-s / 4) of the energy.
LEVELS = (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 28, 32)
PRIOR_TOTAL, LEARN = 1 << 20, 1 << 11  # a fresh histogram weighs as much as 512 codes seen
GROUP_CODES = 2048  # about as many codes share one look at the statistics
ENERGY_ONE, MEAN_ONE = 256, 16  # fixed-point units of squared and of plain codes
INHERITED_ROWS = 12  # weight of another matrix's column widths, in rows

_STREAM = constriction.stream  # pyright: ignore[reportAttributeAccessIssue]
_FAMILY = _STREAM.model.Categorical(perfect=False)
_UNIFORM = _STREAM.model.Uniform()


def encode_matrices(matrices: Sequence[tuple[Codes, int]]) -> bytes:
    """Many matrices (codes, bits) in one stream; each learns from those before it."""
    return encode_and_measure(matrices)[0]


def encode_and_measure(matrices: Sequence[tuple[Codes, int]]) -> tuple[bytes, list[int]]:
    """The stream of `encode_matrices`, and how many bits of it each matrix takes, to a word."""
    writer, models, ends = _Writer(), _Models(), [0]
    for codes, bits in matrices:
        codes = np.asarray(codes)
        top = 2 ** (bits - 1) - 1
        if codes.ndim != 2 or codes.dtype != np.int8:
            raise ValueError(f"codes are {codes.dtype} {codes.shape}; expected int8 (R, C)")
        if codes.size and (codes.min() < -top or codes.max() > top):
            raise ValueError(
                f"codes span {codes.min()}..{codes.max()}, but {bits} bits hold -{top}..{top}"
            )
        _walk(writer, models, codes.shape, bits, codes.astype(np.int64))
        ends.append(writer.num_bits)
    return writer.finish(), [end - begin for begin, end in pairwise(ends)]


def decode_matrices(data: bytes, shapes: Sequence[tuple[tuple[int, int], int]]) -> list[Codes]:
    """Inverse of `encode_matrices`, given the (shape, bits) of each matrix."""
    reader, models = _Reader(data), _Models()
    try:
        decoded = [
            _walk(reader, models, shape, bits, None).astype(np.int8) for shape, bits in shapes
        ]
    except AssertionError as error:  # how the library says that no symbol fits
        raise ValueError(f"the weight codes are damaged: {error}") from error
    reader.finish()
    return decoded


class _Channel(Protocol):
    """One end of the bitstream. The encoder knows each value and gets it back; the decoder asks."""

    def symbols(self, tables: NDArray[np.float64], known: Ints | None) -> Ints: ...

    def number(self, size: int, known: int | None) -> int: ...


class _Writer:
    def __init__(self) -> None:
        self._coder = _STREAM.queue.RangeEncoder()

    def symbols(self, tables: NDArray[np.float64], known: Ints | None) -> Ints:
        """Symbols (n,), each under the weights in its row of tables (n, S)."""
        assert known is not None
        self._coder.encode(known.astype(np.int32), _FAMILY, tables)
        return known

    def number(self, size: int, known: int | None) -> int:
        """A number below `size`, all equally likely."""
        assert known is not None
        if size > 1:
            self._coder.encode(np.array([known], np.int32), _UNIFORM, np.array([size], np.int32))
        return known

    @property
    def num_bits(self) -> int:
        return int(self._coder.num_bits())

    def finish(self) -> bytes:
        return self._coder.get_compressed().astype("<u4").tobytes()


class _Reader:
    def __init__(self, data: bytes) -> None:
        if len(data) % 4:
            raise ValueError(f"weight codes come in words of 4 bytes; {len(data)} were cut short")
        words = np.frombuffer(data, dtype="<u4").astype(np.uint32)
        self._coder = _STREAM.queue.RangeDecoder(words)

    def symbols(self, tables: NDArray[np.float64], known: Ints | None) -> Ints:
        return np.asarray(self._coder.decode(_FAMILY, tables)).astype(np.int64)

    def number(self, size: int, known: int | None) -> int:
        if size <= 1:
            return 0
        return int(self._coder.decode(_UNIFORM, np.array([size], np.int32))[0])

    def finish(self) -> None:
        if not self._coder.maybe_exhausted():
            raise ValueError("bytes follow the last weight code; the shapes do not fit the data")


class _Models:
    """What is learned from one matrix to the next."""

    def __init__(self) -> None:
        self.histograms: dict[int, _Histograms] = {}  # by bits
        self.profiles: dict[int, list[Ints]] = {}  # by number of columns: relative energies (C,)
        self.levels = np.ones(len(LEVELS))


class _Histograms:
    """One histogram of differences -2 top..2 top per width class, as whole numbers in float64."""

    def __init__(self, top: int) -> None:
        self.top = top
        self.weights = _gaussians(2 * top)  # (NUM_CLASSES, 4 top + 1)
        self._windows = sliding_window_view(self.weights, 2 * top + 1, axis=1)

    def tables(self, classes: Ints, predicted: Ints) -> NDArray[np.float64]:
        """Weights (n, 2 top + 1) of the codes -top..top, given class and prediction (n,) each."""
        return self._windows[classes, self.top - predicted]

    def learn(self, classes: Ints, differences: Ints) -> None:
        np.add.at(self.weights, (classes, differences + 2 * self.top), float(LEARN))


def _walk(
    channel: _Channel, models: _Models, shape: tuple[int, int], bits: int, known: Ints | None
) -> Ints:
    """Write the codes (R, C) that are `known`, or read them: the same steps either way."""
    num_rows, num_columns = shape
    top = 2 ** (bits - 1) - 1
    if bits not in models.histograms:
        models.histograms[bits] = _Histograms(top)
    histograms = models.histograms[bits]
    profiles = models.profiles.setdefault(num_columns, [])
    choices = _UNTOLD if known is None else _choose(known, profiles)
    width = channel.number(NUM_CLASSES, choices.width)
    parent = channel.number(len(profiles) + 1, choices.parent)
    centred = channel.number(2, choices.centred)
    referring = channel.number(2, choices.referring)

    energy = _class_energy(width)
    typical, seen = 2 * energy * num_columns, 2 * num_columns  # energy of all codes so far
    rows_weight = INHERITED_ROWS if parent else 0
    energies = np.zeros(num_columns, np.int64)  # of each column, and how many rows that sums
    if parent:
        energies = profiles[parent - 1] * (rows_weight * energy) // ENERGY_ONE
    sums = np.zeros(num_columns, np.int64)
    codes = np.empty((num_rows, num_columns), np.int64)

    for start, end in _groups(num_rows, num_columns):
        n = end - start
        levels, references = np.zeros(n, np.int64), np.zeros(n, np.int64)
        if referring and start:
            table = np.broadcast_to(models.levels, (n, len(LEVELS)))
            picked = None if choices.levels is None else choices.levels[start:end]
            picked = channel.symbols(np.ascontiguousarray(table), picked)
            np.add.at(models.levels, picked, 1.0)
            levels = _LEVELS[picked]
            for i in np.flatnonzero(levels):
                names = choices.references
                references[i] = channel.number(
                    start, None if names is None else int(names[start + i])
                )
        predicted = np.zeros((n, num_columns), np.int64)
        if centred:
            predicted += MEAN_ONE * sums // (start + 8)  # eight rows of nothing: start calmly
        for i in np.flatnonzero(levels):
            likeness = _LIKENESS[levels[i]]
            difference = MEAN_ONE * codes[references[i]] - predicted[i]
            predicted[i] += likeness * difference // LIKENESS_ONE
        predicted = (predicted + MEAN_ONE // 2) // MEAN_ONE
        predicted = predicted.clip(-top, top)
        expected = (energies + 2 * typical // seen) // (rows_weight + start + 2)
        classes = (_classes(expected) - levels[:, None]).clip(0, NUM_CLASSES - 1)

        flat = classes.ravel(), predicted.ravel()
        now = None if known is None else known[start:end].ravel() + top
        group = channel.symbols(histograms.tables(*flat), now).reshape(n, -1) - top
        codes[start:end] = group
        differences = group - predicted
        histograms.learn(flat[0], differences.ravel())
        squared = differences * differences * _ENERGY_LEFT[levels][:, None]
        energies += squared.sum(axis=0)
        sums += group.sum(axis=0)
        typical += int(squared.sum())
        seen += n * num_columns
    total = max(1, int(energies.sum()))
    profiles.append(energies * (ENERGY_ONE * num_columns) // total)
    return codes


def _groups(num_rows: int, num_columns: int) -> list[tuple[int, int]]:
    """Rows that share one look at the statistics: few while those are young, then more."""
    groups, start = [], 0
    while start < num_rows and num_columns:
        size = max(1, min(GROUP_CODES // num_columns, 1 + start // 8))
        groups.append((start, min(start + size, num_rows)))
        start += size
    return groups


# --- what the encoder decides; it may look at everything, and the decoder is told the outcome ---


class _Choices(NamedTuple):
    width: int | None = None  # class of the whole matrix
    parent: int | None = None  # 0, or 1 + the earlier matrix whose column widths are nearest
    centred: int | None = None  # whether columns have a mean worth following
    referring: int | None = None  # whether rows may name earlier rows
    levels: Ints | None = None  # (R,) index into LEVELS
    references: Ints | None = None  # (R,) the row named, where the level is not 0


_UNTOLD = _Choices()


def _choose(codes: Ints, profiles: Sequence[Ints]) -> _Choices:
    num_rows, num_columns = codes.shape
    sums, energies = codes.sum(axis=0), (codes * codes).sum(axis=0)
    total = int(energies.sum())
    mean_energy = ENERGY_ONE * total // max(1, codes.size)
    profile = energies * (ENERGY_ONE * num_columns) // max(1, total)
    flat = np.full(num_columns, ENERGY_ONE, np.int64)
    distances = [np.abs(_classes(p) - _classes(profile)).sum() for p in (flat, *profiles)]
    levels, references, saved = _find_references(codes, sums, energies)
    return _Choices(
        width=int(_classes(np.array(mean_energy))),
        parent=int(np.argmin(distances)),
        # By chance alone the means hold 1 / R of the energy; learning them costs a few times that.
        centred=int(int((sums * sums).sum()) > 8 * total),
        referring=int(saved > 2 * num_rows + 64),
        levels=levels,
        references=references,
    )


def _find_references(codes: Ints, sums: Ints, energies: Ints) -> tuple[Ints, Ints, int]:
    """For each row the earlier row most like it: level (R,), reference (R,), bits saved in all.

    Rows are compared as whole numbers small enough for exact float products, in any order of
    summation: the same rows are named on every machine.
    """
    num_rows, num_columns = codes.shape
    levels, references = np.zeros(num_rows, np.int64), np.zeros(num_rows, np.int64)
    centred = codes * num_rows - sums
    spread = np.sqrt((energies * num_rows - sums * sums).clip(1).astype(np.float64))
    rows = np.rint(32 * centred / spread).clip(-127, 127)
    rows = rows.astype(np.float32 if num_columns * 127**2 < 1 << 24 else np.float64)
    norms = np.einsum("rc,rc->r", rows, rows, dtype=np.float64).clip(1)
    saved = 0
    limits = np.zeros(num_rows, np.int64)  # rows of one group cannot name each other
    for start, end in _groups(num_rows, num_columns):
        limits[start:end] = start
    for start in range(0, num_rows, 512):
        end = min(start + 512, num_rows)
        alike = (rows[start:end] @ rows[:end].T).astype(np.float64)  # (n, end)
        alike[np.arange(end) >= limits[start:end, None]] = 0
        explained = alike.clip(0) ** 2 / norms[:end]
        best = explained.argmax(axis=1)
        share = explained[np.arange(end - start), best] / norms[start:end]
        picked = np.searchsorted(_LEVEL_SHARES, share, side="right") - 1
        for i in np.flatnonzero(picked > 0):
            # A level lowers the width by an eighth of an octave; naming the row is not free.
            gain = num_columns * LEVELS[picked[i]] // 8 - int(limits[start + i]).bit_length() - 3
            if gain > 0:
                levels[start + i], references[start + i] = picked[i], best[i]
                saved += gain
    return levels, references, saved


# --- constants of the model, by integer arithmetic ---


def _power(eighths: int) -> int:
    """2**(eighths / 8), in units of 2**-UNIT_BITS, rounded down; for negative exponents too."""
    whole, part = divmod(eighths, 8)
    unit = int(exp2_units(np.array([part * STEPS // 8 - STEPS], np.int32))[0]) * 2
    return unit << whole if whole >= 0 else unit >> -whole


def _class_energy(index: int) -> int:
    """Energy of a code of width class `index`, at least 1."""
    return max(1, ENERGY_ONE * _power(2 * (index - UNIT_CLASS)) >> UNIT_BITS)


def _classes(energies: Ints) -> Ints:
    """Width classes of energies per code."""
    return np.searchsorted(_CLASS_EDGES, energies)


def _gaussians(reach: int) -> NDArray[np.float64]:
    """Weights (NUM_CLASSES, 2 reach + 1) of -reach..reach, whole numbers that sum to PRIOR_TOTAL.

    The integral over each unit is taken at 8 points, the n-th odd sixteenth squared being n**2/256.
    """
    points = np.arange(-16 * reach - 7, 16 * reach + 8, 2, dtype=np.int64)
    tables = []
    for index in range(NUM_CLASSES):
        # log2 of the density: -log2(e) / 2 * x**2 / sigma**2, in STEPS; 378194 is log2(e) * 2**18.
        rate = _power(2 * (UNIT_CLASS - index)) >> 12  # 2**18 / sigma**2
        steps = -(points * points * rate >> 8) * (378194 * STEPS >> 19) >> 18
        density = exp2_units(steps.clip(-31 * STEPS, 0).astype(np.int32)).astype(np.int64)
        mass = density.reshape(-1, 8).sum(axis=1)
        tables.append(mass * PRIOR_TOTAL // mass.sum() + 1)
    return np.array(tables, np.float64)


LIKENESS_ONE = 1 << 10
_LEVELS = np.array(LEVELS, np.int64)
_EXPLAINED = [(1 << UNIT_BITS) - _power(-2 * s) for s in range(max(LEVELS) + 1)]
_LIKENESS = [isqrt(LIKENESS_ONE**2 * e >> UNIT_BITS) for e in _EXPLAINED]  # correlation
_LEVEL_SHARES = np.array([_EXPLAINED[s] / (1 << UNIT_BITS) for s in LEVELS])
_ENERGY_LEFT = np.array([ENERGY_ONE * _power(2 * s) >> UNIT_BITS for s in range(max(LEVELS) + 1)])
# Upper edges of the classes but the last, halfway between class widths.
_CLASS_EDGES = np.array(
    [ENERGY_ONE * _power(2 * (b - UNIT_CLASS) + 1) >> UNIT_BITS for b in range(NUM_CLASSES - 1)]
)
