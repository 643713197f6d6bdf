"""Which evaluation: how much context, in what order, and what may learn on the way.

The config, and the functions that turn it into plans and a predictor. What a way of learning is, is
in `learner.py`; whether an evaluation fits its time is in `planner.py`; `timed.py` runs it.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, get_args

import torch

from fairway.evaluate.chunks import ChunkPlan, plan_chunks, plan_documents
from fairway.evaluate.frozen import NoLearning
from fairway.evaluate.learner import Learner, Precision, Trial, WindowConfig
from fairway.evaluate.learners.documents import DocumentAdapters
from fairway.evaluate.learners.mixture import Mixture
from fairway.evaluate.learners.phased import Phased
from fairway.evaluate.learners.settled_mixture import SettledMixture
from fairway.evaluate.learners.sgd import Sgd
from fairway.evaluate.learners.tilt import Tilt
from fairway.evaluate.ledger import Ledger
from fairway.evaluate.orders import Order
from fairway.evaluate.predictor import ALONE, Predictor
from fairway.evaluate.settled import Settled, SettledPredictor, settled_model
from fairway.model.gpt import GPT
from fairway.runtime.distributed import Ranks
from fairway.tokens.val_text import ValText

Arithmetic = Literal["native", "settled"]


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(WindowConfig):
    """A sliding window, alone or with learning from what was already scored.

    order and short_strides are of documents that are scored side by side, as adapters do
    """

    order: Order = "file"  # of documents; by length it is told with a proof, and counted there
    # (most tokens of a batch's longest document, stride), rising: shorter strides for short ones
    short_strides: tuple[tuple[int, int], ...] = ()
    ttt: Sgd | DocumentAdapters | Phased | Learner | None = None  # how the model learns; None: not
    mixture: Mixture | None = None  # n-grams from what was scored, mixed with the model
    tilt: Tilt | None = None  # hints from what was scored, to which the model's logits are tilted
    # native: as fast as this machine can, and decoded on its like alone; settled: in float64 and
    # rounded alike on every machine, so that the score is a code length to the bit, anywhere
    arithmetic: Arithmetic = "native"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.arithmetic not in get_args(Arithmetic):
            raise ValueError(
                f"arithmetic={self.arithmetic!r}; choose one of {', '.join(get_args(Arithmetic))}"
            )
        if self.settled and self.precision != "float32":
            raise ValueError(
                f"precision={self.precision!r} with settled arithmetic, which computes in float64: "
                "leave precision as it is, or set arithmetic='native'"
            )
        self.learner.check(self)
        if self.order not in get_args(Order):
            raise ValueError(f"order={self.order!r}; choose one of {', '.join(get_args(Order))}")
        if self.learner.chunk_targets() is not None and (
            self.order != "file" or self.short_strides
        ):
            raise ValueError(
                f"order={self.order!r}, short_strides={self.short_strides}: only documents that "
                "are scored side by side have an order and strides of their own; set order='file' "
                "and short_strides=(), or learn with DocumentAdapters or Phased"
            )
        sizes = [edge for edge, _ in self.short_strides]
        if sizes != sorted(set(sizes)) or any(min(pair) < 1 for pair in self.short_strides):
            raise ValueError(
                f"short_strides={self.short_strides}: needs rising lengths, each with a stride, "
                "none below 1"
            )

    @property
    def learner(self) -> Learner:
        return self.ttt or NoLearning()

    def frozen(self) -> "EvaluateConfig":
        """The same windows without any learning; whatever order there was mattered to that only."""
        return replace(self, ttt=None, mixture=None, tilt=None, order="file", short_strides=())

    @property
    def settled(self) -> bool:
        return self.arithmetic == "settled"

    @property
    def least_stride(self) -> int:
        """Targets of a window in the batch that has the shortest ones."""
        return min([self.stride, *(stride for _, stride in self.short_strides)])

    @property
    def learns(self) -> bool:
        return any(part is not None for part in (self.ttt, self.mixture, self.tilt))

    def resolved(
        self, train_context: int, precision: Precision = "float32", compiled: bool = False
    ) -> "EvaluateConfig":
        """The same with everything filled in that was left to be found out.

        precision, compiled  of learning on weights: what training is fastest with on this machine
        """
        ttt = None if self.ttt is None else self.ttt.resolved(precision, compiled)
        return replace(self, context=self.context or train_context, ttt=ttt)

    def suggested(self, trial: Trial) -> "EvaluateConfig":
        """The same with values from a search for whatever learns."""
        ttt = None if self.ttt is None else self.ttt.suggest(trial, self)
        mixture = None if self.mixture is None else self.mixture.suggest(trial)
        tilt = None if self.tilt is None else self.tilt.suggest(trial)
        return replace(self, ttt=ttt, mixture=mixture, tilt=tilt)

    def smoke(self, context: int, stride: int) -> "EvaluateConfig":
        """The same in miniature, for a run of seconds."""
        return replace(
            self,
            context=context,
            stride=context if self.stride == self.context else stride,
            rows=min(4, self.rows),
            short_strides=tuple(
                (context * (i + 1), max(1, stride // 2 ** (len(self.short_strides) - i)))
                for i in range(len(self.short_strides))
            ),
            ttt=None if self.ttt is None else self.ttt.smoke(context),
        )


def plan_evaluation(
    config: EvaluateConfig, num_tokens: int, document_starts: Sequence[int]
) -> list[ChunkPlan]:
    """What is scored and learned from, in order, known before the first token is.

    num_tokens       of the text, its first one, which is given, included
    document_starts  position of each document's BOS, ascending; read only if documents are kept
                     apart
    """
    context, every = config.known_context, config.learner.chunk_targets()
    if num_tokens < 2:
        raise ValueError(
            f"the validation text has {num_tokens} tokens, and the first one is never scored: "
            "there is nothing to score"
        )
    starts = list(document_starts) if config.documents else [0]
    if (
        not starts
        or starts[0]
        or starts[-1] >= num_tokens
        or any(b <= a for a, b in pairwise(starts))
    ):
        raise ValueError(
            f"document starts {starts[:3]}... of {num_tokens} tokens must rise from 0: the text "
            "has to begin with a BOS for documents to be kept apart"
        )
    if every is None:
        shape = (context, config.stride, config.rows)
        return plan_documents(starts, num_tokens, *shape, config.order, config.short_strides)
    chunk_tokens = max(every // config.stride, 1) * config.stride
    plans = plan_chunks(num_tokens, context, config.stride, chunk_tokens, starts)
    # N-grams and hints are learned from token to token, across documents.
    one_row = config.mixture is not None or config.tilt is not None
    return [replace(p, rows=(0,) * len(p.rows)) for p in plans] if one_row else plans


def plan_text(config: EvaluateConfig, text: ValText) -> list[ChunkPlan]:
    """`plan_evaluation` of a text."""
    return plan_evaluation(config, len(text.tokens), text.document_starts)


def make_predictor(
    model: GPT, config: EvaluateConfig, *, seed: int = 0, ranks: Ranks = ALONE
) -> Predictor:
    """The predictor `config` asks for. `model` itself is never changed by it."""
    if config.settled:
        return make_settled_predictor(model, config, seed=seed, ranks=ranks)
    if config.context is None:
        config = replace(config, context=model.config.train_context)
    if config.precision != "float32":
        model = copy.copy(model)  # the same weights, computed with otherwise
        model.compute_dtype = getattr(torch, config.precision)
    base = config.learner.predictor(model, config, seed=seed, ranks=ranks)
    if config.tilt is not None:
        base = config.tilt.wrap(base)
    return base if config.mixture is None else config.mixture.wrap(base)


def make_settled_predictor(
    model: GPT,
    config: EvaluateConfig,
    *,
    seed: int = 0,
    ranks: Ranks = ALONE,
    ledger: Ledger | None = None,
) -> SettledPredictor:
    """The predictor `config` asks for, in settled arithmetic.

    ledger  of whoever encoded, to decode; None: a new one, in which ties are noted
    """
    if config.context is None:
        config = replace(config, context=model.config.train_context)
    ledger = ledger or Ledger(config.learner.margins())
    learned = config.learner.predictor(settled_model(model), config, seed=seed, ranks=ranks)
    base = learned if config.tilt is None else config.tilt.wrap(learned)
    settled = Settled(base, ledger, learned)
    return settled if config.mixture is None else SettledMixture(settled, config.mixture)
