"""Which data sets the challenge published, and which files of a repository make one up."""

import re
from dataclasses import dataclass

from fairway.fetch.hub import Listing, RemoteFile, check_file, check_listing

SHARD = re.compile(r"fineweb_(train|val|val_bytes)_([0-9]{6,9})\.bin")


@dataclass(frozen=True, kw_only=True)
class Published:
    """One tokenization of the challenge's text.

    repo         dataset repository on the hub
    folder       name of the folder with the shards, wherever in the repository it lies
    tokenizer    file name of the SentencePiece model
    side_files   validation bytes are counted by shards of their own (`fineweb_val_bytes_*.bin`)
    """

    repo: str
    folder: str
    tokenizer: str
    vocab_size: int
    side_files: bool = False


CASEOPS = "8192_bpe_lossless_caps_caseops_v1_reserved"
PUBLISHED = {
    "sp1024": Published(
        repo="willdepueoai/parameter-golf",
        folder="fineweb10B_sp1024",
        tokenizer="fineweb_1024_bpe.model",
        vocab_size=1024,
    ),
    "sp4096": Published(
        repo="kevclark/parameter-golf",
        folder="fineweb10B_sp4096",
        tokenizer="fineweb_4096_bpe.model",
        vocab_size=4096,
    ),
    "sp8192": Published(
        repo="kevclark/parameter-golf",
        folder="fineweb10B_sp8192",
        tokenizer="fineweb_8192_bpe.model",
        vocab_size=8192,
    ),
    "sp8192_caseops": Published(
        repo="romeerp/parameter-golf-caseops-v1",
        folder=f"fineweb10B_sp{CASEOPS.replace('_bpe', '')}",
        tokenizer=f"fineweb_{CASEOPS}.model",
        vocab_size=8192,
        side_files=True,
    ),
}


def published_as(name: str) -> Published:
    """The data set of that name; ValueError lists the names there are."""
    if name not in PUBLISHED:
        raise ValueError(f"unknown data {name!r}; choose one of {', '.join(PUBLISHED)}")
    return PUBLISHED[name]


def select(
    name: str, published: Published, listing: Listing, train_shards: int
) -> dict[str, RemoteFile]:
    """Local name to remote file: tokenizer, all validation shards, the first training shards."""
    check_listing(published.repo, listing)
    shards: dict[str, RemoteFile] = {}
    tokenizers = []
    for file in listing.files:
        folder, _, base = file.path.rpartition("/")
        if folder.rpartition("/")[2] == published.folder and SHARD.fullmatch(base):
            check_file(published.repo, file)
            if base in shards:
                raise ValueError(f"{published.repo} has {base} twice, so none is the published one")
            shards[base] = file
        elif base == published.tokenizer:
            check_file(published.repo, file)
            tokenizers.append(file)
    kinds: dict[str, list[str]] = {"train": [], "val": [], "val_bytes": []}
    for base in sorted(shards):
        match = SHARD.fullmatch(base)
        assert match is not None
        kinds[match[1]].append(base)
    needed = {
        f"validation shards in a folder {published.folder}": bool(kinds["val"]),
        f"a tokenizer {published.tokenizer}": bool(tokenizers),
        "byte counts for every validation shard": not published.side_files
        or len(kinds["val_bytes"]) == len(kinds["val"]),
    }
    lacking = [what for what, there in needed.items() if not there]
    if lacking:
        raise ValueError(
            f"{published.repo}, revision {listing.revision[:12]}, lacks "
            f"{' and '.join(lacking)}: {name} was moved or withdrawn. Make shards from text "
            f"with `fairway prepare`, or choose another of {', '.join(PUBLISHED)}"
        )
    if train_shards > len(kinds["train"]):
        raise ValueError(
            f"{name} has {len(kinds['train'])} training shards, {train_shards} were asked for; "
            f"use --train-shards {len(kinds['train'])}"
        )
    chosen = [*kinds["val"], *kinds["train"][:train_shards]]
    if published.side_files:
        chosen = [*kinds["val_bytes"], *chosen]
    return {"tokenizer.model": tokenizers[0]} | {base: shards[base] for base in chosen}
