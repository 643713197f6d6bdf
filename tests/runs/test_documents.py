"""Nats of documents come back, and only to the result that they belong to."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fairway.result import RunResult, ScoreResult, TrainResult
from fairway.runs.documents import DOCUMENTS, Documents, NotThere, read_documents, write_documents

COLUMNS = Documents(np.array([4.0, 3.0]), np.array([3.5, 2.0]), np.array([2, 1]), np.array([5, 4]))


def result(documents: str | None, nats: float = 5.5) -> RunResult:
    return RunResult(
        recipe="pocket",
        seed=1,
        device="cpu",
        params=1,
        train=TrainResult(seconds=1.0, steps=1, tokens=1),
        score=ScoreResult(bits_per_byte=1.0, nats=nats, tokens=3, bytes=9),
        documents=documents,
    )


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    sha256 = write_documents(tmp_path, COLUMNS)
    found = read_documents(tmp_path, result(sha256))
    assert isinstance(found, Documents)
    for name in COLUMNS._fields:
        assert np.array_equal(getattr(found, name), getattr(COLUMNS, name))


def test_figures_of_another_run_are_refused(tmp_path: Path) -> None:
    sha256 = write_documents(tmp_path, COLUMNS)
    write_documents(tmp_path, COLUMNS._replace(learning=np.array([3.5, 1.0])))
    with pytest.raises(ValueError, match="not the file that the result of this run names"):
        read_documents(tmp_path, result(sha256))


def test_documents_that_do_not_add_up_to_the_score_are_refused(tmp_path: Path) -> None:
    sha256 = write_documents(tmp_path, COLUMNS)
    with pytest.raises(ValueError, match="do not add up to the score"):
        read_documents(tmp_path, result(sha256, nats=5.4))


def test_what_is_not_there_says_why(tmp_path: Path) -> None:
    before = read_documents(tmp_path, result(None))
    assert isinstance(before, NotThere)
    assert "kept no nats of documents" in before.reason
    gone = read_documents(tmp_path, replace(result(None), documents="ab" * 32))
    assert isinstance(gone, NotThere)
    assert str(tmp_path / DOCUMENTS) in gone.reason
