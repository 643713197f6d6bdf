"""Handmade files that ask for too much, or say what cannot be: all of them must be refused."""

import io
import json
import lzma
import pickle
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import brotli
import numpy as np
import zstandard
from foreign_bombs import FOREIGN_BOMBS
from framed import Parts, changed, framed, index_of, parts_of
from harness import Case
from kinds import Sample
from sentencepiece import sentencepiece_model_pb2

from fairway.coding.codecs import codec, shuffle

schema: Any = sentencepiece_model_pb2  # protobuf makes its classes at run time
ZEROS = bytes(1 << 27)
NUMBERS: dict[str, tuple] = {
    "num_layers": (0, -1, True, 10**6, 10**30, float("inf"), float("nan"), 3.0, "3", None),
    "model_dim": (0, -16, 2**40, 2**62),
    "vocab_size": (0, -1, 2**40, 1),
    "train_context": (0, -1, 2**60),
    "bos_id": (-1, 260, 10**9),
    "extra_heads": (-1, 10**9),
    "logit_softcap": (0, -1.0, float("inf"), 1e-320),
    "attention.num_heads": (0, -2, 10**9),
    "attention.num_kv_heads": (0, -1, 10**9),
    "attention.rope_dims": (-2, 1, 10**9),
    "attention.rope_base": (0, -1.0, float("nan"), 1e308),
    "attention.exclusive_layers": (-1, 10**9),
    "attention.gate.window": (0, -1, 2**40),
    "attention.gate.scale": (float("nan"), 1e300),
    "mlp.ratio": (0, -1.0, 1e300, float("inf")),
    "mlp.slope": (float("nan"), 1e300),
    "embedding.dim": (0, -1, 2**40),
    "embedding.smear_window": (0, -1, 2**40),
    "embedding.ngrams": (
        [{"order": 2, "buckets": 2**50, "dim": 8}],
        [{"dim": 2**50}],
        [{}] * 10**5,
    ),
    "embedding.value.layers": ([1] * 10**6, [-1], [99]),
    "loop.extra_passes": (-1, 10**9),
    "loop.last": (-1, 10**9),
    "skips": (True, [], {"gated": 2}),
    "parallel": ({"start": -(10**9), "form": "x"}, {"start": 1.5}),
}
EVALUATE: dict[str, tuple] = {
    "context": (0, -1, 2**40, 2**63),
    "stride": (0, -1, 10**9),
    "rows": (0, 10**9, 2**63),
    "ttt.chunk_tokens": (0, 2**40, 2**63),
    "ttt.epochs": (0, 10**9),
    "ttt.batch_sequences": (0, 10**9),
    "ttt.lr": (-1.0, float("nan"), 1e300),
    "ttt.frozen_blocks": (-1, 10**9),
    "mixture.orders": ([], [10**9], list(range(10**5)), [-1]),
    "mixture.fade": (0, float("nan"), -1.0),
    "ttt": ({"type": "os:system"}, {"type": "Learner"}, [], "Sgd"),
}


def bombs(sample: Sample) -> Iterator[Case]:
    """All there are for a kind of file."""
    for fault, data in {**_BOMBS, **FOREIGN_BOMBS}[sample.kind](sample.data):
        yield Case(fault, data)


def _headers(parts: Parts, prefix: str, values: dict[str, tuple]) -> Iterator[tuple[str, bytes]]:
    """The file with one field of its header after another set to what it cannot be."""
    for dotted, odd in values.items():
        path = (*filter(None, prefix.split(".")), *dotted.split("."))
        for new in odd:
            fault = f"{'.'.join(path)}={new!r:.40}"
            yield fault, parts.file(changed(parts.header, path, new))


