"""A published command line as settings of a run of ours.

A record is its script under its command line, so each published recipe has its command line here,
and what a user's variables change about the run is what they change about that. Variables that
steer what this project does its own way (which compressor, which fused kernel) change nothing.
The variables themselves are in `environment.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fairway.average import EmaConfig, SwaConfig
from fairway.evaluate.config import EvaluateConfig
from fairway.evaluate.learners.documents import DocumentAdapters
from fairway.evaluate.learners.phased import Phased
from fairway.evaluate.learners.sgd import Sgd
from fairway.interop.defaults import Lineage
from fairway.interop.environment import Environment, model_config, parse_environment
from fairway.model.adapters import AdapterConfig, Target
from fairway.model.gpt import ModelConfig
from fairway.quant.lowrank import LowRankConfig
from fairway.quant.rules import Gptq, KeepHalf, PercentileRows, QuantConfig, SearchRows
from fairway.recipes.diff import diff
from fairway.recipes.recipe import Recipe
from fairway.train.loop import BatchConfig, TrainConfig
from fairway.train.muon import MuonConfig
from fairway.train.param_groups import AdamWGroup, OptimizerConfig
from fairway.train.schedule import MomentumWarmup, Warmdown, When

MICRO_BATCHES = 8  # every script divides a step into eight, over however many machines
CEILING = 9000  # ITERATIONS from here on is a bound that a clock of ten minutes never meets


@dataclass(frozen=True)
class Record:
    """A published run: its script, the variables it was started with, and the steps it made."""

    lineage: Lineage
    env: dict[str, str]
    steps: int


_254 = {
    "NUM_LAYERS": "11",
    "BIGRAM_VOCAB_SIZE": "2048",
    "MATRIX_LR": "0.025",
    "SCALAR_LR": "0.025",
    "TIED_EMBED_LR": "0.035",
    "MUON_WD": "0.04",
    "ADAM_WD": "0.04",
    "MUON_MOMENTUM": "0.99",
    "MUON_MOMENTUM_WARMUP_START": "0.92",
    "MUON_MOMENTUM_WARMUP_STEPS": "1500",
    "WARMDOWN_ITERS": "3000",
    "TTT_ENABLED": "0",  # it learns before scoring, which no recipe does
}
_1855 = {
    "CASEOPS_ENABLED": "1",
    "WARMDOWN_FRAC": "0.85",
    "MIN_LR": "0.1",
    "BETA2": "0.99",
    "SMEAR_GATE_ENABLED": "1",
    "SPARSE_ATTN_GATE_ENABLED": "1",
    "SPARSE_ATTN_GATE_SCALE": "0.5",
    "EMBED_BITS": "7",
    "EMBED_CLIP_SIGMAS": "14.0",
    "MLP_CLIP_SIGMAS": "11.5",
    "GPTQ_RESERVE_SECONDS": "6.0",  # published as 0.5, in which its Hessians do not fit
    "TTT_LORA_RANK": "80",
    "TTT_WEIGHT_DECAY": "0.5",
    "TTT_BETA2": "0.99",
    "PHASED_TTT_PREFIX_DOCS": "2500",
    "PHASED_TTT_NUM_PHASES": "3",
}
RECORDS = {
    "naive_baseline": Record("baseline", {}, 13_780),
    "sota254": Record("pr254", _254, 7_248),
    "sponge_bath": Record("pr254", _254 | {"EVAL_STRIDE": "32"}, 7_248),
    "pr414": Record("pr414", {}, 7_096),
    "pr691": Record("pr414", {"TTT_ENABLED": "1"}, 7_096),
    "pr1394": Record("pr1413", {}, 4_990),
    "pr1413": Record("pr1413", {"QK_GAIN_INIT": "5.0", "TTT_ENABLED": "1"}, 5_085),
    "pr1493": Record("pr1493", {"QK_GAIN_INIT": "5.25", "TTT_ENABLED": "1"}, 4_550),
    "pr1855": Record("pr1855", _1855, 4_931),
}

# Variables that only their published value has a counterpart for.
FIXED: dict[str, Any] = {
    "MUON_BACKEND_STEPS": 5,
    "VAL_DOC_FRACTION": 1.0,
    "TTT_EVAL_BATCHES": "",
    "TTT_OPTIMIZER": "adam",
    "GLOBAL_TTT_WARMUP_CHUNKS": 0,
    "GLOBAL_TTT_RESPECT_DOC_BOUNDARIES": True,
    "LQER_ASYM_ENABLED": True,
    "SPARSE_ATTN_GATE_INIT_STD": 0.0,
}


def training_settings(recipe: Recipe, env: Mapping[str, str]) -> dict[str, Any]:
    """What variables change about a published recipe: dotted paths and values for `override`.

    env  variables of the recipe's script; what is left out stays as the record had it

    Raises ValueError naming every variable that is unknown, contradicts another, or asks for what
    this project does not do.
    """
    if recipe.name not in RECORDS:
        raise ValueError(
            f"{recipe.name} is not a published run, so it has no environment variables; set its "
            f"fields themselves, or start from one of {', '.join(RECORDS)}"
        )
    record = RECORDS[recipe.name]
    if record.lineage == "pr254" and (early := sorted(n for n in env if n.startswith("TTT_"))):
        raise ValueError(
            f"{', '.join(early)}: the test-time training of this script learns from text before "
            f"that is scored; leave it out, or take pr691, which learns afterwards"
        )
    before = described(recipe, parse_environment(record.lineage, record.env), record.steps)
    merged = parse_environment(record.lineage, record.env | dict(env))
    for name, only in FIXED.items():
        if merged.get(name, only) != only:
            raise ValueError(f"{merged.describe(name)}: only {only!r} is supported")
    after = described(recipe, merged, record.steps)
    return {difference.path: difference.new for difference in diff(before, after)}


def described(recipe: Recipe, env: Environment, record_steps: int) -> Recipe:
    """The run that a script makes under these variables; fields they say nothing of as given."""
    return replace(
        recipe,
        tokens=replace(recipe.tokens, vocab_size=env["VOCAB_SIZE"], **_caseops(env)),
        model=_model(env),
        train=_train(env, record_steps),
        round_from=_round_from(env),
        average=_average(env),
        quant=_quant(env),
        evaluate=_evaluate(env),
        seed=env["SEED"],
    )


def _caseops(env: Environment) -> dict[str, str | None]:
    if "CASEOPS_ENABLED" not in env.values:
        return {}
    on = env["CASEOPS_ENABLED"]
    return {
        "transform": "caseops" if on else None,
        "published": "sp8192_caseops" if on else f"sp{env['VOCAB_SIZE']}",
    }


def _model(env: Environment) -> ModelConfig:
    model, context = model_config(env), env["TRAIN_SEQ_LEN"]
    attention = model.attention
    if context > model.train_context:
        # Tables told a shorter context than they are trained at are stretched all along.
        dims = attention.rope_dims or model.model_dim // attention.num_heads
        stretch = (context / model.train_context) ** (dims / (dims - 2))
        attention = replace(attention, rope_base=attention.rope_base * stretch)
    if env.lineage == "pr1855":
        attention = replace(attention, within_documents=True)
    return replace(
        model,
        attention=attention,
        train_context=context,
        extra_heads=env.get("MTP_NUM_HEADS", 0),
        extra_heads_weight=env.get("MTP_LOSS_WEIGHT", 0.2),
    )


def _train(env: Environment, record_steps: int) -> TrainConfig:
    context, tokens = env["TRAIN_SEQ_LEN"], env["TRAIN_BATCH_TOKENS"]
    rows, rest = divmod(tokens, MICRO_BATCHES * context)
    if rest or not rows:
        raise ValueError(
            f"{env.describe('TRAIN_BATCH_TOKENS')} is not a multiple of {MICRO_BATCHES} times "
            f"{env.describe('TRAIN_SEQ_LEN')}"
        )
    seconds, steps = env["MAX_WALLCLOCK_SECONDS"], env["ITERATIONS"]
    by_clock = seconds > 0
    if by_clock and "ITERATIONS" in env.given and steps < CEILING:
        raise ValueError(
            f"{env.describe('ITERATIONS')} and {env.describe('MAX_WALLCLOCK_SECONDS')}: a run here "
            f"ends by one of them; set MAX_WALLCLOCK_SECONDS=0 to end it after so many steps"
        )
    fraction = env.get("WARMDOWN_FRAC", 0.0)
    if "WARMDOWN_ITERS" in env.values:
        fraction = min(1.0, env["WARMDOWN_ITERS"] / (record_steps if by_clock else steps))
    embed_decay = env.get("EMBED_WD", env.get("ADAM_WD", 0.0))
    return TrainConfig(
        seconds=seconds if by_clock else None,
        steps=None if by_clock else steps,
        reserve_seconds=env.get("GPTQ_RESERVE_SECONDS", 0.0) if by_clock else 0.0,
        batch=BatchConfig(rows=rows, context=context, micro_batches=MICRO_BATCHES),
        optimizer=OptimizerConfig(
            muon=MuonConfig(
                lr=env["MATRIX_LR"],
                momentum=env["MUON_MOMENTUM"],
                weight_decay=env.get("MUON_WD", 0.0),
                row_normalize=env.get("MUON_ROW_NORMALIZE", False),
                polynomial="polar_express" if env.lineage == "pr1855" else "jordan",
            ),
            embed=AdamWGroup(
                lr=env["TIED_EMBED_LR" if env["TIE_EMBEDDINGS"] else "EMBED_LR"],
                weight_decay=embed_decay,
            ),
            head=AdamWGroup(lr=env.get("HEAD_LR", 0.008)),
            scalars=AdamWGroup(lr=env["SCALAR_LR"], weight_decay=env.get("ADAM_WD", 0.0)),
            betas=(env["BETA1"], env["BETA2"]),
            eps=env["ADAM_EPS"],
        ),
        warmdown=Warmdown(fraction=round(fraction, 3), floor=env.get("MIN_LR", 0.0)),
        momentum_warmup=MomentumWarmup(
            start=env["MUON_MOMENTUM_WARMUP_START"], steps=env["MUON_MOMENTUM_WARMUP_STEPS"]
        ),
        grad_clip=env["GRAD_CLIP_NORM"] or None,
        loops_at=env["ENABLE_LOOPING_AT"] if env.get("NUM_LOOPS", 0) else None,
    )


def _round_from(env: Environment) -> When | None:
    if env.get("QAT_ENABLED", False):
        return When(progress=0.0)
    threshold = env.get("LATE_QAT_THRESHOLD", 0.0)
    return When(lr_scale_below=threshold) if threshold else None


def _average(env: Environment) -> EmaConfig | SwaConfig | None:
    match env.lineage:
        case "baseline":
            return None
        case "pr254":
            # The script averages over the half of the run with the lowest rates.
            swa = SwaConfig(every=env["SWA_EVERY"], lr_scale_below=0.5)
            return swa if env["SWA_ENABLED"] else None
        case _:  # #414 has a constant here, and its SWA beside the EMA is never used
            return EmaConfig(decay=env.get("EMA_DECAY", 0.997))


def _quant(env: Environment) -> QuantConfig:
    int8 = ("*", PercentileRows(bits=8, min_scale=1 / 127))
    match env.lineage:
        case "baseline":
            return QuantConfig(rules=(int8,), reserve_seconds=0.0)
        case "pr254":
            blocks = PercentileRows(bits=6, min_scale=1 / 31)
            return QuantConfig(rules=(("blocks.*.weight", blocks), int8), reserve_seconds=0.0)
        case "pr414":
            searched = SearchRows(bits=6, min_scale=1 / 31)
            return QuantConfig(rules=(("blocks.*.weight", searched), int8), reserve_seconds=0.0)
    bits = env["MATRIX_BITS"]
    blocks = (("blocks.*.weight", Gptq(bits, env["MATRIX_CLIP_SIGMAS"])),)
    if env.lineage == "pr1855":
        blocks = (
            ("blocks.*.attention.*.weight", Gptq(bits, env["ATTN_CLIP_SIGMAS"])),
            ("blocks.*.mlp.*.weight", Gptq(bits, env["MLP_CLIP_SIGMAS"])),
        )
    embed = Gptq(env["EMBED_BITS"], env["EMBED_CLIP_SIGMAS"])
    low_rank = None
    if env.get("LQER_ENABLED", False):
        low_rank = LowRankConfig(
            rank=env["LQER_RANK"],
            num_tensors=env["LQER_TOP_K"],
            b_bits=env["LQER_FACTOR_BITS"],
            group=env["LQER_ASYM_GROUP"],
        )
    return QuantConfig(
        rules=(*blocks, ("embed.weight", embed), ("*", KeepHalf())),
        calibration_batches=env["GPTQ_CALIBRATION_BATCHES"],
        reserve_seconds=env["GPTQ_RESERVE_SECONDS"],
        low_rank=low_rank,
    )


def published_evaluation(lineage: str, env: Mapping[str, str]) -> EvaluateConfig:
    """How a script scores under these variables, less any learning that comes before scoring."""
    off = {"TTT_ENABLED": "0"} if lineage == "pr254" else {}
    return _evaluate(parse_environment(lineage, {**env, **off}))


def _evaluate(env: Environment) -> EvaluateConfig:
    if env.lineage == "pr1855":
        return _evaluate_documents(env)
    context = env.get("EVAL_SEQ_LEN", env["TRAIN_SEQ_LEN"])
    sliding = env.get("SLIDING_WINDOW_ENABLED", True)
    stride = env.get("EVAL_STRIDE", context) if sliding else context
    ttt = None
    if env.get("TTT_ENABLED", False):
        ttt = Sgd(
            chunk_tokens=env["TTT_CHUNK_TOKENS"],
            epochs=env["TTT_EPOCHS"],
            lr=env["TTT_LR"],
            momentum=env["TTT_MOMENTUM"],
            clip=env["TTT_GRAD_CLIP"] or None,
            batch_sequences=env["TTT_BATCH_SEQS"],
            frozen_blocks=env["TTT_FREEZE_BLOCKS"],
        )
    return EvaluateConfig(context=context, stride=stride, ttt=ttt)


def _evaluate_documents(env: Environment) -> EvaluateConfig:
    if not env["TTT_ENABLED"]:
        return EvaluateConfig(
            context=env["EVAL_SEQ_LEN"], stride=env["EVAL_STRIDE"], documents=True
        )
    optional: tuple[tuple[Target, str], ...] = (
        ("key", "TTT_K_LORA"),
        ("output", "TTT_O_LORA"),
        ("mlp", "TTT_MLP_LORA"),
    )
    off = {target for target, name in optional if not env[name]}
    every: tuple[Target, ...] = ("query", "key", "value", "output", "mlp", "head")
    adapters = DocumentAdapters(
        adapters=AdapterConfig(
            rank=env["TTT_LORA_RANK"],
            alpha=env["TTT_LORA_ALPHA"],
            targets=tuple(target for target in every if target not in off),
        ),
        lr=env["TTT_LORA_LR"],
        betas=(env["TTT_BETA1"], env["TTT_BETA2"]),
        weight_decay=env["TTT_WEIGHT_DECAY"],
        steps=env["TTT_GRAD_STEPS"],
        warm=env["TTT_WARM_START_A"],
    )
    documents, phases = env["PHASED_TTT_PREFIX_DOCS"], env["PHASED_TTT_NUM_PHASES"]
    ttt: Phased | DocumentAdapters = adapters
    if documents and phases:
        ttt = Phased(
            pauses=tuple(documents * (i + 1) // phases for i in range(phases)),
            adapters=adapters,
            sgd=Sgd(
                chunk_tokens=env["GLOBAL_TTT_CHUNK_TOKENS"],
                epochs=env["GLOBAL_TTT_EPOCHS"],
                lr=env["GLOBAL_TTT_LR"],
                momentum=env["GLOBAL_TTT_MOMENTUM"],
                clip=env["GLOBAL_TTT_GRAD_CLIP"] or None,
                batch_sequences=env["GLOBAL_TTT_BATCH_SEQS"],
            ),
        )
    return EvaluateConfig(
        context=env["TTT_EVAL_SEQ_LEN"],
        stride=env["TTT_CHUNK_SIZE"],
        rows=env["TTT_BATCH_SIZE"],
        documents=True,
        ttt=ttt,
    )
