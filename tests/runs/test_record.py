"""Which runs are seeds of one thing, and which folders say what they are."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fairway.result import ArtifactResult, read_result, write_result
from fairway.runs.record import RunRecord
from fairway.runs.scan import read_record, scan

from .run_folders import DATA, write_run


def test_seeds_of_a_recipe_are_one_group(tmp_path: Path) -> None:
    a, b = (RunRecord.of(write_run(tmp_path / f"s{seed}", seed=seed)) for seed in (1, 2))
    assert a.group_id == b.group_id
    assert a.run_id != b.run_id


@pytest.mark.parametrize(
    "other",
    [
        {"train__steps": 7},
        {"data": {**DATA, "val_000000.bin": "dd" * 32}},
        {"data": {**DATA, "train_000000.bin": "dd" * 32}},
        {"versions": {"fairway": "0.2.0", "torch": "2.13.0"}},
        {"settled": {"compute_dtype": "bfloat16"}},
        {"settled": {"evaluation": {"config": {"stride": 128}}}},
        {"tokens__val_tokens": 100},
    ],
    ids=str,
)
def test_what_differs_in_more_than_the_seed_is_another_group(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    a = RunRecord.of(write_run(tmp_path / "a"))
    b = RunRecord.of(write_run(tmp_path / "b", seed=2, **other))
    assert a.group_id != b.group_id
    scored_alike = "data" not in other or other["data"]["val_000000.bin"] == DATA["val_000000.bin"]
    scored_alike &= "tokens__val_tokens" not in other
    assert (a.text_id == b.text_id) == scored_alike


def test_a_name_alone_makes_no_other_group(tmp_path: Path) -> None:
    a = RunRecord.of(write_run(tmp_path / "a"))
    b = RunRecord.of(write_run(tmp_path / "b", name="mine", claim_bpb=1.0))
    assert a.group_id == b.group_id


def test_a_record_comes_back_from_json(tmp_path: Path) -> None:
    record = RunRecord.of(write_run(tmp_path / "a"))
    again = RunRecord.from_json(json.loads(json.dumps(record.to_json())))
    assert again == record
    assert (again.run_id, again.group_id) == (record.run_id, record.group_id)


def test_the_result_of_another_run_is_refused(tmp_path: Path) -> None:
    a, b = write_run(tmp_path / "a"), write_run(tmp_path / "b", seed=2)
    shutil.copy(b / "result.json", a / "result.json")
    with pytest.raises(ValueError, match="the result of another run"):
        RunRecord.of(a)


def test_the_recipe_of_another_run_is_refused(tmp_path: Path) -> None:
    a, b = write_run(tmp_path / "a"), write_run(tmp_path / "b", train__steps=9)
    shutil.copy(b / "recipe.json", a / "recipe.json")
    with pytest.raises(ValueError, match=r"recipe.json is another run's .*train.steps 9 instead"):
        RunRecord.of(a)


def test_a_model_that_was_not_scored_is_refused(tmp_path: Path) -> None:

    a = write_run(tmp_path / "a")
    artifact = ArtifactResult(
        bytes_total=3, bytes_model=3, bytes_code=0, bytes_tokenizer=0, sha256="00" * 32
    )
    write_result(a, replace(read_result(a), artifact=artifact))
    (a / "model.fwy").write_bytes(b"abc")
    with pytest.raises(ValueError, match="not the file that was scored"):
        read_record(a)


def test_a_scan_finds_all_runs_once_and_names_what_is_none(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a")
    write_run(tmp_path / "deep" / "b", seed=2)
    shutil.copytree(a, tmp_path / "copy of a")
    shutil.copytree(write_run(tmp_path / "c", seed=3), tmp_path / "c" / "earlier" / "1")
    (tmp_path / "d").mkdir()
    shutil.copy(a / "result.json", tmp_path / "d")
    begun = write_run(tmp_path / "e", seed=5)
    (begun / "result.json").unlink()
    found = scan([tmp_path])
    assert sorted(r.seed for r in found.records) == [1, 2, 3]
    assert len(found.problems) == 1
    assert "has no run.json" in found.problems[0]
    assert found.unfinished == (begun,)
