"""A reader of artifacts after docs/format.md alone: plain Python, numpy, and brotli for the header.

Kept apart from the package on purpose, down to the constants: it shows that the page says enough.
"""

import hashlib
import json
import lzma
import zlib
from collections import defaultdict
from decimal import Decimal, localcontext
from math import isqrt, prod
from typing import Any, NamedTuple

import brotli
import numpy as np


class LowRank(NamedTuple):
    a_codes: np.ndarray  # A (R, rank)
    a_scale: np.ndarray  # u (rank,)
    b_codes: np.ndarray  # B (rank, C)
    b_scale: np.ndarray  # v (rank, G)
    group: int


class Quantized(NamedTuple):
    shape: list[int]
    codes: np.ndarray  # W (R, C)
    scale: np.ndarray  # s (R,)
    low_rank: LowRank | None

    def weight(self) -> np.ndarray:
        weight = self.codes.astype("f4") * self.scale.astype("f4")[:, None]
        if self.low_rank:
            a_codes, u, b_codes, v, group = self.low_rank
            v = v.repeat(group, axis=1)[:, : b_codes.shape[1]]
            half = np.float32(0.5)
            a = (a_codes.astype("f4") + half) * u.astype("f4")
            weight = weight + a @ ((b_codes.astype("f4") + half) * v.astype("f4"))
        return weight.reshape(self.shape)


class Artifact(NamedTuple):
    config: dict[str, Any]
    tokenizer: bytes
    tensors: dict[str, Any]  # Quantized, or an array of float16 or float32
    extras: dict[str, bytes]
    sections: list[tuple[str, str, int, int]]  # their lines in the header


