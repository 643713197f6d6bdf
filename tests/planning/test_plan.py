"""Plans: published runs come out as they were, and what is measured here is what a run does."""

from dataclasses import replace

import pytest

from fairway.planning import plan as planning
from fairway.planning.plan import (
    blank_model,
    mean_flops,
    plan_here,
    plan_on_gpus,
    published_steps,
)
from fairway.planning.published import NODE, STEPS
from fairway.recipes.registry import recipe


def test_published_runs_are_predicted_within_the_error() -> None:
    steps = published_steps()
    assert steps.error < 0.1
    for published in STEPS:
        known = recipe(published.recipe)
        seconds = steps.seconds(mean_flops(known, blank_model(known)), NODE)
        assert 1000 * seconds == pytest.approx(published.milliseconds, rel=steps.error)


def test_fewer_or_slower_gpus_take_longer_and_say_that_nobody_tried() -> None:
    pr1413 = recipe("pr1413")
    eight, one, old = (plan_on_gpus(pr1413, words) for words in ("8xH100", "1xh100", "8 x A100"))
    assert eight.step_seconds < old.step_seconds < one.step_seconds
    assert "no run has confirmed" in one.basis
    assert "no run has confirmed" in old.basis
    assert "no run has confirmed" not in eight.basis


def test_clock_and_price_are_those_asked_for() -> None:
    found = plan_on_gpus(recipe("pr1413"), "8xH100", seconds=1200.0, dollars_per_hour=36.0)
    assert found.seconds == 1200.0
    assert found.steps * found.step_seconds <= found.seconds
    assert found.dollars == pytest.approx(36.0 * (1200.0 + found.eval_seconds) / 3600)


@pytest.mark.parametrize("words", ["8xH1", "0xH100", "many", "H100x8", ""])
def test_unknown_gpus_are_refused_with_those_that_are_known(words: str) -> None:
    with pytest.raises(ValueError, match="8xH100; GPUs that are known: H100"):
        plan_on_gpus(recipe("pr1413"), words)


def test_here_steps_are_measured_with_the_loop_off_and_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "MEASURE_SECONDS", 0.05)
    small = recipe("pr1413")
    attention = replace(small.model.attention, num_heads=2, num_kv_heads=1)
    sizes = {"model_dim": 64, "train_context": 32}
    batch = replace(small.train.batch, rows=2, context=32, micro_batches=1)
    small = replace(
        small,
        model=replace(small.model, attention=attention, **sizes),
        train=replace(small.train, batch=batch),
    )
    found = plan_here(small, seconds=10.0)
    assert found.step_seconds > 0
    assert found.tokens == 64 * found.steps
    assert found.error >= 0.05
    assert found.dollars is None
