"""Token ids on disk in the field's shard format, and the folder that holds a corpus.

A shard is 256 little-endian int32 (magic, version, count, zeros) and then that many little-endian
uint16 ids; its size must match exactly. Shards are memory-mapped: a corpus of any size costs no
memory until it is read.
"""

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fairway.runtime.files import atomic_write, file_sha256, read_file
from fairway.runtime.strict_json import parse_json
from fairway.tokens.byte_count import byte_table
from fairway.tokens.tokenizer import Tokenizer, load_tokenizer

MAGIC, VERSION, HEADER_WORDS = 20240520, 1, 256
HEADER_BYTES = 4 * HEADER_WORDS
MOST_MANIFEST = 1 << 24  # bytes of `data.json`: a line for each shard
FILE_NAME, SHA256 = re.compile(r"[^/\0]{1,255}"), re.compile(r"[0-9a-f]{64}")
SHARD_NAME = re.compile(r"(fineweb_)?(train|val)(_bytes)?_\d+\.bin")


def write_shard(path: Path, tokens: np.ndarray) -> None:
    """Write ids (n,) below 65,536; the old file survives a failure."""
    tokens = np.asarray(tokens)
    if tokens.size and not 0 <= int(tokens.min()) <= int(tokens.max()) < 1 << 16:
        raise ValueError(f"{path}: ids must lie in 0..65535, found up to {int(tokens.max())}")
    header = np.zeros(HEADER_WORDS, "<i4")
    header[:3] = MAGIC, VERSION, len(tokens)
    atomic_write(path, header.tobytes() + tokens.astype("<u2").tobytes())


def open_shard(path: Path, vocab_size: int | None = None) -> np.ndarray:
    """Ids (n,) uint16 of a shard, mapped; every field of the header is checked.

    vocab_size  when given, every id is checked against it (reads the whole shard once)
    """
    path = Path(path)
    size = path.stat().st_size if path.is_file() else -1
    if size < HEADER_BYTES:
        raise ValueError(f"{path} is no shard: {max(size, 0):,} bytes, less than the header")
    magic, version, count = (int(word) for word in np.fromfile(path, "<i4", 3))
    if magic != MAGIC:
        raise ValueError(f"{path} is no shard: magic {magic}, expected {MAGIC}")
    if version != VERSION:
        raise ValueError(f"{path} has shard version {version}; this program reads {VERSION}")
    if size != HEADER_BYTES + 2 * count:
        raise ValueError(
            f"{path} holds {size:,} bytes, but its header promises {count:,} tokens, "
            f"{HEADER_BYTES + 2 * count:,} bytes; it was cut off or damaged: prepare it again"
        )
    tokens = np.memmap(path, "<u2", mode="r", offset=HEADER_BYTES, shape=(count,))
    if vocab_size is not None and count and int(tokens.max()) >= vocab_size:
        where = int(np.argmax(tokens >= vocab_size))
        raise ValueError(
            f"{path}: token {int(tokens[where])} at position {where:,} is beyond the vocabulary of "
            f"{vocab_size}; these shards were made with another tokenizer"
        )
    return tokens


class ShardWriter:
    """Collects ids and writes `split`_NNNNNN.bin files of `tokens_per_shard` each.

    first       how many of them are there already
    files       those that were written since
    num_tokens  in all of them, and not yet written
    """

    def __init__(
        self, folder: Path, split: str, tokens_per_shard: int = 10_000_000, *, first: int = 0
    ) -> None:
        if tokens_per_shard < 1:
            raise ValueError(f"tokens_per_shard={tokens_per_shard}: a shard holds at least one")
        self.folder, self.split, self.limit, self.first = folder, split, tokens_per_shard, first
        self.files: list[Path] = []
        self.num_tokens = first * tokens_per_shard
        self._pending: list[np.ndarray] = []
        self._held = 0

    def add(self, tokens: np.ndarray) -> None:
        self._pending.append(tokens)
        self._held += len(tokens)
        self.num_tokens += len(tokens)
        while self._held >= self.limit:
            self._write(self.limit)

    def close(self) -> None:
        if self._held:
            self._write(self._held)

    def _write(self, count: int) -> None:
        joined = np.concatenate(self._pending)
        path = self.folder / f"{self.split}_{self.first + len(self.files):06d}.bin"
        write_shard(path, joined[:count])
        self.files.append(path)
        self._pending, self._held = [joined[count:]], len(joined) - count


class TokenStream:
    """Several shards read as one sequence; slices come as (n,) uint16 arrays."""

    def __init__(self, shards: Sequence[np.ndarray]) -> None:
        self.shards = list(shards)
        self.ends = np.cumsum([len(shard) for shard in self.shards])

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def __getitem__(self, where: slice) -> np.ndarray:
        begin, end, step = where.indices(len(self))
        if step != 1:
            raise ValueError("a token stream is read in runs: step must be 1")
        parts = []
        shard = int(np.searchsorted(self.ends, begin, side="right"))
        while begin < end:
            first = int(self.ends[shard]) - len(self.shards[shard])
            stop = min(end, int(self.ends[shard]))
            parts.append(np.asarray(self.shards[shard][begin - first : stop - first]))
            begin, shard = stop, shard + 1
        return np.concatenate(parts) if parts else np.zeros(0, np.uint16)


