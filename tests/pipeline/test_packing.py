"""Hessians in what is left of the training clock, and a file under its cap."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fairway.artifact.budget import OverBudget, predict_bytes
from fairway.artifact.container import pack
from fairway.model.gpt import GPT
from fairway.pipeline import packing
from fairway.pipeline.packing import (
    COARSEST,
    LIKELY,
    SURE,
    calibrate,
    expect_to_fit,
    make_artifact,
    pack_again,
    seconds_to_calibrate,
)
from fairway.quant.hessian import collect_calibration, factor_hessians
from fairway.quant.rules import quantize
from fairway.recipes.recipe import Budget, Recipe
from fairway.recipes.registry import recipe, smoke
from fairway.result import RunResult, read_result
from fairway.runtime.distributed import Ranks
from fairway.runtime.run_log import RunLog
from fairway.runtime.setup import Runtime
from fairway.tokens.batches import Batch, Batches
from fairway.tokens.shards import DataFolder
from fairway.train.config import build_clock

Go = Callable[..., RunResult]


def clocked(seconds: float = 100.0, reserve: float = 3.0, batches: int = 16) -> Recipe:
    chosen = smoke(recipe("pocket"))
    train = replace(chosen.train, steps=None, seconds=seconds, reserve_seconds=reserve)
    quant = replace(chosen.quant, calibration_batches=batches, reserve_seconds=reserve)
    return replace(chosen, train=train, quant=quant)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], float]], Callable]:
    """Makes each batch take so many seconds, by its number, on the clock that is returned."""

    def make(seconds: Callable[[int], float]) -> Callable[[], float]:
        time, taken, honest = [0.0], [0], Batches.at

        def at(self: Batches, index: int) -> Batch:
            time[0] += seconds(taken[0])
            taken[0] += 1
            return honest(self, index)

        monkeypatch.setattr(packing.Batches, "at", at)
        return lambda: time[0]

    return make


def test_the_reserve_is_what_this_machine_needs(
    slow: Callable, song: DataFolder, runtime: Runtime
) -> None:
    chosen = clocked()
    model = GPT(chosen.model)
    for batch_seconds, kept in ((0.01, 3.0), (0.5, 12.25), (5.0, 20.0)):
        now = slow(lambda _, s=batch_seconds: s)
        assert seconds_to_calibrate(model, chosen, song, runtime, now=now) == pytest.approx(kept)
    assert build_clock(chosen.train, reserve_seconds=12.0).budget == 88.0  # type: ignore[union-attr]
    assert build_clock(chosen.train).budget == 97.0  # type: ignore[union-attr]


def test_what_counts_steps_keeps_nothing_and_takes_every_batch(
    song: DataFolder, runtime: Runtime
) -> None:
    chosen = smoke(recipe("pocket"))
    model = GPT(chosen.model).eval()
    assert seconds_to_calibrate(model, chosen, song, runtime) == 0.0
    rows = packing._rows(chosen, song)
    texts = [rows.at(i).tokens for i in range(chosen.quant.calibration_batches)]
    expected = collect_calibration(model, texts, lambda _, tokens: model.hidden(tokens))
    found = calibrate(model, expected.hessians, chosen, song, runtime)
    for part, wanted in zip(found, expected, strict=True):
        assert part.keys() == wanted.keys()
        assert all(torch.equal(part[name], wanted[name]) for name in part)


@pytest.mark.parametrize(
    ("spare", "slower_from", "expected"),
    [(-5, 99, 1), (0, 99, 1), (2.5, 99, 2), (9.9, 99, 9), (100, 99, 16), (9.9, 4, 5), (100, 4, 16)],
)
def test_calibration_ends_in_time_with_fewer_batches_and_at_least_one(
    spare: float,
    slower_from: int,
    expected: int,
    slow: Callable,
    song: DataFolder,
    runtime: Runtime,
) -> None:
    chosen, taken = clocked(), []
    model = GPT(chosen.model)

    def seconds(number: int) -> float:
        taken.append(number)
        return 3.0 if number >= slower_from else 1.0

    now = slow(seconds)
    found = calibrate(model, model.state_dict(), chosen, song, runtime, spare, now=now)
    assert found.hessians
    assert len(taken) == expected
    assert now() <= max(spare, 1.0)


def test_the_first_rank_decides_for_all(slow: Callable, song: DataFolder, runtime: Runtime) -> None:
    class Second(Ranks):
        """Hears yes twice, whatever its own clock says."""

        heard = iter([1.0, 1.0, 0.0])

        def broadcast(self, value: torch.Tensor, source: int = 0) -> torch.Tensor:
            return torch.tensor(next(self.heard))

    chosen, taken = clocked(), []
    model = GPT(chosen.model)
    now = slow(lambda number: taken.append(number) or 100.0)
    calibrate(
        model, model.state_dict(), chosen, song, replace(runtime, ranks=Second()), 0.0, now=now
    )
    assert len(taken) == 3


def sizes(chosen: Recipe, song: DataFolder, factor: float) -> tuple[int, int]:
    """Bytes of a trained model's file at a factor on every clip: predicted, and real."""
    model = GPT(chosen.model).eval()
    weights = model.shipped_state_dict()
    torch.manual_seed(0)
    weights = {n: 0.02 * torch.randn(w.shape) for n, w in weights.items()}
    runtime = Runtime(torch.device("cpu"), log=RunLog(quiet=True))
    hessians, rms = calibrate(model, weights, chosen, song, runtime)
    config = packing.header_of(chosen, chosen.evaluate.resolved(chosen.model.train_context))
    tokenizer = song.tokenizer.to_bytes()
    rounded = quantize(weights, factor_hessians(hessians), chosen.quant, factor, rms)
    real = len(pack(config, tokenizer, rounded))
    more = len(pack(config, tokenizer, {}))
    return predict_bytes(weights, chosen.quant, factor) + more, real


