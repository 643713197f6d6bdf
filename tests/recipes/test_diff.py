"""Recipes compared and changed field by field."""

import pytest

from fairway.model.depth import Loop
from fairway.recipes.diff import Difference, config_classes, diff, override
from fairway.recipes.registry import RECIPES, recipe


def test_a_recipe_does_not_differ_from_itself() -> None:
    assert all(diff(build(), build()) == [] for build in RECIPES.values())


def test_a_difference_says_where_and_what() -> None:
    found = diff(recipe("sota254"), recipe("sponge_bath"))
    assert [d.path for d in found] == [
        "name", "parent", "claim_bpb", "pull_request", "evaluate.stride",
        "diagnostic.sgd.epochs", "diagnostic.stride",
    ]  # fmt: skip
    assert found[4] == Difference("evaluate.stride", 64, 32)
    assert str(found[4]) == "evaluate.stride: 64 -> 32"


@pytest.mark.parametrize("name", [n for n in RECIPES if recipe(n).parent])
def test_the_differences_from_a_parent_make_the_child(name: str) -> None:
    child = recipe(name)
    assert child.parent is not None
    parent = recipe(child.parent)
    changes = {path: new for path, _, new in diff(parent, child)}
    assert override(parent, changes) == child


def test_what_appears_or_goes_differs_as_a_whole() -> None:
    found = {d.path: d for d in diff(recipe("pr414"), recipe("pr1394"))}
    assert found["model.loop"].old is None
    assert found["model.loop"].new == Loop(first=4, last=5, extra_passes=2)
    assert "model.loop.first" not in found


def test_several_fields_of_one_part_change_together() -> None:
    """One by one, seconds=None and steps=5 would each be refused."""
    short = override(recipe("naive_baseline"), {"train.seconds": None, "train.steps": 5, "seed": 7})
    assert (short.train.seconds, short.train.steps, short.seed) == (None, 5, 7)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (
            "train.learning_rate",
            "TrainConfig has no field 'learning_rate'; it has",
        ),
        ("modle.loop", "'modle.loop': Recipe has no field 'modle'"),
        ("model.loop.first", "loop.first cannot be set: loop is None. Set loop itself, or start"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused(path: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        override(recipe("naive_baseline"), {path: 1})


def test_every_class_a_recipe_can_hold_is_known_by_name() -> None:
    names = config_classes()
    for name in ("Recipe", "Loop", "Gptq", "Phased", "AdapterConfig", "When", "Claim", "Mixture"):
        assert names[name].__name__ == name