def is_data_folder(path: Path) -> bool:
    """Whether a folder holds shards, and not text."""
    return any(path.glob("data.json")) or any(path.glob("*_[0-9]*.bin"))


class DataFolder:
    """A prepared corpus: shards of two splits, the tokenizer, and `data.json` if ours made it.

    Whatever `data.json` records a hash of is compared with it when it is opened: one flipped bit of
    a shard is another text, and another score.

    compare  False leaves that out, where another rank of the run does it
    """

    def __init__(self, path: Path, *, compare: bool = True) -> None:
        self.path, self.compare = Path(path), compare
        if not self.path.is_dir():
            raise ValueError(f"no data folder at {path}; make one with: fairway prepare OUT SOURCE")

    @cached_property
    def manifest(self) -> dict[str, Any]:
        file = self.path / "data.json"
        if not file.is_file():
            return {}
        try:
            found = parse_json(read_file(file, MOST_MANIFEST))
        except ValueError as error:
            raise ValueError(f"{file} is not JSON ({error!s:.200}); prepare it again") from error
        if not isinstance(found, dict):
            raise ValueError(f"{file} holds no JSON object; prepare it again")
        return found

    @cached_property
    def recorded(self) -> dict[str, str]:
        """sha256 by file name, as `prepare` or `fetch` wrote them down; empty where neither did."""
        prepared, fetched = self.manifest.get("sha256", {}), self.manifest.get("files", {})
        try:
            listed = dict(prepared.items())
            listed |= {name: entry["sha256"] for name, entry in fetched.items()}
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"{self.path}/data.json lists no hashes; prepare it again") from error
        for name, sum_ in listed.items():
            if not FILE_NAME.fullmatch(name) or not SHA256.fullmatch(str(sum_)):
                raise ValueError(
                    f"{self.path}/data.json lists {name!r:.80} with {sum_!r:.80}, which is no file "
                    "of this folder and its sha256; prepare it again"
                )
        return listed

    @cached_property
    def tokenizer(self) -> Tokenizer:
        candidates = sorted(self.path.glob("*.model"))
        if len(candidates) != 1:
            found = ", ".join(file.name for file in candidates) or "none"
            raise ValueError(f"{self.path} needs exactly one tokenizer (*.model); found {found}")
        self._check([candidates[0]])
        return load_tokenizer(candidates[0])

    @cached_property
    def train(self) -> TokenStream:
        return self._open("train")

    @cached_property
    def val(self) -> TokenStream:
        return self._open("val")

    def shard_files(self, split: str) -> list[Path]:
        """Shards of "train" or "val" under either naming; byte side files are none."""
        ours = sorted(self.path.glob(f"{split}_[0-9]*.bin"))
        return ours or sorted(self.path.glob(f"fineweb_{split}_[0-9]*.bin"))

    def byte_counts(self, split: str) -> np.ndarray:
        """Bytes (n - 1,) int64 of each target of a split: from its side file where there is one."""
        stream = self._open(split)
        sides = sorted(self.path.glob(f"*{split}_bytes_[0-9]*.bin"))
        if sides:
            self._check(sides)
            counts = TokenStream([open_shard(file) for file in sides])
            if len(counts) != len(stream):
                raise ValueError(
                    f"{self.path}: {len(counts):,} byte counts for {len(stream):,} tokens of "
                    f"{split}; side file and shards are not from one preparation"
                )
            return counts[1:].astype(np.int64)
        return byte_table(self.tokenizer).target_bytes(stream[:])

    def verify(self) -> None:
        """Compare every file with the hash in `data.json`; raises ValueError naming the first."""
        self._check([self.path / name for name in self.recorded])

    def _check(self, files: Sequence[Path]) -> None:
        """Raises ValueError unless every file is the one that was recorded, where any was."""
        for file in files if self.recorded and self.compare else ():
            if file.name not in self.recorded:
                raise ValueError(
                    f"{file} is not among the files that {self.path}/data.json lists; it came from "
                    f"elsewhere: remove it, or prepare the text again"
                )
            if not file.is_file() or file_sha256(file) != self.recorded[file.name]:
                raise ValueError(
                    f"{file} changed since it was prepared: its sha256 is not the one in "
                    f"data.json; fetch or prepare it again"
                )

    def _open(self, split: str) -> TokenStream:
        files = self.shard_files(split)
        if not files:
            raise ValueError(f"{self.path} has no {split} shards ({split}_NNNNNN.bin)")
        names = (name for name in self.recorded if SHARD_NAME.fullmatch(name))
        lost = {n for n in names if f"{split}_" in n and "_bytes_" not in n} - {
            file.name for file in files
        }
        if lost:
            raise ValueError(
                f"{self.path} lacks {min(lost)}, which data.json lists; it was removed"
            )
        self._check(files)
        size = self.tokenizer.vocab_size
        return TokenStream([open_shard(file, size) for file in files])
