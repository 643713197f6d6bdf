"""One file that holds a whole model: config, tokenizer, weights. Same input, same bytes.

The frame is that of `sections.py`; its header holds the config and a line per tensor. All weight
codes share one adaptive stream (`coding/weights.py`); scales, float16 and float32 tensors are each
joined, byte-shuffled and compressed. Nothing in it is executable. `docs/format.md` says it byte by
byte; how large the file may be is in `budget.py`.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from fairway.artifact.sections import (
    Frame,
    Refused,
    Section,
    best_packed,
    pack_frame,
    to_json,
    unpack_frame,
)
from fairway.coding.codecs import shuffle, unshuffle
from fairway.coding.weights import decode_matrices, encode_matrices
from fairway.quant.quantized import FineColumns, LowRank, QuantizedTensor, dequantize

MAGIC = b"FWY1"
MOST_WEIGHTS = 1 << 28  # of a file; the challenge's models have an eighth of it
MOST_EXTRA = 1 << 24  # bytes of the tokenizer's file, or of another extra one
MOST_FILE = 1 << 31  # bytes
# Zeros can be packed without end, so that what reading costs is kept in proportion to the file: it
# may hold so many weights, and so many more for each byte they take. Ternary weights of which nine
# in ten are zero take more than twice that quarter of a bit each.
FREE_WEIGHTS, WEIGHTS_PER_BYTE = 1 << 18, 32
Accept: TypeAlias = Callable[[dict[str, Any], Mapping[str, tuple[int, ...]]], object]
STREAMS = ("codes", "scales", "half", "float")
_FLOATS = {"half": (torch.float16, "<f2"), "float": (torch.float32, "<f4")}


@dataclass(frozen=True, kw_only=True, eq=False)
class Artifact:
    """What a file holds. `sizes` says how many of its bytes each part takes; they sum to it."""

    config: dict[str, Any]
    tokenizer: bytes
    tensors: dict[str, QuantizedTensor | Tensor]
    extras: dict[str, bytes] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)

    def state_dict(self) -> dict[str, Tensor]:
        """The weights, float32, under the model's own names."""
        return dequantize(self.tensors)


def pack(
    config: dict[str, Any],
    tokenizer: bytes,
    tensors: Mapping[str, QuantizedTensor | Tensor],
    extras: Mapping[str, bytes] | None = None,
) -> bytes:
    """The file, as bytes.

    config     anything that survives JSON unchanged: text keys, lists rather than tuples
    tokenizer  the tokenizer's own file
    tensors    quantized, float16 or float32
    extras     further named byte strings, stored beside the model

    Raises ValueError for what `unpack` would refuse.
    """
    _require_json(config)
    streams: dict[str, list[np.ndarray]] = {"scales": [], "half": [], "float": []}
    matrices: list[tuple[np.ndarray, int]] = []
    lines = [store_tensor(name, tensor, matrices, streams) for name, tensor in tensors.items()]

    codes = Section("codes", "stored", encode_matrices(matrices))
    sections = [best_packed("tokenizer", tokenizer), codes]
    for name, arrays in streams.items():
        joined = b"".join(array.tobytes() for array in arrays)
        sections.append(best_packed(name, shuffle(joined, 4 if name == "float" else 2)))
    _require_proportion(
        sum(_line(line).num_numbers for line in lines), {s.name: s for s in sections}
    )
    sections += [best_packed(f"extra:{name}", data) for name, data in (extras or {}).items()]
    return pack_frame(MAGIC, {"config": config, "tensors": lines}, sections)


def read_config(data: bytes) -> dict[str, Any]:
    """What `pack` was given as `config`, without decoding a weight. Raises ValueError."""
    return _frame(data).header["config"]


def unpack(data: bytes, accept: Accept = lambda config, shapes: None) -> Artifact:
    """Inverse of `pack`. Raises ValueError naming the part that is damaged or missing.

    No memory is asked for that shapes and limits do not allow: every size in the file may be a lie.

    accept  raises ValueError where config and shapes do not go together; called before any weight
            is decoded
    """
    frame = _frame(data)
    lines = _lines(frame.header)
    weights = sum(line.num_weights for line in lines)
    if weights > MOST_WEIGHTS:
        raise Refused(f"it lists {weights:,} weights, and a file may hold {MOST_WEIGHTS:,}")
    _require_proportion(sum(line.num_numbers for line in lines), frame.sections)
    accept(frame.header["config"], {line.name: line.shape for line in lines})
    codes = frame.read("codes", len(data))
    shapes = [shape for line in lines for shape in line.matrices()]
    streams = {}
    for name, width in {"scales": 2, "half": 2, "float": 4}.items():
        count = sum(line.num_floats(name) for line in lines)
        raw = unshuffle(frame.read(name, width * count + 5))
        if len(raw) != width * count:
            raise Refused(f"section {name!r} holds {len(raw):,} bytes for {count:,} numbers")
        streams[name] = np.frombuffer(raw, f"<f{width}")
    parts = _Parts(iter(decode_matrices(codes, shapes)), streams)
    extras = [name for name in frame.sections if name.startswith("extra:")]
    return Artifact(
        config=frame.header["config"],
        tokenizer=frame.read("tokenizer", MOST_EXTRA),
        tensors={line.name: parts.tensor(line) for line in lines},
        extras={name.removeprefix("extra:"): frame.read(name, MOST_EXTRA) for name in extras},
        sizes=frame.sizes,
    )


