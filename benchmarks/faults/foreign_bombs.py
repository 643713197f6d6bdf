"""Handmade files of others' kinds, and of a run folder's: all of them must be refused."""

import io
import json
import os
import pickle
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import brotli
import numpy as np
import pyarrow
import pyarrow.parquet
import torch
import zstandard
from foreign import npy_bytes, torch_bytes

ZEROS = bytes(1 << 27)
Bombs = Callable[[bytes], Iterator[tuple[str, bytes]]]


class Runs:
    """What a pickle may ask for."""

    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple:
        return self.call, self.arguments


def _rezipped(data: bytes, change: Callable[[str, bytes], bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            new.writestr(info.filename, change(info.filename, old.read(info)))
    return out.getvalue()


def _saved(data: bytes) -> Iterator[tuple[str, bytes]]:
    """What `torch.save` writes, or might."""
    for call, arguments in {
        "os.system": (os.system, ("touch /tmp/it-ran",)),
        "eval": (eval, ("1",)),
        "open": (open, ("/tmp/it-ran", "w")),
    }.values():
        yield f"a pickle that calls {call!r:.40}", torch_bytes({"w": Runs(call, *arguments)})
        yield f"a bare pickle that calls {call!r:.40}", pickle.dumps(Runs(call, *arguments))
    yield "a tensor of 2^40", torch_bytes({"w": torch.zeros(1).expand(1 << 40)})
    yield "a million names", torch_bytes({str(i): 1.0 for i in range(10**6)})
    yield "numbers alone", torch_bytes([1, 2, 3])
    yield "a sparse tensor", torch_bytes({"w": torch.eye(3).to_sparse()})
    yield "a module", torch_bytes({"w": torch.nn.Linear(2, 2)})
    deep: list = []
    for _ in range(100):
        deep = [deep]
    yield "lists 100 deep", torch_bytes({"w": deep})
    long = b"\x80\x02" + b"]" * 10**6 + b"."
    yield (
        "a pickle of a million lists",
        _rezipped(data, lambda name, held: long if name.endswith("data.pkl") else held),
    )
    yield (
        "a storage cut short",
        _rezipped(data, lambda name, held: held[:4] if "/data/" in name else held),
    )
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        new.writestr("archive/data.pkl", ZEROS)
    yield "128 MB of zeros in a zip", out.getvalue()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as new:
        for i in range(25_000):
            new.writestr(f"archive/data/{i}", b"")
    yield "a zip of 25,000 files", out.getvalue()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as new:
        new.writestr("../../tmp/it-ran", b"x")
    yield "a path upwards", out.getvalue()


def _pt(data: bytes) -> Iterator[tuple[str, bytes]]:
    yield from _saved(data)
    yield "nothing", b""


def _ptz(data: bytes) -> Iterator[tuple[str, bytes]]:
    for fault, saved in _saved(zlib.decompress(data)):
        yield fault, zlib.compress(saved, 1)
    for name, packed in {
        "zlib": zlib.compress(ZEROS, 1),
        "zstd": zstandard.compress(ZEROS, 1),
        "brotli": brotli.compress(ZEROS, quality=3),
        "four layers of zstd": zstandard.compress(zstandard.compress(bytes(1 << 29), 1), 1),
    }.items():
        yield f"128 MB of zeros by {name}", packed
    huge = zstandard.compress(bytes(1 << 20))
    yield "a zstd frame that claims 2^60 bytes", huge[:4] + b"\xe0" + b"\xff" * 8 + huge[6:]
    yield "nothing", b""


def _npy(data: bytes) -> Iterator[tuple[str, bytes]]:
    def with_header(header: str, version: bytes = b"\x01\x00") -> bytes:
        text = header.encode("latin1")
        text += b" " * (-(len(text) + 11) % 64) + b"\n"
        size = len(text).to_bytes(2 if version[0] == 1 else 4, "little")
        return b"\x93NUMPY" + version + size + text + data[128:]

    for shape in ("(1099511627776,)", "(4611686018427387904,)", "(-1,)", "(2, 3)", "()", "('a',)"):
        yield (
            f"shape {shape}",
            with_header(f"{{'descr': '<i4', 'fortran_order': False, 'shape': {shape}}}"),
        )
    for kind in ("|O", "<f8", "<c16", "|V8", "<U9", "[('a', '<i4')]", "<i3"):
        told = kind if kind.startswith("[") else repr(kind)
        yield (
            f"of {kind}",
            with_header(f"{{'descr': {told}, 'fortran_order': False, 'shape': (300,)}}"),
        )
    yield "a header that calls", with_header("__import__('os').system('touch /tmp/it-ran')")
    yield "a header nested deep", with_header("(" * 9000)
    yield "a header of 4 GB", b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + data[12:]
    yield "version 3", with_header(repr({"descr": "<i4"}), b"\x03\x00")
    yield "a pickle", pickle.dumps([1, 2])
    yield "objects", npy_bytes(np.array([{}, []], dtype=object))
    yield "nothing", b""


def _lines(data: bytes) -> Iterator[tuple[str, bytes]]:
    yield "a line of 65 MB", b'{"text": "' + b"a" * (65 << 20) + b'"}\n'
    yield "nested 10^6 deep", b"[" * 10**6 + b"\n"
    yield "nested in objects", b'{"text":' * 10**5 + b"\n"
    yield "a number of 10^6 digits", b'{"text": "a", "n": ' + b"9" * 10**6 + b"}\n"
    yield "half a character", b'{"text": "\\ud800"}\n'
    yield "no UTF-8", b'{"text": "\xff"}\n'
    yield "a list", b'["text"]\n'
    yield "a number", b'{"text": 5}\n'
    yield "gzip", b"\x1f\x8b\x08" + data
    yield "a pickle", pickle.dumps({"text": "a"})


def _parquet(data: bytes) -> Iterator[tuple[str, bytes]]:
    def table(**columns: Any) -> bytes:
        out = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.table(columns), out)
        return out.getvalue()

    yield "no text", table(words=["a"])
    yield "numbers", table(text=[1, 2])
    yield "lists", table(text=[["a"], ["b"]])
    yield "bytes", table(text=[b"\xff"])
    yield "a footer of 2 GB", data[:-8] + b"\xff\xff\xff\x7f" + data[-4:]
    yield "a footer of nothing", data[:-8] + b"\0\0\0\0" + data[-4:]
    yield "a footer of zeros", data[:-200] + bytes(192) + data[-8:]
    yield "the mark alone", b"PAR1"
    yield "the mark twice", b"PAR1PAR1"
    yield "encrypted", data[:-4] + b"PARE"


def _fetched(data: bytes) -> Iterator[tuple[str, bytes]]:
    true = json.loads(data)
    entry = next(iter(true["files"].values()))
    for fault, files in {
        "a path upwards": {"../../../etc/passwd": entry},
        "a path from the root": {"/etc/passwd": entry},
        "a million files": {f"fineweb_train_{i:06d}.txt": entry for i in range(10**5)},
        "a list": [entry],
        "no sum": {"fineweb_val_000000.bin": {"bytes": 1, "tokens": 1}},
        "a sum that is a number": {"fineweb_val_000000.bin": {**entry, "sha256": 5}},
        "a size below nothing": {"fineweb_val_000000.bin": {**entry, "bytes": -1}},
    }.items():
        yield fault, json.dumps({**true, "files": files}).encode()
    yield "nested", b"[" * 10**6
    yield "no JSON", b"{"
    yield "of another name", json.dumps({**true, "name": "sp1024"}).encode()


def _description(data: bytes) -> Iterator[tuple[str, bytes]]:
    """JSON of a run folder."""
    true = json.loads(data)
    yield "nested 10^6 deep", b"[" * 10**6
    yield "nested in objects", b'{"a":' * 10**5
    yield "a number of 10^6 digits", b'{"seed": ' + b"9" * 10**6 + b"}"
    yield "Infinity", b'{"seed": Infinity}'
    yield "a list", b"[]"
    yield "no text", b"\xff\xfe"
    yield "nothing", b""
    yield "a name twice", b'{"sha256": 5,' + data.lstrip()[1:]
    yield "another seal", json.dumps({**true, "sha256": "0" * 64}).encode()
    yield "65 MB of blanks", data + b" " * (65 << 20)
    yield "a pickle", pickle.dumps(true)


FOREIGN_BOMBS: dict[str, Bombs] = {
    ".pt": _pt,
    ".ptz": _ptz,
    ".npy": _npy,
    "JSON lines": _lines,
    "Parquet": _parquet,
    "fetched list": _fetched,
    "run.json": _description,
    "recipe.json": _description,
    "recipe.json of a page": _description,
    "result.json": _description,
    "checkpoint": lambda data: iter(()),  # a tensor file, whose bombs are those
}
