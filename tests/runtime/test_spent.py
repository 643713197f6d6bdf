"""Seconds once spent stay spent, however the run ended."""

import os
from pathlib import Path

import pytest

from fairway.runtime.spent import EVERY_SECONDS, Spent, read_spent


def test_a_second_start_goes_on_where_the_first_ended(tmp_path: Path) -> None:
    path = tmp_path / "spent"
    with Spent(path).running(at_least=10.0) as first:
        assert first.seconds >= 10.0
    again = Spent(path)
    assert again.seconds == pytest.approx(first.seconds + EVERY_SECONDS, abs=1e-3)
    assert again.seconds == again.seconds  # no time passes while it is not running


def test_what_was_killed_has_written_by_then(tmp_path: Path) -> None:
    path = tmp_path / "spent"
    with pytest.raises(KeyboardInterrupt), Spent(path).running(at_least=5.0):
        raise KeyboardInterrupt
    assert read_spent(path) >= 5.0 + EVERY_SECONDS


def test_who_dies_before_the_first_line_leaves_no_empty_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object) -> int:
        raise OSError("killed here")

    for name in ("pwrite", "fsync"):
        monkeypatch.setattr(os, name, dies)
    with Spent(tmp_path / "spent").running():
        pass
    assert read_spent(tmp_path / "spent") == 0.0


def test_without_a_file_nothing_is_kept() -> None:
    with Spent(None).running(at_least=1.0) as spent:
        pass
    assert spent.seconds >= 1.0


@pytest.mark.parametrize("text", ["", "many", "-3", "nan"])
def test_a_file_that_says_nothing_gives_no_time_away(tmp_path: Path, text: str) -> None:
    path = tmp_path / "spent"
    path.write_text(text)
    with pytest.raises(ValueError, match="does not say how many seconds"):
        read_spent(path)
    assert read_spent(tmp_path / "none") == 0.0
