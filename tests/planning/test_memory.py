"""Memory of a step is counted as published runs took it, and says what would fit."""

from dataclasses import replace

import pytest
import torch

from fairway.planning.memory import ERROR, rank_memory, usable_bytes
from fairway.planning.published import GPUS, RUNS
from fairway.recipes.recipe import Recipe
from fairway.recipes.registry import recipe, smoke
from fairway.train.memory import GIB, predict_step


@pytest.fixture
def small() -> Recipe:
    return smoke(recipe("pocket"))


@pytest.mark.parametrize("rows", [1, 4])
def test_what_is_said_to_fit_fits_and_one_row_more_does_not(small: Recipe, rows: int) -> None:
    batch = replace(small.train.batch, rows=rows)
    chosen = replace(small, train=replace(small.train, batch=batch))
    own = rank_memory(chosen, 1e12, torch.float32).bytes.value

    def peak(number: int) -> int:
        return predict_step(
            chosen.model, chosen.train, torch.float32, rows=number, context=batch.context
        ).peak

    assert own == peak(rows)
    most = rank_memory(chosen, 3 * own, torch.float32).rows
    assert most > rows
    assert peak(most) <= 3.1 * own
    assert peak(most + 1) > 2.9 * own


def test_where_not_one_row_fits_none_is_said_to(small: Recipe) -> None:
    assert rank_memory(small, 1000.0, torch.float32).rows == 0


@pytest.mark.slow
@pytest.mark.parametrize("run", [run for run in RUNS if run.gib], ids=lambda run: run.recipe)
def test_published_runs_took_what_is_counted(run) -> None:
    counted = rank_memory(recipe(run.recipe), usable_bytes(GPUS["H100"].gib), torch.bfloat16)
    assert abs(run.gib * GIB / counted.bytes.value - 1) <= ERROR
    assert counted.rows >= recipe(run.recipe).train.batch.rows  # it did fit
