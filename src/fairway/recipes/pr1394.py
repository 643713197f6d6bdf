"""#1394, #1413 and #1493: a larger model, looped, rounded by GPTQ, and learning at test time."""

from dataclasses import replace

from fairway.average import EmaConfig
from fairway.evaluate.learners.sgd import Sgd
from fairway.model.depth import Loop
from fairway.model.embedding import EmbeddingConfig
from fairway.model.gpt import MlpConfig, ParallelConfig, SkipConfig
from fairway.quant.rules import Gptq, KeepHalf, QuantConfig
from fairway.recipes.pr414 import pr414
from fairway.recipes.recipe import Recipe, TokensConfig
from fairway.tokens.batches import OrderConfig
from fairway.train.param_groups import AdamWGroup
from fairway.train.schedule import Warmdown


def pr1394() -> Recipe:
    """8,192 pieces, MLP x4, layers 4-5 run twice more from half time on, clips by deviation."""
    base = pr414()
    model, train = base.model, base.train
    return replace(
        base,
        name="pr1394",
        parent=base.name,
        claim_bpb=1.08563,
        pull_request=1394,
        tokens=TokensConfig(
            vocab_size=8192, published="sp8192", order=OrderConfig(order="shuffled")
        ),
        model=replace(
            model,
            vocab_size=8192,
            attention=replace(
                model.attention, exclusive_layers=11, qk_gain=4.0, rope_base=10_000.0
            ),
            mlp=MlpConfig(ratio=4.0, slope=0.5),
            embedding=EmbeddingConfig(init_std=0.005),
            skips=SkipConfig(gated=True),
            loop=Loop(first=4, last=5, extra_passes=2),
        ),
        train=replace(
            train,
            reserve_seconds=12.0,
            optimizer=replace(
                train.optimizer,
                muon=replace(train.optimizer.muon, lr=0.02, weight_decay=0.085, row_normalize=True),
                embed=AdamWGroup(lr=0.03, weight_decay=0.085),
                scalars=AdamWGroup(lr=0.02, weight_decay=0.02),
            ),
            warmdown=Warmdown(fraction=0.667),
            loops_at=0.5,
        ),
        round_from=None,
        quant=QuantConfig(
            rules=(
                ("blocks.*.weight", Gptq(bits=6, clip_sigmas=12.85)),
                ("embed.weight", Gptq(bits=8, clip_sigmas=20.0)),
                ("*", KeepHalf()),
            ),
            calibration_batches=64,
            reserve_seconds=12.0,
        ),
    )


def pr1413() -> Recipe:
    """`pr1394` with a QK gain of 5 and score-first SGD."""
    base = pr1394()
    model = replace(base.model, attention=replace(base.model.attention, qk_gain=5.0))
    return replace(
        base,
        name="pr1413",
        parent=base.name,
        claim_bpb=1.08279,
        pull_request=1413,
        model=model,
        evaluate=replace(base.evaluate, ttt=Sgd(lr=0.005)),
    )


def pr1493() -> Recipe:
    """`pr1413` with layers 3-5 looped from 35 % on, and parallel residuals from layer 7."""
    base = pr1413()
    optimizer = base.train.optimizer
    return replace(
        base,
        name="pr1493",
        parent=base.name,
        claim_bpb=1.0810,
        pull_request=1493,
        model=replace(
            base.model,
            attention=replace(base.model.attention, qk_gain=5.25),
            loop=Loop(first=3, last=5, extra_passes=2),
            parallel=ParallelConfig(start=7, form="shared"),
        ),
        train=replace(
            base.train,
            optimizer=replace(
                optimizer, muon=replace(optimizer.muon, lr=0.022, weight_decay=0.095)
            ),
            warmdown=Warmdown(fraction=0.72),
            loops_at=0.35,
        ),
        average=EmaConfig(decay=0.9965),
    )
