"""A data folder that grows shard by shard, and goes on after any interruption.

Every shard ends at a place in the stream of documents that the journal knows. Going on means to
read up to that place again, to see that it is the same text, and to encode from there.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fairway.prepare.encoding import Encoded, encode_in_order
from fairway.prepare.shard_journal import (
    JOURNAL,
    LOCK,
    Identity,
    Journal,
    Shard,
    clear,
    put_in_place,
    unfinished,
)
from fairway.prepare.sources import printable
from fairway.prepare.workers import num_cores
from fairway.runtime.files import atomic_write, file_sha256
from fairway.runtime.progress import Progress, silent
from fairway.tokens.byte_count import byte_table
from fairway.tokens.shards import ShardWriter, open_shard, write_shard
from fairway.tokens.tokenizer import Tokenizer, load_tokenizer, train_tokenizer

Manifest = dict[str, Any]  # what `data.json` holds
SMALL_BYTES = 4e6  # of sources; more is worth several processes
KEPT_BEFORE = 1 << 16  # tokens
TELL_BYTES = 1 << 20  # of documents, between two calls of `progress`


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """What to make a folder from.

    documents   all documents of "train" or of "val" in order, from the first, at every call
    described   where they come from, for people
    identity    whatever the bytes of the folder depend on, as JSON
    vocab_size  of the tokenizer to train, where none is given
    transform   of the text it is to encode, by name
    compare     whether a document may come in both splits; if so, training does without it, and
                the hashes of all validation documents are held in memory
    position    how much was read for a split so far, and of how much
    """

    documents: Callable[[str], Iterator[bytes]]
    described: Sequence[str]
    identity: Identity
    vocab_size: int | None = None
    tokenizer: Tokenizer | None = None
    tokens_per_shard: int = 10_000_000
    transform: str | None = None
    compare: bool = True
    position: Callable[[], tuple[float, float]] = lambda: (0.0, 0.0)


@dataclass
class Work:
    """One preparation: what it is made from, where it stands, whom it tells."""

    corpus: Corpus
    folder: Path
    journal: Journal
    workers: int
    progress: Progress = silent
    began: float = field(default_factory=time.perf_counter)
    num_bytes: int = 0  # of documents, in this call and of both splits
    _told: int = 0

    def tell(self, document: bytes, *, finally_: bool = False) -> None:
        """Count a document, and say so now and then."""
        self.num_bytes += len(document)
        if self.num_bytes - self._told < TELL_BYTES and not finally_:
            return
        self._told = self.num_bytes
        megabytes = self.num_bytes / 1e6
        speed = megabytes / max(time.perf_counter() - self.began, 1e-9)
        done, total = self.corpus.position()
        self.progress(done, total, megabytes=round(megabytes), megabytes_per_second=round(speed, 1))


def write_folder(
    out: Path,
    corpus: Corpus,
    *,
    workers: int | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Manifest:
    """Write a data folder, or go on with one that was interrupted; returns its manifest.

    workers  processes that encode; None: one for each core. The bytes are the same

    What is finished stays on disk whatever happens, unless a source or an argument is at fault and
    no shard is finished yet. Raises ValueError for those, OSError for a disk that is full.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers={workers}: at least one process must encode")
    out = Path(out).resolve()
    with unfinished(out, overwrite) as partial:
        journal = _journal(partial, corpus.identity, overwrite)
        work = Work(corpus, partial, journal, workers or num_cores(), progress)
        try:
            manifest = _fill(work)
            put_in_place(partial, out)
        except ValueError:
            if not journal:
                shutil.rmtree(partial)
            raise
        except OSError as error:
            raise OSError(
                f"{error}; {len(journal.shards)} finished shards are kept in {printable(partial)}: "
                f"repeat the command to go on"
            ) from error
    return manifest


