"""#1945, #1953 and #2014: finer columns, another cap, fewer adapters, a context that grows."""

import math
from dataclasses import replace

from fairway.evaluate.orders import Order
from fairway.model.adapters import TARGETS, Target
from fairway.quant.awq import AwqLiteConfig
from fairway.recipes import naive_baseline as launch
from fairway.recipes import pr1855 as before
from fairway.recipes.diff import derive, override
from fairway.recipes.recipe import Recipe
from fairway.recipes.script import Environment, Variable, at, fixed, inert, only, switch, under
from fairway.train.config import BatchConfig
from fairway.train.schedule import Curriculum

ADAPTERS, TARGETS_PATH = before.ADAPTERS, f"{before.ADAPTERS}.adapters.targets"
# As every record since #1530. It costs nothing beside the lengths of documents, which a proof tells
# in any case; and without it a batch of short documents, which #2014 cuts finer, would not exist.
ORDER: Order = "longest_first"
WITHOUT_QUERY_AND_VALUE = tuple(t for t in TARGETS if t not in ("query", "value"))
MASKS: dict[str, tuple[Target, ...]] = {
    "": (),
    "no_q": ("query",),
    "no_v": ("value",),
    "no_qv": ("query", "value"),
}


def pr1945() -> Recipe:
    """`pr1855` with one group of columns in eight bits (#1908) and two caps for scoring (#1923).

    Nothing trains the two caps, so they stay at 30 and change nothing but how they are computed.
    """
    changes = {
        "model.asymmetric_softcap": True,
        "train.reserve_seconds": 4.0,  # its Hessians took 4.1
        "quant.reserve_seconds": 4.0,
        "quant.awq": AwqLiteConfig(bits=8, group=64, num_groups=1),
        "evaluate.order": ORDER,
    }
    return derive(before.pr1855(), "pr1945", changes, claim_bpb=1.05943, pull_request=1945)


def pr1953() -> Recipe:
    """`pr1945` scored with a context of 2,560, without adapters of queries and values."""
    changes = {
        "model.attention.qk_gain": 5.25,
        "evaluate.context": 2560,
        TARGETS_PATH: WITHOUT_QUERY_AND_VALUE,
        f"{ADAPTERS}.lr": 1e-4 * 0.75,
    }
    return derive(pr1945(), "pr1953", changes, claim_bpb=1.05855, pull_request=1953)


def pr2014() -> Recipe:
    """`pr1953` trained on 1,024 to 3,072 tokens, small strides for short documents, one pause."""
    changes = {
        "model.train_context": 3072,
        # A row is cut into whole contexts of every stage; a step has 786,432 tokens as before.
        "train.batch": BatchConfig(
            rows=16,
            context=6144,
            micro_batches=8,
            joined=True,
            context_curriculum=Curriculum(stages=((0.1, 1024), (0.7, 2048), (1.0, 3072))),
            context_warmup=32,
        ),
        "evaluate.context": 3072,
        "evaluate.rows": 24,
        "evaluate.short_strides": ((256, 8), (2000, 24)),
        "evaluate.ttt.pauses": (2500,),
    }
    return derive(pr1953(), "pr2014", changes, claim_bpb=1.05759, pull_request=2014)


def script_default() -> Recipe:
    """What the script of #1945 runs when nothing is set."""
    changes = {
        "model.asymmetric_softcap": False,
        "quant.awq": None,
        f"{ADAPTERS}.weight_decay": 2.0,
        "evaluate.order": ORDER,
    }
    return override(before.script_default(), changes)


def _targets(env: Environment) -> tuple[Target, ...]:
    if env["TTT_MASK"] not in MASKS:
        raise ValueError(
            f"{env.describe('TTT_MASK')}: choose one of {', '.join(filter(None, MASKS))}"
        )
    masked = MASKS[env["TTT_MASK"]]
    return tuple(t for t in before.adapter_targets(env) if t not in masked)


def adapter_switch(target: Target) -> Variable:
    """The variable that puts adapters on one kind of projection, where a mask counts as well."""
    return replace(before.adapter_switch(target), sets={TARGETS_PATH: _targets})


def _stages(env: Environment) -> Curriculum | None:
    """`1024@0.100,2048@0.700,3072@1.000`: a length and the share of the run until which it holds.

    A schedule is for as long as the clock runs; the script's other mode counts steps.
    """
    text = env["TRAIN_SEQ_SCHEDULE"]
    if not text:
        return None
    pairs = [stage.split("@") for stage in text.split(",")]
    try:
        return Curriculum(stages=tuple((float(end), int(length)) for length, end in pairs))
    except ValueError as error:
        raise ValueError(f"{env.describe('TRAIN_SEQ_SCHEDULE')}: {error}") from error


