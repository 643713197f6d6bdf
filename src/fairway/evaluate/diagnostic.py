"""Adapt-then-score: the number that a family of withdrawn records reported (#152, #254, #390).

It learns from every token before pricing any, so it is not a score and cannot be mistaken for one:
it has a type of its own, which says so wherever it is printed, and the honest score beside it.
Kept because people ask how much of such a number is real.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from fairway.evaluate.bpb import Score
from fairway.evaluate.learners.sgd import Sgd, WeightLearner
from fairway.evaluate.predictor import (
    ALONE,
    ChunkPlan,
    Frozen,
    plan_chunks,
    read_chunks,
    score_stream,
)
from fairway.model.gpt import GPT
from fairway.runtime.distributed import Ranks

WARNING = "illegal: learned from a token before pricing it"


@dataclass(frozen=True, kw_only=True)
class AdaptThenScore:
    """The settings of #390."""

    sgd: Sgd = field(
        default_factory=lambda: Sgd(lr=0.002, epochs=8, schedule="constant", frozen_blocks=2)
    )
    context: int = 2048
    stride: int = 32
    rows: int = 16


@dataclass(frozen=True, repr=False)
class IllegalScore:
    """Not a `Score`. Every text it turns into carries the warning."""

    illegal_bits_per_byte: float
    honest: Score

    def __str__(self) -> str:
        return (
            f"{self.illegal_bits_per_byte:.4f} bits per byte ({WARNING}); "
            f"the honest score is {self.honest.bits_per_byte:.4f}"
        )

    def __repr__(self) -> str:
        return f"IllegalScore({self})"

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def to_json(self) -> dict[str, float | str]:
        return {
            "warning": WARNING,
            "illegal_bits_per_byte": self.illegal_bits_per_byte,
            "honest_bits_per_byte": self.honest.bits_per_byte,
        }


def adapt_then_score(
    model: GPT,
    config: AdaptThenScore,
    tokens: Tensor,
    target_bytes: Tensor,
    ranks: Ranks = ALONE,
) -> IllegalScore:
    """Train a copy of `model` on all of `tokens`, then price them with it.

    tokens (n,) int64; target_bytes (n - 1,): bytes of tokens[1:]
    """
    chunk_tokens = max(config.sgd.chunk_tokens // config.stride, 1) * config.stride
    plans = plan_chunks(len(tokens), config.context, config.stride, chunk_tokens)
    honest = _score(model, config, plans, tokens, target_bytes, ranks)
    adapted = copy.deepcopy(model).eval()
    WeightLearner(adapted, config.sgd, config.context, ranks).learn([tokens], rate=1.0)
    illegal = _score(adapted, config, plans, tokens, target_bytes, ranks)
    return IllegalScore(illegal.bits_per_byte, honest)


def _score(
    model: GPT,
    config: AdaptThenScore,
    plans: Sequence[ChunkPlan],
    tokens: Tensor,
    target_bytes: Tensor,
    ranks: Ranks,
) -> Score:
    chunks = read_chunks(plans, tokens, target_bytes)
    return score_stream(Frozen(model, config.rows, ranks), chunks)