def read(file: bytes) -> Artifact:
    assert file[:4] == b"FWY1"
    size, crc = np.frombuffer(file, "<u4", 2, offset=4).tolist()
    start = 12 + size
    assert zlib.crc32(file[12:start]) == crc
    header = json.loads(brotli.decompress(file[12:start]))
    unpack = {"stored": bytes, "brotli": brotli.decompress, "lzma": lzma.decompress}
    sections = {}
    for name, codec, size, crc in header["sections"]:
        stored, start = file[start : start + size], start + size
        assert zlib.crc32(stored) == crc
        sections[name] = unpack[codec](stored)
    assert start == len(file) - 32
    assert hashlib.sha256(file[:start]).digest() == file[start:]

    lines = header["tensors"]
    codes = iter(read_codes(sections["codes"], [shape for line in lines for shape in shapes(line)]))
    numbers = {name: unshuffle(sections[name]) for name in ("scales", "half", "float")}

    def take(name: str, *shape: int) -> np.ndarray:
        taken, numbers[name] = np.split(numbers[name], [prod(shape)])
        return taken.reshape(shape)

    tensors: dict[str, Any] = {}
    for name, kind, shape, *more in lines:
        if kind in ("half", "float"):
            tensors[name] = take(kind, *shape)
            continue
        w, s, low_rank = next(codes), take("scales", prod(shape) // more[0]), None
        if kind == "low_rank":
            columns, _, rank, _, _, group = more
            a, b = next(codes).T, next(codes)
            u, v = take("scales", rank), take("scales", rank, -(-columns // group))
            low_rank = LowRank(a, u, b, v, group)
        tensors[name] = Quantized(shape, w, s, low_rank)
    extras = {n[6:]: content for n, content in sections.items() if n.startswith("extra:")}
    return Artifact(header["config"], sections["tokenizer"], tensors, extras, header["sections"])


def shapes(line: list) -> list[tuple[int, int, int]]:
    """(rows, columns, bits) of each matrix of codes that a tensor's line asks for."""
    _, kind, shape, *more = line
    if kind in ("half", "float"):
        return []
    columns, bits = more[:2]
    rows = prod(shape) // columns
    if kind == "codes":
        return [(rows, columns, bits)]
    rank, a_bits, b_bits, _ = more[2:]
    return [(rows, columns, bits), (rank, rows, a_bits + 1), (rank, columns, b_bits + 1)]


def unshuffle(content: bytes) -> np.ndarray:
    assert content[:4] == b"BSHF"
    width = content[4]
    rows = np.frombuffer(content, np.uint8, offset=5).reshape(width, -1)
    return np.frombuffer(rows.T.tobytes(), f"<f{width}")


# --- the codes ---


def roots_of_two() -> list[int]:
    with localcontext() as context:
        context.prec = 50
        return [int(Decimal(2) ** (30 + Decimal(i) / 1024)) for i in range(1024)]


ROOTS = roots_of_two()


def power(e: int) -> int:
    q, p = divmod(e, 8)
    root = ROOTS[128 * p] & ~1
    return root << q if q >= 0 else root >> -q


LEVELS = [0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 28, 32]
ENERGY = [max(1, (256 * power(2 * (b - 24))) >> 30) for b in range(72)]
EDGE = [(256 * power(2 * (b - 24) + 1)) >> 30 for b in range(71)]
LIKE = [isqrt((2**20 * (2**30 - power(-2 * level))) >> 30) for level in range(33)]
LEFT = [(256 * power(2 * level)) >> 30 for level in range(33)]


def first_histograms(top: int) -> np.ndarray:
    """(72, 4 top + 1) weights of the differences -2 top..2 top."""
    x = np.arange(-32 * top - 7, 32 * top + 8, 2)
    histograms = []
    for b in range(72):
        rate = power(2 * (24 - b)) >> 12
        y = np.maximum((-((x * x * rate) >> 8) * 738) >> 18, -31 * 1024)
        density = np.array(ROOTS)[y % 1024] >> -(y // 1024)
        mass = density.reshape(-1, 8).sum(axis=1)
        histograms.append((mass * 2**20) // mass.sum() + 1)
    return np.array(histograms)


class RangeDecoder:
    def __init__(self, stream: bytes) -> None:
        self.words = np.frombuffer(stream, "<u4").tolist()
        self.place, self.range = 0, 2**64 - 1
        self.offset = self.next_word() << 32
        self.offset += self.next_word()

    def next_word(self) -> int:
        self.place += 1
        return self.words[self.place - 1] if self.place <= len(self.words) else 0

    def read(self, left: np.ndarray) -> int:
        scale = self.range >> 24
        quantile = self.offset // scale
        assert quantile < 2**24
        s = int(left.searchsorted(quantile, side="right")) - 1
        self.offset -= scale * int(left[s])
        self.range = scale * int(left[s + 1] - left[s])
        if self.range < 2**32:
            self.offset, self.range = (self.offset << 32) + self.next_word(), self.range << 32
        return s

    def number(self, size: int) -> int:
        if size <= 1:
            return 0
        return self.read(np.append(np.arange(size) * (2**24 // size), 2**24))

    def symbol(self, weights: np.ndarray) -> int:
        size = len(weights)
        before = np.append(0, np.cumsum(weights))
        factor = (2**24 - size) / int(before[-1])
        left = np.trunc(factor * before.astype(float)).astype(np.int64) + np.arange(size + 1)
        left[size] = 2**24
        return self.read(left)

    def finish(self) -> None:
        assert self.place >= len(self.words)
        assert not self.words or self.offset < 2**33 - 1


def read_codes(stream: bytes, wanted: list[tuple[int, int, int]]) -> list[np.ndarray]:
    """The matrices of the given (rows, columns, bits)."""
    decoder = RangeDecoder(stream)
    histograms: dict[int, np.ndarray] = {}
    profiles: dict[int, list[np.ndarray]] = defaultdict(list)
    level_weights = np.ones(len(LEVELS), np.int64)
    matrices = []
    for rows, columns, bits in wanted:
        if bits not in histograms:
            histograms[bits] = first_histograms(2 ** (bits - 1) - 1)
        matrices.append(
            read_matrix(
                decoder, rows, columns, bits, histograms[bits], profiles[columns], level_weights
            )
        )
    decoder.finish()
    return matrices


def read_matrix(
    decoder: RangeDecoder,
    num_rows: int,
    columns: int,
    bits: int,
    histograms: np.ndarray,
    profiles: list[np.ndarray],
    level_weights: np.ndarray,
) -> np.ndarray:
    top = 2 ** (bits - 1) - 1
    width, parent = decoder.number(72), decoder.number(len(profiles) + 1)
    centred, referring = decoder.number(2), decoder.number(2)
    typical, seen = 2 * ENERGY[width] * columns, 2 * columns
    inherited = 12 if parent else 0
    sums, energies = np.zeros((2, columns), np.int64)
    if parent:
        energies = (profiles[parent - 1] * inherited * ENERGY[width]) // 256
    codes = np.zeros((num_rows, columns), np.int64)
    start = 0
    while start < num_rows:
        n = min(num_rows - start, max(1, min(2048 // columns, 1 + start // 8)))
        level, ref = np.zeros((2, n), np.int64)
        if referring and start:
            picked = [decoder.symbol(level_weights) for _ in range(n)]
            np.add.at(level_weights, picked, 1)
            level = np.array(LEVELS)[picked]
            ref = np.array([decoder.number(start) if lv else 0 for lv in level])

        now = range(start, start + n)
        a = np.tile((16 * sums) // (start + 8) if centred else 0 * sums, (n, 1))
        likeness = np.where(level, np.array(LIKE)[level], 0)[:, None]
        a += (likeness * (16 * codes[ref] - a)) // 1024
        predicted = ((a + 8) // 16).clip(-top, top)
        x = (energies + (2 * typical) // seen) // (inherited + start + 2)
        b = (np.searchsorted(EDGE, x) - level[:, None]).clip(0, 71)
        weights = np.empty((n, columns, 2 * top + 1), np.int64)
        for r, c in np.ndindex(n, columns):
            first = top - predicted[r, c]  # where the difference is -top - predicted
            weights[r, c] = histograms[b[r, c], first : first + 2 * top + 1]
        for r, c in np.ndindex(n, columns):
            codes[start + r, c] = decoder.symbol(weights[r, c]) - top

        d = codes[now] - predicted
        q = d * d * np.array(LEFT)[level][:, None]
        np.add.at(histograms, (b, d + 2 * top), 2048)
        energies, sums = energies + q.sum(axis=0), sums + codes[now].sum(axis=0)
        typical, seen = typical + int(q.sum()), seen + q.size
        start += n
    profiles.append((energies * 256 * columns) // max(1, int(energies.sum())))
    return codes