def _model(data: bytes) -> Iterator[tuple[str, bytes]]:
    parts = parts_of(data)
    yield from _headers(parts, "config.model", NUMBERS)
    yield from _headers(parts, "config.evaluate", EVALUATE)
    yield from _headers(parts, "", {"config": ([], None, {}, {"model": []}), "tensors": ({}, 5)})
    yield from _headers(parts, "config", {"evaluate": ([1], "x", 5), "loops_active": ("no", 2)})
    lines = parts.header["tensors"]
    for fault, more in _LINES.items():
        yield f"tensor {fault}", parts.file({**parts.header, "tensors": [*lines, *more]})
        yield f"tensor {fault} alone", parts.file({**parts.header, "tensors": more})
    for i, line in enumerate(lines[:40]):
        for j in range(len(line)):
            odd = (-1, 2**40, None, [], "x", True, 1.0, [2**20, 2**20], [-1, -260])
            new = odd[(3 * i + j) % len(odd)]
            yield (
                f"{line[0]}[{j}]={new!r}",
                parts.file(changed(parts.header, ("tensors", i, j), new)),
            )
    grown = changed(parts.header, ("config", "model", "model_dim"), 8192)
    yield "a larger model's config and shapes", parts.file(_scaled(grown, 512))
    yield from _floats(parts)
    yield from _frames(parts)
    yield "many words of codes", parts.file(codes=("stored", bytes(1 << 22)))
    for name in ("tokenizer", "half", "scales", "extra:note"):
        for how in ("brotli", "lzma", "zstd", "zlib"):
            yield f"{name}: 128 MB as {how}", parts.file(**{name: (how, PACKED[how])})


def _scaled(header: dict, factor: int) -> dict:
    """All shapes larger, so that they fit one another and no file's length."""
    lines = [
        [*line[:2], [n * factor if n == 16 else n for n in line[2]], *line[3:]]
        for line in header["tensors"]
    ]
    for line in lines:
        if len(line) > 3 and line[3] == 16:
            line[3] = 16 * factor
    return {**header, "tensors": lines}


_LINES: dict[str, list] = {
    "of 2^28 codes": [["more", "codes", [2**14, 2**14], 2**14, 6]],
    "of 2^28 codes in one row": [["more", "codes", [2**28], 2**28, 6]],
    "of 2^28 codes in one column": [["more", "codes", [2**28], 1, 2]],
    "of 20 bits": [["more", "codes", [16, 16], 16, 20]],
    "of 0 bits": [["more", "codes", [16, 16], 16, 0]],
    "of 2^28 halves": [["more", "half", [2**28]]],
    "of 2^28 floats": [["more", "float", [2**14, 2**14]]],
    "of a negative size": [["more", "half", [-5, -5]]],
    "of a million sizes": [["more", "half", [1] * 10**6]],
    "of no size": [["more", "codes", [0, 16], 16, 6]],
    "twice": [["embed.weight", "half", [1]], ["embed.weight", "half", [1]]],
    "a million times": [[f"{i}", "half", [0]] for i in range(10**6)],
    "with a long name": [["n" * 10**6, "half", [1]]],
    "of another kind": [["more", "pickle", [1]]],
    "of rank 2^28": [["more", "low_rank", [16, 16], 16, 6, 2**28, 2, 4, 64]],
    "of group 0": [["more", "low_rank", [16, 16], 16, 6, 2, 2, 4, 0]],
    "of factors of 20 bits": [["more", "low_rank", [16, 16], 16, 6, 2, 20, 20, 4]],
    "of rank 0": [["more", "low_rank", [16, 16], 16, 6, 0, 2, 4, 64]],
}
PACKED = {
    "lzma": lzma.compress(ZEROS, preset=0),
    "zlib": zlib.compress(ZEROS, level=1),
    "brotli": brotli.compress(ZEROS, quality=3),
    "zstd": zstandard.ZstdCompressor(level=1).compress(ZEROS),
}


def _floats(parts: Parts) -> Iterator[tuple[str, bytes]]:
    """Weights and scales that are no numbers."""
    for name, kind, width in (("half", "<f2", 2), ("scales", "<f2", 2), ("float", "<f4", 4)):
        how, packed = parts.sections[name]
        plane = codec(how).decompress(packed, 1 << 24)[5:]
        count = len(plane) // width
        for wrong in (float("nan"), float("inf"), -float("inf")):
            for place in (0, count - 1):
                raw = bytearray(np.frombuffer(plane, np.uint8).reshape(width, -1).T.tobytes())
                raw[place * width : (place + 1) * width] = np.array(wrong, kind).tobytes()
                yield (
                    f"{wrong} in {name}",
                    parts.file(**{name: ("stored", shuffle(bytes(raw), width))}),
                )


