"""The launch model and its settings."""

from fairway.evaluate.config import EvaluateConfig
from fairway.model.attention import AttentionConfig
from fairway.model.embedding import EmbeddingConfig
from fairway.model.gpt import MlpConfig, ModelConfig, SkipConfig
from fairway.quant.rules import PercentileRows, QuantConfig
from fairway.recipes.recipe import Recipe, TokensConfig
from fairway.tokens.batches import OrderConfig
from fairway.train.loop import BatchConfig, TrainConfig
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
            # Published as the last 1,200 steps; the run had 13,780.
            warmdown=Warmdown(fraction=0.087),
            momentum_warmup=MomentumWarmup(start=0.85, steps=500),
            grad_clip=None,
        ),
        quant=QuantConfig(
            rules=(("*", PercentileRows(bits=8, min_scale=1 / 127)),), reserve_seconds=0.0
        ),
        evaluate=EvaluateConfig(context=1024, stride=1024),
    )
