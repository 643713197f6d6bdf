"""#1855: documents kept apart, gates, two lanes, adapters per document."""

from dataclasses import replace

from fairway.evaluate.config import EvaluateConfig
from fairway.evaluate.learners.phased import Phased
from fairway.model.adapters import TARGETS, Target
from fairway.model.attention import GateConfig
from fairway.model.model_config import ModelConfig, ParallelConfig
from fairway.quant.lowrank import LowRankConfig
from fairway.quant.rules import Gptq, KeepHalf, LargestRows, QuantConfig
from fairway.recipes import pr1394 as before
from fairway.recipes.diff import derive, override
from fairway.recipes.recipe import Recipe, TokensConfig
from fairway.recipes.script import (
    RANKS,
    Convert,
    Environment,
    Variable,
    at,
    fixed,
    inert,
    only,
    or_none,
    switch,
    under,
)
from fairway.tokens.batches import OrderConfig
from fairway.train.schedule import Warmdown

RESERVE_SECONDS = 6.0  # published as 0.5, in which its 4.7 seconds of Hessians do not fit

ADAPTERS, SGD, LOW_RANK = "evaluate.ttt.adapters", "evaluate.ttt.sgd", "quant.low_rank"
ADAPTER_SWITCHES: dict[Target, str] = {
    "query": "TTT_Q_LORA",
    "key": "TTT_K_LORA",
    "value": "TTT_V_LORA",
    "output": "TTT_O_LORA",
    "mlp": "TTT_MLP_LORA",
}


def pr1855() -> Recipe:
    """Case marks in the pieces; adapters of rank 80 and three pauses at test time."""
    changes = {
        "tokens": TokensConfig(
            vocab_size=8192,
            transform="caseops",
            published="sp8192_caseops",
            order=OrderConfig(order="documents", together=RANKS),
        ),
        "model.attention.qk_gain": 5.0,
        "model.attention.gate": GateConfig(window=12, scale=0.5),
        "model.attention.within_documents": True,
        "model.attention.rope_stretch": False,
        "model.embedding.smear": "v2",
        "model.embedding.smear_window": 12,
        "model.parallel": ParallelConfig(start=8, form="lanes"),
        "train.batch.joined": True,
        "train.reserve_seconds": RESERVE_SECONDS,
        "train.optimizer.muon.lr": 0.026,
        "train.optimizer.muon.momentum": 0.97,
        "train.optimizer.muon.polynomial": "polar_express",
        "train.optimizer.betas": (0.9, 0.99),
        "train.warmdown": Warmdown(fraction=0.85, floor=0.1),
        "quant": QuantConfig(
            rules=(
                ("blocks.*.attention.*.weight", Gptq(bits=6, clip_sigmas=13.0)),
                ("blocks.*.mlp.*.weight", Gptq(bits=6, clip_sigmas=11.5)),
                ("embed.weight", Gptq(bits=7, clip_sigmas=14.0)),
                ("blocks.*.attention.gate", LargestRows(bits=8)),
                ("*", KeepHalf()),
            ),
            calibration_batches=16,
            reserve_seconds=RESERVE_SECONDS,
            low_rank=LowRankConfig(rank=4, num_tensors=3, a_bits=2, b_bits=4, group=64),
        ),
        "evaluate": EvaluateConfig(context=2048, stride=48, rows=64, documents=True, ttt=Phased()),
    }
    return derive(before.pr1493(), "pr1855", changes, claim_bpb=1.06108, pull_request=1855)


def script_default() -> Recipe:
    """What the script of #1855 runs when nothing is set: the record came with a command line."""
    changes = {
        "tokens.transform": None,
        "tokens.published": "sp8192",
        "model.attention.gate": None,
        "model.embedding.smear": None,
        "train.reserve_seconds": 4.0,
        "train.optimizer.betas": (0.9, 0.95),
        "train.warmdown": Warmdown(fraction=0.75),
        "quant.reserve_seconds": 4.0,
        "quant.rules.1.1.clip_sigmas": 10.0,
        "quant.rules.2.1": Gptq(bits=8, clip_sigmas=20.0),
        "quant.rules.3.1": KeepHalf(),
        "evaluate.ttt.pauses": (2000,),
        "evaluate.ttt.adapters.adapters.rank": 96,
        "evaluate.ttt.adapters.betas": (0.0, 0.999),
        "evaluate.ttt.adapters.weight_decay": 1.0,
    }
    return override(pr1855(), changes)


