"""Which way of evaluating a recipe asks for, and the plan and predictor that it means.

Each way to learn is a class of its own in `learners/`; this file only chooses.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fairway.evaluate.learners.documents import (
    DocumentAdapters,
    DocumentPredictor,
    Phased,
    PhasedPredictor,
)
from fairway.evaluate.learners.mixture import Mixture, MixturePredictor
from fairway.evaluate.learners.sgd import Sgd, SgdPredictor
from fairway.evaluate.predictor import (
    ALONE,
    ChunkPlan,
    Frozen,
    plan_chunks,
    plan_documents,
)
from fairway.evaluate.windows import check_window_shape
from fairway.model.gpt import GPT
from fairway.runtime.distributed import Ranks


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """How a text is scored.

    rows          windows or documents in one forward pass
    documents     keep documents apart: no window reads across the start of one
    chunk_tokens  how much text is priced before a mixture alone may learn; `ttt` has its own
    """

    context: int
    stride: int = 64
    rows: int = 16
    documents: bool = False
    chunk_tokens: int = 4096
    ttt: Sgd | DocumentAdapters | Phased | None = None
    mixture: Mixture | None = None

    def __post_init__(self) -> None:
        check_window_shape(self.context, self.stride)
        if self.rows < 1:
            raise ValueError(f"rows={self.rows}; a forward pass needs at least one window")
        if isinstance(self.ttt, Sgd) and self.documents:
            raise ValueError(
                "Sgd learns from one stream in file order; for documents kept apart use "
                "DocumentAdapters or Phased"
            )
        if isinstance(self.ttt, (DocumentAdapters, Phased)) and not self.documents:
            raise ValueError("adapters per document need documents=True")


def plan_evaluation(
    config: EvaluateConfig, num_tokens: int, document_starts: Sequence[int]
) -> list[ChunkPlan]:
    """The static schedule of an evaluation of `num_tokens` tokens."""
    if num_tokens < 2:
        raise ValueError("the validation text is empty: nothing follows its first token")
    if config.documents:
        return plan_documents(
            document_starts, num_tokens, config.context, config.stride, config.rows
        )
    chunk = config.ttt.chunk_tokens if isinstance(config.ttt, Sgd) else config.chunk_tokens
    return plan_chunks(num_tokens, config.context, config.stride, chunk)


def make_predictor(
    model: GPT, config: EvaluateConfig, *, seed: int = 0, ranks: Ranks = ALONE
) -> Frozen | MixturePredictor:
    """A fresh predictor around `model`, which itself is never changed."""
    context, rows = config.context, config.rows
    match config.ttt:
        case None:
            base = Frozen(model, rows, ranks)
        case Sgd():
            base = SgdPredictor(model, config.ttt, context=context, rows=rows, ranks=ranks)
        case DocumentAdapters():
            base = DocumentPredictor(model, config.ttt, rows=rows, seed=seed, ranks=ranks)
        case Phased():
            base = PhasedPredictor(
                model, config.ttt, context=context, rows=rows, seed=seed, ranks=ranks
            )
    return base if config.mixture is None else MixturePredictor(base, config.mixture)
