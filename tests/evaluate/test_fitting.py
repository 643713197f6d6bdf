"""The first documents that fit a time: as many as do, said in words, the same on every rank."""

import dataclasses

import pytest

from fairway.evaluate.config import plan_text
from fairway.evaluate.fitting import RESERVE, first_that_fit, most
from fairway.evaluate.planner import estimate, measure_rates

from .models import CONFIGS, CONTEXT, text, tiny_model, val_text
from .test_planner import Ticking

TOKENS, STARTS = text((40, 50, 40, 30))
WHOLE = val_text(TOKENS, STARTS)


def seconds_of(name: str, documents: int) -> float:
    config = CONFIGS[name].resolved(CONTEXT)
    rates = measure_rates(tiny_model(), config, plan_text(config, WHOLE), now=Ticking(1.0))
    return estimate(config, rates, plan_text(config, WHOLE.leading(documents))).total_seconds


@pytest.mark.parametrize("name", ["sgd", "plain"] if "plain" in CONFIGS else ["sgd"])
@pytest.mark.parametrize("documents", [1, 2, 3])
def test_as_many_documents_as_fit_are_taken(name: str, documents: int) -> None:
    room = seconds_of(name, documents) / (1.0 - RESERVE)
    found, part = first_that_fit(tiny_model(), CONFIGS[name], WHOLE, room + 1e-6, now=Ticking(1.0))
    assert found.documents == documents
    assert part.num_targets == STARTS[documents]
    assert f"the first {documents} of {len(STARTS)} documents" in part.scope
    assert found.total_seconds == pytest.approx(seconds_of(name, documents))


def test_all_that_fits_is_all_and_says_nothing() -> None:
    found, part = first_that_fit(tiny_model(), CONFIGS["sgd"], WHOLE, 1e9, now=Ticking(1.0))
    assert part is WHOLE
    assert found.documents is None
    assert dataclasses.replace(WHOLE).scope == ""


def test_where_not_even_one_fits_it_is_an_error() -> None:
    with pytest.raises(ValueError, match="not even the first document fits"):
        first_that_fit(tiny_model(), CONFIGS["sgd"], WHOLE, 1e-3, now=Ticking(1.0))


@pytest.mark.parametrize("limit", [1, 2, 7, 100])
def test_the_largest_number_that_fits_is_found(limit: int) -> None:
    for largest in range(limit + 1):
        assert most(limit, lambda n, largest=largest: n <= largest) == largest