def _journal(partial: Path, identity: Identity, overwrite: bool) -> Journal:
    journal = Journal(partial, identity)
    try:
        going_on = journal.take_over()
    except ValueError:
        if not overwrite:
            raise
        going_on = False
    if not going_on:
        clear(partial)
        return Journal(partial, identity)
    known = {JOURNAL, LOCK, "tokenizer.model", *(shard.name for shard in journal.shards)}
    for file in partial.iterdir():  # what was being written when the end came
        if file.name not in known and not file.is_dir():
            file.unlink()
    return journal


def _fill(work: Work) -> Manifest:
    tokenizer = _tokenizer(work)
    manifest = begin_manifest(work.corpus.described, tokenizer)
    seen: set[bytes] = set()
    for split in ("val", "train"):
        kept = Kept(work.corpus.documents(split), split, seen, work.corpus.compare)
        if split not in work.journal.finished:
            SplitWriter(work, split, tokenizer).write(kept)
        elif split == "val" and work.corpus.compare:
            for _ in kept:  # for the hashes
                pass
        manifest[split] = work.journal.finished[split]
        require_documents(split, manifest[split])
    hashes = {shard.name: shard.sha256 for shard in work.journal.shards}
    hashes["tokenizer.model"] = work.journal.tokenizer or ""
    hashes |= write_side_files(work.folder, tokenizer)
    end_manifest(work.folder, manifest, hashes)
    return manifest


def begin_manifest(described: Sequence[str], tokenizer: Tokenizer) -> Manifest:
    """What is known before any document is encoded."""
    kind: dict[str, Any] = {
        "kind": tokenizer.kind,
        "vocab_size": tokenizer.vocab_size,
        "lossless": tokenizer.lossless,
    }
    if tokenizer.transform is not None:
        kind["transform"] = tokenizer.transform
    return {"sources": list(described), "tokenizer": kind}


def write_side_files(folder: Path, tokenizer: Tokenizer) -> dict[str, str]:
    """Hashes by name of val_bytes_NNNNNN.bin: for each token of the validation shards its bytes of
    the original text, where a transform hides them from who counts pieces (#1729)."""
    if tokenizer.transform is None:
        return {}
    table, hashes = byte_table(tokenizer), {}
    before = np.zeros(0, np.uint16)  # the end of the shard before, for an escape that stands there
    for shard in sorted(folder.glob("val_[0-9]*.bin")):
        tokens = np.concatenate([before, open_shard(shard)])
        counts = np.concatenate([[0], table.target_bytes(tokens)])[len(before) :]
        file = folder / shard.name.replace("val_", "val_bytes_")
        write_shard(file, counts)
        hashes[file.name] = file_sha256(file)
        before = tokens[-KEPT_BEFORE:]
    return hashes


def require_documents(split: str, counts: Mapping[str, int]) -> None:
    """ValueError for a split that is empty."""
    if not counts["documents"]:
        raise ValueError(
            f"no {split} document is left (what is in both texts counts as validation): give "
            f"another --val-fraction or --seed, or validation text of its own with --val"
        )


def end_manifest(folder: Path, manifest: Manifest, hashes: Mapping[str, str]) -> None:
    """Write `data.json`, the last file of a data folder; hashes are by file name."""
    manifest["sha256"] = dict(sorted(hashes.items()))
    atomic_write(folder / "data.json", json.dumps(manifest, indent=1).encode())


def _tokenizer(work: Work) -> Tokenizer:
    """The tokenizer in the folder, which is put there first if need be."""
    file = work.folder / "tokenizer.model"
    if work.journal.tokenizer is not None:
        return load_tokenizer(file)
    if next(work.corpus.documents("train"), None) is None:
        raise ValueError("the sources hold no training document")
    tokenizer = work.corpus.tokenizer
    if tokenizer is None:
        corpus = work.corpus
        assert corpus.vocab_size is not None
        tokenizer = train_tokenizer(corpus.documents("train"), corpus.vocab_size, corpus.transform)
    atomic_write(file, tokenizer.to_bytes())
    work.journal.tokenizer = file_sha256(file)
    work.journal.write()
    return tokenizer


