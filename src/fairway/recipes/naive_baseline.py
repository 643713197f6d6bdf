"""The launch model (#1): its recipe, and the variables of its script."""

from fairway.evaluate.config import EvaluateConfig
from fairway.model.attention import AttentionConfig
from fairway.model.embedding import EmbeddingConfig
from fairway.model.mlp import MlpConfig
from fairway.model.model_config import ModelConfig, SkipConfig
from fairway.quant.rules import PercentileRows, QuantConfig
from fairway.recipes.recipe import Recipe, TokensConfig
from fairway.recipes.script import (
    Environment,
    Script,
    Variable,
    at,
    by_name,
    fixed,
    inert,
    or_none,
    under,
)
from fairway.tokens.batches import OrderConfig
from fairway.train.config import BatchConfig, TrainConfig
from fairway.train.muon import MuonConfig
from fairway.train.param_groups import AdamWGroup, OptimizerConfig
from fairway.train.schedule import MomentumWarmup, Warmdown


def naive_baseline() -> Recipe:
    """Nine blocks of width 512 over 1,024 pieces; rounded to eight bits."""
    return Recipe(
        name="naive_baseline",
        parent=None,
        claim_bpb=1.2244,
        tokens=TokensConfig(
            vocab_size=1024, published="sp1024", order=OrderConfig(order="sequential")
        ),
        model=ModelConfig(
            vocab_size=1024,
            model_dim=512,
            num_layers=9,
            attention=AttentionConfig(num_heads=8, num_kv_heads=4, qk_gain=1.5),
            mlp=MlpConfig(ratio=2.0),
            embedding=EmbeddingConfig(init_std=0.005),
            train_context=1024,
            skips=SkipConfig(),
            init="uniform",
        ),
        train=TrainConfig(
            seconds=600.0,
            batch=BatchConfig(rows=64, context=1024, micro_batches=8),  # 524,288 tokens
            optimizer=OptimizerConfig(
                muon=MuonConfig(lr=0.04, momentum=0.95, weight_decay=0.0, row_normalize=False),
                embed=AdamWGroup(lr=0.05),
                head=AdamWGroup(lr=0.008),
                scalars=AdamWGroup(lr=0.04),
                betas=(0.9, 0.95),
                eps=1e-8,
            ),
            warmdown=Warmdown(fraction=1200 / 13_780),  # steps, of those that the run had
            momentum_warmup=MomentumWarmup(start=0.85, steps=500),
            grad_clip=None,
        ),
        quant=QuantConfig(
            rules=(("*", PercentileRows(bits=8, min_scale=1 / 127)),), reserve_seconds=0.0
        ),
        evaluate=EvaluateConfig(context=1024, stride=1024),
    )


MICRO_BATCHES = 8  # every script divides a step into eight, over however many machines
CEILING = 9000  # ITERATIONS from here on is a bound that a clock of ten minutes never meets


def _rows(env: Environment) -> int:
    rows, rest = divmod(env["TRAIN_BATCH_TOKENS"], MICRO_BATCHES * env["TRAIN_SEQ_LEN"])
    if rest or not rows:
        raise ValueError(
            f"{env.describe('TRAIN_BATCH_TOKENS')} is not a multiple of {MICRO_BATCHES} times "
            f"{env.describe('TRAIN_SEQ_LEN')}"
        )
    return rows


def by_clock(env: Environment) -> bool:
    """Whether the run ends with its time, not after so many steps."""
    clock = env["MAX_WALLCLOCK_SECONDS"] > 0
    if clock and "ITERATIONS" in env.given and env["ITERATIONS"] < CEILING:
        raise ValueError(
            f"{env.describe('ITERATIONS')} and {env.describe('MAX_WALLCLOCK_SECONDS')}: a run here "
            f"ends by one of them; set MAX_WALLCLOCK_SECONDS=0 to end it after so many steps"
        )
    return clock


def warmdown_iters(record_steps: int) -> Variable:
    """A warmdown in steps, as a share of the run's, or of the record's where time ends the run.

    One that is longer than those stays in steps.
    """

    def share(env: Environment) -> float | None:
        steps = record_steps if by_clock(env) else env["ITERATIONS"]
        return env["WARMDOWN_ITERS"] / steps if env["WARMDOWN_ITERS"] <= steps else None

    def steps(env: Environment) -> int | None:
        return env["WARMDOWN_ITERS"] if share(env) is None else None

    def held(warmdown: Warmdown) -> int:
        if warmdown.fraction is None:
            assert warmdown.steps is not None
            return warmdown.steps
        return round(warmdown.fraction * record_steps)

    return at(
        "WARMDOWN_ITERS",
        "train.warmdown.fraction",
        to=share,
        also={"train.warmdown.steps": steps},
        read="train.warmdown",
        back=held,
    )


VARIABLES = (
    at("SEED", "seed"),
    at("VOCAB_SIZE", "model.vocab_size", "tokens.vocab_size"),
    *under("model", NUM_LAYERS="num_layers", MODEL_DIM="model_dim", MLP_MULT="mlp.ratio"),
    *under("model", TIE_EMBEDDINGS="tied", LOGIT_SOFTCAP="logit_softcap"),
    *under("model.attention", NUM_HEADS="num_heads", NUM_KV_HEADS="num_kv_heads"),
    *under("model.attention", QK_GAIN_INIT="qk_gain", ROPE_BASE="rope_base"),
    at(
        "TRAIN_SEQ_LEN",
        *("model.train_context", "train.batch.context"),
        *("evaluate.context", "evaluate.stride"),
    ),
    at("TRAIN_BATCH_TOKENS", "train.batch.rows", to=_rows, read="train.batch.tokens_per_step"),
    at(
        "ITERATIONS",
        "train.steps",
        to=lambda env: None if by_clock(env) else env["ITERATIONS"],
        default=20_000,
    ),
    at(
        "MAX_WALLCLOCK_SECONDS",
        "train.seconds",
        to=lambda env: env["MAX_WALLCLOCK_SECONDS"] if by_clock(env) else None,
    ),
    warmdown_iters(record_steps=13_780),
    *inert(EMBED_LR=0.6),
    at(
        "TIED_EMBED_LR",
        "train.optimizer.embed.lr",
        to=lambda env: env["TIED_EMBED_LR" if env["TIE_EMBEDDINGS"] else "EMBED_LR"],
    ),
    at("TIED_EMBED_INIT_STD", "model.embedding.init_std"),
    *under("train.optimizer", HEAD_LR="head.lr", SCALAR_LR="scalars.lr"),
    *under("train.optimizer", BETA1="betas.0", BETA2="betas.1", ADAM_EPS="eps"),
    *under("train.optimizer.muon", MATRIX_LR="lr", MUON_MOMENTUM="momentum"),
    *under("train.momentum_warmup", MUON_MOMENTUM_WARMUP_START="start"),
    *under("train.momentum_warmup", MUON_MOMENTUM_WARMUP_STEPS="steps"),
    *fixed(MUON_BACKEND_STEPS=5),
    or_none("GRAD_CLIP_NORM", "train.grad_clip"),
)
SCRIPT = Script(
    name="naive_baseline",
    default=naive_baseline,
    variables=by_name(VARIABLES),
    marks=("tok_emb.weight",),
)
