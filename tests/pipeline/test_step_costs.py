"""When compiling pays: by seconds that were measured, and kept where the next run finds them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fairway.pipeline.step_costs import (
    TRIAL_SECONDS,
    StepCosts,
    costs_file,
    keep_costs,
    key_of,
    pays,
    read_costs,
)
from fairway.recipes.recipe import Recipe
from fairway.recipes.registry import recipe

COSTS = StepCosts(eager=0.250, compiled=0.225, measured="2026-11-28", cold=40.0, cached=4.0)


def lasting(seconds: float) -> Recipe:
    chosen = recipe("pocket")
    return replace(chosen, train=replace(chosen.train, seconds=seconds))


def counted(steps: int, micro_batches: int = 1) -> Recipe:
    chosen = recipe("pocket")
    batch = replace(chosen.train.batch, micro_batches=micro_batches)
    train = replace(chosen.train, seconds=None, reserve_seconds=0.0, steps=steps, batch=batch)
    return replace(chosen, train=train)


@pytest.mark.parametrize(
    ("chosen", "cached", "expected"),
    [
        (lasting(399), False, False),  # a tenth of it is less than 40 s
        (lasting(401), False, True),
        (lasting(39), True, False),
        (lasting(41), True, True),
        (counted(1599), False, False),  # of 250 ms, 25 of which are saved
        (counted(1601), False, True),
        (counted(401, micro_batches=4), False, True),
    ],
)
def test_steps_are_compiled_where_that_saves_more_than_it_takes(
    chosen: Recipe, cached: bool, expected: bool
) -> None:
    assert pays(COSTS, chosen, cached=cached)[0] == expected


def test_the_reason_holds_every_number_of_the_choice() -> None:
    _, why = pays(COSTS, lasting(240), cached=False)
    assert why == (
        "compiled they would take 225 ms instead of 250 (measured here on 2026-11-28) and save "
        "24.0 s of 240; compiling takes 40 s"
    )
    slower = replace(COSTS, compiled=0.275)
    compiled, why = pays(slower, lasting(1e6), cached=True)
    assert not compiled
    assert "lose 100,000.0 s" in why
    assert why.endswith("takes 4 s, from its cache")


def test_until_it_was_seen_compiling_is_guessed_from_above() -> None:
    new = replace(COSTS, cold=None, cached=None)
    assert new.compile_seconds(cached=False) == 90.0
    assert replace(new, cold=40.0).compile_seconds(cached=True) == 10.0


def test_what_was_never_measured_is_tried_by_long_runs_alone() -> None:
    assert pays(None, lasting(TRIAL_SECONDS), cached=False)[0]
    for short in (lasting(600), counted(10**9)):
        compiled, why = pays(None, short, cached=False)
        assert not compiled
        assert "--compiled" in why


def test_costs_are_found_again_and_damaged_ones_are_not_believed(tmp_path: Path) -> None:
    said: list[str] = []
    path = tmp_path / "new" / "costs.json"
    assert read_costs(path, said.append) is None
    keep_costs(path, COSTS, said.append)
    assert read_costs(path, said.append) == COSTS
    assert not said
    path.write_bytes(path.read_bytes().replace(b"0.25", b"0.95"))
    assert read_costs(path, said.append) is None
    path.write_bytes(b"\0\xff")
    assert read_costs(path, said.append) is None
    assert len(said) == 2
    assert all(str(path) in words for words in said)


def test_a_folder_that_takes_no_file_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said: list[str] = []
    keep_costs(tmp_path / "file" / "costs.json", COSTS, said.append)
    assert "could not be kept" in said[0]


def test_the_key_changes_with_whatever_changes_the_costs() -> None:
    chosen = recipe("pocket")
    rows = replace(chosen.train.batch, rows=4)
    keys = {
        key_of(chosen, torch.float32),
        key_of(chosen, torch.bfloat16),
        key_of(replace(chosen, train=replace(chosen.train, batch=rows)), torch.float32),
        key_of(replace(chosen, model=replace(chosen.model, model_dim=96)), torch.float32),
    }
    assert len(keys) == 4
    assert key_of(replace(lasting(5), seed=7), torch.float32) in keys
    assert len({costs_file(key) for key in keys}) == 4