class Kept:
    """The documents of a split without those that are in the other one; counts the latter.

    seen  hashes of the validation documents: filled by "val", looked up by "train"
    """

    def __init__(
        self, documents: Iterator[bytes], split: str, seen: set[bytes], compare: bool
    ) -> None:
        self.documents, self.split, self.seen, self.compare = documents, split, seen, compare
        self.dropped = 0

    def __iter__(self) -> Iterator[bytes]:
        for document in self.documents:
            if self.compare:
                key = hashlib.sha256(document).digest()
                if self.split == "val":
                    self.seen.add(key)
                elif key in self.seen:
                    self.dropped += 1
                    continue
            yield document


class SplitWriter:
    """The shards of one split, each in the journal as soon as it is on disk."""

    def __init__(self, work: Work, split: str, tokenizer: Tokenizer) -> None:
        self.work, self.split, self.tokenizer = work, split, tokenizer
        self.before = work.journal.of(split)
        self.offset = self.before[-1].offset if self.before else 0  # tokens to pass over
        self.shards = ShardWriter(
            work.folder, split, work.corpus.tokens_per_shard, first=len(self.before)
        )
        self.documents = self.num_bytes = 0
        self.digest = hashlib.sha256()

    def write(self, kept: Kept) -> None:
        """Encode what is not on disk yet; the split is finished then."""
        documents = iter(kept)
        self._pass_over(documents)
        for one in encode_in_order(documents, self.tokenizer, self._workers(documents)):
            self._add(one)
            self.work.tell(one.document)
        self.work.tell(b"", finally_=True)
        counts = {
            "documents": self.documents,
            "bytes": self.num_bytes,
            "dropped_because_in_val": kept.dropped,
            "tokens": self.shards.num_tokens,
        }
        known = len(self.shards.files)
        self.shards.close()
        last = [self._shard(file, 0) for file in self.shards.files[known:]]
        self.work.journal.shards += last
        counts["shards"] = len(self.before) + len(self.shards.files)
        self.work.journal.finish(self.split, counts)

    def _workers(self, documents: Iterable[bytes]) -> int:
        """One where the corpus is known to be small: a process takes half a second to start."""
        return self.work.workers if self.work.corpus.position()[1] > SMALL_BYTES else 1

    def _pass_over(self, documents: Iterator[bytes]) -> None:
        """Read again what is in finished shards; ValueError where it is not what it was."""
        if not self.before:
            return
        last = self.before[-1]
        while self.documents < last.documents:
            document = next(documents, None)
            if document is None:
                break
            self._count(document)
            self.work.tell(document)
        if self.digest.hexdigest() != last.digest:
            raise ValueError(
                "the sources changed since this folder was begun; start anew with --overwrite"
            )

    def _count(self, document: bytes) -> None:
        self.documents += 1
        self.num_bytes += len(document)
        self.digest.update(len(document).to_bytes(8, "little"))
        self.digest.update(document)

    def _add(self, one: Encoded) -> None:
        known, begin = len(self.shards.files), self.shards.num_tokens - self.offset
        self.shards.add(one.tokens[self.offset :])
        self.offset = 0
        done, limit = len(self.before), self.work.corpus.tokens_per_shard
        ended = [
            (file, (done + number + 1) * limit - begin)  # how much of this document it holds
            for number, file in enumerate(self.shards.files[known:], start=known)
        ]
        for file, held in ended:
            if held < len(one.tokens):
                self.work.journal.add(self._shard(file, held))
        self._count(one.document)
        for file, held in ended:
            if held == len(one.tokens):
                self.work.journal.add(self._shard(file, 0))

    def _shard(self, file: Path, offset: int) -> Shard:
        return Shard(
            name=file.name,
            split=self.split,
            sha256=file_sha256(file),
            documents=self.documents,
            offset=offset,
            digest=self.digest.hexdigest(),
        )
