"""Recipes: plain data, of the published sizes; and miniatures that run from end to end."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fairway.average import build_average
from fairway.evaluate.chunks import read_chunks
from fairway.evaluate.config import make_predictor, plan_evaluation
from fairway.evaluate.predictor import score_stream
from fairway.model.blank import num_params
from fairway.model.gpt import GPT
from fairway.quant.hessian import Calibration, collect_calibration
from fairway.quant.quantized import QuantizedTensor, dequantize
from fairway.quant.rules import quantize
from fairway.recipes.diff import from_json, to_json
from fairway.recipes.registry import RECIPES, load_recipe, recipe, smoke
from fairway.tokens.val_text import ValText
from fairway.train.clock import StepClock
from fairway.train.loop import training_steps
from fairway.train.param_groups import build_optimizers

EVERY = pytest.mark.parametrize("name", RECIPES)
PARAMS = {
    "naive_baseline": 17_059_912,
    "sota254": 26_829_913,
    "sponge_bath": 26_829_913,
    "pr414": 26_993_756,
    "pr691": 26_993_756,
    "pr1394": 35_943_512,
    "pr1413": 35_943_512,
    "pr1493": 35_944_536,
    "pr1855": 35_945_671,
    **dict.fromkeys(("pr1945", "pr1953", "pr2014", "pr2135"), 35_945_673),
}
CLAIMS = {
    "naive_baseline": 1.2244,
    "sota254": 1.1303,
    "sponge_bath": 1.1295,
    "pr414": 1.1233,
    "pr691": 1.1408,
    "pr1394": 1.08563,
    "pr1413": 1.08279,
    "pr1493": 1.0810,
    "pr1855": 1.06108,
    "pr1945": 1.05943,
    "pr1953": 1.05855,
    "pr2014": 1.05759,
    "pr2135": 1.05651,
    "pocket": None,
}


@pytest.mark.parametrize(("name", "params"), PARAMS.items())
def test_models_have_the_published_number_of_parameters(name: str, params: int) -> None:
    assert num_params(recipe(name).model) == params


def test_every_recipe_states_what_was_claimed() -> None:
    assert {name: build().claim_bpb for name, build in RECIPES.items()} == CLAIMS


@EVERY
def test_a_recipe_is_plain_data(name: str, classes: dict[str, type]) -> None:
    """`eval(repr(recipe))` is how a recipe is frozen into the submitted script."""
    for one in (recipe(name), smoke(recipe(name))):
        assert eval(repr(one), dict(classes)) == one
        assert from_json(json.loads(json.dumps(to_json(one)))) == one
        assert hash(one) == hash(eval(repr(one), dict(classes)))


@EVERY
def test_a_recipe_knows_its_name_and_its_parent(name: str) -> None:
    one = recipe(name)
    assert one.name == name
    names = list(RECIPES)
    assert one.parent is None or names.index(one.parent) < names.index(name)


def test_an_unknown_recipe_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'pr1493x'; did you mean pr1493\? There are: naive"):
        recipe("pr1493x")


def test_a_recipe_may_come_from_a_file_of_the_user_s_own(tmp_path: Path) -> None:
    file = tmp_path / "my_recipes.py"
    file.write_text(
        "from fairway.recipes.diff import derive\n"
        "from fairway.recipes.registry import recipe\n\n"
        "def longer():\n"
        "    return derive(recipe('pocket'), 'longer', {'train.seconds': 360.0})\n\n"
        "def wrong():\n"
        "    return {'train.seconds': 360.0}\n"
    )
    assert recipe(f"{file}:longer").train.seconds == 360.0
    with pytest.raises(ValueError, match=r"wrong is \{.*\}, no Recipe; let it return one"):
        load_recipe(f"{file}:wrong")
    with pytest.raises(ValueError, match=r"my_recipes has no 'shorter'"):
        load_recipe(f"{file}:shorter")
    with pytest.raises(ValueError, match=r"no file .*other.py"):
        load_recipe(f"{tmp_path / 'other.py'}:longer")


def test_a_recipe_may_come_from_an_installed_package() -> None:
    assert recipe("fairway.recipes.pocket:pocket") == recipe("pocket")
    with pytest.raises(ValueError, match="cannot import no_such_package"):
        recipe("no_such_package:recipe")


def test_no_recipe_learns_before_it_scores() -> None:
    """The claims of #254 and #390 did; what they did is kept beside the recipes, not in them."""
    assert recipe("sota254").evaluate.ttt is None
    assert recipe("sponge_bath").evaluate.ttt is None


@EVERY
def test_a_miniature_keeps_every_option_of_its_recipe(name: str) -> None:
    full, small = recipe(name), smoke(recipe(name))
    assert full.model.embedding.smear == small.model.embedding.smear
    for path in (
        "model.loop",
        "model.parallel",
        "model.skips",
        "model.attention.gate",
        "model.attention.rope_dims",
        "model.embedding.value",
        "train.loops_at",
        "train.momentum_warmup",
        "round_from",
        "average",
        "quant.low_rank",
        "quant.awq",
        "evaluate.order",
        "evaluate.short_strides",
        "train.batch.context_curriculum",
        "evaluate.ttt",
        "evaluate.mixture",
    ):
        values = []
        for value in (full, small):
            for part in path.split("."):
                value = getattr(value, part)
            values.append(value)
        assert type(values[0]) is type(values[1]), path
    assert len(full.model.embedding.ngrams) == len(small.model.embedding.ngrams)
    assert [type(s) for _, s in full.quant.rules] == [type(s) for _, s in small.quant.rules]
    assert bool(full.model.attention.exclusive_layers) == bool(
        small.model.attention.exclusive_layers
    )


@EVERY
def test_a_miniature_trains_averages_rounds_and_scores(name: str) -> None:
    small = smoke(recipe(name), vocab_size=60, steps=3)
    torch.manual_seed(small.seed)
    ids = torch.randint(2, 60, (200,))
    ids[[0, 60, 130]] = small.model.bos_id
    model, batch = GPT(small.model), small.train.batch
    average = build_average(model, small.average)
    rows = ids[: batch.rows * batch.context].view(batch.rows, -1)
    optimizers = build_optimizers(model, small.train.optimizer, muon_dtype=torch.float32)
    endless = iter(lambda: (rows, rows.roll(-1, 1)), None)
    for step in training_steps(model, endless, small.train, optimizers, StepClock(3)):
        assert bool(torch.isfinite(step.loss))
        average.update(step)
    model.load_state_dict(average.state_dict())

    weights = model.shipped_state_dict()
    seen = collect_calibration(model, [rows]) if small.quant.needs_hessians else Calibration({}, {})
    rounded = quantize(weights, seen.hessians, small.quant, input_rms=seen.input_rms)
    assert any(isinstance(tensor, QuantizedTensor) for tensor in rounded.values())
    served = GPT(replace(small.model, extra_heads=0)).eval()
    served.load_state_dict(dequantize(rounded))

    plans = plan_evaluation(small.evaluate, len(ids), [0, 60, 130])
    predictor = make_predictor(served, small.evaluate, seed=small.seed)
    text = ValText(ids, torch.ones(199, dtype=torch.long), ())
    score = score_stream(predictor, read_chunks(plans, text))
    assert score.num_tokens == 199
    assert 0 < score.nats / score.num_tokens < 6
