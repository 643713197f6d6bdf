from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.prepare import prepare_documents
from fairway.tokens.shards import DataFolder, ShardWriter, TokenStream, open_shard, write_shard


def test_a_shard_holds_what_was_written(tmp_path: Path) -> None:
    tokens = np.array([1, 5, 65535, 0], np.uint16)
    write_shard(tmp_path / "a.bin", tokens)
    assert (tmp_path / "a.bin").stat().st_size == 1024 + 2 * 4
    assert open_shard(tmp_path / "a.bin").tolist() == tokens.tolist()


@pytest.mark.parametrize(
    ("word", "value", "message"),
    [(0, 7, "magic 7"), (1, 2, "version 2"), (2, 9, r"promises 9 tokens")],
)
def test_a_wrong_header_is_named(tmp_path: Path, word: int, value: int, message: str) -> None:
    write_shard(tmp_path / "a.bin", np.arange(4))
    raw = bytearray((tmp_path / "a.bin").read_bytes())
    raw[4 * word : 4 * word + 4] = value.to_bytes(4, "little")
    (tmp_path / "a.bin").write_bytes(raw)
    with pytest.raises(ValueError, match=message):
        open_shard(tmp_path / "a.bin")


def test_a_token_beyond_the_vocabulary_is_found(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.bin", np.array([1, 2, 300, 4]))
    with pytest.raises(ValueError, match="token 300 at position 2"):
        open_shard(tmp_path / "a.bin", vocab_size=300)


def test_no_file_is_no_shard(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no shard"):
        open_shard(tmp_path / "none.bin")


@given(lengths=st.lists(st.integers(0, 9), min_size=1, max_size=5), data=st.data())
def test_a_stream_reads_like_its_shards_joined(lengths: list[int], data: st.DataObject) -> None:
    shards = [np.arange(n, dtype=np.uint16) + 100 * i for i, n in enumerate(lengths)]
    joined = np.concatenate(shards)
    begin = data.draw(st.integers(0, len(joined)))
    end = data.draw(st.integers(begin, len(joined)))
    assert TokenStream(shards)[begin:end].tolist() == joined[begin:end].tolist()


def test_a_writer_cuts_shards_of_equal_size(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, "train", tokens_per_shard=10)
    for size in (3, 14, 6):
        writer.add(np.full(size, size, np.uint16))
    writer.close()
    assert [len(open_shard(file)) for file in writer.files] == [10, 10, 3]


def test_a_folder_says_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="fairway prepare"):
        DataFolder(tmp_path / "none")
    with pytest.raises(ValueError, match="exactly one tokenizer"):
        _ = DataFolder(tmp_path).tokenizer


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch) -> None:
    write_shard(tmp_path / "a.bin", np.arange(3))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_shard(tmp_path / "a.bin", np.arange(9))
    assert len(open_shard(tmp_path / "a.bin")) == 3
    assert [file.name for file in tmp_path.iterdir()] == ["a.bin"]


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    documents = [f"{i} green bottles hanging on the wall. ".encode() * 6 for i in range(40)]
    prepare_documents(tmp_path / "data", documents[:30], documents[30:], vocab_size=290, source="x")
    return tmp_path / "data"


@pytest.mark.parametrize("name", ["train_000000.bin", "val_000000.bin", "tokenizer.model"])
def test_a_flipped_bit_is_another_text_and_refused(prepared: Path, name: str) -> None:
    raw = bytearray((prepared / name).read_bytes())
    raw[-3] ^= 1
    (prepared / name).write_bytes(raw)
    data = DataFolder(prepared)
    with pytest.raises(ValueError, match=f"{name} changed since it was prepared"):
        assert len(data.train) + len(data.val)


def test_a_shard_from_elsewhere_and_a_lost_one_are_named(prepared: Path) -> None:
    write_shard(prepared / "train_000001.bin", np.array([1, 5, 6]))
    with pytest.raises(ValueError, match=r"train_000001.bin is not among the files"):
        len(DataFolder(prepared).train)
    (prepared / "train_000001.bin").unlink()
    (prepared / "train_000000.bin").rename(prepared / "train_000007.bin")
    with pytest.raises(ValueError, match=r"lacks train_000000.bin"):
        len(DataFolder(prepared).train)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", "[" * 100_000, '{"sha256": 5}', '{"files": [1]}'],
    ids=["empty", "list", "open", "deep", "number", "files"],
)
def test_a_manifest_that_is_none_is_refused(prepared: Path, text: str) -> None:
    (prepared / "data.json").write_text(text)
    with pytest.raises(ValueError, match=r"data.json"):
        len(DataFolder(prepared).train)
