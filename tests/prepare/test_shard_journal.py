"""What an unfinished folder holds is believed as far as it is on disk, and no further."""

import json
from pathlib import Path

import pytest

from fairway.prepare.shard_journal import JOURNAL, Journal, Shard, clear, put_in_place, unfinished
from fairway.runtime.files import file_sha256

MADE = {"sources": ["a.txt"], "seed": 0}


def begun(folder: Path) -> Journal:
    """A tokenizer and three shards, the validation split finished."""
    journal = Journal(folder, MADE)
    (folder / "tokenizer.model").write_bytes(b"pieces")
    journal.tokenizer = file_sha256(folder / "tokenizer.model")
    for number, (split, place) in enumerate((("val", 0), ("train", 0), ("train", 1))):
        name = f"{split}_{place:06d}.bin"
        (folder / name).write_bytes(bytes([number]))
        sum_ = file_sha256(folder / name)
        journal.add(Shard(name, split, sum_, documents=number, offset=0, digest="d"))
    journal.finish("val", {"documents": 1})
    return journal


def test_it_goes_on_from_what_is_there(tmp_path: Path) -> None:
    before, after = begun(tmp_path), Journal(tmp_path, MADE)
    assert after.take_over()
    assert after.shards == before.shards
    assert (after.tokenizer, after.finished) == (before.tokenizer, before.finished)
    assert [shard.name for shard in after.of("train")] == ["train_000000.bin", "train_000001.bin"]
    assert not Journal(tmp_path / "elsewhere", MADE).take_over()


@pytest.mark.parametrize(
    ("damaged", "left", "finished"),
    [
        ("train_000001.bin", 2, {"val": {"documents": 1}}),
        ("train_000000.bin", 1, {"val": {"documents": 1}}),
        ("val_000000.bin", 0, {}),
        ("tokenizer.model", 0, {}),
    ],
)
@pytest.mark.parametrize("gone", [True, False])
def test_what_is_damaged_and_all_after_it_is_made_anew(
    tmp_path: Path, damaged: str, left: int, finished: dict, gone: bool
) -> None:
    begun(tmp_path)
    (tmp_path / damaged).unlink() if gone else (tmp_path / damaged).write_bytes(b"other")
    after = Journal(tmp_path, MADE)
    assert after.take_over()
    assert (len(after.shards), after.finished) == (left, finished)


def test_other_sources_are_refused_by_name(tmp_path: Path) -> None:
    begun(tmp_path)
    with pytest.raises(ValueError, match=r"begun otherwise \(seed: 0, now 1"):
        Journal(tmp_path, {**MADE, "seed": 1}).take_over()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("shards", 0, "name"), "../../etc/passwd"),
        (("shards", 0, "name"), "val_000001.bin"),
        (("shards", 0, "documents"), -1),
        (("shards", 0, "offset"), True),
        (("shards", 0, "split"), "test"),
        (("shards", 0), {}),
        (("shards",), 5),
        (("tokenizer",), 5),
        (("identity",), []),
        (("finished",), {"test": {}}),
        (("finished",), {"val": {"documents": "x"}}),
    ],
)
def test_a_journal_of_another_form_is_refused_in_one_line(
    tmp_path: Path, path: tuple, value: object
) -> None:
    begun(tmp_path)
    state = json.loads((tmp_path / JOURNAL).read_bytes())
    inner = state
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    (tmp_path / JOURNAL).write_text(json.dumps(state))
    with pytest.raises(ValueError, match=r"journal\.json is damaged") as said:
        Journal(tmp_path, MADE).take_over()
    assert "\n" not in str(said.value)


def test_the_folder_gets_its_name_when_it_is_whole(tmp_path: Path) -> None:
    out = tmp_path / "data"
    with unfinished(out, overwrite=False) as partial:
        (partial / "data.json").write_text("{}")
        (partial / "old").mkdir()
        with pytest.raises(ValueError, match="in use by another"), unfinished(out, False):
            pass
        clear(partial)
        begun(partial)
        (partial / "data.json").write_text("{}")
        assert not out.exists()
        put_in_place(partial, out)
    assert sorted(path.suffix for path in out.iterdir()) == [".bin"] * 3 + [".json", ".model"]
    with pytest.raises(ValueError, match="exists already"), unfinished(out, overwrite=False):
        pass
    (tmp_path / "mine").mkdir()
    with pytest.raises(ValueError, match="no data folder"), unfinished(tmp_path / "mine", True):
        pass
