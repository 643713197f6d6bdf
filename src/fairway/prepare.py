"""Raw text to shards and a tokenizer, in a stream: memory does not grow with the corpus.

Sources are read twice, once for the tokenizer's sample and once for encoding. The folder appears
whole or not at all.
"""

import hashlib
import json
import lzma
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

import numpy as np

from fairway.runtime.files import atomic_write, file_sha256
from fairway.tokens.shards import ShardWriter
from fairway.tokens.tokenizer import ByteTokenizer, Tokenizer, load_tokenizer, train_bpe

BLOCK_BYTES = 1 << 20
Progress = Callable[[float, int], None]  # share of the sources read, bytes of text encoded


class Position:
    """How far the reading of files has come, in their own bytes, packed or not."""

    def __init__(self) -> None:
        self.finished = 0
        self.current: IO[bytes] | None = None

    @property
    def num_bytes(self) -> int:
        return self.finished + (self.current.tell() if self.current is not None else 0)

    @contextmanager
    def reading(self, file: Path) -> Iterator[IO[bytes]]:
        with file.open("rb") as self.current:
            yield self.current
        self.finished, self.current = self.finished + file.stat().st_size, None


def read_documents(sources: Sequence[Path], position: Position | None = None) -> Iterator[bytes]:
    """Documents of all sources in order, one at a time; blank ones are passed over.

    Plain text (documents separated by NUL), JSON lines and Parquet (field "text"), each also .xz;
    a folder stands for the files in it. Raises ValueError naming what cannot be read.
    """
    for file in _files(sources):
        documents = _read(file, position or Position())
        yield from (document for document in documents if document.strip())


def _files(sources: Sequence[Path]) -> Iterator[Path]:
    if not sources:
        raise ValueError("no source given; name a text, .jsonl or .parquet file, or a folder")
    for source in map(Path, sources):
        if source.is_dir():
            inside = sorted(file for file in source.iterdir() if file.is_file())
            if not inside:
                raise ValueError(f"{source} is an empty folder")
            yield from inside
        elif source.is_file():
            yield source
        else:
            raise ValueError(f"no such source: {source}")


def _num_bytes(sources: Sequence[Path]) -> int:
    return sum(file.stat().st_size for file in _files(sources))


def _read(file: Path, position: Position) -> Iterator[bytes]:
    packed = file.suffix == ".xz"
    kind = file.with_suffix("").suffix if packed else file.suffix
    try:
        with position.reading(file) as raw:
            opened: Any = lzma.LZMAFile(raw) if packed else raw  # noqa: SIM115 (raw is closed above)
            if kind == ".parquet":
                yield from _parquet(opened)
            elif kind in (".jsonl", ".ndjson"):
                yield from _json_lines(opened, file)
            else:
                yield from _split_at_nul(opened)
    except (lzma.LZMAError, EOFError, OSError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error


def _split_at_nul(opened: IO[bytes]) -> Iterator[bytes]:
    held = bytearray()
    while block := opened.read(BLOCK_BYTES):
        held += block
        if b"\0" in block:
            *whole, rest = held.split(b"\0")
            yield from map(bytes, whole)
            held = bytearray(rest)
    yield bytes(held)


def _json_lines(opened: IO[bytes], file: Path) -> Iterator[bytes]:
    for number, line in enumerate(opened, start=1):
        if not line.strip():
            continue
        try:
            yield json.loads(line)["text"].encode("utf-8", "surrogatepass")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f'{file}, line {number}: expected an object with a string "text" ({error!r})'
            ) from error


def _parquet(opened: IO[bytes]) -> Iterator[bytes]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(opened)
        for batch in table.iter_batches(batch_size=256, columns=["text"]):
            yield from (text.encode() for text in batch.column(0).to_pylist() if text)
    except (pyarrow.ArrowException, KeyError, IndexError) as error:
        raise ValueError(f'{opened.name}: expected a Parquet column "text" ({error})') from error


