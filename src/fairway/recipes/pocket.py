"""What pays of the lineage on two CPU cores: three minutes, one megabyte."""

from dataclasses import replace

from fairway.average import EmaConfig
from fairway.evaluate.learners.sgd import Sgd
from fairway.evaluate.ttt import EvaluateConfig
from fairway.model.attention import AttentionConfig
from fairway.model.embedding import EmbeddingConfig, NgramTableConfig
from fairway.model.gpt import MlpConfig, ModelConfig, SkipConfig
from fairway.quant.plan import Gptq, KeepHalf, QuantConfig
from fairway.recipes.pr1394 import pr1493
from fairway.recipes.recipe import Budget, Recipe, TokensConfig
from fairway.train.loop import BatchConfig
from fairway.train.schedule import MomentumWarmup, Warmdown


def pocket() -> Recipe:
    """Four layers of width 192 over 1,024 pieces, with a bigram table and exclusive attention."""
    base = pr1493()
    return replace(
        base,
        name="pocket",
        parent=base.name,
        claim_bpb=None,
        pull_request=None,
        tokens=TokensConfig(vocab_size=1024),
        model=ModelConfig(
            vocab_size=1024,
            model_dim=192,
            num_layers=4,
            attention=AttentionConfig(
                num_heads=6, num_kv_heads=3, rope_dims=16, qk_gain=4.0, exclusive_layers=4
            ),
            mlp=MlpConfig(ratio=3.0, slope=0.5),
            embedding=EmbeddingConfig(
                init_std=0.005, ngrams=(NgramTableConfig(buckets=2048, dim=64),), smear="v1"
            ),
            train_context=256,
            skips=SkipConfig(gated=True),
            layer_scale=True,
        ),
        train=replace(
            base.train,
            seconds=180.0,
            reserve_seconds=5.0,
            batch=BatchConfig(rows=8, context=256),
            warmdown=Warmdown(fraction=0.6),
            momentum_warmup=MomentumWarmup(start=0.85, fraction=0.2),
            loops_at=None,
        ),
        # A run of some hundred steps: an average as long as the records' would remember its start.
        average=EmaConfig(decay=0.99, warm_start=True),
        quant=QuantConfig(
            rules=(
                ("blocks.*.weight", Gptq(bits=6, clip_sigmas=12.85)),
                ("embed.weight", Gptq(bits=7, clip_sigmas=14.0)),
                ("*.table.weight", KeepHalf()),
                ("*", KeepHalf()),
            ),
            min_elements=16_384,
            calibration_batches=16,
            reserve_seconds=5.0,
        ),
        evaluate=EvaluateConfig(
            context=256, stride=64, ttt=Sgd(chunk_tokens=4096, epochs=1, lr=0.005)
        ),
        budget=Budget(cap_bytes=1_000_000, eval_seconds=180.0),
    )
