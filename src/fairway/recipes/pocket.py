"""What pays of the lineage on two CPU cores: three minutes, one megabyte.

The runs behind each choice are in `lab/`.
"""

from dataclasses import replace

from fairway.average import EmaConfig
from fairway.evaluate.config import EvaluateConfig, Mixture
from fairway.evaluate.learners.sgd import Sgd
from fairway.evaluate.planner import Range
from fairway.model.attention import AttentionConfig
from fairway.model.embedding import EmbeddingConfig, NgramTableConfig
from fairway.model.mlp import MlpConfig
from fairway.model.model_config import ModelConfig, SkipConfig
from fairway.quant.rules import Gptq, KeepHalf, QuantConfig, RoundRows
from fairway.recipes.diff import derive
from fairway.recipes.pr1394 import pr1493
from fairway.recipes.recipe import Budget, Recipe, TokensConfig
from fairway.train.config import BatchConfig
from fairway.train.muon import MuonConfig
from fairway.train.param_groups import CLAIMS, AdamWGroup, Claim, OptimizerConfig
from fairway.train.schedule import MomentumWarmup, Warmdown

# The table's projection begins at zero here, and is stepped as the vectors are.
PROJECTION = Claim(group="scalars", names=("ngrams.*.project.weight",), num_dims=(2,))


def pocket() -> Recipe:
    """Four layers of width 192 over 2,048 pieces, with a bigram table and exclusive attention."""
    changes = {
        "tokens": TokensConfig(vocab_size=2048),
        "model": ModelConfig(
            vocab_size=2048,
            model_dim=192,
            num_layers=4,
            # Few wide heads: the scores of many narrow ones cost a CPU more than their products.
            attention=AttentionConfig(
                num_heads=3, num_kv_heads=3, rope_dims=32, qk_gain=5.0, exclusive_layers=4
            ),
            mlp=MlpConfig(ratio=4.0, slope=0.5),
            embedding=EmbeddingConfig(
                ngrams=(NgramTableConfig(buckets=4096, dim=64, starts_at_zero="projection"),),
                smear="v2",
            ),
            train_context=256,
            skips=SkipConfig(gated=True),
            layer_scale=True,
        ),
        "train.seconds": 180.0,
        "train.reserve_seconds": 3.0,
        "train.batch": BatchConfig(rows=8, context=256),
        # Minutes are many passes over a small text: without much decay it is learned by heart.
        "train.optimizer": OptimizerConfig(
            muon=MuonConfig(lr=0.02, momentum=0.95, weight_decay=0.4, polynomial="polar_express"),
            embed=AdamWGroup(lr=0.03, weight_decay=0.2),
            scalars=AdamWGroup(lr=0.02),
            claims=(
                PROJECTION,
                *(replace(c, but_not=(*c.but_not, *PROJECTION.names)) for c in CLAIMS),
            ),
        ),
        "train.warmdown": Warmdown(fraction=0.6),
        "train.momentum_warmup": MomentumWarmup(start=0.85, fraction=0.1),
        "train.loops_at": None,
        # Some thousand steps: an average as long as the records' would remember its start.
        "average": EmaConfig(decay=0.995, warm_start=True),
        "quant": QuantConfig(
            rules=(
                ("blocks.*.weight", Gptq(bits=6, clip_sigmas=12.85)),
                ("embed.weight", Gptq(bits=7, clip_sigmas=14.0)),
                ("*.table.weight", RoundRows(bits=5, clip_sigmas=8.0)),
                ("*.project.weight", RoundRows(bits=7, clip_sigmas=14.0)),
                ("*", KeepHalf()),
            ),
            min_elements=4096,
            calibration_batches=16,
            reserve_seconds=3.0,
        ),
        "evaluate": EvaluateConfig(
            context=256,
            stride=64,
            rows=32,
            ttt=Sgd(chunk_tokens=1024, epochs=3, lr=0.002, optimizer="muon", batch_sequences=4),
            mixture=Mixture(),
            arithmetic="settled",  # the score is the length of the text's code, on any machine
        ),
        "evaluate_range": Range(strides=(64, 128), epochs=(3, 2, 1), cached=(None, 16)),
        "budget": Budget(cap_bytes=1_000_000, eval_seconds=120.0),
    }
    return derive(pr1493(), "pocket", changes)
