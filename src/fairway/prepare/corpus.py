"""Which documents are trained on and which are held out; from there, `partial.py` writes them.

Sources are read several times, for the tokenizer's sample and for each split: what is held in
memory does not grow with them.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import sentencepiece

from fairway.artifact.loaded_model import is_model_file, load_model
from fairway.prepare.partial import Corpus, Manifest, write_folder
from fairway.prepare.shard_journal import Identity
from fairway.prepare.sources import FIELD, Position, printable, read_documents, source_files
from fairway.runtime.progress import Progress, silent
from fairway.tokens.tokenizer import ByteTokenizer, Tokenizer, load_tokenizer, require_transform


def prepare(
    out: Path,
    sources: Sequence[Path],
    *,
    vocab_size: int | None = None,
    tokenizer: Path | None = None,
    val: Sequence[Path] = (),
    val_fraction: float | None = None,
    seed: int = 0,
    field: str = FIELD,
    tokens_per_shard: int = 10_000_000,
    transform: str | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Manifest:
    """Write a data folder from files; returns its manifest (`data.json`).

    Exactly one of vocab_size (train a tokenizer) and tokenizer (use that file, or a model file's
    own; `bytes` stands for the one that needs no file), and exactly one of val (files of their own)
    and val_fraction (whole documents, chosen by a hash of their content; of a text that is one
    document, its end) must be given. No document lands in both splits: training copies of
    validation documents are dropped and counted. transform "caseops" writes capitals as operators
    (#1729), and the original bytes of each token beside the validation shards. `progress` counts
    bytes read.

    Interrupted, and called again with the same arguments, it goes on after the last finished shard;
    the result has the same bytes, whatever the interruptions and the number of workers.
    """
    request = Request(
        vocab_size=vocab_size,
        tokenizer=tokenizer,
        val=list(map(Path, val)),
        val_fraction=val_fraction,
        seed=seed,
        field=field,
        tokens_per_shard=tokens_per_shard,
        transform=transform,
    )
    sources = list(map(Path, sources))
    return prepare_request(
        out, sources, request, workers=workers, overwrite=overwrite, progress=progress
    )


@dataclass(frozen=True, kw_only=True)
class Request:
    """How a corpus is to become a data folder; see `prepare`."""

    vocab_size: int | None = None
    tokenizer: Path | None = None
    val: Sequence[Path] = ()
    val_fraction: float | None = None
    seed: int = 0
    field: str = FIELD
    tokens_per_shard: int = 10_000_000
    transform: str | None = None


def prepare_request(
    out: Path,
    sources: Sequence[Path],
    request: Request,
    *,
    workers: int | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Manifest:
    """`prepare` with its arguments as one value."""
    corpus, _ = requested(out, sources, request)
    return write_folder(Path(out), corpus, workers=workers, overwrite=overwrite, progress=progress)


def requested(out: Path, sources: Sequence[Path], request: Request) -> "tuple[Corpus, HeldOut]":
    """The corpus of a request that can be met; ValueError for any other. Nothing is written yet."""
    chosen = _chosen(request.tokenizer, request.vocab_size)
    require_transform(request.transform)
    if chosen is not None and request.transform not in (None, chosen.transform):
        raise ValueError(
            f"{request.tokenizer} was not made for transform {request.transform!r}: train one with "
            "--vocab-size, or leave --transform out"
        )
    held_out = HeldOut(sources, request.val, request.val_fraction, request.seed, request.field)
    corpus = Corpus(
        documents=held_out.documents,
        described=[str(source) for source in (*sources, *request.val)],
        identity=_identity(sources, request.val, chosen)
        | {
            "vocab_size": request.vocab_size,
            "val_fraction": request.val_fraction,
            "seed": request.seed,
            "field": request.field,
            "tokens_per_shard": request.tokens_per_shard,
        }
        | ({"transform": request.transform} if request.transform else {}),
        vocab_size=request.vocab_size,
        tokenizer=chosen,
        tokens_per_shard=request.tokens_per_shard,
        transform=request.transform,
        compare=held_out.may_repeat,
        position=held_out.position,
    )
    _keep_apart(Path(out), (*sources, *request.val))
    return corpus, held_out


class HeldOut:
    """The documents of each split.

    may_repeat  whether one document can be in both: never where its content decides
    """

    def __init__(
        self,
        sources: Sequence[Path],
        val: Sequence[Path],
        fraction: float | None,
        seed: int,
        field: str = FIELD,
    ) -> None:
        if bool(val) == (fraction is not None):
            raise ValueError("give either --val SOURCE or --val-fraction F")
        if fraction is not None and not 0 < fraction < 1:
            raise ValueError(f"val_fraction={fraction} must lie between 0 and 1")
        self.files, self.val = source_files(sources), source_files(val) if val else []
        self.threshold, self.fraction = (fraction or 0) * 2.0**56, fraction or 0
        self.seed = seed.to_bytes(8, "little", signed=seed < 0)
        self.field = field
        self.before_train = _num_bytes(self.val or self.files)  # is read for the other split
        self.total = self.before_train + _num_bytes(self.files)
        self.reading = Position()
        self.single = not val and len(list(islice(self._read(self.files), 2))) == 1
        self.may_repeat = bool(val) or self.single

    def position(self) -> tuple[float, float]:
        """Bytes of files read so far, and of how many."""
        return min(self.reading.num_bytes, self.total), self.total

    def documents(self, split: str) -> Iterator[bytes]:
        self.reading = Position(self.before_train if split == "train" else 0)
        chosen = split == "val"
        if self.val:
            yield from self._read(self.val if chosen else self.files, self.reading)
            return
        found = self._read(self.files, self.reading)
        if self.single:
            yield from (cut_end(one, self.fraction)[chosen] for one in found)
        else:
            yield from (one for one in found if self.is_val(one) == chosen)

    def _read(self, files: Sequence[Path], position: Position | None = None) -> Iterator[bytes]:
        return read_documents(files, position, self.field)

    def is_val(self, document: bytes) -> bool:
        key = hashlib.sha256(self.seed + document).digest()
        return int.from_bytes(key[:7], "little") < self.threshold


def cut_end(document: bytes, fraction: float) -> tuple[bytes, bytes]:
    r"""A document without about `fraction` of it, and that end, cut after a line where it has some.

    >>> cut_end(b"one\ntwo\nthree\nfour\n", 0.25)
    (b'one\ntwo\nthree\n', b'four\n')
    """
    rough = int(len(document) * (1 - fraction))
    place = document.rfind(b"\n", 0, rough) + 1 or rough
    return document[:place], document[place:]


def prepare_documents(
    out: Path,
    train: Sequence[bytes],
    val: Sequence[bytes],
    *,
    vocab_size: int,
    source: str,
    transform: str | None = None,
) -> Manifest:
    """`prepare` for documents in memory."""
    splits = {"train": train, "val": val}
    digest = hashlib.sha256()
    for document in chain(train, [b""], val):
        digest.update(len(document).to_bytes(8, "little") + document)
    corpus = Corpus(
        documents=lambda split: iter(splits[split]),
        described=[source],
        identity={
            "sources": digest.hexdigest(),
            "vocab_size": vocab_size,
            "transform": transform,
        },
        vocab_size=vocab_size,
        transform=transform,
    )
    return write_folder(Path(out), corpus, workers=1)


def _chosen(tokenizer: Path | None, vocab_size: int | None) -> Tokenizer | None:
    if (vocab_size is None) == (tokenizer is None):
        raise ValueError("give either --vocab-size N or --tokenizer FILE (or: bytes)")
    if tokenizer is None:
        return None
    if str(tokenizer) == "bytes":
        return ByteTokenizer()
    if is_model_file(Path(tokenizer)):
        return load_model(Path(tokenizer)).tokenizer
    return load_tokenizer(Path(tokenizer))


def _identity(sources: Sequence[Path], val: Sequence[Path], chosen: Tokenizer | None) -> Identity:
    """Which files, by name, size and time of their last change."""

    def listed(files: Sequence[Path]) -> list[list[str | int]]:
        stats = [(file, file.stat()) for file in files]
        return [[ascii(str(f.resolve())), s.st_size, s.st_mtime_ns] for f, s in stats]

    return {
        "sources": listed(source_files(sources)),
        "val": listed(source_files(val)) if val else [],
        "tokenizer": None if chosen is None else hashlib.sha256(chosen.to_bytes()).hexdigest(),
        "sentencepiece": sentencepiece.__version__,
    }


def _keep_apart(out: Path, sources: Sequence[Path]) -> None:
    """ValueError where a source lies in the folder that is written."""
    for source in sources:
        if Path(source).resolve().is_relative_to(out.resolve()):
            raise ValueError(
                f"{printable(Path(source))} lies in {printable(out)}, the folder to write; choose "
                f"another folder"
            )


def _num_bytes(files: Sequence[Path]) -> int:
    return sum(os.stat(file).st_size for file in files)
