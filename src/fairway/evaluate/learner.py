"""What a way to learn must be able to do. A new one is a subclass of `Learner` in its own file.

A learner is a frozen dataclass of settings that knows what follows from them: the predictor it
makes, how often it learns, what that costs, how it shrinks and what a search may try. It may live
in the user's own package (`runtime/plugins.py`); those that ship are in `learners/`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, Self, get_args

from fairway.evaluate.chunks import ChunkPlan
from fairway.evaluate.ledger import Margins
from fairway.evaluate.predictor import ModelPredictor
from fairway.evaluate.windows import check_window_shape
from fairway.model.gpt import GPT
from fairway.runtime.distributed import Ranks
from fairway.runtime.plugins import Pluggable

Precision = Literal["float32", "bfloat16"]

CHUNK_TOKENS = 32_768  # where nothing else decides: enough to batch, little enough to hold
EXCERPT_TOKENS = 2048  # of a text of which only a part can be looked at


@dataclass(frozen=True, kw_only=True)
class WindowConfig:
    """How text is read, whatever learns from it."""

    context: int | None = None  # tokens that a window reads; None: as many as in training
    stride: int = 64  # tokens that a window scores, its last ones
    # number of windows per forward pass; with adapters, of documents side by side
    rows: int = 16
    # number of windows in a row that share keys and values, approximately; None: none do
    cached: int | None = None
    precision: Precision = "float32"  # number type of activations; bfloat16 is approximate
    documents: bool = False  # never read across the start of a document

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
        if self.context is not None:
            check_window_shape(self.context, self.stride)

    @property
    def known_context(self) -> int:
        """The context, where it has been filled in."""
        if self.context is None:
            raise ValueError(
                "the context is not known yet: use config.resolved(model.config.train_context)"
            )
        return self.context


class Trial(Protocol):
    """Where a search takes values from; Optuna's trial is one."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...

    def suggest_int(self, name: str, low: int, high: int) -> int: ...

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...


class Learner(Pluggable, ABC):
    """Settings of one way to learn from text that was already scored, and what they mean.

    Subclasses are frozen dataclasses. Only `predictor` has to be written: the other methods say
    what is true of a learner that reads each chunk's text once.
    """

    rates_follow_length: ClassVar[bool] = False  # what is learned depends on the number of chunks

    @abstractmethod
    def predictor(
        self, model: GPT, windows: WindowConfig, *, seed: int, ranks: Ranks
    ) -> ModelPredictor:
        """Scores with `model` and learns on a copy of what it changes; `windows.context` is known.

        Most are subclasses of `frozen.Frozen` with a `learn`, `state_dict` and `load_state_dict`.
        """

    def chunk_targets(self) -> int | None:
        """Targets between two lessons, rounded down to whole strides.

        None: one window of each document, `windows.rows` documents side by side.
        """
        return CHUNK_TOKENS

    def check(self, windows: WindowConfig) -> None:
        """Raise ValueError, with the mend, where these settings cannot go with such windows."""
        if self.chunk_targets() is not None:
            return
        name = type(self).__name__
        if windows.cached is not None:
            raise ValueError(
                f"cached={windows.cached} with {name}: it reads its windows one at a time already; "
                "set cached=None"
            )
        if not windows.documents:
            raise ValueError(f"{name} learns document by document: set documents=True")

    def resolved(self, precision: Precision, compiled: bool) -> Self:
        """The same with what training is fastest with here, where that was left open.

        It goes into the artifact, for a decoder has to learn as the scorer did.
        """
        return self

    def margins(self) -> Margins:
        """How what it learns is rounded in settled arithmetic; machines' deviations decide.

        An optimizer that makes as much of small gradients as of large ones makes much of small
        differences, so its predictor has them rounded first (`predictor.RoundsGradients`).
        """
        return Margins()

    def describe(self) -> str:
        """What tells it from its other choices, in the planner's lines: "3 epochs"; or ""."""
        return ""

    def with_epochs(self, epochs: int) -> Self:
        """The same with so many passes over each chunk, for the planner to choose from."""
        return self

    def lesson_tokens(self, plan: ChunkPlan) -> int:
        """Tokens that go into the model when a chunk is learned from."""
        return plan.span_targets

    def step_targets(self, windows: WindowConfig) -> int | None:
        """Targets that suffice to time a lesson; None: those of the windows that are timed."""
        return None

    def between_chunks(self, plans: Sequence[ChunkPlan]) -> "tuple[Learner, list[int]] | None":
        """What else learns at pauses between chunks, and the tokens it reads after each of `plans`,
        mostly 0."""
        return None

    def between_pauses(self) -> "Learner | None":
        """What learns where there are no such pauses; None: nothing does."""
        return self

    def excerpt_tokens(self) -> int:
        """Text within which learning can be seen at work, for whoever looks at a part of it."""
        return self.chunk_targets() or EXCERPT_TOKENS

    def for_segments(self, share: int, context: int) -> Self:
        """The same for a text in segments that are read side by side, as compressing does.

        share  targets that a segment has in each chunk
        """
        return self

    def smoke(self, context: int) -> Self:
        """The same in miniature, for a run of seconds; every option stays on."""
        return self

    def suggest(self, trial: Trial, windows: WindowConfig) -> Self:
        """The same with values from a search; as it is, there is nothing to search."""
        return self