def _frame(data: bytes) -> Frame:
    frame = unpack_frame(
        MAGIC, data, "a fairway artifact", "; for files of other scripts there is `fairway import`"
    )
    header = frame.header
    if not isinstance(header.get("config"), dict) or not isinstance(header.get("tensors"), list):
        raise Refused("its header holds no config and list of tensors")
    return frame


class _Line(NamedTuple):
    """What the header says of a tensor; the rest where it is rounded, then corrected.

    fine_bits, fine_size, fine_starts  of columns on a grid of their own, where there are any
    """

    name: str
    kind: str  # "half", "float", "codes", "low_rank" or "low_rank_zeros"
    shape: tuple[int, ...]
    columns: int = 0
    bits: int = 0
    rank: int = 0
    a_bits: int = 0
    b_bits: int = 0
    group: int = 1
    fine_bits: int = 0
    fine_size: int = 0
    fine_starts: tuple[int, ...] = ()

    @property
    def num_weights(self) -> int:
        return prod(self.shape) + self.rank * (self.rows + self.columns)

    @property
    def num_numbers(self) -> int:
        """Weights, and the scales they need."""
        return self.num_weights + self.num_floats("scales")

    @property
    def rows(self) -> int:
        return prod(self.shape) // self.columns if self.columns else 0

    @property
    def num_fine(self) -> int:
        return self.fine_size * len(self.fine_starts)

    def matrices(self) -> list[tuple[tuple[int, int], int]]:
        """(shape, bits) of its code matrices. Low-rank codes have no zero: they take a bit more."""
        fine = self.num_fine
        found = [((self.rows, self.columns - fine), self.bits)] if self.columns else []
        if fine:
            found.append(((self.rows, fine), self.fine_bits))
        if self.rank:
            found.append(((self.rank, self.rows), self.a_bits + 1))
            found.append(((self.rank, self.columns), self.b_bits + 1))
        return found

    def num_floats(self, stream: str) -> int:
        """How many numbers of one of the float streams are its own."""
        if self.kind in _FLOATS:
            return prod(self.shape) if self.kind == stream else 0
        if stream != "scales":
            return 0
        per_row = 2 if self.num_fine else 1
        correction = self.rank * (1 + -(-self.columns // self.group))
        return per_row * self.rows + correction


def _require_proportion(numbers: int, sections: Mapping[str, Section]) -> None:
    packed = sum(len(s.data) for name in STREAMS if (s := sections.get(name)) is not None)
    most = FREE_WEIGHTS + WEIGHTS_PER_BYTE * packed
    if numbers > most:
        raise Refused(f"{numbers:,} weights in {packed:,} bytes, which may hold {most:,}")


def _lines(header: dict[str, Any]) -> list[_Line]:
    """The header's lines, each of the right types and sizes, or `Refused` names the odd one."""
    lines = [_line(line) for line in header["tensors"]]
    if len({line.name for line in lines}) < len(lines):
        raise Refused("its header lists a tensor twice")
    return lines


def _line(line: object) -> _Line:
    match line:
        case [str(name), "half" | "float" as kind, list(shape)] if _sizes(*shape):
            return _Line(name, kind, tuple(shape))
        case [*before, ["fine", fine_bits, size, *starts]] if _sizes(fine_bits, size, *starts):
            return _with_fine(_line(before), fine_bits, size, starts)
        case [str(name), "codes", list(shape), columns, bits] if _sizes(*shape, columns, bits):
            found = _Line(name, "codes", tuple(shape), columns, bits)
        case [str(name), "low_rank" | "low_rank_zeros" as kind, list(shape), *rest] if (
            _sizes(*shape, *rest) and len(rest) == 6
        ):
            found = _Line(name, kind, tuple(shape), *rest)
            if not (found.rank and 1 <= found.a_bits <= 8 and 1 <= found.b_bits <= 8):
                raise Refused(f"its header lists a correction as {line!r:.80}")
        case _:
            raise Refused(f"its header lists a tensor as {line!r:.80}")
    if not (found.columns and found.group and 2 <= found.bits <= 8):
        raise Refused(f"its header lists codes as {line!r:.80}")
    if not prod(found.shape) or prod(found.shape) % found.columns:
        raise Refused(
            f"{found.name!r:.80} of shape {found.shape!s:.80} has no rows of {found.columns}"
        )
    return found


def _with_fine(line: _Line, bits: int, size: int, starts: list[int]) -> _Line:
    """The line of a tensor some of whose columns are on a grid of their own."""
    ends = [0, *(start + size for start in starts)]
    apart = all(end <= start for end, start in zip(ends, starts, strict=False))
    known = line.columns and not line.fine_starts
    if not (known and starts and size and apart and ends[-1] <= line.columns and 2 <= bits <= 8):
        raise Refused(f"{line.name!r} is listed with fine columns {starts[:8]} of {size}")
    return line._replace(fine_bits=bits, fine_size=size, fine_starts=tuple(starts))


def _sizes(*values: object) -> bool:
    return all(type(value) is int and 0 <= value <= MOST_WEIGHTS for value in values)


class _Parts:
    """The decoded streams of a file, handed out tensor by tensor in the header's order."""

    def __init__(self, matrices: Iterator[np.ndarray], streams: dict[str, np.ndarray]) -> None:
        self.matrices, self.streams = matrices, streams
        self.places = dict.fromkeys(streams, 0)

    def tensor(self, line: _Line) -> QuantizedTensor | Tensor:
        if line.kind in _FLOATS:
            return self._floats(line.kind, *line.shape)
        codes = torch.from_numpy(next(self.matrices))
        scale = self._floats("scales", line.rows)
        fine = None
        if line.fine_starts:
            fine = FineColumns(
                starts=line.fine_starts,
                size=line.fine_size,
                bits=line.fine_bits,
                scale=self._floats("scales", line.rows),
            )
            mask, others = fine.mask(line.columns), codes
            codes = torch.empty(line.rows, line.columns, dtype=torch.int8)
            codes[:, ~mask], codes[:, mask] = others, torch.from_numpy(next(self.matrices))
        low_rank = self._low_rank(line) if line.rank else None
        return QuantizedTensor(
            codes=codes, scale=scale, bits=line.bits, shape=line.shape, low_rank=low_rank, fine=fine
        )

    def _low_rank(self, line: _Line) -> LowRank:
        a_codes, b_codes = (torch.from_numpy(next(self.matrices)) for _ in range(2))
        return LowRank(
            a_codes=a_codes.T.contiguous(),
            a_scale=self._floats("scales", line.rank),
            b_codes=b_codes,
            b_scale=self._floats("scales", line.rank, -(-line.columns // line.group)),
            a_bits=line.a_bits,
            b_bits=line.b_bits,
            group=line.group,
            zeros=line.kind == "low_rank_zeros",
        )

    def _floats(self, stream: str, *shape: int) -> Tensor:
        place, count = self.places[stream], prod(shape)
        self.places[stream] += count
        return torch.from_numpy(self.streams[stream][place : place + count].reshape(shape).copy())


def _require_json(config: dict[str, Any]) -> None:
    try:
        back = json.loads(to_json(config))
    except (TypeError, ValueError) as error:
        raise ValueError(f"the config cannot be written as JSON: {error}") from error
    if back != config:
        raise ValueError(
            "the config does not survive JSON unchanged; use text keys, and lists in place of "
            "tuples"
        )


def store_tensor(
    name: str,
    tensor: QuantizedTensor | Tensor,
    matrices: list[tuple[np.ndarray, int]],
    streams: dict[str, list[np.ndarray]],
) -> list:
    """Append a tensor to the streams; returns its line of the header.

    [name, "half" or "float", shape], or
    [name, "codes", shape, columns, bits], or the same with "low_rank" or "low_rank_zeros" and
    [..., rank, a_bits, b_bits, group]; either with [..., ["fine", bits, size, start, ...]]
    """
    if isinstance(tensor, Tensor):
        for kind, (dtype, stored) in _FLOATS.items():
            if tensor.dtype == dtype:
                streams[kind].append(tensor.detach().cpu().numpy().astype(stored))
                return [name, kind, list(tensor.shape)]
        raise ValueError(
            f"{name!r} is {tensor.dtype}; an artifact holds quantized, float16 and float32 tensors"
        )
    matrices += [(_numpy(codes), bits) for codes, bits in tensor.code_matrices()]
    streams["scales"].append(_numpy(tensor.scale))
    line = [name, "codes", list(tensor.shape), tensor.codes.size(1), tensor.bits]
    last = []
    if (fine := tensor.fine) is not None:
        streams["scales"].append(_numpy(fine.scale))
        last = [["fine", fine.bits, fine.size, *fine.starts]]
    low_rank = tensor.low_rank
    if low_rank is None:
        return line + last
    # Codes without a zero reach one further down than up: one more bit holds them.
    matrices.append((_numpy(low_rank.a_codes.T), low_rank.a_bits + 1))
    matrices.append((_numpy(low_rank.b_codes), low_rank.b_bits + 1))
    streams["scales"] += [_numpy(low_rank.a_scale), _numpy(low_rank.b_scale)]
    line[1] = "low_rank_zeros" if low_rank.zeros else "low_rank"
    rank = low_rank.b_codes.size(0)
    return [*line, rank, low_rank.a_bits, low_rank.b_bits, low_rank.group, *last]


def _numpy(tensor: Tensor) -> np.ndarray:
    array = tensor.detach().cpu().contiguous().numpy()
    return array.astype("<f2") if array.dtype == np.float16 else array