def _frames(parts: Parts) -> Iterator[tuple[str, bytes]]:
    """The frame itself, of any kind of file."""
    whole = {**parts.header, "sections": index_of(parts.sections)}
    text = json.dumps(whole)
    for fault, header in {
        "a header of 128 MB": ZEROS,
        "a header of 64 MB of lists": b"[" + b"[]," * 20_000_000 + b"[]]",
        "a header nested 10^5 deep": b'{"sections": ' + b"[" * 100_000,
        "a header nested 10^5 deep, closed": b"[" * 100_000 + b"]" * 100_000,
        "a number of 10^6 digits": b'{"sections": [], "a": ' + b"9" * 10**6 + b"}",
        "a number of 4,000 digits": b'{"sections": [], "seed": ' + b"9" * 4000 + b"}",
        "1e999": text.replace("}", ', "more": 1e999}', 1).encode(),
        "Infinity": b'{"sections": [], "a": Infinity}',
        "a name twice": b'{"sections": [], ' + text[1:].encode(),
        "no JSON": b"\x80\x04\x95" + bytes(40),
        "UTF-16": text.encode("utf-16"),
        "an empty header": b"",
        "a pickle": pickle.dumps({"sections": []}),
        "a million sections": json.dumps(
            {**whole, "sections": [[str(i), "stored", 0, 0] for i in range(10**6)]}
        ).encode(),
    }.items():
        yield fault, framed(parts.magic, header, parts.sections)
    for length in (-1, 2**40, 2**63, 1.5, True, "5"):
        listed = [[name, how, length, crc] for name, how, _, crc in whole["sections"]]
        yield f"sections of {length!r} bytes", parts.file({**whole, "sections": listed})
    yield "a header length beyond the file", parts.file()[:4] + b"\xff" * 4 + parts.file()[8:]


def _proof(data: bytes) -> Iterator[tuple[str, bytes]]:
    parts = parts_of(data)
    yield from _headers(
        parts,
        "",
        {
            "num_tokens": (-1, 0, 1, 5, 10**6, 2**26, 2**30, 2**62, True, 3.0),
            "num_chunks": (-1, 0, 2**30, 2**62),
            "first_token": (-1, 260, 10**9),
            "threads": (-1, 0, 10**6, 2**62, True),
            "seed": (-1, 2**64, 2**70, 1.5),
            "walk.rows": (-1, 0, 10**9),
            "walk.every": (-1, 0, 2**40),
            "walk.pad_to": (-1, 2**40),
            "artifact_sha256": ("", "x", 5),
            "text_sha256": ("", "0" * 64, 5),
            "circumstances": ([], {"a": 5}, {str(i): "" for i in range(10**5)}),
            "evaluate.documents": (True, 1),
            "evaluate.precision": ("int8", None),
            "evaluate.cached": (1, 10**9),
        },
    )
    yield from _headers(parts, "evaluate", EVALUATE)
    yield from _frames(parts)
    starts = {
        "beyond the text": [0, 10**6],
        "not rising": [0, 0, 0],
        "a million": list(range(10**6)),
    }
    for fault, where in starts.items():
        raw = shuffle(np.diff(np.array(where, "<u4")).tobytes(), 4)
        packed = ("brotli", brotli.compress(raw, quality=5))
        yield f"starts {fault}", parts.file(starts=packed)
        documents = changed(parts.header, ("evaluate", "documents"), True)
        yield f"starts {fault}, read", parts.file(documents, starts=packed)
    many = changed(parts.header, ("num_tokens",), 2**26)
    yield "starts of 128 MB", parts.file(many, starts=("brotli", PACKED["brotli"]))
    yield "no checkpoints", parts.file(checkpoints=("stored", b""))
    yield "odd checkpoints", parts.file(checkpoints=("stored", b"123"))
    yield "4 MB of checkpoints", parts.file(checkpoints=("stored", bytes(1 << 22)))
    yield "checkpoints of 128 MB", parts.file(checkpoints=("zstd", PACKED["zstd"]))
    yield "no symbols", parts.file(symbols=("stored", b""))
    yield "symbols of 128 MB", parts.file(symbols=("zstd", PACKED["zstd"]))
    yield (
        "tokens for 4 MB of checkpoints",
        parts.file(many, checkpoints=("zlib", codec("zlib").compress(bytes(1 << 22)))),
    )


