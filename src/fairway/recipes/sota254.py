"""#254 and #390: six bits pay for depth and width. Both claims include learning before scoring."""

from dataclasses import replace

from fairway.average import SwaConfig
from fairway.evaluate.config import EvaluateConfig
from fairway.evaluate.diagnostic import AdaptThenScore
from fairway.evaluate.learners.sgd import Sgd
from fairway.model.embedding import NgramTableConfig
from fairway.model.model_config import ModelConfig
from fairway.quant.rules import PercentileRows, QuantConfig
from fairway.recipes import naive_baseline as launch
from fairway.recipes.diff import derive, override
from fairway.recipes.recipe import Recipe
from fairway.recipes.script import RANKS, Environment, at, inert, switch, under
from fairway.train.config import BatchConfig
from fairway.train.param_groups import AdamWGroup
from fairway.train.schedule import MomentumWarmup, Warmdown, When

ROPE_BASE = 10_000.0
ROPE_CONTEXT = 1024  # what rotary tables of these scripts take for the context of training

# What the two claims did before scoring. Learning from text that is not scored yet makes a score
# invalid, so the number is computed beside it, as a diagnostic.
ADAPTATION_254 = AdaptThenScore(
    sgd=Sgd(
        epochs=3,
        lr=0.002,
        frozen_blocks=2,
        schedule="constant",
        batch_sequences=RANKS * 32,  # 32 on each process
    ),
    stride=64,
)
ADAPTATION_390 = replace(ADAPTATION_254, sgd=replace(ADAPTATION_254.sgd, epochs=8), stride=32)


def stretched_base(base: float, context: int, rope_dims: int) -> float:
    """The rotary base at which these scripts train past `ROPE_CONTEXT`.

    rope_dims  rotating channels of a head

    >>> stretched_base(10_000.0, 1024, 64)
    10000.0
    """
    return base * max(context / ROPE_CONTEXT, 1.0) ** (rope_dims / (rope_dims - 2))


def sota254() -> Recipe:
    """Eleven blocks, MLP x3, context 2,048, bigram table and smearing, in six bits."""
    changes = {
        "model.num_layers": 11,
        "model.attention.rope_base": stretched_base(ROPE_BASE, 2048, rope_dims=64),
        "model.mlp.ratio": 3.0,
        "model.embedding.ngrams": (NgramTableConfig(buckets=2048, dim=128),),
        "model.embedding.smear": "v1",
        "model.train_context": 2048,
        "model.init": "orthogonal",
        "train.batch": BatchConfig(rows=48, context=2048, micro_batches=8),  # 786,432 tokens
        "train.optimizer.muon.lr": 0.025,
        "train.optimizer.muon.momentum": 0.99,
        "train.optimizer.muon.weight_decay": 0.04,
        "train.optimizer.embed": AdamWGroup(lr=0.035, weight_decay=0.04),
        "train.optimizer.scalars": AdamWGroup(lr=0.025, weight_decay=0.04),
        "train.warmdown": Warmdown(fraction=3000 / 7248),  # steps, of those that it had
        "train.momentum_warmup": MomentumWarmup(start=0.92, steps=1500),
        "train.grad_clip": 0.3,
        "average": SwaConfig(every=200, lr_scale_below=0.5),
        "quant": QuantConfig(
            rules=(
                ("blocks.*.weight", PercentileRows(bits=6, min_scale=1 / 31)),
                ("*", PercentileRows(bits=8, min_scale=1 / 127)),
            ),
            reserve_seconds=0.0,
        ),
        "evaluate": EvaluateConfig(context=2048, stride=64),
        "diagnostic": ADAPTATION_254,
    }
    parent = launch.naive_baseline()
    return derive(parent, "sota254", changes, claim_bpb=1.1303, pull_request=254)


def sponge_bath() -> Recipe:
    """`sota254` scored with windows half as far apart. Its gain came from `ADAPTATION_390`."""
    changes = {"evaluate.stride": 32, "diagnostic": ADAPTATION_390}
    return derive(sota254(), "sponge_bath", changes, claim_bpb=1.1295, pull_request=390)


