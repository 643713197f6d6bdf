"""#254 and #390: six bits pay for depth and width. Both claims include learning before scoring."""

from dataclasses import replace

from fairway.average import SwaConfig
from fairway.evaluate.config import EvaluateConfig
from fairway.evaluate.diagnostic import AdaptThenScore
from fairway.evaluate.learners.sgd import Sgd
from fairway.model.embedding import EmbeddingConfig, NgramTableConfig
from fairway.model.gpt import MlpConfig
from fairway.quant.rules import PercentileRows, QuantConfig
from fairway.recipes.naive_baseline import naive_baseline
from fairway.recipes.recipe import Recipe
from fairway.train.loop import BatchConfig
from fairway.train.param_groups import AdamWGroup
from fairway.train.schedule import MomentumWarmup, Warmdown

# Rotary tables of these scripts were told a context of 1,024 while they trained at 2,048, so their
# base, of 64 rotating channels, was stretched in training already.
STRETCHED_BASE = 10_000.0 * 2 ** (64 / 62)

# What the two claims did before scoring. Learning from text that is not priced yet makes a score
# invalid, so the number is computed beside it, as a diagnostic.
ADAPTATION_254 = AdaptThenScore(
    sgd=Sgd(epochs=3, lr=0.002, frozen_blocks=2, schedule="constant"), stride=64
)
ADAPTATION_390 = replace(ADAPTATION_254, sgd=replace(ADAPTATION_254.sgd, epochs=8), stride=32)


def sota254() -> Recipe:
    """Eleven blocks, MLP x3, context 2,048, bigram table and smearing, in six bits."""
    base = naive_baseline()
    optimizer = replace(
        base.train.optimizer,
        muon=replace(base.train.optimizer.muon, lr=0.025, momentum=0.99, weight_decay=0.04),
        embed=AdamWGroup(lr=0.035, weight_decay=0.04),
        scalars=AdamWGroup(lr=0.025, weight_decay=0.04),
    )
    six_bits = PercentileRows(bits=6, min_scale=1 / 31)
    return replace(
        base,
        name="sota254",
        parent=base.name,
        claim_bpb=1.1303,
        pull_request=254,
        model=replace(
            base.model,
            num_layers=11,
            attention=replace(base.model.attention, rope_base=STRETCHED_BASE),
            mlp=MlpConfig(ratio=3.0),
            embedding=EmbeddingConfig(
                init_std=0.005, ngrams=(NgramTableConfig(buckets=2048, dim=128),), smear="v1"
            ),
            train_context=2048,
            init="orthogonal",
        ),
        train=replace(
            base.train,
            batch=BatchConfig(rows=48, context=2048, micro_batches=8),  # 786,432 tokens
            optimizer=optimizer,
            warmdown=Warmdown(fraction=0.414),  # 3,000 of 7,248 steps
            momentum_warmup=MomentumWarmup(start=0.92, steps=1500),
            grad_clip=0.3,
        ),
        average=SwaConfig(every=200, lr_scale_below=0.5),
        quant=QuantConfig(
            rules=(
                ("blocks.*.weight", six_bits),
                ("*", PercentileRows(bits=8, min_scale=1 / 127)),
            ),
            reserve_seconds=0.0,
        ),
        evaluate=EvaluateConfig(context=2048, stride=64),
        diagnostic=ADAPTATION_254,
    )


def sponge_bath() -> Recipe:
    """`sota254` scored with windows half as far apart. Its gain came from `ADAPTATION_390`."""
    base = sota254()
    return replace(
        base,
        name="sponge_bath",
        parent=base.name,
        claim_bpb=1.1295,
        pull_request=390,
        evaluate=replace(base.evaluate, stride=32),
        diagnostic=ADAPTATION_390,
    )
