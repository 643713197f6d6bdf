"""Fetching: everything is compared with the hub as it is now, and a fetch can be continued."""

import hashlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import sentencepiece

from fairway.fetch import fetching
from fairway.fetch.fetching import fetch
from fairway.fetch.hub import Listing, RemoteFile
from fairway.fetch.published import PUBLISHED, Published

VOCAB = 300


def shard(tokens: list[int]) -> bytes:
    header = np.zeros(256, dtype="<i4")
    header[:3] = 20240520, 1, len(tokens)
    return header.tobytes() + np.array(tokens, dtype="<u2").tobytes()


@pytest.fixture(scope="session")
def tokenizer() -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([f"the quick brown fox jumps over lazy dog {i}" for i in range(50)]),
        model_writer=model,
        vocab_size=VOCAB,
        model_type="bpe",
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return model.getvalue()


class FakeHub:
    """A repository in memory. `fail_after` downloads, the network is gone."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.revision = files, "a" * 40
        self.downloads: list[str] = []
        self.listings = 0
        self.fail_after: int | None = None

    def listing(self, repo: str) -> Listing:
        self.listings += 1
        return Listing(
            self.revision,
            tuple(
                RemoteFile(path, len(data), hashlib.sha256(data).hexdigest())
                for path, data in self.files.items()
            ),
        )

    def download(self, repo: str, revision: str, path: str, into: Path) -> Path:
        if self.fail_after is not None and len(self.downloads) >= self.fail_after:
            raise OSError("connection lost")
        assert revision == self.revision
        self.downloads.append(Path(path).name)
        target = into / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(self.files[path])
        return target


@pytest.fixture
def hub(tokenizer: bytes, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    vocab = sentencepiece.SentencePieceProcessor(model_proto=tokenizer).vocab_size()
    tiny = Published(
        repo="someone/golf", folder="fineweb_tiny", tokenizer="tiny.model", vocab_size=vocab
    )
    monkeypatch.setitem(PUBLISHED, "tiny", tiny)
    files = {
        f"datasets/datasets/fineweb_tiny/fineweb_{kind}_{i:06d}.bin": shard([1, 5 + i, 7, 9])
        for kind, number in (("train", 3), ("val", 1))
        for i in range(number)
    }
    files |= {
        "datasets/manifest.json": b"{}",
        "datasets/tokenizers/tiny.model": tokenizer,
        "datasets/datasets/fineweb_other/fineweb_val_000000.bin": shard([1]),
    }
    return FakeHub(files)


def test_a_data_folder_holds_what_was_asked_for_and_says_what_it_is(
    hub: FakeHub, tmp_path: Path
) -> None:
    seen: list[tuple[float, float]] = []

    def watch(done: float = 0.0, total: float = 0.0, *, text: str = "", **numbers: float) -> None:
        seen.append((done, total))

    out = tmp_path / "data"
    data = fetch(
        "tiny",
        out,
        train_shards=2,
        hub=hub,
        progress=watch,
    )
    assert {path.name for path in out.iterdir()} == {
        "data.json",
        "tokenizer.model",
        "fineweb_val_000000.bin",
        "fineweb_train_000000.bin",
        "fineweb_train_000001.bin",
    }
    assert json.loads((out / "data.json").read_text()) == data
    assert data["tokens"] == {"train": 8, "val": 4}
    assert data["revision"] == hub.revision
    for name, entry in data["files"].items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == entry["sha256"]
    assert seen[-1][0] == seen[-1][1] == sum(e["bytes"] for e in data["files"].values())


def test_what_is_there_and_whole_is_not_fetched_again(hub: FakeHub, tmp_path: Path) -> None:
    first = fetch("tiny", tmp_path, train_shards=1, hub=hub)
    hub.downloads.clear()
    assert fetch("tiny", tmp_path, train_shards=1, hub=hub) == first
    assert hub.downloads == []
    fetch("tiny", tmp_path, train_shards=2, hub=hub)
    assert hub.downloads == ["fineweb_train_000001.bin"]
    assert fetch("tiny", tmp_path, train_shards=0, hub=hub)["tokens"]["train"] == 8


def test_the_list_of_files_is_asked_anew_each_time(hub: FakeHub, tmp_path: Path) -> None:
    """A kept manifest is how new variants stayed invisible in the field."""
    fetch("tiny", tmp_path, train_shards=1, hub=hub)
    changed = "datasets/datasets/fineweb_tiny/fineweb_train_000000.bin"
    hub.files[changed], hub.revision = shard([1, 2, 3, 4]), "b" * 40
    hub.downloads.clear()
    data = fetch("tiny", tmp_path, train_shards=1, hub=hub)
    assert hub.listings == 2
    assert hub.downloads == ["fineweb_train_000000.bin"]
    assert data["revision"] == "b" * 40
    assert (tmp_path / "fineweb_train_000000.bin").read_bytes() == hub.files[changed]


def test_an_interrupted_fetch_goes_on_where_it_stopped(hub: FakeHub, tmp_path: Path) -> None:
    hub.fail_after = 2
    with pytest.raises(ValueError, match="run the same command again"):
        fetch("tiny", tmp_path, train_shards=2, hub=hub)
    arrived, hub.fail_after = list(hub.downloads), None
    fetch("tiny", tmp_path, train_shards=2, hub=hub)
    assert len(hub.downloads) == len(set(hub.downloads)) == 4
    assert hub.downloads[:2] == arrived


def test_a_file_damaged_on_disk_is_fetched_again(hub: FakeHub, tmp_path: Path) -> None:
    fetch("tiny", tmp_path, train_shards=1, hub=hub)
    (tmp_path / "fineweb_val_000000.bin").write_bytes(b"short")
    hub.downloads.clear()
    fetch("tiny", tmp_path, train_shards=1, hub=hub)
    assert hub.downloads == ["fineweb_val_000000.bin"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (shard([1, 2, 3])[:-1], "not what it should be"),
        (b"\0" * 2048, "not what it should be"),
        (shard([1, 60_000]), "a token 60,000, beyond a vocabulary"),
    ],
)
def test_a_shard_that_is_none_is_refused_and_not_kept(
    hub: FakeHub, tmp_path: Path, data: bytes, words: str
) -> None:
    hub.files["datasets/datasets/fineweb_tiny/fineweb_val_000000.bin"] = data
    with pytest.raises(ValueError, match=words):
        fetch("tiny", tmp_path, train_shards=1, hub=hub)
    assert not (tmp_path / "fineweb_val_000000.bin").exists()


def test_a_download_that_differs_from_the_hub_is_refused(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "file_sha256", lambda path: "0" * 64)
    with pytest.raises(ValueError, match=r"sha256 0000.*where the hub has"):
        fetch("tiny", tmp_path, train_shards=1, hub=hub)


@pytest.mark.parametrize("model", [b"no model at all", None])
def test_a_tokenizer_that_is_not_the_shards_own_is_refused(
    hub: FakeHub, tmp_path: Path, model: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if model is None:
        tiny = PUBLISHED["tiny"]
        other = Published(
            repo=tiny.repo, folder=tiny.folder, tokenizer=tiny.tokenizer, vocab_size=9999
        )
        monkeypatch.setitem(PUBLISHED, "tiny", other)
    else:
        hub.files["datasets/tokenizers/tiny.model"] = model
    with pytest.raises(ValueError, match=r"tokenizer.model is not what it should be"):
        fetch("tiny", tmp_path, train_shards=1, hub=hub)


def test_two_data_sets_never_share_a_folder(hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text('{"name": "sp1024"}')
    with pytest.raises(ValueError, match=r"already holds 'sp1024'.*another folder"):
        fetch("tiny", tmp_path, train_shards=1, hub=hub)


def test_a_shard_nobody_asked_for_would_be_trained_on_and_is_refused(
    hub: FakeHub, tmp_path: Path
) -> None:
    (tmp_path / "fineweb_train_000099.bin").write_bytes(shard([1]))
    with pytest.raises(ValueError, match=r"1 shards .* fineweb_train_000099.bin"):
        fetch("tiny", tmp_path, train_shards=1, hub=hub)


def test_without_a_network_the_error_says_what_to_do(hub: FakeHub, tmp_path: Path) -> None:
    class Offline(FakeHub):
        def listing(self, repo: str) -> Listing:
            raise OSError("no route to host")

    with pytest.raises(ValueError, match=r"no route to host.*Check the network"):
        fetch("tiny", tmp_path, hub=Offline({}))


def test_too_many_shards_unknown_names_and_a_full_disk_are_told_with_numbers(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"has 3 training shards, 4 were asked for"):
        fetch("tiny", tmp_path, train_shards=4, hub=hub)
    with pytest.raises(ValueError, match=r"unknown data 'huge'; choose one of sp1024"):
        fetch("huge", tmp_path, hub=hub)
    with pytest.raises(ValueError, match="train_shards=-1"):
        fetch("tiny", tmp_path, train_shards=-1, hub=hub)
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ValueError, match=r"0\.0 GB free.*--train-shards"):
        fetch("tiny", tmp_path, train_shards=1, hub=hub)
