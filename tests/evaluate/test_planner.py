import dataclasses

import pytest
import torch

from fairway.evaluate.config import EvaluateConfig
from fairway.evaluate.learners.sgd import Sgd
from fairway.evaluate.planner import (
    Range,
    Rates,
    _choices,
    estimate,
    largest_that_fits,
    measure_rates,
)

from .models import CONFIGS, CONTEXT, SGD, plans_of, text, tiny_model, val_text

TOKENS, STARTS = text((40, 50, 40, 30))


class Ticking:
    """A clock on which everything that is timed takes `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.time, self.seconds = 0.0, seconds

    def __call__(self) -> float:
        self.time += self.seconds
        return self.time


@pytest.mark.parametrize("name", CONFIGS)
def test_measuring_needs_no_text_and_changes_no_model(name: str) -> None:
    model, config = tiny_model(), CONFIGS[name]
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    plans = plans_of(config, TOKENS, STARTS)
    rates = measure_rates(model, config, plans, repeats=1)
    assert all(torch.equal(before[key], now) for key, now in model.state_dict().items())
    found = estimate(config, rates, plans)
    assert found.score_seconds > 0
    assert (found.learn_seconds > 0) == config.learns
    assert (found.phase_seconds > 0) == ("phased" in name)
    assert found.total_seconds < 60.0
    assert f"stride {config.stride}" in str(found)


def test_an_estimate_is_what_the_plans_hold_times_the_rates() -> None:
    config = CONFIGS["sgd"]
    plans = plans_of(config, TOKENS, STARTS)
    found = estimate(config, Rates(score=1.0, learn=10.0), plans)
    assert found.score_seconds == sum(w.num_inputs for plan in plans for w in plan.windows)
    learned = sum(plan.spans[0][1] - plan.spans[0][0] - 1 for plan in plans[:-1])
    assert found.learn_seconds == 10.0 * SGD.epochs * learned
    assert found.lesson_seconds == 10.0 * SGD.epochs * SGD.chunk_tokens


CHOICES = Range(strides=(2, 4, 8), epochs=(3, 1))
BASE = EvaluateConfig(stride=4, rows=3, ttt=Sgd(chunk_tokens=24, batch_sequences=2))


def choose(budget: float, config: EvaluateConfig = BASE) -> tuple[EvaluateConfig, list[str]]:
    said: list[str] = []

    def progress(done: float = 0.0, total: float = 0.0, *, text: str = "", **_: float) -> None:
        said.append(text)

    found = largest_that_fits(
        tiny_model(),
        config,
        val_text(TOKENS, STARTS),
        budget,
        choices=CHOICES,
        progress=progress,
        now=Ticking(1.0),
    )
    return found.config, said


def test_the_largest_that_fits_is_chosen_and_every_estimate_is_told() -> None:
    chosen, said = choose(1e9)
    assert isinstance(chosen.ttt, Sgd)
    assert (chosen.stride, chosen.ttt.epochs, chosen.context) == (2, 3, CONTEXT)
    assert len(said) == 1
    seconds = []
    for stride in CHOICES.strides:
        for epochs in CHOICES.epochs:
            ttt = dataclasses.replace(BASE.ttt, epochs=epochs)  # type: ignore[type-var]
            config = dataclasses.replace(BASE, stride=stride, ttt=ttt).resolved(CONTEXT)
            plans = plans_of(config, TOKENS, STARTS)
            rates = measure_rates(tiny_model(), config, plans, now=Ticking(1.0))
            seconds.append(estimate(config, rates, plans).total_seconds)
    for place, wanted in enumerate(seconds):
        earlier = [s for s in seconds[:place] if s <= wanted]
        if not earlier:
            _, said = choose(wanted / 0.9 + 1e-6)
            assert len(said) == place + 1
            assert all("does not fit" in line for line in said[:-1])
            assert "scoring" in said[-1]
            assert "learning" in said[-1]


def test_what_does_not_fit_is_said_with_the_budget_that_would() -> None:
    with pytest.raises(ValueError, match=r"nothing allowed fits 1 s.*The fastest needs \d+ s"):
        choose(1.0)


def test_epochs_make_no_difference_where_nothing_is_learned_by_them() -> None:
    frozen = dataclasses.replace(BASE, ttt=None)
    with pytest.raises(ValueError, match="nothing allowed fits") as refused:
        choose(0.5, frozen)
    assert str(refused.value).count("stride ") == len(CHOICES.strides)


def test_windows_share_keys_before_epochs_are_given_up() -> None:
    choices = Range(strides=(4,), epochs=(3, 1), cached=(None, 2))
    assert [(c.ttt.epochs, c.cached) for c in _choices(BASE, choices)] == [  # type: ignore[union-attr]
        (3, None),
        (3, 2),
        (1, None),
        (1, 2),
    ]
    tried = largest_that_fits(
        tiny_model(),
        BASE,
        val_text(TOKENS, STARTS),
        1e9,
        choices=Range(strides=(4,), epochs=(3,), cached=(2,)),
        now=Ticking(1.0),
    )
    assert "stride 4, keys shared by 2 windows, 3 epochs" in str(tried)


def test_a_range_names_something() -> None:
    with pytest.raises(ValueError, match="at least one of each"):
        Range(strides=())
