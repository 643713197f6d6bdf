"""What the variables of the published scripts mean, against a table of what they meant before."""

import json
from pathlib import Path
from typing import Any

import pytest

from fairway.interop.environment import model_config, parse_environment
from fairway.interop.settings import (
    differences_from,
    ignored_by,
    published_evaluation,
    training_settings,
)
from fairway.recipes.diff import diff, override
from fairway.recipes.names import canonical
from fairway.recipes.registry import PUBLISHED, RECIPES, SCRIPTS, recipe
from fairway.recipes.script import Environment

# Taken while each variable was still stated by itself, beside the recipes. Those of the last
# records are held by their commands instead: tests/recipes/test_last_records.py.
GOLDEN: dict[str, dict[str, dict[str, Any]]] = json.loads(
    Path(__file__).with_name("settings.golden.json").read_text()
)


def variables(text: str) -> dict[str, str]:
    return dict(assignment.split("=", 1) for assignment in text.split(" ") if assignment)


@pytest.mark.parametrize("lineage", GOLDEN["defaults"])
def test_defaults_are_those_of_the_script(lineage: str) -> None:
    defaults, golden = SCRIPTS[canonical(lineage, SCRIPTS)].defaults, GOLDEN["defaults"][lineage]
    assert defaults == golden
    assert {name: type(value) for name, value in defaults.items()} == {
        name: type(value) for name, value in golden.items()
    }


@pytest.mark.parametrize("name", GOLDEN["records"])
def test_every_variable_changes_of_a_record_what_it_did(name: str) -> None:
    for text, golden in GOLDEN["records"][name].items():
        try:
            settings = training_settings(recipe(name), variables(text))
            found: object = {path: repr(value) for path, value in settings.items()}
        except ValueError as error:
            found = f"ValueError: {error}"
        assert found == golden, text


@pytest.mark.parametrize("what", ["models", "evaluations"])
@pytest.mark.parametrize("lineage", GOLDEN["defaults"])
def test_every_variable_changes_of_the_script_what_it_did(lineage: str, what: str) -> None:
    def described(env: dict[str, str]) -> object:
        if what == "models":
            return model_config(parse_environment(lineage, env))
        return published_evaluation(lineage, env)

    plain = described({})
    for text, golden in GOLDEN[what][lineage].items():
        try:
            found: object = described(variables(text))
            found = {d.path: repr(d.new) for d in diff(plain, found)} if text else repr(found)
        except ValueError as error:
            found = f"ValueError: {error}"
        assert found == golden, text


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_is_its_own_variables_applied(name: str) -> None:
    """Every row of a script's table reads what it writes."""
    script, run = PUBLISHED[name], recipe(name)
    assert diff(run, script.apply(run, Environment(script, script.read(run)))) == []
    from_default = script.apply(script.default(), Environment(script, script.read(run)))
    changed = {difference.path.partition(".")[0] for difference in diff(run, from_default)}
    assert changed <= {"name", "parent", "claim_bpb", "pull_request", "diagnostic"}


def test_every_published_recipe_has_its_script() -> None:
    assert set(PUBLISHED) == {name for name in RECIPES if recipe(name).claim_bpb}


@pytest.mark.parametrize("name", PUBLISHED)
def test_nothing_set_changes_nothing(name: str) -> None:
    assert training_settings(recipe(name), {"RUN_ID": "mine"}) == {}


