"""One file that holds a whole model: config, tokenizer, weights. Same input, same bytes.

    b"FWY1" | length, crc32 of the header | header | sections | sha256 of everything before

The header is compressed JSON: the config, a line per tensor, and a line per section with its codec,
length and crc32. All weight codes share one adaptive stream (`coding/weights.py`); scales, float16
and float32 tensors are each joined, byte-shuffled and compressed. Nothing in it is executable, and
nothing is believed before its checksum is: any flipped byte is refused by the name of its section.
How large the file may be is not here, but in `budget.py`.
"""

import hashlib
import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairway.coding.codecs import codec, shuffle, smallest, unshuffle
from fairway.coding.weights import decode_matrices, encode_matrices
from fairway.quant.quantized import LowRank, QuantizedTensor, dequantize
from fairway.runtime.files import atomic_write

MAGIC = b"FWY1"
_PREAMBLE = struct.Struct("<4sII")  # magic, header length, header crc32
_DIGEST_BYTES = 32
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
    """
    _require_json(config)
    streams: dict[str, list[np.ndarray]] = {"scales": [], "half": [], "float": []}
    matrices: list[tuple[np.ndarray, int]] = []
    lines = [_store(name, tensor, matrices, streams) for name, tensor in tensors.items()]

    sections = [_section("tokenizer", tokenizer), ("codes", "stored", encode_matrices(matrices))]
    for name, arrays in streams.items():
        joined = b"".join(array.tobytes() for array in arrays)
        sections.append(_section(name, shuffle(joined, 4 if name == "float" else 2)))
    sections += [_section(f"extra:{name}", data) for name, data in (extras or {}).items()]
    index = [[name, how, len(data), zlib.crc32(data)] for name, how, data in sections]
    header = _json({"config": config, "tensors": lines, "sections": index}).encode()
    header = codec("brotli").compress(header)
    body = b"".join(data for _, _, data in sections)
    file = _PREAMBLE.pack(MAGIC, len(header), zlib.crc32(header)) + header + body
    return file + hashlib.sha256(file).digest()


def unpack(data: bytes) -> Artifact:
    """Inverse of `pack`. Raises ValueError naming the part that is damaged or missing."""
    if data[: len(MAGIC)] != MAGIC:
        raise ValueError(
            f"not a fairway artifact: it begins with {bytes(data[:4])!r} instead of {MAGIC!r}; for "
            f"files of other scripts there is `fairway import`"
        )
    if len(data) < _PREAMBLE.size + _DIGEST_BYTES:
        raise ValueError(f"the artifact is cut off after {len(data)} bytes; fetch it again")
    _, length, crc = _PREAMBLE.unpack_from(data)
    end = len(data) - _DIGEST_BYTES
    start = _PREAMBLE.size + length
    header = _checked("header", data[_PREAMBLE.size : min(start, end)], length, crc)
    told = json.loads(codec("brotli").decompress(header))
    sizes = {"header": start, "checksum": _DIGEST_BYTES}
    parts: dict[str, bytes] = {}
    for name, how, length, crc in told["sections"]:
        packed = _checked(name, data[start : min(start + length, end)], length, crc)
        parts[name] = codec(how).decompress(packed)
        sizes[name] = length
        start += length
    if start != end:
        raise ValueError(f"{end - start} bytes too many follow the last section; fetch it again")
    if hashlib.sha256(data[:end]).digest() != data[end:]:
        raise ValueError("the artifact's checksum is wrong; the file is damaged, fetch it again")

    lines = told["tensors"]
    shapes = [shape for line in lines for shape in _matrix_shapes(line)]
    matrices = iter(decode_matrices(parts["codes"], shapes))
    streams = {
        name: np.frombuffer(unshuffle(parts[name]), "<f4" if name == "float" else "<f2")
        for name in ("scales", "half", "float")
    }
    places = dict.fromkeys(streams, 0)

    def take(name: str, *shape: int) -> Tensor:
        place, count = places[name], int(np.prod(shape, dtype=np.int64))
        places[name] += count
        return torch.from_numpy(streams[name][place : place + count].reshape(shape).copy())

    tensors: dict[str, QuantizedTensor | Tensor] = {}
    for line in lines:
        name, kind, shape = line[:3]
        if kind in _FLOATS:
            tensors[name] = take(kind, *shape)
            continue
        codes = torch.from_numpy(next(matrices))
        scale, low_rank = take("scales", codes.size(0)), None
        if kind == "low_rank":
            a_bits, b_bits, group = line[6:]
            a, b = torch.from_numpy(next(matrices)), torch.from_numpy(next(matrices))
            low_rank = LowRank(
                a_codes=a.T.contiguous(),
                a_scale=take("scales", b.size(0)),
                b_codes=b,
                b_scale=take("scales", b.size(0), -(-b.size(1) // group)),
                a_bits=a_bits,
                b_bits=b_bits,
                group=group,
            )
        tensors[name] = QuantizedTensor(
            codes=codes, scale=scale, bits=line[4], shape=tuple(shape), low_rank=low_rank
        )
    return Artifact(
        config=told["config"],
        tokenizer=parts["tokenizer"],
        tensors=tensors,
        extras={n.removeprefix("extra:"): d for n, d in parts.items() if n.startswith("extra:")},
        sizes=sizes,
    )


def write_artifact(path: Path, data: bytes) -> None:
    """Write what `pack` returned, whole or not at all."""
    atomic_write(path, data)


def read_artifact(path: Path) -> Artifact:
    """`unpack` of a file; errors name the file."""
    try:
        return unpack(Path(path).read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _require_json(config: dict[str, Any]) -> None:
    try:
        back = json.loads(_json(config))
    except (TypeError, ValueError) as error:
        raise ValueError(f"the config cannot be written as JSON: {error}") from error
    if back != config:
        raise ValueError(
            "the config does not survive JSON unchanged; use text keys, and lists in place of "
            "tuples"
        )


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True, allow_nan=False)


def _section(name: str, data: bytes) -> tuple[str, str, bytes]:
    # On little data the header of lzma loses to brotli, and setting it up takes longest.
    names = ("stored", "brotli") if len(data) < 4096 else ("stored", "brotli", "lzma")
    return (name, *smallest(data, names))


def _checked(name: str, data: bytes, length: int, crc: int) -> bytes:
    if len(data) < length:
        raise ValueError(
            f"section {name!r} is cut off: {len(data):,} of {length:,} bytes; fetch the file again"
        )
    if zlib.crc32(data) != crc:
        raise ValueError(f"section {name!r} is damaged: its checksum is wrong; fetch it again")
    return data


def _store(
    name: str,
    tensor: QuantizedTensor | Tensor,
    matrices: list[tuple[np.ndarray, int]],
    streams: dict[str, list[np.ndarray]],
) -> list:
    """Append a tensor to the streams; returns its line of the header.

    [name, "half" or "float", shape], or
    [name, "codes", shape, columns, bits], or the same with "low_rank" and
    [..., rank, a_bits, b_bits, group]
    """
    if isinstance(tensor, Tensor):
        for kind, (dtype, stored) in _FLOATS.items():
            if tensor.dtype == dtype:
                streams[kind].append(tensor.detach().cpu().numpy().astype(stored))
                return [name, kind, list(tensor.shape)]
        raise ValueError(
            f"{name!r} is {tensor.dtype}; an artifact holds quantized, float16 and float32 tensors"
        )
    matrices.append((_numpy(tensor.codes), tensor.bits))
    streams["scales"].append(_numpy(tensor.scale))
    line = [name, "codes", list(tensor.shape), tensor.codes.size(1), tensor.bits]
    low_rank = tensor.low_rank
    if low_rank is None:
        return line
    # Codes without a zero reach one further down than up: one more bit holds them.
    matrices.append((_numpy(low_rank.a_codes.T), low_rank.a_bits + 1))
    matrices.append((_numpy(low_rank.b_codes), low_rank.b_bits + 1))
    streams["scales"] += [_numpy(low_rank.a_scale), _numpy(low_rank.b_scale)]
    line[1] = "low_rank"
    rank = low_rank.b_codes.size(0)
    return [*line, rank, low_rank.a_bits, low_rank.b_bits, low_rank.group]


def _matrix_shapes(line: list) -> list[tuple[tuple[int, int], int]]:
    """(shape, bits) of the code matrices of one header line."""
    if line[1] in _FLOATS:
        return []
    shape, columns, bits = line[2:5]
    rows = int(np.prod(shape, dtype=np.int64)) // columns
    matrices = [((rows, columns), bits)]
    if line[1] == "low_rank":
        rank, a_bits, b_bits, _ = line[5:]
        matrices += [((rank, rows), a_bits + 1), ((rank, columns), b_bits + 1)]
    return matrices


def _numpy(tensor: Tensor) -> np.ndarray:
    array = tensor.detach().cpu().contiguous().numpy()
    return array.astype("<f2") if array.dtype == np.float16 else array
