"""Training by our loop against golden training by the published scripts, number for number."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fairway.interop.challenge import train_steps
from fairway.interop.environment import parse_environment
from fairway.interop.published_weights import load_published, sources, to_published
from fairway.model.gpt import GPT
from fairway.recipes.registry import SCRIPTS
from fairway.train.param_groups import group_parameters

LINEAGES = ("baseline", "pr254", "pr414", "pr1413", "pr1493", "pr1855")
TIMES = 5  # the noise of a vector is one sample of it
FLOOR = 4e-7  # and may be less than float32 can tell apart
SMALL = {
    "VOCAB_SIZE": "48",
    "NUM_LAYERS": "4",
    "MODEL_DIM": "32",
    "NUM_HEADS": "4",
    "NUM_KV_HEADS": "2",
    "MLP_MULT": "2",
    "TRAIN_SEQ_LEN": "16",
    "TRAIN_BATCH_TOKENS": "256",
    "ITERATIONS": "4",
    "MAX_WALLCLOCK_SECONDS": "0",
}


def vector_of(shared: Path, lineage: str) -> dict:
    return torch.load(shared / "vectors" / f"train_{lineage}.pt", weights_only=True)


def trained(vector: dict, steps: int) -> dict:
    """Our training of the vector's first `steps` steps."""
    several = vector["micro_batches"] * steps
    return train_steps(
        vector["lineage"],
        vector["env"],
        vector["state_dict"],
        vector["tokens"][:several],
        vector["targets"][:several],
        vector["micro_batches"],
    )


def assert_close(
    found: dict[str, Tensor], wanted: dict[str, Tensor], vector: dict, at: str
) -> None:
    """Every tensor of a golden sample, or whole, within a few times the script's own noise."""
    noise, index = vector["noise_by_tensor"][at], vector["sample_index"]
    assert found.keys() == wanted.keys()
    for name, expected in wanted.items():
        got = found[name] if at == "after_20" else found[name].flatten()[index[name]]
        apart = (got - expected).abs().max() / expected.abs().max().clamp_min(1e-12)
        assert apart <= TIMES * max(noise[name], FLOOR), name


@pytest.mark.parametrize("lineage", LINEAGES)
def test_the_first_step_is_the_published_one(lineage: str, shared: Path) -> None:
    vector = vector_of(shared, lineage)
    ours = trained(vector, 1)
    assert ours["loss"].item() == pytest.approx(vector["loss"][0].item(), abs=2e-6)
    assert ours["grad_norm"].item() == pytest.approx(vector["grad_norm"][0].item(), abs=2e-6)
    assert_close(ours["state_dict"], vector["sample_after_1"], vector, "after_1")


@pytest.mark.slow
@pytest.mark.parametrize("lineage", LINEAGES)
def test_training_is_the_published_one(lineage: str, shared: Path) -> None:
    """Loop switch, late rounding, momentum, warmdown, decay and averages act within the steps."""
    vector = vector_of(shared, lineage)
    assert_close(trained(vector, 5)["state_dict"], vector["sample_after_5"], vector, "after_5")
    ours = trained(vector, len(vector["loss"]))
    assert (ours["loss"] - vector["loss"]).abs().max() <= max(1e-5, 3 * vector["noise"]["loss"])
    # A weight that lies between two codes is rounded to either; a norm feels that as a loss does.
    norms_apart = (ours["grad_norm"] - vector["grad_norm"]).abs().max()
    assert norms_apart <= max(1e-4, TIMES * vector["noise"]["loss"])
    for name in ("lr_scale", "momentum"):
        assert torch.allclose(ours[name], vector[name], rtol=0, atol=1e-12)
    for name in ("looping", "rounding"):
        assert torch.equal(ours[name], vector[name])
    assert_close(ours["state_dict"], vector["after_20"], vector, "after_20")
    if vector["average"] != "none":
        assert_close(ours["average"], vector["sample_average"], vector, "average")
    else:
        assert all(torch.equal(ours["average"][n], t) for n, t in ours["state_dict"].items())