def _compressed(data: bytes) -> Iterator[tuple[str, bytes]]:
    parts = parts_of(data)
    yield from _headers(
        parts,
        "",
        {
            "num_tokens": (-1, 0, 1, 5, 10**6, 2**26, 2**30, 2**62, True),
            "segments": (-1, 0, 1, 1000, 10**9, 2**62, None),
            "threads": (-1, 0, 10**6, 2**62),
            "every": (-1, 0, 2**40),
            "adapt": (None, 2, "no"),
            "model": ("", 5),
            "text": ("", 5),
            "made": ([], {"torch": 5}),
        },
    )
    yield from _frames(parts)
    yield "no checkpoints", parts.file(checkpoints=("stored", b""))
    yield "odd checkpoints", parts.file(checkpoints=("stored", b"123"))
    yield "checkpoints of 128 MB", parts.file(checkpoints=("zstd", PACKED["zstd"]))
    yield "no symbols", parts.file(symbols=("stored", b""))
    yield "symbols of 128 MB", parts.file(symbols=("zstd", PACKED["zstd"]))
    many = {**parts.header, "num_tokens": 2**26, "segments": 2**26}
    yield "as many segments as tokens", parts.file(many)


def _shard(data: bytes) -> Iterator[tuple[str, bytes]]:
    head = np.frombuffer(data[:1024], "<i4")
    for word, value in ((0, 0), (1, 9), (2, -1), (2, 0), (2, 2**31 - 1), (2, -(2**31))):
        new = head.copy()
        new[word] = value
        yield f"word {word} is {value}", new.tobytes() + data[1024:]
    yield "ids beyond the vocabulary", data[:1024] + b"\xff" * (len(data) - 1024)
    yield "a header alone", data[:1024]
    yield "no bytes", b""


def _manifest(data: bytes) -> Iterator[tuple[str, bytes]]:
    true = json.loads(data)
    for fault, sums in {
        "a path upwards": {"../../../etc/passwd": "0" * 64},
        "a path from the root": {"/etc/passwd": "0" * 64},
        "a shard that is not there": {**true["sha256"], "val_000009.bin": "0" * 64},
        "sums that are numbers": dict.fromkeys(true["sha256"], 5),
        "sums that are lists": {name: [] for name in true["sha256"]},
        "a list of sums": list(true["sha256"].values()),
        "a million names": {str(i): "0" * 64 for i in range(10**6)},
        "one file": dict(list(true["sha256"].items())[:1]),
    }.items():
        yield fault, json.dumps({**true, "sha256": sums}).encode()
    yield "nested", b"[" * 10**6
    yield "nested in an object", b'{"sha256": ' + b'{"a":' * 10**5
    yield "a list", b"[]"
    yield "no text", b"\xff\xfe"
    yield "no JSON", b"{"
    yield "a number of 10^6 digits", b'{"a": ' + b"9" * 10**6 + b"}"
    yield "a name twice", b'{"sha256": {}, ' + data.lstrip()[1:]
    yield "128 MB of blanks", data + b" " * (1 << 27)


def _pieces(data: bytes) -> Iterator[tuple[str, bytes]]:
    head = data[:8]
    for fault, pieces in {
        "a million": [f"a{i}" for i in range(10**6)],
        "no texts": [1, 2],
        "empty": ["a", ""],
        "repeated": ["ab", "ab"],
        "an object": {"a": 1},
        "nested": [["a"]],
        "of a special id": ["<s>"],
        "of a byte": ["<0x41>"],
        "of half a character": ["\ud800"],
        "with a zero": ["a\0b"],
        "of a megabyte": ["a" * 10**6],
        "long, and many": ["b" * 1000 + str(i) for i in range(60_000)],
    }.items():
        text = json.dumps(pieces)
        yield f"pieces: {fault}", head + lzma.compress(text.encode("utf-8", "surrogatepass"))
    yield "128 MB of zeros", head + PACKED["lzma"]
    yield (
        "64 MB of small texts",
        head + lzma.compress(b"[" + b'"a",' * (1 << 24) + b'"b"]', preset=1),
    )
    yield "nested 10^6 deep", head + lzma.compress(b"[" * 10**6)
    yield "a dictionary of 4 GB", head + b"\x5d\xff\xff\xff\xff" + b"\xff" * 8 + bytes(40)
    yield (
        "a dictionary of 1.5 GB",
        head
        + lzma.compress(
            b'["a"]', filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 3 << 29, "preset": 0}]
        ),
    )
    yield "another kind", data[:5] + b"pkl" + pickle.dumps([])
    yield "bytes and more", b"FWYT1bytes\0"
    yield "nothing", b""


