"""#414 and #691: more model for no bytes, and the first learning at test time that is allowed."""

from dataclasses import replace

from fairway.average import EmaConfig
from fairway.evaluate.learners.sgd import Sgd
from fairway.model.embedding import ValueEmbeddingConfig
from fairway.quant.rules import PercentileRows, QuantConfig, SearchRows
from fairway.recipes.recipe import Recipe
from fairway.recipes.sota254 import sota254
from fairway.train.schedule import Warmdown, When

# As in `sota254`, with 16 rotating channels.
STRETCHED_BASE = 10_000.0 * 2 ** (16 / 14)


def pr414() -> Recipe:
    """Exclusive attention, partial rotary, damped reads, value embedding, EMA, searched clips."""
    base = sota254()
    attention = replace(
        base.model.attention, exclusive_layers=4, rope_dims=16, rope_base=STRETCHED_BASE
    )
    return replace(
        base,
        name="pr414",
        parent=base.name,
        claim_bpb=1.1233,
        pull_request=414,
        model=replace(
            base.model,
            attention=attention,
            embedding=replace(
                base.model.embedding, value=ValueEmbeddingConfig(dim=128, layers=(9, 10))
            ),
            layer_scale=True,
        ),
        train=replace(base.train, warmdown=Warmdown(fraction=0.493)),  # 3,500 of 7,096 steps
        round_from=When(lr_scale_below=0.15),
        average=EmaConfig(decay=0.997),
        diagnostic=None,
        quant=QuantConfig(
            rules=(
                ("blocks.*.weight", SearchRows(bits=6, min_scale=1 / 31)),
                ("*", PercentileRows(bits=8, min_scale=1 / 127)),
            ),
            reserve_seconds=0.0,
        ),
    )


def pr691() -> Recipe:
    """`pr414` with score-first SGD over chunks of 32,768 tokens."""
    base = pr414()
    return replace(
        base,
        name="pr691",
        parent=base.name,
        claim_bpb=1.1408,
        pull_request=691,
        evaluate=replace(base.evaluate, ttt=Sgd(lr=0.002)),
    )
