from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fairway.model.gpt import GPT
from fairway.pipeline import training
from fairway.pipeline.packing import pack_again
from fairway.pipeline.training import Dealt, load_trained, train_and_average
from fairway.recipes.registry import recipe, smoke
from fairway.result import RunResult
from fairway.runtime.device import seed_everything
from fairway.runtime.distributed import Ranks
from fairway.runtime.setup import Runtime
from fairway.tokens.batches import Batches, OrderConfig
from fairway.tokens.shards import DataFolder

Go = Callable[..., RunResult]


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
    name: str, song: DataFolder, runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = smoke(recipe(name), steps=8)

    def train(out: Path, resume: bool = False) -> dict[str, torch.Tensor]:
        out.mkdir(exist_ok=True)
        seed_everything(chosen.seed)
        model = GPT(chosen.model)
        return train_and_average(model, chosen, song, out, runtime, resume).weights

    whole = train(tmp_path / "whole")
    asked = iter([False] * 5 + [True])
    with monkeypatch.context() as patched:
        patched.setattr(training, "interruptible", lambda: _asking(asked))
        with pytest.raises(ValueError, match=r"after step 5.*--resume"):
            train(tmp_path / "parts")
    with pytest.raises(ValueError, match="interrupted after step 5"):
        load_trained(tmp_path / "parts", runtime.device)
    resumed = train(tmp_path / "parts", resume=True)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


class _asking:
    def __init__(self, asked) -> None:
        self.asked = asked

    def __enter__(self):
        return lambda: next(self.asked)

    def __exit__(self, *_: object) -> None:
        pass


def test_resuming_needs_a_checkpoint_of_the_same_recipe(
    song: DataFolder, runtime: Runtime, go: Go, tmp_path: Path
) -> None:
    chosen = smoke(recipe("pocket"))
    with pytest.raises(ValueError, match="nothing to go on from"):
        go(chosen, tmp_path, resume=True)
    go(chosen, tmp_path)
    with pytest.raises(ValueError, match=r"another recipe \(seed differ\)"):
        go(replace(chosen, seed=5), tmp_path, resume=True)


def test_late_rounding_is_on_when_it_should_be(
    song: DataFolder, runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounded: list[bool] = []
    forward = GPT.loss

    def watched(model: GPT, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        rounded.append(any("parametrizations" in name for name, _ in model.named_parameters()))
        return forward(model, tokens, targets)

    monkeypatch.setattr(GPT, "loss", watched)
    chosen = smoke(recipe("pr414"), steps=6)
    model = GPT(chosen.model)
    train_and_average(model, chosen, song, tmp_path, runtime)
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
    song: DataFolder, runtime: Runtime, tmp_path: Path
) -> None:
    chosen = smoke(recipe("pr414"))
    train_and_average(GPT(chosen.model), chosen, song, tmp_path, runtime)
    names = load_file(tmp_path / "checkpoint.safetensors")
    assert not any("parametrizations" in name for name in names)