def _shards(env: Environment) -> str:
    return "sp8192_caseops" if env["CASEOPS_ENABLED"] else f"sp{env['VOCAB_SIZE']}"


def _lanes(env: Environment) -> ParallelConfig | None:
    start = env["PARALLEL_START_LAYER"]
    return ParallelConfig(start=start, form="lanes") if 0 < start < env["NUM_LAYERS"] else None


def adapter_targets(env: Environment) -> tuple[Target, ...]:
    """What has adapters under these variables."""
    return tuple(t for t in TARGETS if env.get(ADAPTER_SWITCHES.get(t, ""), True))


def adapter_switch(target: Target) -> Variable:
    """The variable that puts adapters on one kind of projection."""
    path = f"{ADAPTERS}.adapters.targets"
    return at(ADAPTER_SWITCHES[target], path, to=adapter_targets, back=lambda held: target in held)


def _pauses(env: Environment) -> tuple[int, ...]:
    documents, phases = env["PHASED_TTT_PREFIX_DOCS"], env["PHASED_TTT_NUM_PHASES"]
    if documents <= 0 or phases <= 0:
        return (1,)  # `_evaluated` takes them out again
    return tuple(documents * (i + 1) // phases for i in range(phases))


def _evaluated(config: EvaluateConfig, env: Environment) -> EvaluateConfig:
    """Where no documents or no phases are asked for, adapters learn and the model does not."""
    pauses = env["PHASED_TTT_PREFIX_DOCS"] > 0 and env["PHASED_TTT_NUM_PHASES"] > 0
    if pauses or config.ttt is None:
        return config
    return replace(config, ttt=config.ttt.between_pauses())


def _while_on(on: str, off: str | int) -> Convert:
    """One variable while documents are adapted to, another or a number while they are not."""
    return lambda env: env[on] if env["TTT_ENABLED"] else env.get(str(off), off)


def _across_documents(model: ModelConfig, env: Environment) -> ModelConfig:
    """A checkpoint alone does not say whether it reads across documents."""
    return replace(model, attention=replace(model.attention, within_documents=False))


def _lane_shapes(model: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Checkpoints hold the routing of lanes even where no layer runs in them."""
    layers = model.num_layers
    return {"parallel_resid_lambdas": (layers, 2), "parallel_post_lambdas": (layers, 2, 2)}


LEARNING = (
    switch("TTT_ENABLED", "evaluate.ttt", Phased()),
    # Documents are adapted to in other windows than the script reads where nothing learns.
    at("TTT_EVAL_SEQ_LEN", "evaluate.context", to=_while_on("TTT_EVAL_SEQ_LEN", "EVAL_SEQ_LEN")),
    at("TTT_CHUNK_SIZE", "evaluate.stride", to=_while_on("TTT_CHUNK_SIZE", "EVAL_STRIDE")),
    at("TTT_BATCH_SIZE", "evaluate.rows", to=_while_on("TTT_BATCH_SIZE", EvaluateConfig.rows)),
    *inert(EVAL_SEQ_LEN=2048, EVAL_STRIDE=64),
    *under(f"{ADAPTERS}.adapters", TTT_LORA_RANK="rank", TTT_LORA_ALPHA="alpha"),
    *under(ADAPTERS, TTT_LORA_LR="lr", TTT_WARM_START_A="warm", TTT_GRAD_STEPS="steps"),
    *under(ADAPTERS, TTT_BETA1="betas.0", TTT_BETA2="betas.1", TTT_WEIGHT_DECAY="weight_decay"),
    *map(adapter_switch, ("key", "output", "mlp")),  # the others always have them
    at("PHASED_TTT_PREFIX_DOCS", "evaluate.ttt.pauses", to=_pauses, back=max),
    at("PHASED_TTT_NUM_PHASES", read="evaluate.ttt.pauses", back=len),
    *under(SGD, GLOBAL_TTT_LR="lr", GLOBAL_TTT_MOMENTUM="momentum", GLOBAL_TTT_EPOCHS="epochs"),
    *under(SGD, GLOBAL_TTT_CHUNK_TOKENS="chunk_tokens", GLOBAL_TTT_BATCH_SEQS="batch_sequences"),
    or_none("GLOBAL_TTT_GRAD_CLIP", f"{SGD}.clip"),
    *fixed(TTT_OPTIMIZER="adam", TTT_EVAL_BATCHES="", VAL_DOC_FRACTION=1.0),
    *fixed(GLOBAL_TTT_WARMUP_CHUNKS=0, GLOBAL_TTT_RESPECT_DOC_BOUNDARIES=True),
    *inert(GLOBAL_TTT_WARMUP_START_LR=0.0),
)
MODEL = (
    at("PARALLEL_START_LAYER", "model.parallel", to=_lanes, read="model.parallel.start"),
    at("GATE_WINDOW", "model.embedding.smear_window", "model.attention.gate.window"),
    switch("SMEAR_GATE_ENABLED", "model.embedding.smear", "v2"),
    switch("SPARSE_ATTN_GATE_ENABLED", "model.attention.gate", GateConfig()),
    at("SPARSE_ATTN_GATE_SCALE", "model.attention.gate.scale", needs=("SPARSE_ATTN_GATE_ENABLED",)),
    *fixed(SPARSE_ATTN_GATE_INIT_STD=0.0),
    only("PARALLEL_FINAL_LANE", "mean", "another end of the two lanes than their mean"),
    at("ROPE_YARN", "model.attention.rope_stretch"),
    only("ATTN_OUT_GATE_ENABLED", False, "the dense output gate of #1667"),
    only("GATED_ATTN_ENABLED", False, "the dense attention gate of #1736"),
    *inert(ATTN_OUT_GATE_SRC="proj", GATED_ATTN_INIT_STD=0.01),
)
PACKING = (
    switch("CASEOPS_ENABLED", "tokens.transform", "caseops", also={"tokens.published": _shards}),
    at("MATRIX_BITS", "quant.rules.0.1.bits", "quant.rules.1.1.bits"),
    *under("quant.rules", ATTN_CLIP_SIGMAS="0.1.clip_sigmas", MLP_CLIP_SIGMAS="1.1.clip_sigmas"),
    *under("quant.rules.2.1", EMBED_BITS="bits", EMBED_CLIP_SIGMAS="clip_sigmas"),
    at(
        "GATED_ATTN_QUANT_GATE",
        "quant.rules.3.1",
        to=lambda env: LargestRows(bits=8) if env["GATED_ATTN_QUANT_GATE"] else KeepHalf(),
        back=lambda held: isinstance(held, LargestRows),
    ),
    switch("LQER_ENABLED", LOW_RANK, LowRankConfig()),
    *under(LOW_RANK, LQER_RANK="rank", LQER_TOP_K="num_tensors"),
    *under(LOW_RANK, LQER_FACTOR_BITS="b_bits", LQER_ASYM_GROUP="group"),
    *fixed(LQER_ASYM_ENABLED=True),
    *inert(FUSED_CE_ENABLED=True, MATRIX_CLIP_SIGMAS=12.85),  # every matrix has its own clip
)
SCRIPT = before.SCRIPT_1493.child(
    "pr1855",
    script_default,
    (*LEARNING, *MODEL, *PACKING),
    drop="EMBEDDING_DIM HEAD_LR PARALLEL_RESIDUAL_START ETLB_ENABLED ETLB_LR ETLB_STEPS ETLB_CLIP "
    "MUON_BETA2 SLIDING_WINDOW_ENABLED TTT_LR TTT_EPOCHS TTT_MOMENTUM TTT_CHUNK_TOKENS "
    "TTT_BATCH_SEQS TTT_FREEZE_BLOCKS TTT_GRAD_CLIP",
    evaluated=_evaluated,
    loaded=_across_documents,
    banked=True,
    marks=("qo_bank",),
    always=_lane_shapes,
    ignored=("EMBEDDING_DIM", "PHASED_TTT_ENABLED"),
)