def _sentencepiece(data: bytes) -> Iterator[tuple[str, bytes]]:
    def model(change: Callable[[Any], None]) -> bytes:
        proto = schema.ModelProto.FromString(data)
        change(proto)
        return proto.SerializeToString()

    def many(proto: Any) -> None:
        for i in range(10**6):
            proto.pieces.add(piece=f"p{i}", score=0.0)

    def bytes_named(name: str) -> Callable[[Any], None]:
        def change(proto: Any) -> None:
            byte = next(p for p in proto.pieces if p.type == p.BYTE)
            byte.piece = name

        return change

    yield "a million pieces", model(many)
    yield "a piece of a megabyte", model(lambda p: p.pieces.add(piece="a" * 10**6))
    yield "an empty piece", model(lambda p: p.pieces.add(piece=""))
    yield "a piece twice", model(lambda p: p.pieces.add(piece=p.pieces[300 - 1].piece))
    yield "no pieces", model(lambda p: p.ClearField("pieces"))
    yield "no BOS", model(lambda p: setattr(p.trainer_spec, "bos_piece", "<none>"))
    for name in ("<0xZZ>", "<0x>", "A", "<0x100>"):
        yield f"a byte piece {name}", model(bytes_named(name))
    for fault, table in {
        "short": b"\1",
        "of zeros": bytes(1024),
        "of a wrong length": b"\xff" * 64,
        "of links that lead outside": (1024).to_bytes(4, "little") + b"\xff" * 1024 + b"a\0",
        "of links that lead outside, silently": (1024).to_bytes(4, "little")
        + (0x7FFFFFFF).to_bytes(4, "little") * 256
        + b"a\0",
        "of values that lead outside": (1024).to_bytes(4, "little")
        + (0x80000100 | 0x7FFF0000).to_bytes(4, "little") * 256
        + b"a\0",
    }.items():

        def mapped(proto: Any, table: bytes = table) -> None:
            proto.normalizer_spec.precompiled_charsmap = table

        yield f"a normalization {fault}", model(mapped)
    yield "64 MB of zeros", bytes(1 << 26)
    yield "a length beyond the file", b"\x0a\xff\xff\xff\xff\x0f"
    yield "groups nested 10^5 deep", b"\x0b" * 10**5
    yield "a pickle", pickle.dumps([1])
    yield "nothing", b""


def _tensors(data: bytes) -> Iterator[tuple[str, bytes]]:
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]

    def file(head: object, size: int | None = None) -> bytes:
        text = head if isinstance(head, bytes) else json.dumps(head).encode()
        return (len(text) if size is None else size).to_bytes(8, "little") + text + body

    for field, odd in {
        "shape": ([2**40, 2**40], [2**62, 4], [-1], [9.5, 7], "x", [], [1] * 10**5),
        "dtype": ("F128", "object", "", 5, "F8_E4M3", "BOOL", "F4"),
        "data_offsets": ([0, 2**40], [0, 2**63], [-8, 8], [8, 0], [0], "x"),
    }.items():
        for new in odd:
            yield f"{field}={new!r:.40}", file(changed(header, ("weight", field), new))
    for size in (0, 1, 2**31, 2**40, 2**63, 2**64 - 1):
        yield f"a header of {size} bytes", file(header, size)
    facts = json.loads(header["__metadata__"]["fairway"])
    for new in (
        *("", "{", "[]", "5", "null", "[" * 10**5, json.dumps({**facts, "sha256": 5})),
        *(json.dumps({**facts, "facts": f}) for f in (None, [], 5, "x", {"step": 9})),
        *("9" * 10**5, '{"facts": {"a": NaN}, "sha256": ""}'),
    ):
        yield f"facts {new:.40}", file(changed(header, ("__metadata__", "fairway"), new))
    yield "no metadata", file({k: v for k, v in header.items() if k != "__metadata__"})
    yield "a name twice", file(b'{"step": 5,' + json.dumps(header).encode()[1:])
    yield "nested", file(b'{"a":' * 10**5)
    yield "a million tensors", file({f"t{i}": header["step"] for i in range(10**6)})
    yield "overlapping", file({**header, "again": header["weight"]})
    yield "a pickle", pickle.dumps({"weight": [1.0]})
    zipped = io.BytesIO()
    np.savez_compressed(zipped, weight=np.zeros(1 << 26, np.float32))
    yield "a zip", zipped.getvalue()
    yield "nothing", b""


_BOMBS: dict[str, Callable[[bytes], Iterator[tuple[str, bytes]]]] = {
    "model": _model,
    "proof": _proof,
    "compressed": _compressed,
    "shard": _shard,
    "shard without hashes": _shard,
    "tokenizer of a data folder": _pieces,
    "data.json": _manifest,
    "our tokenizer": _pieces,
    "SentencePiece": _sentencepiece,
    "tensor file": _tensors,
}
