"""A tracker is told the numbers of the log, and of nothing when nobody asked."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fairway.pipeline.tracking import tracked
from fairway.recipes.registry import recipe

POCKET = recipe("pocket")


def test_without_a_tracker_the_callback_is_the_callers_own(tmp_path: Path) -> None:
    def mine(*_: object, **__: object) -> None: ...

    with tracked(None, POCKET, tmp_path, mine) as told:
        assert told is mine
    assert not list(tmp_path.iterdir())


def test_tensorboard_reads_what_was_told(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    heard: list[Any] = []
    with tracked("tensorboard", POCKET, tmp_path, lambda *a, **k: heard.append((a, k))) as told:
        told(10, 100, text="train", train_loss=2.5)
        told(20, 100, text="train", train_loss=2.25)
        told(text="only words")
    read = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    points = [(event.step, event.value) for event in read.Scalars("train/train_loss")]
    assert points == [(10, 2.5), (20, 2.25)]
    assert len(heard) == 3


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_board_is_opened_told_and_finished(
    name: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    board = SimpleNamespace(
        init=lambda **settings: calls.append(("init", settings)),
        log=lambda numbers: calls.append(("log", numbers)),
        finish=lambda: calls.append(("finish",)),
    )
    monkeypatch.setitem(sys.modules, name, board)
    tracker = tracked(name, POCKET, tmp_path / "a run", lambda *a, **k: None)
    tracker.__enter__()(3, text="score sliding", bits_per_byte=1.5)
    assert not tracker.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    (_, settings), log, finish = calls
    assert (settings["project"], settings["name"]) == ("fairway", "a run")
    assert settings["config"]["train"]["seconds"] == POCKET.train.seconds
    assert log == ("log", {"score sliding/bits_per_byte": 1.5, "score sliding/step": 3})
    assert finish == ("finish",)


def test_a_run_outlives_its_tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(numbers: dict[str, float]) -> None:
        raise ConnectionError("no network")

    board = SimpleNamespace(init=lambda **_: None, log=broken, finish=lambda: None)
    monkeypatch.setitem(sys.modules, "wandb", board)
    heard: list[float] = []
    with tracked("wandb", POCKET, tmp_path, lambda done=0.0, *a, **k: heard.append(done)) as told:
        with pytest.warns(UserWarning, match="no network"):
            told(1, text="train", train_loss=1.0)
        told(2, text="train", train_loss=1.0)
    assert heard == [1, 2]


def test_other_ranks_open_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    with tracked("tensorboard", POCKET, tmp_path, lambda *a, **k: None) as told:
        told(1, text="train", train_loss=1.0)
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with (
        pytest.raises(ValueError, match=r"fairway\[track\]"),
        tracked("wandb", POCKET, tmp_path, lambda *a, **k: None),
    ):
        pass
