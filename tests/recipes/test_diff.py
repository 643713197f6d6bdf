"""Recipes compared and changed field by field."""

import pytest

from fairway.model.depth import Loop
from fairway.recipes.diff import (
    ABSENT,
    Difference,
    derive,
    diff,
    override,
    present,
    set_json,
    to_json,
    value_at,
)
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


def test_every_class_a_recipe_can_hold_is_known_by_name(classes: dict[str, type]) -> None:
    for name in ("Recipe", "Loop", "Gptq", "Phased", "AdapterConfig", "When", "Claim", "Mixture"):
        assert classes[name].__name__ == name


def test_the_json_of_two_recipes_differs_where_they_do() -> None:
    old, new = recipe("pr1413"), recipe("pr1493")
    found = {d.path: d.new for d in diff(to_json(old), to_json(new))}
    assert found.keys() == {d.path for d in diff(old, new)}
    assert found["model.parallel"] == {"start": 7, "form": "shared"}


def test_json_of_other_classes_and_absent_keys_differ_as_a_whole() -> None:
    sgd, adapters = {"type": "Sgd", "lr": 1}, {"type": "DocumentAdapters", "lr": 2}
    assert diff({"ttt": sgd}, {"ttt": adapters}) == [Difference("ttt", sgd, adapters)]
    assert diff({"a": 1}, {"b": 2}) == [Difference("b", ABSENT, 2), Difference("a", 1, ABSENT)]


def test_items_of_a_tuple_have_paths_too() -> None:
    run = override(recipe("pr1493"), {"quant.rules.1.1.bits": 7, "train.optimizer.betas.1": 0.99})
    assert value_at(run, "quant.rules.1.1.bits") == 7
    assert run.train.optimizer.betas == (0.9, 0.99)
    with pytest.raises(ValueError, match="tuple has no field '9'; it has 0, 1, 2"):
        override(recipe("pr1493"), {"quant.rules.9.1.bits": 7})


def test_changes_of_absent_parts_are_left_out() -> None:
    changes = {"evaluate.ttt.lr": 0.1, "model.loop": None, "model.loop.first": 2, "seed": 4}
    assert present(recipe("pr414"), changes) == {"model.loop": None, "seed": 4}


def test_json_sets_what_no_single_value_can_say() -> None:
    run = set_json(recipe("pr1394"), "evaluate.ttt", {"type": "Sgd", "lr": 0.1})
    assert value_at(run, "evaluate.ttt.lr") == 0.1
    with pytest.raises(ValueError, match=r"evaluate.ttt.lr cannot be set: evaluate.ttt is None"):
        set_json(recipe("pr1394"), "evaluate.ttt.lr", 1)
    with pytest.raises(ValueError, match=r"Recipe has no field 'sede'"):
        set_json(recipe("pr1394"), "sede", 1)


def test_a_derived_recipe_claims_nothing_of_its_parent() -> None:
    child = derive(recipe("pr1493"), "mine", {"seed": 7})
    assert (child.name, child.parent, child.claim_bpb, child.pull_request) == (
        "mine", "pr1493", None, None,
    )  # fmt: skip
    assert {d.path for d in diff(recipe("pr1493"), child)} == {
        "name", "parent", "claim_bpb", "pull_request", "seed",
    }  # fmt: skip
