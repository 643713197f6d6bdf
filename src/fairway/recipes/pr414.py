"""#414 and #691: more model for no bytes, and the first learning at test time that is allowed."""

from fairway.average import EmaConfig
from fairway.evaluate.learners.sgd import Sgd
from fairway.model.embedding import ValueEmbeddingConfig
from fairway.quant.qat import LinearRounding
from fairway.quant.rules import SearchRows
from fairway.recipes import sota254 as before
from fairway.recipes.diff import derive
from fairway.recipes.naive_baseline import warmdown_iters
from fairway.recipes.recipe import Recipe
from fairway.recipes.script import (
    RANKS,
    Environment,
    Variable,
    at,
    inert,
    only,
    or_none,
    per_rank,
    switch,
    under,
)
from fairway.train.schedule import Warmdown, When


def pr414() -> Recipe:
    """Exclusive attention, partial rotary, damped reads, value embedding, EMA, searched clips."""
    changes = {
        "model.attention.exclusive_layers": 4,
        "model.attention.rope_dims": 16,
        "model.attention.rope_base": before.stretched_base(before.ROPE_BASE, 2048, rope_dims=16),
        "model.embedding.value": ValueEmbeddingConfig(dim=128, layers=(9, 10)),
        "model.layer_scale": True,
        "train.warmdown": Warmdown(fraction=3500 / 7096),  # steps, of those that it had
        "round_from": When(lr_scale_below=0.15),
        "average": EmaConfig(decay=0.997),
        "diagnostic": None,
        "round_as": LinearRounding(),
        "quant.rules.0": ("blocks.*.weight", SearchRows(bits=6, min_scale=1 / 31, per="matrix")),
    }
    return derive(before.sota254(), "pr414", changes, claim_bpb=1.1233, pull_request=414)


def pr691() -> Recipe:
    """`pr414` with score-first SGD over chunks of 32,768 tokens, on slower machines."""
    changes = {
        "train.warmdown": Warmdown(fraction=3500 / 5436),
        "evaluate.ttt": Sgd(lr=0.002, batch_sequences=RANKS * 32),
    }
    return derive(pr414(), "pr691", changes, claim_bpb=1.1408, pull_request=691)


def score_then_sgd(part: Sgd) -> tuple[Variable, ...]:
    """The variables of score-first SGD, as every script from #691 to #1493 has them."""
    path = "evaluate.ttt"
    return (
        switch("TTT_ENABLED", path, part),
        *under(path, TTT_LR="lr", TTT_EPOCHS="epochs", TTT_MOMENTUM="momentum"),
        *under(path, TTT_CHUNK_TOKENS="chunk_tokens", TTT_FREEZE_BLOCKS="frozen_blocks"),
        per_rank("TTT_BATCH_SEQS", f"{path}.batch_sequences"),
        or_none("TTT_GRAD_CLIP", f"{path}.clip"),
    )


def _value_layers(env: Environment) -> tuple[int, ...]:
    return tuple(int(layer) for layer in str(env["VE_LAYERS"]).split(",") if layer.strip())


def _value(env: Environment) -> ValueEmbeddingConfig | None:
    if not (env["VE_ENABLED"] and env["VE_DIM"] and _value_layers(env)):
        return None
    return ValueEmbeddingConfig(dim=env["VE_DIM"], layers=_value_layers(env))


def _value_problems(env: Environment) -> list[str]:
    if not (env["VE_ENABLED"] and env["VE_DIM"]):
        return []
    try:
        layers = _value_layers(env)
    except ValueError:
        return [f"{env.describe('VE_LAYERS')} is not a list of whole numbers such as 9,10"]
    if any(not 0 <= layer < env["NUM_LAYERS"] for layer in layers):
        return [f"{env.describe('VE_LAYERS')} names a layer beyond {env.describe('NUM_LAYERS')}"]
    return []


def _round_from(env: Environment) -> When | None:
    if env["QAT_ENABLED"]:
        return When(progress=0.0)
    threshold = env["LATE_QAT_THRESHOLD"]
    return When(lr_scale_below=threshold) if threshold else None


VALUE = "model.embedding.value"
VARIABLES = (
    warmdown_iters(record_steps=7_096),
    at(
        "XSA_LAST_N",
        "model.attention.exclusive_layers",
        to=lambda env: min(env["XSA_LAST_N"], env["NUM_LAYERS"]),
    ),
    at("ROPE_DIMS", "model.attention.rope_dims", to=lambda env: env["ROPE_DIMS"] or None),
    at("LN_SCALE", "model.layer_scale"),
    at("QAT_ENABLED", "round_from", to=_round_from, default=False),
    at("LATE_QAT_THRESHOLD", read="round_from.lr_scale_below"),
    at("VE_ENABLED", VALUE, to=_value, back=lambda value: value is not None),
    at("VE_DIM", read=f"{VALUE}.dim", needs=("VE_ENABLED",)),
    at(
        "VE_LAYERS",
        read=f"{VALUE}.layers",
        back=lambda layers: ",".join(map(str, layers)),
        needs=("VE_ENABLED", "VE_DIM"),
    ),
    *inert(SWA_ENABLED=True, SWA_EVERY=50),  # kept beside the EMA and never used
    only("DTG_ENABLED", False, "dynamic token gates"),
    *score_then_sgd(Sgd(lr=0.002, batch_sequences=RANKS * 32)),  # as #691 runs it
)
SCRIPT = before.SCRIPT.child(
    "pr414",
    pr414,
    VARIABLES,
    checks=(*before.SCRIPT.checks, _value_problems),
    marks=("ve_shared.", "bigram."),
)
SCRIPT_691 = SCRIPT.child("pr691", pr691, (warmdown_iters(record_steps=5_436),))
