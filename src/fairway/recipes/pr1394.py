"""#1394, #1413 and #1493: a larger model, looped, rounded by GPTQ, and learning at test time."""

from fairway.average import EmaConfig
from fairway.evaluate.learners.sgd import Sgd
from fairway.model.depth import Loop
from fairway.model.embedding import EmbeddingConfig
from fairway.model.mlp import MlpConfig
from fairway.model.model_config import ParallelConfig, SkipConfig
from fairway.quant.rules import Gptq, KeepHalf, QuantConfig
from fairway.recipes import pr414 as before
from fairway.recipes.diff import derive, override
from fairway.recipes.naive_baseline import by_clock
from fairway.recipes.recipe import Recipe, TokensConfig
from fairway.recipes.script import RANKS, Environment, at, inert, only, under
from fairway.tokens.batches import OrderConfig
from fairway.train.param_groups import AdamWGroup
from fairway.train.schedule import Warmdown

SGD = Sgd(lr=0.005, batch_sequences=RANKS * 32)


def pr1394() -> Recipe:
    """8,192 pieces, MLP x4, layers 4-5 run twice more from half time on, clips by deviation."""
    changes = {
        "tokens": TokensConfig(
            vocab_size=8192, published="sp8192", order=OrderConfig(order="shuffled")
        ),
        "model.vocab_size": 8192,
        "model.attention.exclusive_layers": 11,
        "model.attention.qk_gain": 4.0,
        "model.attention.rope_base": 10_000.0,
        "model.mlp": MlpConfig(ratio=4.0, slope=0.5),
        "model.embedding": EmbeddingConfig(init_std=0.005),
        "model.skips": SkipConfig(gated=True),
        "model.loop": Loop(first=4, last=5, extra_passes=2),
        "train.reserve_seconds": 12.0,
        "train.optimizer.muon.lr": 0.02,
        "train.optimizer.muon.weight_decay": 0.085,
        "train.optimizer.muon.row_normalize": True,
        "train.optimizer.embed": AdamWGroup(lr=0.03, weight_decay=0.085),
        "train.optimizer.scalars": AdamWGroup(lr=0.02, weight_decay=0.02),
        "train.warmdown": Warmdown(fraction=0.667),
        "train.loops_at": 0.5,
        "round_from": None,
        "round_as": None,
        "quant": QuantConfig(
            rules=(
                ("blocks.*.weight", Gptq(bits=6, clip_sigmas=12.85)),
                ("embed.weight", Gptq(bits=8, clip_sigmas=20.0)),
                ("*", KeepHalf()),
            ),
            calibration_batches=64,
            reserve_seconds=12.0,
        ),
    }
    return derive(before.pr414(), "pr1394", changes, claim_bpb=1.08563, pull_request=1394)


def pr1413() -> Recipe:
    """`pr1394` with a QK gain of 5 and score-first SGD."""
    changes = {"model.attention.qk_gain": 5.0, "evaluate.ttt": SGD}
    return derive(pr1394(), "pr1413", changes, claim_bpb=1.08279, pull_request=1413)


def pr1493() -> Recipe:
    """`pr1413` with layers 3-5 looped from 35 % on, and parallel residuals from layer 7."""
    changes = {
        "model.attention.qk_gain": 5.25,
        "model.loop": Loop(first=3, last=5, extra_passes=2),
        "model.parallel": ParallelConfig(start=7, form="shared"),
        "train.optimizer.muon.lr": 0.022,
        "train.optimizer.muon.weight_decay": 0.095,
        "train.warmdown": Warmdown(fraction=0.72),
        "train.loops_at": 0.35,
        "average": EmaConfig(decay=0.9965),
    }
    return derive(pr1413(), "pr1493", changes, claim_bpb=1.0810, pull_request=1493)


def script_default_1493() -> Recipe:
    """What the script of #1493 runs when nothing is set."""
    return override(pr1493(), {"model.attention.qk_gain": 5.0, "evaluate.ttt": None})


def _loop(env: Environment) -> Loop | None:
    if env["NUM_LOOPS"] <= 0:
        return None
    return Loop(first=env["LOOP_START"], last=env["LOOP_END"], extra_passes=env["NUM_LOOPS"])


