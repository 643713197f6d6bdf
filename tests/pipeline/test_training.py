import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fairway.model.gpt import GPT
from fairway.pipeline.folder import RunFolder
from fairway.pipeline.options import Resume
from fairway.pipeline.packing import pack_again
from fairway.pipeline.training import Dealt, load_trained, train_and_average
from fairway.recipes.registry import recipe, smoke
from fairway.result import RunResult
from fairway.runtime.device import seed_everything
from fairway.runtime.distributed import Ranks
from fairway.runtime.setup import Runtime
from fairway.runtime.stopping import Stop, Stopped
from fairway.tokens.batches import Batches, OrderConfig
from fairway.tokens.shards import DataFolder
from fairway.train import checkpoints
from fairway.train.checkpoints import CHECKPOINT, PREVIOUS, Checkpoints
from fairway.train.train_state import Checkpoint

Go = Callable[..., RunResult]
Fold = Callable[..., RunFolder]


@pytest.mark.parametrize("micro_batches", [1, 3, 4])
def test_ranks_together_take_what_one_would(
    micro_batches: int, song: DataFolder, runtime: Runtime
) -> None:
    def batches() -> Batches:
        return Batches(song.train, OrderConfig(), rows=2, context=16)

    alone = Dealt(batches(), runtime)
    both = [Dealt(batches(), replace(runtime, ranks=Ranks(rank, 2, rank))) for rank in (0, 1)]
    for _ in range(3):
        expected = [next(alone).tokens for _ in range(micro_batches)]
        found = [next(both[place % 2]).tokens for place in range(micro_batches)]
        assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
        for dealt in (alone, *both):
            dealt.step_done(micro_batches)


@pytest.mark.parametrize("name", ["pocket", "pr414", "pr1413"])
def test_an_interrupted_run_goes_on_to_the_same_weights(
    name: str, song: DataFolder, runtime: Runtime, fold: Fold, tmp_path: Path
) -> None:
    chosen = smoke(recipe(name), steps=8)

    def train(out: Path, here: Runtime, resume: Resume = "no") -> dict[str, torch.Tensor]:
        seed_everything(chosen.seed)
        model = GPT(chosen.model)
        return train_and_average(model, chosen, song, fold(chosen, out, resume), here).weights

    whole = train(tmp_path / "whole", runtime)
    with pytest.raises(Stopped, match=r"SIGTERM after step 5.*--resume") as stopped:
        train(tmp_path / "parts", replace(runtime, stop=AskedAfter(5)))
    assert stopped.value.signal == signal.SIGTERM
    with pytest.raises(ValueError, match="interrupted after step 5"):
        load_trained(tmp_path / "parts", runtime.device)
    resumed = train(tmp_path / "parts", runtime, "yes")
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