@pytest.mark.parametrize(
    ("name", "env", "changes"),
    [
        ("pr1493", {"MATRIX_LR": "0.03"}, {"train.optimizer.muon.lr": 0.03}),
        ("pr1493", {"TTT_LR": "0.01", "TTT_EPOCHS": "1"},
         {"evaluate.ttt.lr": 0.01, "evaluate.ttt.epochs": 1}),
        ("pr1493", {"TTT_ENABLED": "0"}, {"evaluate.ttt": None}),
        ("pr1493", {"NUM_LAYERS": "9", "XSA_LAST_N": "9"},
         {"model.num_layers": 9, "model.attention.exclusive_layers": 9}),
        ("pr1493", {"MAX_WALLCLOCK_SECONDS": "0", "ITERATIONS": "50"},
         {"train.seconds": None, "train.steps": 50, "train.reserve_seconds": 0.0}),
        ("pr414", {"WARMDOWN_ITERS": "1774"}, {"train.warmdown.fraction": 0.25}),
        ("pr414", {"LATE_QAT_THRESHOLD": "0"}, {"round_from": None}),
        ("pr414", {"TRAIN_SEQ_LEN": "1024"},
         {"train.batch.rows": 96, "train.batch.context": 1024, "model.train_context": 1024,
          "model.attention.rope_base": 10_000.0}),
        ("pr1855", {"PHASED_TTT_PREFIX_DOCS": "2000", "PHASED_TTT_NUM_PHASES": "1"},
         {"evaluate.ttt.pauses": (2000,)}),
        ("pr1855", {"TTT_K_LORA": "0", "GLOBAL_TTT_LR": "0.002"},
         {"evaluate.ttt.adapters.adapters.targets": ("query", "value", "output", "mlp", "head"),
          "evaluate.ttt.sgd.lr": 0.002}),
        ("pr1855", {"CASEOPS_ENABLED": "0"},
         {"tokens.transform": None, "tokens.published": "sp8192"}),
        ("pr1855", {"LQER_ENABLED": "0"}, {"quant.low_rank": None}),
        ("pr1855", {"COMPRESSOR": "pergroup", "FUSED_CE_ENABLED": "0"}, {}),
        ("naive_baseline", {"GRAD_CLIP_NORM": "1"}, {"train.grad_clip": 1.0}),
        ("naive_baseline", {"SEED": "3"}, {"seed": 3}),
    ],
)  # fmt: skip
def test_a_variable_changes_what_it_changed_there(name: str, env: dict, changes: dict) -> None:
    settings = training_settings(recipe(name), env)
    assert settings == changes
    run = override(recipe(name), settings)
    assert {d.path: d.new for d in diff(recipe(name), run)} == settings


@pytest.mark.parametrize(
    ("name", "env", "words"),
    [
        ("pr1493", {"MATRIX_RL": "1"}, "MATRIX_RL is not .*; did you mean MATRIX_LR"),
        (
            "pr1493",
            {"BIGRAM_DIM": "8"},
            "BIGRAM_DIM is not a variable of this script",
        ),
        ("pr1493", {"ETLB_ENABLED": "1"}, "ETLB_ENABLED=1: a bias trained on the window"),
        ("pr1493", {"MUON_BACKEND_STEPS": "6"}, "MUON_BACKEND_STEPS=6: only 5 is supported"),
        (
            "pr1493",
            {"ITERATIONS": "50"},
            "set MAX_WALLCLOCK_SECONDS=0 to end it",
        ),
        (
            "pr1493",
            {"TRAIN_BATCH_TOKENS": "1000"},
            "TRAIN_BATCH_TOKENS=1000 is not",
        ),
        ("sota254", {"TTT_EPOCHS": "8"}, "learns from text before that is scored"),
        ("pocket", {"MATRIX_LR": "1"}, "pocket is not a published run"),
    ],
)
def test_what_no_run_of_ours_can_be_is_refused(name: str, env: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        training_settings(recipe(name), env)


def test_a_recipe_is_compared_with_a_command_line() -> None:
    found = {
        d.path: (d.old, d.new) for d in differences_from(recipe("pr1493"), {"TTT_ENABLED": "1"})
    }
    assert found == {"model.attention.qk_gain": (5.0, 5.25)}
    assert differences_from(recipe("pr1493"), {"TTT_ENABLED": "1", "QK_GAIN_INIT": "5.25"}) == []
    with pytest.raises(ValueError, match="pocket is not a published run"):
        differences_from(recipe("pocket"), {})


def test_the_warmdown_of_691_is_that_of_its_own_run() -> None:
    assert recipe("pr691").train.warmdown.fraction == 3500 / 5436
    assert training_settings(recipe("pr691"), {"WARMDOWN_ITERS": "3500"}) == {}
    steps = training_settings(recipe("pr691"), {"WARMDOWN_ITERS": "7000"})
    assert steps == {"train.warmdown.fraction": None, "train.warmdown.steps": 7000}


def test_an_ignored_variable_is_named() -> None:
    env = {"PHASED_TTT_ENABLED": "1"}
    assert training_settings(recipe("pr1855"), env) == {}
    said = ignored_by(recipe("pr1855"), env)
    assert said == "PHASED_TTT_ENABLED is read by no line of pr1855's script"
    assert ignored_by(recipe("pr1855"), {}) == ""
