"""A data folder made by tasks that have only a disk in common: who does what, and what is left.

A task encodes one file of the sources at a time into a part: its tokens, and a line about them.
Once every part is there, it is known where each of them begins, and a task writes any shard by
itself. So the shards are those of `partial.py`, byte for byte, whoever made them, in any order.
What is finished is on disk under its name, and is not done again. Which engine runs the tasks is
not known here; see `datatrove_engine.py`.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fairway.prepare.corpus import HeldOut
from fairway.prepare.encoding import encode_document
from fairway.prepare.partial import (
    Manifest,
    begin_manifest,
    end_manifest,
    require_documents,
    write_side_files,
)
from fairway.prepare.shard_journal import put_in_place
from fairway.prepare.sources import printable, read_file
from fairway.runtime.files import atomic_write, file_sha256
from fairway.tokens.shards import write_shard
from fairway.tokens.tokenizer import Tokenizer, load_tokenizer, train_tokenizer

SPLITS = ("val", "train")
PARTS, TOKENIZER = "parts", "tokenizer.model"
KEY_BYTES = 32  # of the hash of a document


class Unit(NamedTuple):
    """A file to encode.

    splits  where its documents may come to; of two, their content decides
    number  among the files of those splits
    """

    splits: tuple[str, ...]
    number: int
    file: Path


@dataclass(frozen=True)
class Part:
    """What a unit gave to one split."""

    documents: int = 0
    bytes: int = 0
    dropped: int = 0
    tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class Job:
    """One data folder to make; every task is handed it.

    out     its place in the end
    work    where it grows, on a disk that all tasks reach under this name
    """

    out: Path
    work: Path
    held_out: HeldOut
    described: tuple[str, ...]
    vocab_size: int | None
    tokens_per_shard: int
    transform: str | None = None

    @property
    def folder(self) -> Path:
        """What becomes the data folder."""
        return self.work / "folder"

    @property
    def parts(self) -> Path:
        return self.work / PARTS

    def open(self) -> None:
        for folder in (self.folder, self.parts):
            folder.mkdir(exist_ok=True)

    def clean(self) -> None:
        """Remove what was being written when the end came; only where no task is at work."""
        for draft in self.parts.glob("*.draft"):
            draft.unlink()

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return load_tokenizer(self.folder / TOKENIZER)

    def units(self, name: str, rank: int = 0, num_tasks: int = 1) -> list[Unit]:
        """All files of a stage ("val" or "train"), or those of one of its tasks."""
        held = self.held_out
        if held.val:
            files, splits = (held.val if name == "val" else held.files), (name,)
        else:
            files, splits = ([] if name == "val" else held.files), SPLITS
        units = [Unit(splits, number, file) for number, file in enumerate(files)]
        return units[rank::num_tasks]

    def part(self, split: str, number: int, suffix: str) -> Path:
        return self.parts / f"{split}-{number:06d}.{suffix}"

    def is_encoded(self, unit: Unit) -> bool:
        return all(self.finished_part(split, unit.number) for split in unit.splits)

    def finished_part(self, split: str, number: int) -> Part | None:
        """None where it is not there, or not as long as it was."""
        try:
            part = Part(**json.loads(self.part(split, number, "json").read_bytes()))
            size = self.part(split, number, "tokens").stat().st_size
        except (OSError, ValueError, TypeError):
            return None
        return part if size == 2 * part.tokens else None

    def all_parts(self, split: str) -> list[Part]:
        """Of every file in order; ValueError where one is missing."""
        parts = []
        for unit in self.units("val" if self.held_out.val and split == "val" else "train"):
            part = self.finished_part(split, unit.number)
            if part is None:
                raise ValueError(
                    f"{printable(unit.file)} is not encoded, or {printable(self.parts)} was "
                    f"damaged; repeat the command"
                )
            parts.append(part)
        return parts

    def num_shards(self, split: str) -> int:
        return -(-sum(part.tokens for part in self.all_parts(split)) // self.tokens_per_shard)

    def shards(self, rank: int = 0, num_tasks: int = 1) -> list[tuple[str, int]]:
        """All of them, as split and number, or those of one task."""
        every = [(split, n) for split in SPLITS for n in range(self.num_shards(split))]
        return every[rank::num_tasks]

    def is_done(self, stage: str, rank: int, num_tasks: int) -> bool:
        """Whether what that task leaves is there, as far as sizes tell."""
        if stage == "tokenizer":
            return (self.folder / TOKENIZER).exists()
        if stage in SPLITS:
            return all(map(self.is_encoded, self.units(stage, rank, num_tasks)))
        if stage == "shards":
            every_part = self.is_done("val", 0, 1) and self.is_done("train", 0, 1)
            return every_part and all(
                _record(path := shard_path(self, *shard)).exists() and path.exists()
                for shard in self.shards(rank, num_tasks)
            )
        return False


def make_tokenizer(job: Job) -> None:
    """Put the tokenizer into the folder, if it is not there."""
    file = job.folder / TOKENIZER
    if file.exists():
        return
    if next(job.held_out.documents("train"), None) is None:
        raise ValueError("the sources hold no training document")
    assert job.vocab_size is not None
    trained = train_tokenizer(job.held_out.documents("train"), job.vocab_size, job.transform)
    atomic_write(file, trained.to_bytes())


def encode_unit(job: Job, unit: Unit, documents: Iterable[bytes], seen: set[bytes]) -> None:
    """Write a unit's parts; `seen` are the hashes of all validation documents, where it matters."""
    writers = {split: PartWriter(job, split, unit.number) for split in unit.splits}
    compare = job.held_out.may_repeat
    for document in documents:
        split = unit.splits[-1]
        if len(unit.splits) == 2:
            split = "val" if job.held_out.is_val(document) else "train"
        writers[split].add(document, seen, compare)
    for writer in writers.values():
        writer.close()


