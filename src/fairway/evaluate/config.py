"""Which evaluation: how much context, in what order, and what may learn on the way.

The config, and the two functions that turn it into plans and a predictor. How each way of learning
works is in `learners/`; whether an evaluation fits its time is in `planner.py`; `timed.py` runs it.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import get_args

import torch

from fairway.evaluate.learners.documents import (
    DocumentAdapters,
    DocumentPredictor,
    Phased,
    PhasedPredictor,
)
from fairway.evaluate.learners.gates import Mixture
from fairway.evaluate.learners.mixture import MixturePredictor
from fairway.evaluate.learners.sgd import Precision, Sgd, SgdPredictor
from fairway.evaluate.predictor import (
    ALONE,
    ChunkPlan,
    Frozen,
    Predictor,
    plan_chunks,
    plan_documents,
)
from fairway.evaluate.windows import check_window_shape
from fairway.model.gpt import GPT
from fairway.runtime.distributed import Ranks
from fairway.tokens.val_text import ValText

CHUNK_TOKENS = 32_768  # where nothing else decides: enough to batch, little enough to hold


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """A sliding window, alone or with learning from what was already priced."""

    context: int | None = None  # tokens a window reads; None: the model's training context
    stride: int = 64  # tokens a window prices
    rows: int = 16  # windows per forward pass; documents side by side where they are adapted to
    cached: int | None = None  # approximate: so many windows in a row share keys and values
    precision: Precision = "float32"  # of activations while pricing; bfloat16 is approximate
    documents: bool = False  # never read across the start of a document
    ttt: Sgd | DocumentAdapters | Phased | None = None  # how the model learns; None: it does not
    mixture: Mixture | None = None  # n-grams from what was priced, mixed with the model

    def __post_init__(self) -> None:
        if self.rows < 1 or self.stride < 1:
            raise ValueError(f"rows={self.rows}, stride={self.stride}: both must be at least 1")
        if self.precision not in get_args(Precision):
            raise ValueError(
                f"precision={self.precision!r}; choose one of {', '.join(get_args(Precision))}"
            )
        if self.cached is not None and self.cached < 2:
            raise ValueError(
                f"cached={self.cached}: at least two windows share keys; None shares nothing"
            )
        if self.cached is not None and isinstance(self.ttt, DocumentAdapters | Phased):
            raise ValueError(
                f"cached={self.cached} with {type(self.ttt).__name__}: it reads its windows one at "
                "a time already; set cached=None"
            )
        if self.context is not None:
            check_window_shape(self.context, self.stride)
        if isinstance(self.ttt, Sgd) and self.ttt.chunk_tokens % self.stride:
            below = self.ttt.chunk_tokens // self.stride * self.stride
            raise ValueError(
                f"ttt.chunk_tokens={self.ttt.chunk_tokens} is not a multiple of stride="
                f"{self.stride}; set it to {max(below, self.stride)}"
            )
        if isinstance(self.ttt, DocumentAdapters | Phased) and not self.documents:
            raise ValueError(
                f"{type(self.ttt).__name__} learns document by document: set documents=True"
            )

    def resolved(
        self, train_context: int, precision: Precision = "float32", compiled: bool = False
    ) -> "EvaluateConfig":
        """The same with everything filled in that was left to be found out.

        precision, compiled  of learning on weights: what training is fastest with on this machine.
                             They go into the artifact, for a decoder has to learn as the scorer did
        """

        def fill(sgd: Sgd) -> Sgd:
            on = compiled if sgd.compiled is None else sgd.compiled
            return replace(sgd, precision=sgd.precision or precision, compiled=on)

        filled, ttt = replace(self, context=self.context or train_context), self.ttt
        if isinstance(ttt, Sgd):
            ttt = fill(ttt)
        elif isinstance(ttt, Phased):
            ttt = replace(ttt, sgd=fill(ttt.sgd))
        return replace(filled, ttt=ttt)


def plan_evaluation(
    config: EvaluateConfig, num_tokens: int, document_starts: Sequence[int]
) -> list[ChunkPlan]:
    """What is priced and learned from, in order, known before the first token is.

    num_tokens       of the text, its first one, which nobody prices, included
    document_starts  position of each document's BOS, ascending; read only if documents are kept
                     apart
    """
    context = config.context
    if context is None:
        raise ValueError(
            "the context is not known yet: use config.resolved(model.config.train_context)"
        )
    if num_tokens < 2:
        raise ValueError(
            f"the validation text has {num_tokens} tokens, and the first one is never priced: "
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
    if isinstance(config.ttt, DocumentAdapters | Phased):
        return plan_documents(starts, num_tokens, context, config.stride, config.rows)
    if isinstance(config.ttt, Sgd):
        chunk_tokens = config.ttt.chunk_tokens
    else:
        chunk_tokens = max(CHUNK_TOKENS // config.stride, 1) * config.stride
    plans = plan_chunks(num_tokens, context, config.stride, chunk_tokens, starts)
    if config.mixture is None:
        return plans
    # N-grams learn from token to token, across documents too: one row, in file order.
    return [replace(plan, rows=(0,) * len(plan.rows)) for plan in plans]


def plan_text(config: EvaluateConfig, text: ValText) -> list[ChunkPlan]:
    """`plan_evaluation` of a text."""
    return plan_evaluation(config, len(text.tokens), text.document_starts)


def make_predictor(
    model: GPT, config: EvaluateConfig, *, seed: int = 0, ranks: Ranks = ALONE
) -> Predictor:
    """The predictor `config` asks for. `model` itself is never changed by it."""
    context, rows = config.context or model.config.train_context, config.rows
    if config.precision != "float32":
        model = copy.copy(model)  # the same weights, computed with otherwise
        model.compute_dtype = getattr(torch, config.precision)
    base: Frozen
    match config.ttt:
        case None:
            base = Frozen(model, rows, ranks, config.cached)
        case Sgd():
            base = SgdPredictor(
                model, config.ttt, context=context, rows=rows, ranks=ranks, cached=config.cached
            )
        case DocumentAdapters():
            base = DocumentPredictor(model, config.ttt, rows=rows, seed=seed, ranks=ranks)
        case Phased():
            base = PhasedPredictor(
                model, config.ttt, context=context, rows=rows, seed=seed, ranks=ranks
            )
    return base if config.mixture is None else MixturePredictor(base, config.mixture)
