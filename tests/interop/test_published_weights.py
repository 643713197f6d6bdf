"""Published checkpoints become models of ours with equal logits, or an error that says why."""

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fairway.interop.challenge import load_checkpoint
from fairway.interop.environment import model_config, parse_environment
from fairway.interop.published_weights import published_shapes, sources

SMALL = {
    "VOCAB_SIZE": "40",
    "NUM_LAYERS": "4",
    "MODEL_DIM": "32",
    "NUM_HEADS": "4",
    "NUM_KV_HEADS": "2",
    "MLP_MULT": "2",
}
PARTIAL = {"ROPE_DIMS": "4", "XSA_LAST_N": "2"}
LOOPED = {"EMBEDDING_DIM": "32", "NUM_LOOPS": "1", "LOOP_START": "1", "LOOP_END": "2"}
SETTINGS = {
    "naive_baseline": SMALL,
    "sota254": SMALL | {"BIGRAM_VOCAB_SIZE": "16", "BIGRAM_DIM": "8"},
    "pr414": SMALL
    | PARTIAL
    | {"BIGRAM_VOCAB_SIZE": "16", "BIGRAM_DIM": "8", "VE_DIM": "8", "VE_LAYERS": "2,3"},
    "pr1413": SMALL | PARTIAL | LOOPED | {"EMBEDDING_DIM": "16"},
    "pr1493": SMALL | PARTIAL | LOOPED | {"PARALLEL_RESIDUAL_START": "3"},
    "pr1855": SMALL
    | PARTIAL
    | LOOPED
    | {
        "PARALLEL_START_LAYER": "3",
        "SPARSE_ATTN_GATE_ENABLED": "1",
        "SMEAR_GATE_ENABLED": "1",
        "GATE_WINDOW": "6",
    },
}
SETTINGS |= {
    name: SETTINGS["pr1855"] | {"ASYM_LOGIT_RESCALE": "1"}
    for name in ("pr1945", "pr1953", "pr2014", "pr2135")
}
VECTORS = ("baseline", "pr254", "pr414", "pr1413", "pr1413_noloop", "pr1493", "pr1855")
CAPPED_TWICE = ("pr1945", "pr1945_noloop", "pr2135", "pr2135_noloop")


def checkpoint(lineage: str) -> dict[str, Tensor]:
    config = model_config(parse_environment(lineage, SETTINGS[lineage]))
    generator = torch.Generator().manual_seed(3)
    return {
        name: torch.randn(shape, generator=generator) * 0.3
        for name, shape in published_shapes(lineage, config).items()
    }


@pytest.mark.parametrize("name", VECTORS)
def test_logits_are_those_of_the_published_script(name: str, shared: Path) -> None:
    vector = torch.load(shared / "vectors" / f"{name}.pt", weights_only=True)
    lineage, _, off = name.partition("_")
    model = load_checkpoint(lineage, vector["config"], vector["state_dict"], loops_active=not off)
    with torch.inference_mode():
        assert (model(vector["tokens"]) - vector["logits"]).abs().max() < 1e-4


@pytest.mark.parametrize("name", CAPPED_TWICE)
def test_two_caps_serve_scoring_and_one_serves_learning(name: str, shared: Path) -> None:
    vector = torch.load(shared / "vectors" / f"{name}.pt", weights_only=True)
    lineage, _, off = name.partition("_")
    model = load_checkpoint(lineage, vector["config"], vector["state_dict"], loops_active=not off)
    tokens, targets = vector["tokens"], vector["targets"]
    apart = copy.copy(model)
    attention = dataclasses.replace(model.config.attention, within_documents=True)
    apart.config = dataclasses.replace(model.config, attention=attention)
    with torch.inference_mode():
        assert (model(tokens) - vector["logits"]).abs().max() < 2e-5
        assert (apart(tokens) - vector["logits_documents"]).abs().max() < 2e-5
        before = model._project(model.hidden(tokens))
        assert (before - vector["logits_before_softcap"]).abs().max() < 2e-5
        assert abs(model.loss(tokens, targets).item() - float(vector["train_loss"])) < 2e-5
        assert not torch.allclose(model(tokens), 30 * torch.tanh(before / 30), atol=1e-2)
    assert not [name for name, _ in model.named_parameters() if name.startswith("softcap")]


