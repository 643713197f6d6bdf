"""Adapt-then-score: the number that a family of withdrawn records reported (#152, #254, #390).

It learns from every token before scoring any, so it is not a score and cannot be mistaken for one:
it has a type of its own, which says so wherever it is printed, and the honest score beside it.
Kept because people ask how much of such a number is real.
"""

import copy
from dataclasses import dataclass, field, replace

from fairway.evaluate.bpb import Score
from fairway.evaluate.chunks import plan_chunks, read_chunks
from fairway.evaluate.frozen import Frozen
from fairway.evaluate.learners.sgd import Sgd, WeightLearner
from fairway.evaluate.predictor import ALONE, score_stream
from fairway.model.gpt import GPT
from fairway.runtime.distributed import Ranks
from fairway.tokens.val_text import ValText

WARNING = "illegal: learned from a token before scoring it"


@dataclass(frozen=True, kw_only=True)
class AdaptThenScore:
    """The settings of #390."""

    sgd: Sgd = field(
        default_factory=lambda: Sgd(lr=0.002, epochs=8, schedule="constant", frozen_blocks=2)
    )
    context: int = 2048  # tokens that a window reads
    stride: int = 32  # tokens that a window scores
    rows: int = 16  # number of windows per forward pass

    def smoke(self, context: int, stride: int) -> "AdaptThenScore":
        """The same in miniature, for a run of seconds."""
        return replace(self, sgd=self.sgd.smoke(context), context=context, stride=stride)


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
    model: GPT, config: AdaptThenScore, text: ValText, ranks: Ranks = ALONE
) -> IllegalScore:
    """Train a copy of `model` on all of `text`, then score it with that copy."""
    chunk_tokens = max(config.sgd.chunk_tokens // config.stride, 1) * config.stride
    plans = plan_chunks(len(text.tokens), config.context, config.stride, chunk_tokens)

    def score(frozen: GPT) -> Score:
        return score_stream(Frozen(frozen, config.rows, ranks), read_chunks(plans, text))

    honest = score(model)
    adapted = copy.deepcopy(model).eval()
    WeightLearner(adapted, config.sgd, config.context, ranks).learn([text.tokens], rate=1.0)
    return IllegalScore(score(adapted).bits_per_byte, honest)