def _told_stages(held: Curriculum | None) -> str:
    stages = () if held is None else held.stages
    return ",".join(f"{length}@{end:.3f}" for end, length in stages)


def _row_length(env: Environment) -> int:
    """Tokens that can be cut into whole contexts of every stage."""
    stages = _stages(env)
    lengths = [] if stages is None else [length for _, length in stages.stages]
    return math.lcm(env["TRAIN_SEQ_LEN"], *lengths)


def _rows(env: Environment) -> int:
    length = _row_length(env)
    rows, rest = divmod(env["TRAIN_BATCH_TOKENS"], launch.MICRO_BATCHES * length)
    if rest or not rows:
        raise ValueError(
            f"{env.describe('TRAIN_BATCH_TOKENS')} is not a multiple of {launch.MICRO_BATCHES} "
            f"times {length} tokens, which every context of {env.describe('TRAIN_SEQ_SCHEDULE')} "
            f"and {env.describe('TRAIN_SEQ_LEN')} divides"
        )
    return rows


def _short_strides(env: Environment) -> tuple[tuple[int, int], ...]:
    if not env["TTT_SHORT_SCORE_FIRST_ENABLED"]:
        return ()
    steps = env["TTT_SHORT_SCORE_FIRST_STEPS"]
    if not steps:
        return ((env["TTT_SHORT_DOC_LEN"], env["TTT_SHORT_CHUNK_SIZE"]),)
    pairs = [step.split(":") for step in steps.split(",")]
    return tuple(sorted((int(most), int(stride)) for most, stride in pairs))


TOKENS_PER_STEP = "train.batch.tokens_per_step"
SHORT = "evaluate.short_strides"
AWQ = (
    switch("AWQ_LITE_ENABLED", "quant.awq", AwqLiteConfig()),
    *under("quant.awq", AWQ_LITE_BITS="bits", AWQ_LITE_GROUP_SIZE="group"),
    *under("quant.awq", AWQ_LITE_GROUP_TOP_K="num_groups"),
    only("LQER_SCOPE", "all", "a choice among some tensors alone"),
    only("LQER_GAIN_SELECT", False, "a choice by gain"),
    only("FORCE_STOP_STEP", 0, "an end after so many steps: set ITERATIONS, and no clock; it"),
    only("QUANTIZE_ONLY", False, "a run of the quantiser alone"),
)
CAPS = at("ASYM_LOGIT_RESCALE", "model.asymmetric_softcap")
SCRIPT_1945 = before.SCRIPT.child("pr1945", script_default, (*AWQ, CAPS), marks=("softcap_pos",))
SCRIPT_1953 = SCRIPT_1945.child(
    "pr1953",
    script_default,
    (
        *map(adapter_switch, ("query", "key", "value", "output", "mlp")),
        at("TTT_MASK", TARGETS_PATH, to=_targets, default=""),
        at(
            "TTT_LORA_LR",
            f"{ADAPTERS}.lr",
            to=lambda env: env["TTT_LORA_LR"] * env["TTT_LOCAL_LR_MULT"],
        ),
        *inert(TTT_LOCAL_LR_MULT=1.0),
    ),
    ignored=(*before.SCRIPT.ignored, "LQER_GROUP_SIZE"),
)
SCRIPT_2014 = SCRIPT_1953.child(
    "pr2014",
    script_default,
    (
        at(
            "TRAIN_SEQ_LEN",
            "model.train_context",
            also={"train.batch.context": _row_length},
        ),
        at("TRAIN_BATCH_TOKENS", "train.batch.rows", to=_rows, read=TOKENS_PER_STEP),
        at("TRAIN_SEQ_SCHEDULE", "train.batch.context_curriculum", to=_stages, back=_told_stages),
        *under("train.batch", SEQ_CHANGE_WARMUP_STEPS="context_warmup"),
        *fixed(TRAIN_SEQ_SCHEDULE_MODE="wallclock"),
        *inert(COMPILE_SHAPE_WARMUP=True, EVAL_INCLUDE_TAIL=False),  # the tail is always scored
        at(
            "TTT_SHORT_SCORE_FIRST_ENABLED",
            SHORT,
            to=_short_strides,
            back=bool,
        ),
        at(
            "TTT_SHORT_SCORE_FIRST_STEPS",
            SHORT,
            to=_short_strides,
            back=lambda held: ",".join(f"{most}:{stride}" for most, stride in held),
        ),
        *inert(TTT_SHORT_DOC_LEN=2000, TTT_SHORT_CHUNK_SIZE=24),
    ),
)
