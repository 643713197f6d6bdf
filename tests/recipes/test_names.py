"""The names that are known without PyTorch are those there are."""

import pytest

from fairway.recipes.names import ALIASES, SUMMARIES, canonical
from fairway.recipes.registry import RECIPES, SCRIPTS, recipe


def test_each_recipe_is_summed_up_by_its_own_first_line() -> None:
    lines = {name: (make.__doc__ or "").strip().splitlines()[0] for name, make in RECIPES.items()}
    assert list(SUMMARIES.items()) == list(lines.items())
    assert all(line.endswith(".") for line in lines.values())  # a whole sentence


def test_another_name_means_one_that_is_there() -> None:
    assert set(ALIASES.values()) <= RECIPES.keys()
    assert not ALIASES.keys() & RECIPES.keys()
    assert recipe("baseline") == recipe("naive_baseline")


def test_a_script_is_named_as_its_recipe() -> None:
    assert SCRIPTS.keys() <= RECIPES.keys()


@pytest.mark.parametrize(
    ("name", "meant"), [("naive_baselin", "naive_baseline"), ("pr255", "sota254"), ("pr", "")]
)
def test_who_mistypes_is_told_what_was_meant(name: str, meant: str) -> None:
    with pytest.raises(ValueError, match=f"did you mean {meant}" if meant else "There are: naive"):
        canonical(name, RECIPES)