class AskedAfter(Stop):
    """Hears a signal while it is being looked at for the last time."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks

    @property
    def asked(self) -> bool:
        self.looks -= 1
        if self.looks < 0 and self.signal is None:
            self.signal = signal.SIGTERM
        return self.looks < 0


def test_resuming_needs_a_run_of_the_same_recipe(go: Go, tmp_path: Path) -> None:
    chosen = smoke(recipe("pocket"))
    with pytest.raises(ValueError, match="nothing to go on from"):
        go(chosen, tmp_path, resume="yes")
    go(chosen, tmp_path)
    other = replace(chosen, seed=5)
    for resume in ("yes", "auto"):
        with pytest.raises(ValueError, match=r"another run \(recipe.seed 1337 instead of 5\)"):
            go(other, tmp_path, resume=resume)


@pytest.mark.parametrize("name", ["pocket", "pr414"])
def test_a_checkpoint_after_any_step_gives_the_same_weights(
    name: str, song: DataFolder, runtime: Runtime, fold: Fold, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Without a signal: what a thread wrote beside the steps, rounded weights and all."""
    chosen = smoke(recipe(name), steps=6)

    def train(resume: Resume) -> dict[str, torch.Tensor]:
        seed_everything(chosen.seed)
        folder = fold(chosen, tmp_path, resume)
        return train_and_average(GPT(chosen.model), chosen, song, folder, runtime, 0.0).weights

    monkeypatch.setattr(checkpoints, "LARGEST_SHARE", 1e9)
    monkeypatch.setattr(Checkpoints, "due", lambda self: True)
    states = []
    save = Checkpoints.save_beside

    def kept(self: Checkpoints, copy: Callable[[], Checkpoint]) -> None:
        save(self, copy)
        self._wait()
        states.append((tmp_path / CHECKPOINT).read_bytes())

    monkeypatch.setattr(Checkpoints, "save_beside", kept)
    whole = train("no")
    assert len(states) == 6
    for state in (states[0], states[2], states[3], states[5]):
        (tmp_path / CHECKPOINT).write_bytes(state)
        resumed = train("yes")
        assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_a_damaged_checkpoint_is_told_and_the_one_before_it_taken(
    song: DataFolder, runtime: Runtime, fold: Fold, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, said = smoke(recipe("pocket"), steps=6), []
    monkeypatch.setattr(Checkpoints, "due", lambda self: True)
    folder = fold(chosen, tmp_path)
    seed_everything(chosen.seed)
    whole = train_and_average(GPT(chosen.model), chosen, song, folder, runtime).weights
    newest = bytearray((tmp_path / CHECKPOINT).read_bytes())
    newest[-5] ^= 1
    (tmp_path / CHECKPOINT).write_bytes(newest)
    monkeypatch.setattr(runtime.log, "say", said.append)
    folder = fold(chosen, tmp_path, "auto")
    resumed = train_and_average(GPT(chosen.model), chosen, song, folder, runtime).weights
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    assert any("checksum is wrong" in line and "the one before it" in line for line in said)
    for name in (CHECKPOINT, PREVIOUS):
        (tmp_path / name).write_bytes(b"no")
    with pytest.raises(ValueError, match=r"checkpoint.previous.safetensors is not a checkpoint"):
        train_and_average(GPT(chosen.model), chosen, song, folder, runtime)


def test_the_clock_goes_on_where_it_was_killed(
    song: DataFolder, runtime: Runtime, fold: Fold, tmp_path: Path
) -> None:
    """Without any checkpoint: only the file of seconds knows."""
    chosen = smoke(recipe("pocket"))
    timed = replace(chosen.train, steps=None, seconds=1000.0, reserve_seconds=10.0)
    chosen = replace(chosen, train=timed)
    folder = fold(chosen, tmp_path)
    (tmp_path / "train.spent").write_text("2000.0\n")
    with pytest.raises(ValueError, match="no step fits into 1000"):
        train_and_average(GPT(chosen.model), chosen, song, folder, runtime)


def test_late_rounding_is_on_when_it_should_be(
    song: DataFolder,
    runtime: Runtime,
    fold: Fold,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rounded: list[bool] = []
    forward = GPT.loss

    def watched(model: GPT, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        rounded.append(any("parametrizations" in name for name, _ in model.named_parameters()))
        return forward(model, tokens, targets)

    monkeypatch.setattr(GPT, "loss", watched)
    chosen = smoke(recipe("pr414"), steps=6)
    model = GPT(chosen.model)
    train_and_average(model, chosen, song, fold(chosen, tmp_path), runtime)
    per_step = len(rounded) // 6
    assert rounded == [False] * 3 * per_step + [True] * 3 * per_step
    assert not any("parametrizations" in name for name, _ in model.named_parameters())


def test_what_was_trained_can_be_packed_again(
    song: DataFolder, runtime: Runtime, go: Go, tmp_path: Path
) -> None:
    go(smoke(recipe("pocket")), tmp_path)
    file = tmp_path / "model.fwy"
    assert pack_again(tmp_path, song, runtime) == file.read_bytes()
    smaller = len(file.read_bytes()) - 2000
    assert len(pack_again(tmp_path, song, runtime, cap_bytes=smaller)) <= smaller
    by_pr414 = pack_again(file, song, runtime, recipe="pr414")
    assert by_pr414 != file.read_bytes()
    with pytest.raises(ValueError, match="--recipe NAME"):
        pack_again(file, song, runtime)


def test_a_checkpoint_holds_every_weight_by_its_plain_name(
    song: DataFolder, runtime: Runtime, fold: Fold, tmp_path: Path
) -> None:
    chosen = smoke(recipe("pr414"))
    train_and_average(GPT(chosen.model), chosen, song, fold(chosen, tmp_path), runtime)
    names = load_file(tmp_path / "checkpoint.safetensors")
    assert not any("parametrizations" in name for name in names)
