"""`fairway runs` and `fairway effects`: what they find, refuse, and answer."""

import json
import runpy
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fairway.cli import main
from fairway.runs.database import ENVIRONMENT

write_run: Callable[..., Path] = runpy.run_path(
    str(Path(__file__).parents[1] / "runs" / "run_folders.py"), run_name="run_folders"
)["write_run"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three seeds of a recipe and three of one change of it, below `runs` where we stand."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    for seed, spread in enumerate((-0.0008, 0.0, 0.0009)):
        write_run(tmp_path / "runs" / f"old-{seed}", 3.0 + spread, seed=seed)
        new = tmp_path / "runs" / f"new-{seed}"
        write_run(new, 2.9 + spread, seed=seed, train__grad_clip=0.1)
    return tmp_path


def said(capsys: pytest.CaptureFixture, status: int, *words: str) -> tuple[dict[str, Any], str]:
    """The answer and what stands on standard error."""
    assert main([*words, "--json"]) == status
    shown = capsys.readouterr()
    return json.loads(shown.out.splitlines()[-1]), shown.err


def test_a_scan_makes_the_database_that_is_read_without_a_word(
    place: Path, capsys: pytest.CaptureFixture
) -> None:
    made, _ = said(capsys, 0, "runs", "--scan", "runs")
    assert (made["recorded"], made["problems"]) == (6, [])
    listed, shown = said(capsys, 0, "runs", "--where", "seed=1")
    assert [run["seed"] for run in listed["runs"]] == [1, 1]
    assert "2 runs" in shown
    assert said(capsys, 0, "runs", "--since", "2999-01-01")[0]["runs"] == []


def test_groups_are_compared_by_the_rules_that_are_given(
    place: Path, capsys: pytest.CaptureFixture
) -> None:
    found, shown = said(capsys, 0, "runs", "--scan", "runs", "--compare")
    (comparison,) = found["comparisons"]
    assert {group["name"] for group in found["groups"]} >= {"pocket_smoke"}
    assert comparison["verdict"] in ("better", "not shown")
    assert "nats per token" in shown
    strict, _ = said(capsys, 0, "runs", "--compare", "--num-seeds", "5")
    assert strict["comparisons"][0]["verdict"] == "none"
    assert strict["comparisons"][0]["rules"]["name"] == "parameter-golf, changed"


def test_a_choice_of_runs_is_named_by_what_the_database_knows(
    place: Path, capsys: pytest.CaptureFixture
) -> None:
    said(capsys, 0, "runs", "--scan", "runs")
    _, shown = said(capsys, 0, "runs", "--where", "seed!=1", "--compare", "--num-seeds", "2")
    assert "2 of the 3 runs that the database knows of" in shown


def test_what_cannot_be_recorded_is_named_and_the_rest_is(
    place: Path, capsys: pytest.CaptureFixture
) -> None:
    runs = place / "runs"
    shutil.copy(runs / "old-0" / "result.json", runs / "new-0" / "result.json")
    found, shown = said(capsys, 1, "runs", "--scan", "runs")
    assert found["recorded"] == 5
    assert "new-0/result.json is the result of another run" in shown


def test_a_database_of_a_newer_version_is_named(place: Path, capsys: pytest.CaptureFixture) -> None:
    said(capsys, 0, "runs", "--scan", "runs")
    with sqlite3.connect(place / "runs" / "runs.sqlite") as connection:
        connection.execute("PRAGMA user_version = 2")
    for command in ("runs", "effects"):
        error = said(capsys, 2, command)[0]["error"]
        assert "written by a newer fairway" in error["message"]


def test_the_environment_names_a_database(
    place: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENVIRONMENT, str(place / "mine.sqlite"))
    found, _ = said(capsys, 0, "runs", "--scan", "runs")
    assert found["database"] == str(place / "mine.sqlite")
    assert (place / "mine.sqlite").is_file()
    assert not (place / "runs" / "runs.sqlite").exists()


def test_effects_are_told_as_table_csv_and_page(place: Path, capsys: pytest.CaptureFixture) -> None:
    said(capsys, 0, "runs", "--scan", "runs")
    found, shown = said(capsys, 0, "effects", "--csv", "effects.csv", "--page", "effects.html")
    (effect,) = found["effects"]
    assert effect["setting"] == "train.grad_clip"
    assert effect["seeds"] == [0, 1, 2]
    assert "1 changes were tried in 6 runs" in shown
    assert "train.grad_clip" in Path("effects.csv").read_text()
    assert "train.grad_clip" in Path("effects.html").read_text()


def test_runs_that_differ_in_nothing_have_no_effects(
    place: Path, capsys: pytest.CaptureFixture
) -> None:
    said(capsys, 0, "runs", "--scan", "runs")
    error = said(capsys, 2, "effects", "--where", "train.grad_clip=0.1")[0]["error"]["message"]
    assert "no two of the 3 runs" in error


def test_conditions_and_rules_that_mean_nothing_are_refused(
    place: Path, capsys: pytest.CaptureFixture
) -> None:
    assert "no database of runs at" in said(capsys, 2, "runs")[0]["error"]["message"]
    assert "is no condition" in said(capsys, 2, "runs", "--where", "seed")[0]["error"]["message"]
    words = ("runs", "--scan", "runs", "--compare", "--rules", "golf")
    assert "parameter-golf" in said(capsys, 2, *words)[0]["error"]["message"]
    assert not (place / "runs" / "runs.sqlite").exists()