def _loop_problems(env: Environment) -> list[str]:
    problems = []
    if env["NUM_LOOPS"] > 0 and env["LOOP_END"] >= env["NUM_LAYERS"]:
        problems.append(f"{env.describe('LOOP_END')} must be below {env.describe('NUM_LAYERS')}")
    if env["NUM_LOOPS"] > 0 and not 0 <= env["LOOP_START"] <= env["LOOP_END"]:
        problems.append(
            f"{env.describe('LOOP_START')} must lie between 0 and {env.describe('LOOP_END')}"
        )
    return problems


def _embedding_dim(env: Environment) -> int | None:
    return None if env["EMBEDDING_DIM"] == env["MODEL_DIM"] else env["EMBEDDING_DIM"]


def _side_by_side(env: Environment) -> ParallelConfig | None:
    start = env["PARALLEL_RESIDUAL_START"]
    return ParallelConfig(start=start, form="shared") if 0 <= start < env["NUM_LAYERS"] else None


LOOPED = ("NUM_LOOPS",)
VARIABLES_1413 = (
    at("EMBEDDING_DIM", "model.embedding.dim", to=_embedding_dim, default=512),
    at("SKIP_GATES_ENABLED", "model.skips.gated"),
    at("ROPE_BASE", "model.attention.rope_base"),
    at("NUM_LOOPS", "model.loop", to=_loop, read="model.loop.extra_passes"),
    at("LOOP_START", read="model.loop.first", needs=LOOPED),
    at("LOOP_END", read="model.loop.last", needs=LOOPED),
    at(
        "ENABLE_LOOPING_AT",
        "train.loops_at",
        to=lambda env: env["ENABLE_LOOPING_AT"] if env["NUM_LOOPS"] else None,
        needs=LOOPED,
    ),
    at(
        "EVAL_STRIDE",
        "evaluate.stride",
        to=lambda env: env["EVAL_STRIDE" if env["SLIDING_WINDOW_ENABLED"] else "EVAL_SEQ_LEN"],
    ),
    *under("train.warmdown", WARMDOWN_FRAC="fraction", MIN_LR="floor"),
    *under("train.optimizer", MUON_ROW_NORMALIZE="muon.row_normalize"),
    *under("train.optimizer", ADAM_WD="scalars.weight_decay", EMBED_WD="embed.weight_decay"),
    at("EMA_DECAY", "average.decay"),
    at("GPTQ_CALIBRATION_BATCHES", "quant.calibration_batches"),
    at(
        "GPTQ_RESERVE_SECONDS",
        "quant.reserve_seconds",
        also={
            "train.reserve_seconds": lambda env: (
                env["GPTQ_RESERVE_SECONDS"] if by_clock(env) else 0.0
            )
        },
    ),
    # A rule is a pattern and its scheme.
    *under("quant.rules.0.1", MATRIX_BITS="bits", MATRIX_CLIP_SIGMAS="clip_sigmas"),
    *under("quant.rules.1.1", EMBED_BITS="bits", EMBED_CLIP_SIGMAS="clip_sigmas"),
    *inert(SLIDING_WINDOW_ENABLED=True, ROPE_TRAIN_SEQ_LEN=2048, COMPRESSOR="brotli"),
    *before.score_then_sgd(SGD),
)
SCRIPT_1413 = before.SCRIPT.child(
    "pr1413",
    pr1394,
    VARIABLES_1413,
    drop="WARMDOWN_ITERS MTP_NUM_HEADS MTP_LOSS_WEIGHT SWA_ENABLED SWA_EVERY QAT_ENABLED "
    "LATE_QAT_THRESHOLD BIGRAM_VOCAB_SIZE BIGRAM_DIM DTG_ENABLED VE_ENABLED VE_DIM VE_LAYERS",
    checks=(_loop_problems,),
    loaded=lambda model, env: model,  # rotary tables know the context they are trained at
    marks=("skip_gates",),
)
VARIABLES_1493 = (
    at("PARALLEL_RESIDUAL_START", "model.parallel", to=_side_by_side, read="model.parallel.start"),
    only("ETLB_ENABLED", False, "a bias trained on the window being scored"),
    *inert(ETLB_LR=0.05, ETLB_STEPS=5, ETLB_CLIP=3.0),
)
SCRIPT_1493 = SCRIPT_1413.child(
    "pr1493",
    script_default_1493,
    VARIABLES_1493,
)