def prepare(
    out: Path,
    sources: Sequence[Path],
    *,
    vocab_size: int | None = None,
    tokenizer: Path | None = None,
    val: Sequence[Path] = (),
    val_fraction: float | None = None,
    seed: int = 0,
    tokens_per_shard: int = 10_000_000,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write a data folder from files; returns its manifest (`data.json`).

    Exactly one of vocab_size (train a tokenizer) and tokenizer (use that file; `bytes` stands for
    the one that needs no file), and exactly one of val (files of their own) and val_fraction (whole
    documents, chosen by a hash of their content; of a text that is one document, its end) must be
    given. No document lands in both splits: training copies of validation documents are dropped and
    counted.
    """
    if (vocab_size is None) == (tokenizer is None):
        raise ValueError("give either --vocab-size N or --tokenizer FILE (or: bytes)")
    if bool(val) == (val_fraction is not None):
        raise ValueError("give either --val SOURCE or --val-fraction F")
    if val_fraction is not None and not 0 < val_fraction < 1:
        raise ValueError(f"val_fraction={val_fraction} must lie between 0 and 1")

    def is_val(document: bytes) -> bool:
        key = hashlib.sha256(seed.to_bytes(8, "little") + document).digest()
        return int.from_bytes(key[:7], "little") < (val_fraction or 0) * 2.0**56

    position = Position()
    held_out = _num_bytes(val or sources)  # what is read for each split
    total = held_out + _num_bytes(sources)

    def documents(split: str) -> Iterator[bytes]:
        nonlocal position
        position = Position()
        if val:
            yield from read_documents(val if split == "val" else sources, position)
            return
        found, chosen = read_documents(sources, position), split == "val"
        first = list(islice(found, 2))
        if len(first) == 1:
            yield cut_end(first[0], val_fraction or 0)[chosen]
        else:
            yield from (d for d in chain(first, found) if is_val(d) == chosen)

    def tell(split: str, encoded: int) -> None:
        if progress is not None:
            read = position.num_bytes + (held_out if split == "train" else 0)
            progress(min(1.0, read / max(total, 1)), encoded)

    return _write_folder(
        out,
        documents,
        vocab_size=vocab_size,
        tokenizer=_chosen(tokenizer),
        described=[str(source) for source in (*sources, *val)],
        tokens_per_shard=tokens_per_shard,
        tell=tell,
    )


def cut_end(document: bytes, fraction: float) -> tuple[bytes, bytes]:
    r"""A document without about `fraction` of it, and that end, cut after a line where it has some.

    >>> cut_end(b"one\ntwo\nthree\nfour\n", 0.25)
    (b'one\ntwo\nthree\n', b'four\n')
    """
    rough = int(len(document) * (1 - fraction))
    place = document.rfind(b"\n", 0, rough) + 1 or rough
    return document[:place], document[place:]


def _chosen(tokenizer: Path | None) -> Tokenizer | None:
    if tokenizer is None:
        return None
    return ByteTokenizer() if str(tokenizer) == "bytes" else load_tokenizer(Path(tokenizer))


def prepare_documents(
    out: Path, train: Sequence[bytes], val: Sequence[bytes], *, vocab_size: int, source: str
) -> dict[str, Any]:
    """`prepare` for documents in memory."""
    splits = {"train": train, "val": val}
    return _write_folder(
        out, lambda split: iter(splits[split]), vocab_size=vocab_size, described=[source]
    )


def _write_folder(
    out: Path,
    documents: Callable[[str], Iterator[bytes]],
    *,
    vocab_size: int | None,
    tokenizer: Tokenizer | None = None,
    described: Sequence[str],
    tokens_per_shard: int = 10_000_000,
    tell: Callable[[str, int], None] = lambda split, encoded: None,
) -> dict[str, Any]:
    if out.exists():
        raise ValueError(f"{out} exists already; remove it or choose another folder")
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        first = next(documents("train"), None)
        if first is None:
            raise ValueError("the sources hold no training document")
        if tokenizer is None:
            assert vocab_size is not None
            tokenizer = train_bpe(documents("train"), vocab_size)
        atomic_write(partial / "tokenizer.model", tokenizer.to_bytes())
        manifest: dict[str, Any] = {
            "sources": list(described),
            "tokenizer": {
                "kind": tokenizer.kind,
                "vocab_size": tokenizer.vocab_size,
                "lossless": tokenizer.lossless,
            },
        }
        seen: set[bytes] = set()
        before = 0
        for split in ("val", "train"):
            writer = ShardWriter(partial, split, tokens_per_shard)
            counts = _encode_split(documents(split), split, seen, tokenizer, writer, before, tell)
            before += counts["bytes"]
            manifest[split] = counts | {"tokens": writer.num_tokens, "shards": len(writer.files)}
            if not counts["documents"]:
                raise ValueError(
                    f"no {split} document: give another --val-fraction, or validation text of its "
                    f"own with --val"
                )
        names = sorted(file.name for file in partial.iterdir())
        manifest["sha256"] = {name: file_sha256(partial / name) for name in names}
        atomic_write(partial / "data.json", json.dumps(manifest, indent=1).encode())
        partial.rename(out)
        return manifest
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _encode_split(
    documents: Iterable[bytes],
    split: str,
    val_hashes: set[bytes],
    tokenizer: Tokenizer,
    writer: ShardWriter,
    bytes_before: int,
    tell: Callable[[str, int], None],
) -> dict[str, int]:
    """Encode a split on both cores; fills `val_hashes` or drops the documents that are in it."""
    counts = {"documents": 0, "bytes": 0, "dropped_because_in_val": 0}
    bos = np.array([tokenizer.bos_id], np.uint16)
    stream = iter(documents)
    with ThreadPoolExecutor(max_workers=2) as pool:  # the encoder lets go of the interpreter lock
        while group := list(islice(stream, 64)):
            kept = []
            for document in group:
                key = hashlib.sha256(document).digest()
                if split == "val":
                    val_hashes.add(key)
                elif key in val_hashes:
                    counts["dropped_because_in_val"] += 1
                    continue
                kept.append(document)
            encoded = pool.map(tokenizer.encode, kept)
            writer.add(np.concatenate([bos[:0], *chain.from_iterable((bos, e) for e in encoded)]))
            counts["documents"] += len(kept)
            counts["bytes"] += sum(map(len, kept))
            tell(split, bytes_before + counts["bytes"])
    writer.close()
    return counts
