"""A script's table: rows that read what they write, and scripts that come from one another."""

import pytest

from fairway.evaluate.learners.sgd import Sgd
from fairway.recipes.registry import SCRIPTS, recipe
from fairway.recipes.script import Environment, Script, at, by_name, inert, switch, under

SCRIPT = Script(
    name="mine",
    default=lambda: recipe("pr1394"),
    variables=by_name(
        (
            switch("LEARN", "evaluate.ttt", Sgd(lr=0.25)),
            *under("evaluate.ttt", RATE="lr"),
            at("GATE", "model.attention.gate.window", default=12),
            *inert(HOST="here"),
        )
    ),
)


def environment(**changes: object) -> Environment:
    return Environment(SCRIPT, SCRIPT.defaults | changes, frozenset(changes))


def test_what_an_absent_part_would_hold_is_its_default() -> None:
    assert SCRIPT.defaults == {"LEARN": False, "RATE": 0.25, "GATE": 12, "HOST": "here"}


def test_a_switch_brings_its_part_with_all_that_is_set_in_it() -> None:
    run = SCRIPT.apply(recipe("pr1394"), environment(LEARN=True, RATE=0.5))
    assert run.evaluate.ttt == Sgd(lr=0.5)
    assert SCRIPT.read(run)["RATE"] == 0.5


def test_what_belongs_to_an_absent_part_sets_nothing() -> None:
    assert SCRIPT.apply(recipe("pr1394"), environment(RATE=0.5, GATE=3)) == recipe("pr1394")


def test_a_child_adds_replaces_and_drops() -> None:
    child = SCRIPT.child("child", lambda: recipe("pr1413"), inert(HOST="there"), drop="GATE LEARN")
    assert child.defaults == {"RATE": 0.005, "HOST": "there"}


def test_where_a_value_comes_from_is_said() -> None:
    assert environment(GATE=12).describe("GATE") == "GATE=12"
    assert environment().describe("LEARN") == "LEARN=0 (the script's default)"


@pytest.mark.parametrize("lineage", SCRIPTS)
def test_every_row_says_where_its_value_is_read(lineage: str) -> None:
    script = SCRIPTS[lineage]
    assert all(row.read or row.default is not None for row in script.variables.values())
    assert all(
        needed in script.variables for row in script.variables.values() for needed in row.needs
    )
