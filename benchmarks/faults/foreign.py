"""Files that others make: published weights, token files, texts in containers, a fetch's list."""

import hashlib
import io
import json
import zlib
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import torch
from kinds import Sample

from fairway.audit.token_file import read_token_file
from fairway.fetch.fetching import fetch
from fairway.fetch.hub import Listing, RemoteFile
from fairway.fetch.published import PUBLISHED, Published
from fairway.interop.ptz import read_weights
from fairway.prepare.sources import read_documents

SAVED = {
    "w": {
        "a.weight.q": torch.arange(-31, 33, dtype=torch.int8).reshape(4, 16),
        "a.weight.scale": torch.tensor([0.5, 2.0, 1.0, 0.25], dtype=torch.float16),
        "b": torch.tensor([1.0, 2.0], dtype=torch.float16),
    },
    "m": {"a.weight": {"type": "int6"}, "b": "passthrough"},
}
TEXTS = [f"{i} green bottles, caf\u00e9 \u2581, \u1112\u1161\u11ab" for i in range(20)]
TINY = Published(repo="someone/golf", folder="tiny", tokenizer="tiny.model", vocab_size=300)


def foreign_samples(folder: Path, tokenizer: bytes) -> list[Sample]:
    """tokenizer  of SentencePiece, of 300 pieces"""
    contents = {
        ".pt": ("weights.pt", torch_bytes({k: t.float() for k, t in SAVED["w"].items()})),
        ".ptz": ("model.ptz", zlib.compress(torch_bytes(SAVED))),
        ".npy": ("tokens.npy", npy_bytes(np.arange(300, dtype=np.int32))),
        "JSON lines": ("text.jsonl", b"".join(map(line_of, TEXTS))),
        "Parquet": ("text.parquet", parquet_bytes(TEXTS)),
    }
    read = {".pt": weights, ".ptz": weights, ".npy": tokens}
    samples = []
    for kind, (name, data) in contents.items():
        place = folder / kind.strip(".").replace(" ", "_")
        place.mkdir()
        (place / name).write_bytes(data)
        reader = read.get(kind, documents)
        samples.append(Sample(kind, place, name, lambda at, r=reader, n=name: r(at / n)))
    return [*samples, _fetched(folder / "fetched", tokenizer)]


def torch_bytes(value: object) -> bytes:
    out = io.BytesIO()
    torch.save(value, out)
    return out.getvalue()


def npy_bytes(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def line_of(text: str) -> bytes:
    return json.dumps({"text": text, "n": len(text)}, ensure_ascii=False).encode() + b"\n"


def parquet_bytes(texts: list[str]) -> bytes:
    out = io.BytesIO()
    table = pyarrow.table({"text": texts, "n": list(range(len(texts)))})
    pyarrow.parquet.write_table(table, out, row_group_size=7)
    return out.getvalue()


def weights(path: Path) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(read_weights(path).items()):
        digest.update(name.encode() + str(tensor.dtype).encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def tokens(path: Path) -> str:
    return hashlib.sha256(read_token_file(path).astype(np.int64).tobytes()).hexdigest()


def documents(path: Path) -> str:
    return hashlib.sha256(b"\0".join(read_documents([path]))).hexdigest()


class Shelf:
    """A hub whose files never change."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        sums = {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}
        listed = (RemoteFile(path, len(files[path]), sum_) for path, sum_ in sums.items())
        self.listed = Listing("a" * 40, tuple(listed))

    def listing(self, repo: str) -> Listing:
        return self.listed

    def download(self, repo: str, revision: str, path: str, into: Path) -> Path:
        target = into / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(self.files[path])
        return target


def _fetched(folder: Path, tokenizer: bytes) -> Sample:
    """A folder that a fetch filled, whose list of files is damaged before it is fetched again."""
    header = np.zeros(256, dtype="<i4")
    header[:3] = 20240520, 1, 3
    shard = header.tobytes() + np.array([1, 2, 3], dtype="<u2").tobytes()
    names = ("fineweb_val_000000.bin", "fineweb_train_000000.bin")
    hub = Shelf({"tiny.model": tokenizer, **{f"tiny/{name}": shard for name in names}})
    PUBLISHED["tiny"] = TINY

    def read(at: Path) -> str:
        told = fetch("tiny", at, train_shards=1, hub=hub)
        held = {name: (at / name).read_bytes() for name in told["files"]}
        if held != {"tiny.model": tokenizer, **held} and any(
            held[name] != hub.files[f"tiny/{name}"] for name in names
        ):
            raise AssertionError("other files than the hub has")
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    fetch("tiny", folder, train_shards=1, hub=hub)
    return Sample("fetched list", folder, "data.json", read)
