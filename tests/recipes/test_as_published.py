"""Switches set as the scripts have them."""

import pytest

from fairway.artifact.config_json import config_from_json, config_to_json
from fairway.evaluate.diagnostic import AdaptThenScore
from fairway.recipes.as_published import as_published
from fairway.recipes.diff import diff
from fairway.recipes.recipe import Recipe
from fairway.recipes.registry import PUBLISHED, recipe


def changed(name: str) -> dict[str, object]:
    return {d.path: d.new for d in diff(recipe(name), as_published(recipe(name)))}


def test_each_switch_is_set_where_the_script_has_it() -> None:
    exact = {"quant.clip": "exact"}
    counted = {"train.warmdown.fraction": None, "train.warmdown.steps": 3500}
    assert changed("pr414") == exact | counted
    assert changed("pr691") == exact | counted | {"evaluate.ttt.leftover": False}
    assert changed("pr1493") == exact | {"evaluate.ttt.leftover": False}
    assert changed("pr1855") == exact | {
        "train.clip_on_each_rank": True,
        "quant.low_rank.form": "published",
        "evaluate.order": "longest_first",
        "train.reserve_seconds": 0.5,
        "quant.reserve_seconds": 0.5,
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_it_is_a_recipe_that_is_recorded_and_changes_once(name: str) -> None:
    once = as_published(recipe(name))
    assert as_published(once) == once
    assert config_from_json(Recipe, config_to_json(once)) == once


def test_the_diagnostics_step_on_what_eight_processes_took_at_once() -> None:
    for name in ("sota254", "sponge_bath"):
        diagnostic = recipe(name).diagnostic
        assert isinstance(diagnostic, AdaptThenScore)
        assert diagnostic.sgd.batch_sequences == 8 * 32


def test_what_was_never_published_is_refused() -> None:
    with pytest.raises(ValueError, match="pocket was never published"):
        as_published(recipe("pocket"))