class PartWriter:
    """The tokens of one file in one split as they come, under their name when all are there."""

    def __init__(self, job: Job, split: str, number: int) -> None:
        self.job, self.split, self.number = job, split, number
        self.draft = job.part(split, number, f"{uuid.uuid4().hex}.draft")
        self.file = self.draft.open("wb")
        self.hashes: set[bytes] = set()  # of validation documents
        self.documents = self.num_bytes = self.dropped = self.tokens = 0

    def add(self, document: bytes, seen: set[bytes], compare: bool) -> None:
        if compare:
            key = hashlib.sha256(document).digest()
            if self.split == "val":
                self.hashes.add(key)
            elif key in seen:
                self.dropped += 1
                return
        ids = encode_document(self.job.tokenizer, document)
        self.file.write(ids.astype("<u2").tobytes())
        self.documents += 1
        self.num_bytes += len(document)
        self.tokens += len(ids)

    def close(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        if self.split == "val" and self.job.held_out.may_repeat:
            atomic_write(self._place("hashes"), b"".join(sorted(self.hashes)))
        self.draft.replace(self._place("tokens"))
        part = Part(self.documents, self.num_bytes, self.dropped, self.tokens)
        atomic_write(self._place("json"), json.dumps(asdict(part)).encode())

    def _place(self, suffix: str) -> Path:
        return self.job.part(self.split, self.number, suffix)


def validation_hashes(job: Job) -> set[bytes]:
    """Of all validation documents, where a training document may be one of them."""
    seen: set[bytes] = set()
    if not job.held_out.may_repeat:
        return seen
    for unit in job.units("val"):
        data = job.part("val", unit.number, "hashes").read_bytes()
        seen.update(data[at : at + KEY_BYTES] for at in range(0, len(data), KEY_BYTES))
    return seen


def write_shards(job: Job, shards: Sequence[tuple[str, int]]) -> None:
    """Write those that are not there yet, each out of the parts that it overlaps."""
    ends = {split: [0, *accumulate(p.tokens for p in job.all_parts(split))] for split in SPLITS}
    for split, number in shards:
        path = shard_path(job, split, number)
        if kept_hash(path) is not None:
            continue
        begin = number * job.tokens_per_shard
        stop = min(begin + job.tokens_per_shard, ends[split][-1])
        pieces = [
            _piece(
                job.part(split, index, "tokens"), max(begin, first) - first, min(stop, last) - first
            )
            for index, (first, last) in enumerate(zip(ends[split], ends[split][1:], strict=False))
            if first < stop and last > begin
        ]
        write_shard(path, np.concatenate(pieces))
        atomic_write(_record(path), file_sha256(path).encode())


def _piece(path: Path, begin: int, stop: int) -> np.ndarray:
    ids = np.fromfile(path, "<u2", stop - begin, offset=2 * begin)
    if len(ids) != stop - begin:
        raise ValueError(f"{printable(path)} was cut; repeat the command")
    return ids


def shard_path(job: Job, split: str, number: int) -> Path:
    return job.folder / f"{split}_{number:06d}.bin"


def _record(shard: Path) -> Path:
    return shard.parent.parent / PARTS / f"{shard.name}.sha256"


def kept_hash(shard: Path) -> str | None:
    """Of a shard that is there as it was written; None for any other."""
    try:
        known = _record(shard).read_text()
        return known if file_sha256(shard) == known else None
    except OSError:
        return None


def finish(job: Job) -> Manifest:
    """The manifest, and the folder in its place; ValueError where something is missing."""
    manifest = begin_manifest(job.described, job.tokenizer)
    hashes = {TOKENIZER: file_sha256(job.folder / TOKENIZER)}
    for split in SPLITS:
        parts = job.all_parts(split)
        manifest[split] = {
            "documents": sum(part.documents for part in parts),
            "bytes": sum(part.bytes for part in parts),
            "dropped_because_in_val": sum(part.dropped for part in parts),
            "tokens": sum(part.tokens for part in parts),
            "shards": job.num_shards(split),
        }
        require_documents(split, manifest[split])
    for split, number in job.shards():
        path = shard_path(job, split, number)
        known = kept_hash(path)
        if known is None:
            _record(path).unlink(missing_ok=True)  # so that it is written again
            raise ValueError(f"{printable(path)} is missing or damaged; repeat the command")
        hashes[path.name] = known
    hashes |= write_side_files(job.folder, job.tokenizer)
    end_manifest(job.folder, manifest, hashes)
    put_in_place(job.folder, job.out)
    shutil.rmtree(job.parts)
    return manifest


def read_units(job: Job, units: Iterable[Unit]) -> Iterator[tuple[Unit, bytes]]:
    """Their documents in order."""
    for unit in units:
        for document in read_file(unit.file, field=job.held_out.field):
            yield unit, document
