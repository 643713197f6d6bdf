"""Plans: published runs come out as they were, and what is measured here is what a run does."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fairway.cli import main
from fairway.planning import plan as planning
from fairway.planning import steps
from fairway.planning.figure import Figure
from fairway.planning.memory import RankMemory
from fairway.planning.plan import (
    BYTES_ERROR,
    artifact_bytes,
    mean_flops,
    plan_here,
    plan_on_gpus,
    published_steps,
)
from fairway.planning.published import NODE, RUNS
from fairway.prepare import prepare_documents
from fairway.recipes.recipe import Recipe
from fairway.recipes.registry import recipe, smoke
from fairway.runtime.run_log import RunLog
from fairway.runtime.setup import Runtime


@pytest.fixture
def nothing_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting a large model's memory and bytes takes seconds, and is not what is asked here."""
    counted = Figure(value=1e9, error=0.1, basis="as the test says")
    monkeypatch.setattr(planning, "rank_memory", lambda *_: RankMemory(counted, 64))
    monkeypatch.setattr(planning, "artifact_bytes", lambda _: counted)


def test_published_runs_are_predicted_within_the_error() -> None:
    model = published_steps()
    assert model.error < 0.1
    for run in RUNS:
        seconds = model.seconds(mean_flops(recipe(run.recipe)), NODE)
        assert 1000 * seconds == pytest.approx(run.milliseconds, rel=model.error)


def test_fewer_or_slower_gpus_take_longer_and_say_that_nobody_tried(nothing_counted: None) -> None:
    pr1413 = recipe("pr1413")
    eight, one, old = (plan_on_gpus(pr1413, words) for words in ("8xH100", "1xh100", "8 x A100"))
    assert eight.step_seconds.value < old.step_seconds.value < one.step_seconds.value
    assert "no run has confirmed" in one.step_seconds.basis
    assert "no run has confirmed" in old.step_seconds.basis
    assert "no run has confirmed" not in eight.step_seconds.basis
    assert eight.steps.error == published_steps().error
    guessed = one.steps.error
    assert guessed is not None
    assert old.steps.error == guessed > published_steps().error
    assert (eight.eval_seconds.value, one.eval_seconds.value) == (290.0, 8 * 290.0)


def test_clock_and_price_are_those_asked_for(nothing_counted: None) -> None:
    found = plan_on_gpus(recipe("pr1413"), "8xH100", seconds=1200.0, dollars_per_hour=36.0)
    assert found.seconds == 1200.0
    assert found.steps.value * found.step_seconds.value <= found.seconds
    paid = 1200.0 + found.eval_seconds.value + planning.UNCLOCKED_SECONDS
    assert found.dollars is not None
    assert found.dollars.value == pytest.approx(36.0 * paid / 3600)
    assert found.dollars.error is not None
    assert 0 < found.dollars.error < 0.2


def test_an_evaluation_that_nobody_ran_is_known_by_its_budget(nothing_counted: None) -> None:
    own = recipe("pr1413")
    own = replace(own, evaluate=replace(own.evaluate, stride=32))
    found = plan_on_gpus(own, "8xH100")
    assert (found.eval_seconds.value, found.eval_seconds.error) == (600.0, None)
    assert found.dollars is not None
    assert found.dollars.error is None  # a bound, too


@pytest.mark.parametrize("words", ["8xH1", "0xH100", "00xH100", "many", "H100x8", ""])
def test_unknown_gpus_are_refused_with_those_that_are_known(words: str) -> None:
    with pytest.raises(ValueError, match="8xH100; GPUs that are known: H100"):
        plan_on_gpus(recipe("pr1413"), words)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.setattr(steps, "MEASURE_SECONDS", 0.05)
    made = smoke(recipe("pocket"))
    train = replace(made.train, steps=None, seconds=20.0, reserve_seconds=3.0)
    return replace(made, train=train, evaluate_range=None)


@pytest.fixture
def data(tmp_path: Path, small: Recipe) -> Path:
    verses = [f"{i} green bottles hanging on the wall. ".encode() * 9 for i in range(60)]
    size = small.model.vocab_size
    prepare_documents(tmp_path / "data", verses[3:], verses[:3], vocab_size=size, source="a song")
    return tmp_path / "data"


def test_here_all_is_measured_on_the_text_that_is_named(small: Recipe, data: Path) -> None:
    runtime = Runtime(torch.device("cpu"), log=RunLog(quiet=True))
    found = plan_here(small, runtime, data=data)
    batch = small.train.batch
    assert found.tokens.value == found.steps.value * batch.tokens_per_step
    assert found.steps.value == int((20.0 - 3.0) / found.step_seconds.value)
    assert 0 < found.eval_seconds.value < small.budget.eval_seconds
    assert found.eval_seconds.error == planning.ESTIMATE_ERROR
    assert found.memory.value < found.memory_there
    assert found.most_rows > batch.rows
    assert found.dollars is None
    errors = [v.error for v in vars(found).values() if isinstance(v, Figure)]
    assert len(errors) == 6
    assert all(errors)


def test_without_a_text_evaluation_is_bounded_and_steps_may_be_counted(small: Recipe) -> None:
    runtime = Runtime(torch.device("cpu"), log=RunLog(quiet=True))
    train = replace(small.train, seconds=None, steps=7, reserve_seconds=0.0)
    found = plan_here(replace(small, train=train), runtime)
    assert (found.steps.value, found.steps.error) == (7, 0.0)
    assert found.seconds == pytest.approx(7 * found.step_seconds.value)
    assert found.eval_seconds.error is None


def test_an_artifact_that_is_fitted_is_as_large_as_its_cap() -> None:
    pocket = recipe("pocket")
    found = artifact_bytes(pocket)
    assert (found.value, found.error) == (pocket.budget.cap_bytes, planning.FIT_ERROR)
    over = replace(pocket, budget=replace(pocket.budget, cap_bytes=100_000))
    assert artifact_bytes(over).value > 100_000
    under = replace(pocket, budget=replace(pocket.budget, cap_bytes=16_000_000))
    assert artifact_bytes(under).value < 16_000_000


@pytest.mark.slow
def test_what_the_first_script_wrote_is_predicted_within_the_error() -> None:
    (run,) = (run for run in RUNS if run.recipe == "naive_baseline")
    assert run.model_bytes is not None
    found = artifact_bytes(recipe(run.recipe))
    assert found.error == BYTES_ERROR
    assert run.model_bytes == pytest.approx(found.value, rel=BYTES_ERROR)


def test_as_typed(
    nothing_counted: None, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["plan", "pr1413", "--gpus", "8xH100", "--json"]) == 0
    said, basis = capsys.readouterr()
    answer = json.loads(said.splitlines()[-1])
    assert answer["steps"]["error"] == answer["step_seconds"]["error"] == published_steps().error
    for name in ("step", "training", "memory", "artifact", "evaluation", "price"):
        (line,) = (line for line in said.splitlines() if line.startswith(name))
        assert "±" in line
    assert "fitted to 9 published runs" in basis
    assert main(["plan", "pocket", "--gpus", "8xH100", "--device", "cpu"]) == 2
    assert "--device: that is for this machine" in capsys.readouterr().err
    assert main(["plan", "pocket", "--seconds", "2", "--gpus", "8xH100"]) == 2
    assert "leaves nothing" in capsys.readouterr().err
