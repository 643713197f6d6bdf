"""What an unfinished data folder holds, so that the same command goes on with it.

The folder grows beside its later place under another name. Its journal says from which sources and
with which arguments, and for every finished shard its hash and where in the documents it ends.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fairway.prepare.sources import printable
from fairway.runtime.files import atomic_write, file_sha256, locked

JOURNAL, LOCK = "journal.json", "lock"
MOST_JOURNAL_BYTES = 1 << 26
Identity = dict[str, Any]  # JSON; whatever the bytes of the result depend on


@dataclass(frozen=True)
class Shard:
    """A finished shard, and where the next one begins.

    documents  of the split that lie wholly before its end
    offset     tokens of the document after those that it holds already
    digest     over the contents of those documents
    """

    name: str
    split: str
    sha256: str
    documents: int
    offset: int
    digest: str


class Journal:
    """The record of one unfinished folder; every change is on disk before the call returns."""

    def __init__(self, folder: Path, identity: Identity) -> None:
        self.folder = folder
        self.identity: Identity = json.loads(json.dumps(identity))
        self.tokenizer: str | None = None  # sha256 of its file
        self.shards: list[Shard] = []
        self.finished: dict[str, dict[str, int]] = {}  # counts by split

    def __bool__(self) -> bool:
        """Whether it has anything worth keeping."""
        return bool(self.shards)

    def add(self, shard: Shard) -> None:
        self.shards.append(shard)
        self.write()

    def finish(self, split: str, counts: dict[str, int]) -> None:
        self.finished[split] = counts
        self.write()

    def write(self) -> None:
        state = {
            "identity": self.identity,
            "tokenizer": self.tokenizer,
            "shards": [asdict(shard) for shard in self.shards],
            "finished": self.finished,
        }
        atomic_write(self.folder / JOURNAL, json.dumps(state, indent=1).encode())

    def of(self, split: str) -> list[Shard]:
        return [shard for shard in self.shards if shard.split == split]

    def take_over(self) -> bool:
        """Go on from what the folder holds; False where that is nothing.

        Raises ValueError where it was begun with other sources or arguments, or is no journal.
        """
        file = self.folder / JOURNAL
        if not file.is_file():
            return False
        state = _read(file)
        if different := _differences(state["identity"], self.identity):
            raise ValueError(
                f"{printable(self.folder)} was begun otherwise ({different}); repeat the earlier "
                f"command to go on with it, or start anew with --overwrite"
            )
        self.tokenizer, self.finished = state["tokenizer"], state["finished"]
        self.shards = state["shards"]
        self._drop_damaged()
        return True

    def _drop_damaged(self) -> None:
        """Forget whatever is not on disk as it was written, and all that came after it."""
        if not _is(self.folder / "tokenizer.model", self.tokenizer):
            self.tokenizer, self.shards, self.finished = None, [], {}
        for place, shard in enumerate(self.shards):
            if not _is(self.folder / shard.name, shard.sha256):
                kept = {one.split for one in self.shards[:place]} - {shard.split}
                self.shards = self.shards[:place]
                self.finished = {s: c for s, c in self.finished.items() if s in kept}
                break


def _is(file: Path, sha256: str | None) -> bool:
    return file.is_file() and file_sha256(file) == sha256


def _read(file: Path) -> dict[str, Any]:
    """A journal of the right form; ValueError for anything else."""
    try:
        if file.stat().st_size > MOST_JOURNAL_BYTES:
            raise ValueError("it is too long")
        state = json.loads(file.read_bytes())
        shards = [Shard(**one) for one in state["shards"]]
        good = (
            isinstance(state["identity"], dict)
            and isinstance(state["tokenizer"], str | None)
            and all(map(_is_sound, shards, _places(shards)))
            and all(split in ("train", "val") for split in state["finished"])
            and all(
                isinstance(count, int)
                for counts in state["finished"].values()
                for count in counts.values()
            )
        )
        if not good:
            raise ValueError("its entries are of the wrong kind")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{printable(file)} is damaged ({error!s:.100}); start anew with --overwrite"
        ) from error
    return state | {"shards": shards}


def _places(shards: Sequence[Shard]) -> list[int]:
    """The number of each shard in its split."""
    splits = [shard.split for shard in shards]
    return [splits[:place].count(split) for place, split in enumerate(splits)]


def _is_sound(shard: Shard, place: int) -> bool:
    numbers = (shard.documents, shard.offset)
    return (
        all(type(number) is int and number >= 0 for number in numbers)
        and shard.split in ("train", "val")
        and shard.name == f"{shard.split}_{place:06d}.bin"
        and isinstance(shard.sha256, str)
        and isinstance(shard.digest, str)
    )


def _differences(old: Identity, new: Identity) -> str:
    """Names of what differs, with both values where they are short."""
    said = []
    for name in sorted(old.keys() | new.keys()):
        before, now = old.get(name), new.get(name)
        if before != now:
            values = f": {before!r}, now {now!r}"
            said.append(name + (values if len(values) < 60 else ""))
    return ", ".join(said)


@contextmanager
def unfinished(out: Path, overwrite: bool, suffix: str = "partial") -> Iterator[Path]:
    """The folder that grows beside `out`, held by this process alone.

    suffix  of its name: whoever grows it otherwise takes another

    Raises ValueError where another process holds it, or `out` is there and may not be replaced.
    """
    if out.exists() and not overwrite:
        raise ValueError(
            f"{printable(out)} exists already; choose another folder, or replace it by --overwrite"
        )
    if out.exists() and not (out / "data.json").is_file():
        raise ValueError(f"{printable(out)} is no data folder, so it is not overwritten")
    partial = out.with_name(f".{out.name[:200]}.{suffix}")
    partial.mkdir(parents=True, exist_ok=True)
    with locked(partial / LOCK, "another `fairway prepare`"):
        yield partial


def clear(partial: Path) -> None:
    """Remove everything but the lock that is held."""
    for entry in partial.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != LOCK:
            entry.unlink()


def put_in_place(partial: Path, out: Path) -> None:
    """Give the finished folder its name; an earlier one stays whole until then."""
    old = out.with_name(f".{out.name[:200]}.replaced")
    if out.exists():
        shutil.rmtree(old, ignore_errors=True)
        out.rename(old)
    partial.rename(out)
    for name in (JOURNAL, LOCK):
        (out / name).unlink(missing_ok=True)
    shutil.rmtree(old, ignore_errors=True)
