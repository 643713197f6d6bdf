"""#1855: documents kept apart, gates, two lanes, adapters per document."""

from dataclasses import replace

from fairway.evaluate.config import EvaluateConfig
from fairway.evaluate.learners.phased import Phased
from fairway.model.attention import GateConfig
from fairway.model.gpt import ParallelConfig
from fairway.quant.lowrank import LowRankConfig
from fairway.quant.rules import Gptq, KeepHalf, QuantConfig
from fairway.recipes.pr1394 import pr1493
from fairway.recipes.recipe import Recipe, TokensConfig
from fairway.tokens.batches import OrderConfig
from fairway.train.schedule import Warmdown

RESERVE_SECONDS = 6.0  # published as 0.5, in which its 4.7 seconds of Hessians do not fit


def pr1855() -> Recipe:
    """Case marks in the pieces; adapters of rank 80 and three pauses at test time."""
    base = pr1493()
    model, train = base.model, base.train
    return replace(
        base,
        name="pr1855",
        parent=base.name,
        claim_bpb=1.06108,
        pull_request=1855,
        tokens=TokensConfig(
            vocab_size=8192,
            transform="caseops",
            published="sp8192_caseops",
            order=OrderConfig(order="packed"),
        ),
        model=replace(
            model,
            attention=replace(
                model.attention,
                qk_gain=5.0,
                gate=GateConfig(window=12, scale=0.5),
                within_documents=True,
            ),
            embedding=replace(model.embedding, smear="v2", smear_window=12),
            parallel=ParallelConfig(start=8, form="lanes"),
        ),
        train=replace(
            train,
            reserve_seconds=RESERVE_SECONDS,
            optimizer=replace(
                train.optimizer,
                muon=replace(
                    train.optimizer.muon, lr=0.026, momentum=0.97, polynomial="polar_express"
                ),
                betas=(0.9, 0.99),
            ),
            warmdown=Warmdown(fraction=0.85, floor=0.1),
        ),
        quant=QuantConfig(
            rules=(
                ("blocks.*.attention.*.weight", Gptq(bits=6, clip_sigmas=13.0)),
                ("blocks.*.mlp.*.weight", Gptq(bits=6, clip_sigmas=11.5)),
                ("embed.weight", Gptq(bits=7, clip_sigmas=14.0)),
                ("*", KeepHalf()),
            ),
            calibration_batches=16,
            reserve_seconds=RESERVE_SECONDS,
            low_rank=LowRankConfig(rank=4, num_tensors=3, a_bits=2, b_bits=4, group=64),
        ),
        evaluate=EvaluateConfig(context=2048, stride=48, rows=64, documents=True, ttt=Phased()),
    )
