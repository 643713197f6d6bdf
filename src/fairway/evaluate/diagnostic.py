"""Numbers that records reported and that are no scores, beside the honest ones.

Adapt-then-score learns from every token before scoring any (#152, #254, #390). #2135 as published
takes hints in the order of the stream and scores documents longest first: each of two documents is
then scored with the other's text, so there is no order in which anybody could decode them. Such a
number has a type of its own, which says so wherever it is printed. Kept because people ask how much
of it is real.
"""

import copy
from dataclasses import dataclass, field, replace
from typing import ClassVar, cast

from fairway.evaluate.bpb import Score
from fairway.evaluate.chunks import plan_chunks, read_chunks
from fairway.evaluate.config import EvaluateConfig, make_predictor, plan_text
from fairway.evaluate.frozen import Frozen
from fairway.evaluate.learners.sgd import Sgd, WeightLearner
from fairway.evaluate.learners.tilt import StreamTilt
from fairway.evaluate.predictor import ALONE, ModelPredictor, Predictor, score_stream
from fairway.model.gpt import GPT
from fairway.runtime.distributed import Ranks
from fairway.tokens.val_text import ValText

WARNING = "illegal: learned from a token before scoring it"
NO_ORDER = "no code length: of two documents, each was scored with the other's text"


@dataclass(frozen=True, kw_only=True)
class AdaptThenScore:
    """The settings of #390."""

    sgd: Sgd = field(
        default_factory=lambda: Sgd(lr=0.002, epochs=8, schedule="constant", frozen_blocks=2)
    )
    context: int = 2048  # tokens that a window reads
    stride: int = 32  # tokens that a window scores
    rows: int = 16  # number of windows per forward pass

    name: ClassVar[str] = "adapt_then_score"

    def smoke(self, context: int, stride: int) -> "AdaptThenScore":
        """The same in miniature, for a run of seconds."""
        return replace(self, sgd=self.sgd.smoke(context), context=context, stride=stride)

    def found(
        self, model: GPT, evaluate: EvaluateConfig, text: ValText, ranks: Ranks = ALONE
    ) -> "IllegalScore":
        return adapt_then_score(model, self, text, ranks)


@dataclass(frozen=True, kw_only=True)
class StreamHints:
    """#2135 as published: the evaluation as it is, but with hints in the order of the stream."""

    name: ClassVar[str] = "pr2135_as_published"

    def smoke(self, context: int, stride: int) -> "StreamHints":
        """The same: what it does is in the evaluation."""
        return self

    def found(
        self, model: GPT, evaluate: EvaluateConfig, text: ValText, ranks: Ranks = ALONE
    ) -> "IllegalScore":
        """Raises ValueError where the evaluation has no tilt."""
        config, plans = evaluate, plan_text(evaluate, text)
        if config.tilt is None:
            raise ValueError("hints in the order of the stream need an evaluation with a tilt")
        tilt, untilted = config.tilt, replace(config, tilt=None)

        def score(predictor: Predictor) -> Score:
            return score_stream(predictor, read_chunks(plans, text))

        base = cast(ModelPredictor, make_predictor(model, untilted, ranks=ranks))
        illegal = score(StreamTilt(base, tilt, text.tokens))
        honest = score(make_predictor(model, config, ranks=ranks))
        return IllegalScore(illegal.bits_per_byte, honest, NO_ORDER)


WARNINGS = {AdaptThenScore.name: WARNING, StreamHints.name: NO_ORDER}


@dataclass(frozen=True, repr=False)
class IllegalScore:
    """Not a `Score`. Every text it turns into carries the warning: why it is none."""

    illegal_bits_per_byte: float
    honest: Score
    warning: str = WARNING

    def __str__(self) -> str:
        return (
            f"{self.illegal_bits_per_byte:.4f} bits per byte ({self.warning}); "
            f"the honest score is {self.honest.bits_per_byte:.4f}"
        )

    def __repr__(self) -> str:
        return f"IllegalScore({self})"

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def to_json(self) -> dict[str, float | str]:
        return {
            "warning": self.warning,
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