@pytest.mark.parametrize("lineage", LINEAGES)
def test_groups_and_rates_are_the_published_ones(lineage: str, shared: Path) -> None:
    vector = vector_of(shared, lineage)
    environment = parse_environment(lineage, vector["env"])
    recipe = environment.script.apply(environment.script.default(), environment)
    config = recipe.train.optimizer
    settings = {"matrices": config.muon, **{g: getattr(config, g) for g in ("embed", "scalars")}}
    names = sources(lineage, recipe.model)
    ours = {
        part.tensor: settings[group]
        for group, members in group_parameters(GPT(recipe.model), config.claims).items()
        for name in members
        for part in names[name]
    }
    for group in vector["groups"]:
        for name in group["names"]:
            assert (group["optimizer"] == "Muon") == (ours[name] is config.muon), name
            assert ours[name].lr == group["base_lr"], name
            assert ours[name].weight_decay == group["weight_decay"], name
            if group["betas"]:
                assert (list(config.betas), config.eps) == (group["betas"], group["eps"])
    assert {n for group in vector["groups"] for n in group["names"]} == ours.keys()


@pytest.mark.parametrize("lineage", LINEAGES)
def test_initial_weights_are_spread_as_published(lineage: str, shared: Path) -> None:
    golden = json.loads((shared / "vectors" / "init_std.json").read_text())[lineage]
    environment = parse_environment(lineage, golden["env"])
    recipe = environment.script.apply(environment.script.default(), environment)
    torch.manual_seed(0)
    weights = to_published(lineage, recipe.model, GPT(recipe.model).state_dict())
    assert weights.keys() == golden["tensors"].keys()
    for name, wanted in golden["tensors"].items():
        found = weights[name].double()
        assert list(found.shape) == wanted["shape"], name
        assert found.std(correction=0).item() == pytest.approx(wanted["std"], rel=0.02), name
        assert found.mean().item() == pytest.approx(wanted["mean"], abs=0.001), name
        if "std_each" in wanted:
            each = found.flatten(1).std(1, correction=0)
            assert each.tolist() == pytest.approx(wanted["std_each"], rel=0.02, abs=1e-12), name


def test_an_embedding_of_its_own_begins_at_one_and_a_zero_table_under_a_live_projection() -> None:
    environment = parse_environment("pr254", {"TIE_EMBEDDINGS": "0"})
    model = GPT(environment.script.apply(environment.script.default(), environment).model)
    assert model.embed.weight.std().item() == pytest.approx(1.0, rel=0.02)
    assert model.head is not None
    assert not model.head.weight.any()
    weights = model.state_dict()
    assert not weights["ngrams.0.table.weight"].any()
    assert weights["ngrams.0.project.weight"].any()


@pytest.mark.parametrize("lineage", SCRIPTS)
def test_names_go_there_and_back(lineage: str) -> None:
    options = {"VE_LAYERS": "2,3", "VE_DIM": "8", "ROPE_DIMS": "4", "XSA_LAST_N": "4"}
    options |= {"NUM_LOOPS": "1", "LOOP_START": "1", "LOOP_END": "2", "EMBEDDING_DIM": "32"}
    known = SCRIPTS[lineage].variables.keys() | set(SCRIPTS[lineage].ignored)
    env = SMALL | {name: value for name, value in options.items() if name in known}
    environment = parse_environment(lineage, env)
    model = GPT(environment.script.apply(environment.script.default(), environment).model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    theirs = to_published(lineage, model.config, model.state_dict())
    spare = environment.script.always(model.config)
    again = GPT(model.config)
    zeros = {name: torch.zeros(shape) for name, shape in spare.items()}
    load_published(again, environment, zeros | theirs)
    assert all(torch.equal(t, again.state_dict()[n]) for n, t in model.state_dict().items())


def test_a_run_that_cannot_be_repeated_is_refused() -> None:
    tokens = torch.zeros(8, 2, 16, dtype=torch.int64)
    environment = parse_environment("baseline", SMALL)
    model = GPT(environment.script.apply(environment.script.default(), environment).model)
    theirs = to_published("baseline", model.config, model.state_dict())

    def train(env: dict[str, str], n: int, micro_batches: int) -> None:
        train_steps("baseline", SMALL | env, theirs, tokens[:n], tokens[:n], micro_batches)

    with pytest.raises(ValueError, match=r"a clock ends this run.*MAX_WALLCLOCK_SECONDS=0"):
        train({"ITERATIONS": "20000", "MAX_WALLCLOCK_SECONDS": "600"}, 8, 8)
    with pytest.raises(ValueError, match="8 steps, more than ITERATIONS=4"):
        train({}, 8, 1)
    with pytest.raises(ValueError, match="7 micro-batches are no whole number of steps of 8"):
        train({}, 7, 8)
