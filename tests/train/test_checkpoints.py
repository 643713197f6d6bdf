"""Two generations of checkpoints, written beside the steps; a damaged one costs only itself."""

from pathlib import Path

import pytest
import torch

from fairway.train import checkpoints as module
from fairway.train.checkpoints import CHECKPOINT, PREVIOUS, Checkpoints, require_same
from fairway.train.train_state import Checkpoint

MADE = {"recipe": {"seed": 1}}


def state(step: int) -> Checkpoint:
    tensors = {"model.weight": torch.full((3,), float(step))}
    return Checkpoint(tensors=tensors, numbers={"format": 2, "step": step})


def kept(folder: Path, said: list[str] | None = None, made: dict | None = None) -> Checkpoints:
    return Checkpoints(folder, made or MADE, say=(said if said is not None else []).append)


def test_the_newest_is_read_and_the_one_before_it_is_kept(tmp_path: Path) -> None:
    made = kept(tmp_path)
    assert made.newest() is None
    for step in (1, 2, 3):
        made.save(lambda step=step: state(step))
    newest = kept(tmp_path).newest()
    assert newest is not None
    assert newest.step == 3
    assert newest.tensors["model.weight"].tolist() == [3.0, 3.0, 3.0]
    assert sorted(path.name for path in tmp_path.iterdir()) == [PREVIOUS, CHECKPOINT]


@pytest.mark.parametrize("data", [b"", b"x" * 100])
def test_a_damaged_one_is_told_and_the_one_before_it_taken(tmp_path: Path, data: bytes) -> None:
    made = kept(tmp_path)
    for step in (1, 2):
        made.save(lambda step=step: state(step))
    (tmp_path / CHECKPOINT).write_bytes(data)
    said: list[str] = []
    again = kept(tmp_path, said)
    found = again.newest()
    assert found is not None
    assert found.step == 1
    assert "going on from the one before it" in said[0]
    again.save(lambda: state(5))  # over the damaged one: the good one stays
    assert kept(tmp_path).newest().step == 5  # type: ignore[union-attr]
    (tmp_path / CHECKPOINT).unlink()
    assert kept(tmp_path).newest().step == 1  # type: ignore[union-attr]


def test_two_damaged_ones_are_an_error(tmp_path: Path) -> None:
    for name in (CHECKPOINT, PREVIOUS):
        (tmp_path / name).write_bytes(b"damaged")
    with pytest.raises(ValueError, match=PREVIOUS):
        kept(tmp_path).newest()


def test_another_runs_checkpoint_is_refused_by_what_differs(tmp_path: Path) -> None:
    kept(tmp_path).save(lambda: state(1))
    with pytest.raises(ValueError, match=r"recipe\.seed 1 instead of 2"):
        kept(tmp_path, made={"recipe": {"seed": 2}}).newest()
    require_same(MADE, MADE, tmp_path)


def test_a_full_disk_is_told_and_does_not_end_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, checkpoint: Checkpoint) -> None:
        raise OSError("no space left on device")

    said: list[str] = []
    with kept(tmp_path, said) as made:
        with monkeypatch.context() as patched:
            patched.setattr(module, "save_checkpoint", full)
            made.save_beside(lambda: state(1))
            made._wait()
        made.save_beside(lambda: state(2))
    assert said == ["no checkpoint was written: no space left on device"]
    assert kept(tmp_path).newest().step == 2  # type: ignore[union-attr]


def test_a_folder_that_was_removed_is_told_and_not_made_anew(tmp_path: Path) -> None:
    said: list[str] = []
    with kept(tmp_path / "gone", said) as made:
        made.save_beside(lambda: state(1))
    assert len(said) == 1
    assert "no checkpoint was written: there is no folder" in said[0]
    assert not (tmp_path / "gone").exists()


def test_copies_take_no_more_than_their_share_of_the_time(tmp_path: Path) -> None:
    now = 0.0
    made = Checkpoints(tmp_path, MADE, every_seconds=1.0, now=lambda: now)

    def copy() -> Checkpoint:
        nonlocal now
        now += 0.5
        return state(1)

    with made:
        assert not made.due()
        now += 1.0
        assert made.due()
        made.save_beside(copy)
        made._wait()
        now += 49.0
        assert not made.due()  # half a second is a hundredth of fifty
        now += 1.5
        assert made.due()