def script_default() -> Recipe:
    """What the script of #254 runs when nothing is set: the record came with a command line."""
    changes = {
        "model.num_layers": 9,
        "model.embedding.ngrams.0.buckets": 4096,
        "train.optimizer.muon.lr": 0.04,
        "train.optimizer.muon.momentum": 0.95,
        "train.optimizer.muon.weight_decay": 0.02,
        "train.optimizer.embed": AdamWGroup(lr=0.05, weight_decay=0.01),
        "train.optimizer.scalars": AdamWGroup(lr=0.04, weight_decay=0.01),
        "train.momentum_warmup": MomentumWarmup(start=0.85, steps=500),
        "train.warmdown.fraction": 1200 / 7248,
    }
    return override(sota254(), changes)


def _rope_base(env: Environment) -> float:
    dims = env.get("ROPE_DIMS", 0) or env["MODEL_DIM"] // env["NUM_HEADS"]
    return stretched_base(env["ROPE_BASE"], env["TRAIN_SEQ_LEN"], dims)


def _ngrams(env: Environment) -> tuple[NgramTableConfig, ...]:
    buckets = env["BIGRAM_VOCAB_SIZE"]
    return (NgramTableConfig(buckets=buckets, dim=env["BIGRAM_DIM"]),) if buckets else ()


def _table_problems(env: Environment) -> list[str]:
    too_few = env["BIGRAM_VOCAB_SIZE"] == 1
    return [f"{env.describe('BIGRAM_VOCAB_SIZE')}: a hash table needs 2 buckets"] if too_few else []


def _published_tables(model: ModelConfig, env: Environment) -> ModelConfig:
    """Rotary tables as the script makes them: stretched by the forward pass, past their context."""
    attention = replace(model.attention, rope_base=env["ROPE_BASE"])
    return replace(model, attention=attention, train_context=ROPE_CONTEXT)


TABLE = "model.embedding.ngrams"
VARIABLES = (
    at("ROPE_BASE", "model.attention.rope_base", to=_rope_base, default=ROPE_BASE),
    at("TRAIN_SEQ_LEN", "model.train_context", "train.batch.context"),
    launch.warmdown_iters(record_steps=7_248),
    *under("evaluate", EVAL_SEQ_LEN="context", EVAL_STRIDE="stride"),
    *under("train.optimizer", MUON_WD="muon.weight_decay"),
    at("ADAM_WD", *(f"train.optimizer.{group}.weight_decay" for group in ("scalars", "embed"))),
    *under("model", MTP_NUM_HEADS="extra_heads", MTP_LOSS_WEIGHT="extra_heads_weight"),
    # The script averages over the half of the run with the lowest rates.
    switch("SWA_ENABLED", "average", SwaConfig(every=200, lr_scale_below=0.5)),
    at("SWA_EVERY", "average.every"),
    at(
        "QAT_ENABLED",
        "round_from",
        to=lambda env: When(progress=0.0) if env["QAT_ENABLED"] else None,
        default=False,
    ),
    at("BIGRAM_VOCAB_SIZE", TABLE, to=_ngrams, read=f"{TABLE}.0.buckets"),
    at("BIGRAM_DIM", read=f"{TABLE}.0.dim", needs=("BIGRAM_VOCAB_SIZE",)),
    *inert(MUON_BETA2=0.95, TTT_ENABLED=True, TTT_LR=0.002, TTT_EPOCHS=3),
    *inert(TTT_MOMENTUM=0.9, TTT_BATCH_SEQS=32, TTT_FREEZE_BLOCKS=2),
)
SCRIPT = launch.SCRIPT.child(
    "sota254",
    script_default,
    VARIABLES,
    checks=(_table_problems,),
    refused={
        "TTT_": "the test-time training of this script learns from text before that is scored; "
        "leave it out, or take pr691, which learns afterwards"
    },
    loaded=_published_tables,
    marks=("bigram.",),
    # Some checkpoints of this family come without it, so its table says how wide it is.
    widths={"BIGRAM_DIM": ("bigram.embed.weight", 1)},
)