@pytest.mark.parametrize("name", ["pocket", "pr1394", "pr1855"])
def test_a_prediction_counts_all_of_the_file(name: str, song: DataFolder) -> None:
    for factor in (1.0, COARSEST):
        predicted, real = sizes(smoke(recipe(name)), song, factor)
        assert SURE * predicted < real < LIKELY * predicted


def test_a_cap_between_sure_and_likely_is_warned_of(song: DataFolder, tmp_path: Path) -> None:
    chosen, tokenizer = smoke(recipe("pocket")), song.tokenizer.to_bytes()
    model = GPT(chosen.model)
    least, _ = sizes(chosen, song, COARSEST)

    def said(cap: float) -> str:
        log = tmp_path / f"{cap}.log"
        with RunLog(log, quiet=True) as kept:
            budget = replace(chosen.budget, cap_bytes=int(cap))
            runtime = Runtime(torch.device("cpu"), log=kept)
            expect_to_fit(model, replace(chosen, budget=budget), tokenizer, 0, runtime)
        return log.read_text()

    assert "may not fit" not in said(1.2 * least)
    assert "may not fit: it would be about" in said(0.97 * least)
    with pytest.raises(OverBudget, match="lower bits"):
        said(0.6 * least)


def test_a_trained_run_that_misses_its_cap_by_little_is_rounded_coarser(
    song: DataFolder, runtime: Runtime
) -> None:
    chosen = smoke(recipe("pocket"))
    model, tokenizer = GPT(chosen.model).eval(), song.tokenizer.to_bytes()
    weights = model.shipped_state_dict()
    calibration = calibrate(model, weights, chosen, song, runtime)
    evaluate = chosen.evaluate.resolved(chosen.model.train_context)
    config = packing.header_of(chosen, evaluate)
    rounded = quantize(weights, factor_hessians(calibration.hessians), chosen.quant, COARSEST)
    cap = len(pack(config, tokenizer, rounded)) - 214
    chosen = replace(chosen, budget=replace(chosen.budget, cap_bytes=cap))
    made = make_artifact(chosen, config, weights, calibration, tokenizer, 0)
    assert 0.98 * cap < len(made) <= cap


def test_exact_clips_are_packed_as_they_are_or_refused_with_the_size(
    song: DataFolder, runtime: Runtime
) -> None:
    """Nothing is scaled to land under the cap, neither up nor down."""
    chosen = smoke(recipe("pocket"))
    chosen = replace(chosen, quant=replace(chosen.quant, clip="exact"))
    model, tokenizer = GPT(chosen.model).eval(), song.tokenizer.to_bytes()
    weights = model.shipped_state_dict()
    calibration = calibrate(model, weights, chosen, song, runtime)
    evaluate = chosen.evaluate.resolved(chosen.model.train_context)
    rounded = quantize(weights, factor_hessians(calibration.hessians), chosen.quant, 1.0)
    header = packing.header_of(chosen, evaluate)
    expected = pack(header, tokenizer, rounded)

    def made(cap: int) -> bytes:
        fitted = replace(chosen, budget=replace(chosen.budget, cap_bytes=cap))
        return make_artifact(fitted, header, weights, calibration, tokenizer, 0)

    assert made(16_000_000) == made(len(expected)) == expected
    with pytest.raises(OverBudget, match=rf"{len(expected):,} bytes, 7 over .*raise clip_sigmas"):
        made(len(expected) - 7)


def test_a_cap_too_small_is_refused_before_training_or_named_with_numbers_after(
    go: Go, song: DataFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = replace(smoke(recipe("pocket")), budget=Budget(cap_bytes=3000, eval_seconds=60))
    with pytest.raises(OverBudget, match="may have 3,000"):
        go(chosen, tmp_path)
    assert not list(tmp_path.iterdir())
    for margin in ("SURE", "LESS_SURE"):  # what is likely can be wrong
        monkeypatch.setattr(f"fairway.pipeline.packing.{margin}", 0.0)
    with pytest.raises(OverBudget, match=r"over the 3,000.*kept in .*fairway pack .*--cap-bytes"):
        go(chosen, tmp_path)
    assert list(read_result(tmp_path).stages) == ["float"]  # what was found by then is kept
    runtime = Runtime(torch.device("cpu"), log=RunLog(quiet=True))
    packed = pack_again(tmp_path, song, runtime, cap_bytes=20_000)  # and so is the model
    assert 3000 < len(packed) <= 20_000
