"""A data folder brought to hold published shards, each file compared with what the hub has.

A file counts as there when its bytes are those the hub has; a broken download is continued. What
the hub offers is in `hub.py`, what is wanted of it in `published.py`. Making shards from text is in
`prepare/`, reading them in `tokens/shards.py`.
"""

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from sentencepiece import SentencePieceProcessor

from fairway.fetch.hub import MOST_BYTES, SHA256, Hub, HuggingFaceHub, Listing, RemoteFile
from fairway.fetch.published import SHARD, Published, published_as, select
from fairway.runtime.files import atomic_write, file_sha256
from fairway.runtime.progress import Progress, silent
from fairway.tokens.shards import HEADER_BYTES, open_shard

DATA_FILE = "data.json"
DOWNLOADS = ".downloads"  # in the data folder; removed when everything has arrived
MOST_DATA_FILE = 1 << 26  # bytes of a `data.json`


def fetch(
    name: str,
    out: Path,
    *,
    train_shards: int = 80,
    hub: Hub | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Bring the data folder `out` to hold the published shards `name`; returns its `data.json`.

    train_shards  the first so many, never fewer than the folder has already; 80 of about 200 MB
                  each are what the challenge trains on

    Every file is compared with the hub's sha256, every shard opened and its ids compared with the
    vocabulary, the tokenizer loaded. What is there and whole is not fetched again. `progress`
    counts bytes verified.
    Raises ValueError for an unknown name, too many shards, no network, a full disk, another data
    set in the folder, or a file that is not what it should be.
    """
    published = published_as(name)
    if train_shards < 0:
        raise ValueError(f"train_shards={train_shards}; give 0 (validation only) or more")
    hub = hub if hub is not None else HuggingFaceHub()
    before = _read_data_file(out, name)
    try:
        listing = hub.listing(published.repo)
    except OSError as error:
        raise ValueError(
            f"the hub could not be read ({error}). Check the network, and that HF_HUB_OFFLINE is "
            f"not set; a folder that is complete needs no fetching"
        ) from error
    recorded = before.get("files", {})
    wanted = select(name, published, listing, max(train_shards, _count(recorded, "train")))
    _check_strangers(out, wanted)
    missing = {
        local: remote
        for local, remote in wanted.items()
        if not _is_there(out / local, remote, recorded.get(local, {}).get("sha256"))
    }
    _check_space(out, sum(remote.size for remote in missing.values()), train_shards)

    total = sum(remote.size for remote in wanted.values())
    done = total - sum(remote.size for remote in missing.values())
    kept = [local for local in wanted if local in recorded.keys() - missing.keys()]
    files = {k: recorded[k] for k in kept if recorded[k]["bytes"] == wanted[k].size}
    for local, remote in wanted.items():
        if local in missing:
            _download(hub, published, listing.revision, remote, out / local)
            done += remote.size
        if local not in files:
            files[local] = _verify(out / local, remote, published)
        progress(done, total)
        # Written after each file, so that an interrupted fetch need not verify them again.
        data = _write_data_file(out, name, published, listing, files)
    shutil.rmtree(out / DOWNLOADS, ignore_errors=True)
    return data


def _read_data_file(out: Path, name: str) -> dict[str, Any]:
    """What an earlier fetch wrote; {} where there was none."""
    path = out / DATA_FILE
    if not path.is_file():
        return {}
    data = _parse_data_file(path)
    if data.get("name") != name:
        raise ValueError(
            f"{out} already holds {data.get('name', 'data prepared from text')!r:.100}; shards of "
            f"{name} beside it would be mixed with them. Choose another folder"
        )
    return data


def _parse_data_file(path: Path) -> dict[str, Any]:
    """ValueError for what no fetch wrote; nothing in it names a place to write to."""
    try:
        if path.stat().st_size > MOST_DATA_FILE:
            raise ValueError("it is too long")
        data = json.loads(path.read_text(encoding="utf-8"))
        entries = data.get("files", {}) if isinstance(data, dict) else None
        if not isinstance(entries, dict) or not all(map(_is_entry, entries.items())):
            raise ValueError("it is no list of files")
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is damaged ({error!s:.100}); remove it, and what is whole is not fetched again"
        ) from error
    return data


def _is_entry(named: tuple[str, object]) -> bool:
    name, entry = named
    is_shard = SHARD.fullmatch(name) is not None
    return (
        (is_shard or name == "tokenizer.model")
        and isinstance(entry, dict)
        and SHA256.fullmatch(str(entry.get("sha256"))) is not None
        and all(
            type(number) is int and 0 <= number <= MOST_BYTES
            for number in (entry.get("bytes"), entry.get("tokens", None if is_shard else 0))
        )
        and (not is_shard or entry["bytes"] == HEADER_BYTES + 2 * entry["tokens"])
    )


def _count(files: Iterable[str], kind: str) -> int:
    matches = map(SHARD.fullmatch, files)
    return sum(match is not None and match[1] == kind for match in matches)


def _check_strangers(out: Path, wanted: Mapping[str, RemoteFile]) -> None:
    """Training reads every shard in a folder, so one of unknown origin would be read too."""
    found = {path.name for path in out.glob("*.bin") if SHARD.fullmatch(path.name)}
    strangers = sorted(found - wanted.keys())
    if strangers:
        raise ValueError(
            f"{out} has {len(strangers)} shards that are not among those asked for, the first is "
            f"{strangers[0]}; raise --train-shards, remove them, or choose another folder"
        )


def _is_there(path: Path, remote: RemoteFile, recorded: str | None) -> bool:
    """A file that was verified before is told by its size and its recorded sum."""
    if not path.is_file() or path.stat().st_size != remote.size:
        return False
    if remote.sha256 is None:  # the hub has no sum of a small file; fetching it again is cheap
        return False
    return remote.sha256 == (recorded or file_sha256(path))


def _check_space(out: Path, needed: int, train_shards: int) -> None:
    out.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(out).free
    if needed > free:
        raise ValueError(
            f"{needed / 1e9:.1f} GB are to be fetched and {out} has {free / 1e9:.1f} GB free; make "
            f"room, or ask for fewer than {train_shards} shards with --train-shards"
        )


def _download(hub: Hub, published: Published, revision: str, remote: RemoteFile, to: Path) -> None:
    into = to.parent / DOWNLOADS
    try:
        arrived = hub.download(published.repo, revision, remote.path, into)
    except OSError as error:
        raise ValueError(
            f"{remote.path} could not be fetched ({error}). What has arrived is kept: run the same "
            f"command again to go on"
        ) from error
    inside = arrived.resolve().is_relative_to(into.resolve())
    if not inside or arrived.is_symlink() or not arrived.is_file():
        raise ValueError(f"{remote.path} arrived at {arrived}, which is no file below {into}")
    os.replace(arrived, to)


def _verify(path: Path, remote: RemoteFile, published: Published) -> dict[str, Any]:
    """The file's entry in `data.json`; a file that is wrong is removed, so that it is fetched anew.

    Raises ValueError.
    """
    try:
        entry = {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        if entry["bytes"] != remote.size or remote.sha256 not in (None, entry["sha256"]):
            raise ValueError(
                f"{entry['bytes']:,} bytes with sha256 {entry['sha256']}, where the hub has "
                f"{remote.size:,} with {remote.sha256}"
            )
        if path.suffix == ".bin":
            entry["tokens"] = _check_shard(path, published)
        else:
            _check_tokenizer(path, published)
    except ValueError as error:
        path.unlink()
        raise ValueError(f"{path.name} is not what it should be: {error}. Fetch again") from error
    return entry


def _check_shard(path: Path, published: Published) -> int:
    tokens = open_shard(path)
    if "val_bytes" not in path.name and len(tokens):
        largest = int(np.max(tokens))
        if largest >= published.vocab_size:
            raise ValueError(
                f"it has a token {largest:,}, beyond a vocabulary of {published.vocab_size:,}"
            )
    return len(tokens)


def _check_tokenizer(path: Path, published: Published) -> None:
    try:
        size = SentencePieceProcessor(model_file=str(path)).vocab_size()
    except (RuntimeError, OSError) as error:
        raise ValueError(f"SentencePiece cannot load it ({error})") from error
    if size != published.vocab_size:
        raise ValueError(f"it has {size:,} pieces instead of {published.vocab_size:,}")


def _write_data_file(
    out: Path,
    name: str,
    published: Published,
    listing: Listing,
    files: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    def tokens(kind: str) -> int:
        matches = {file: SHARD.fullmatch(file) for file in files}
        return sum(files[file]["tokens"] for file, m in matches.items() if m and m[1] == kind)

    data = {
        "name": name,
        "sources": [f"https://huggingface.co/datasets/{published.repo}"],
        "revision": listing.revision,
        "vocab_size": published.vocab_size,
        "tokens": {"train": tokens("train"), "val": tokens("val")},
        "files": dict(files),
    }
    atomic_write(out / DATA_FILE, (json.dumps(data, indent=2) + "\n").encode())
    return data