@pytest.mark.parametrize("lineage", SETTINGS)
def test_every_published_number_finds_its_place(lineage: str) -> None:
    published = checkpoint(lineage)
    model = load_checkpoint(lineage, SETTINGS[lineage], published)
    weights = model.state_dict()
    total = sum(tensor.numel() for tensor in published.values())
    assert sum(tensor.numel() for tensor in weights.values()) == total
    for name, parts in sources(lineage, model.config).items():
        for i, (tensor, index, _) in enumerate(parts):
            theirs = published[tensor] if index is None else published[tensor][index]
            ours = weights[name][i] if name.endswith("layer_scales") else weights[name]
            assert torch.equal(ours.flatten(), theirs.flatten())
    with torch.inference_mode():
        assert bool(torch.isfinite(model(torch.arange(24).view(2, 12))).all())


@pytest.mark.parametrize("lineage", SETTINGS)
def test_one_error_lists_everything_that_does_not_fit(lineage: str) -> None:
    published = checkpoint(lineage)
    del published["skip_weights"]
    published["blocks.0.attn_scale"] = torch.ones(31)
    published["tok_emb.weight"] = published["tok_emb.weight"].int()
    published["surprise"] = torch.ones(3)
    with pytest.raises(ValueError, match=f"4 tensors do not fit a {lineage} model") as caught:
        load_checkpoint(lineage, SETTINGS[lineage], published)
    words = str(caught.value)
    assert "skip_weights" in words
    assert "is missing" in words
    assert "blocks.0.attn_scale is (31,), but should be (32,)" in words
    assert "tok_emb.weight is torch.int32" in words
    assert "surprise (3,) is not expected" in words


@pytest.mark.parametrize(
    ("given", "taken", "likely"),
    [
        ("pr1855", "pr1493", "pr1855"),
        ("pr1945", "pr1855", "pr1945 or pr1953 or pr2014 or pr2135"),
        ("pr414", "sota254", "pr414"),
        ("sota254", "naive_baseline", "sota254 or pr414"),
        ("pr1413", "naive_baseline", "pr1413 or pr1493"),
    ],
)
def test_a_checkpoint_of_another_lineage_is_recognized(given: str, taken: str, likely: str) -> None:
    with pytest.raises(ValueError, match=f"It looks like a checkpoint of {likely}"):
        load_checkpoint(taken, SETTINGS[taken], checkpoint(given))


def test_the_error_names_the_variables_that_decide() -> None:
    env = {k: v for k, v in SETTINGS["pr414"].items() if k != "VE_DIM"}
    with pytest.raises(ValueError, match=r"VE_DIM=128 \(the script's default\), VE_ENABLED=1"):
        load_checkpoint("pr414", env, checkpoint("pr414"))


def test_heads_for_further_tokens_are_left_behind() -> None:
    """They serve training only, and the scripts drop them before they export."""
    env = SETTINGS["pr414"] | {"MTP_NUM_HEADS": "1"}
    extra = {"mtp_heads.0.weight": torch.zeros(40, 32)}
    load_checkpoint("pr414", env, checkpoint("pr414") | extra)
    with pytest.raises(ValueError, match=r"mtp_heads.0.weight \(40, 32\) is not expected"):
        load_checkpoint("pr414", SETTINGS["pr414"], checkpoint("pr414") | extra)


def test_a_bigram_table_of_254_says_itself_how_wide_it_is() -> None:
    env = {k: v for k, v in SETTINGS["sota254"].items() if k != "BIGRAM_DIM"}
    model = load_checkpoint("sota254", env, checkpoint("sota254"))
    assert model.config.embedding.ngrams[0].dim == 8


def test_half_precision_checkpoints_become_float32() -> None:
    halves = {name: tensor.bfloat16() for name, tensor in checkpoint("pr1413").items()}
    model = load_checkpoint("pr1413", SETTINGS["pr1413"], halves)
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}


def test_loops_run_or_rest_as_asked() -> None:
    on = load_checkpoint("pr1413", SETTINGS["pr1413"], checkpoint("pr1413"))
    off = load_checkpoint("pr1413", SETTINGS["pr1413"], checkpoint("pr1413"), loops_active=False)
    assert on.plan.layers == (0, 1, 2, 1, 2, 3)
    assert off.plan.layers == (0, 1, 2, 3)
