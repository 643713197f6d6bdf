"""What a recipe is: one complete, typed description of a run. The runs are in the files beside.

A recipe is plain data: it can be printed, compared, hashed, written as JSON, and read back from its
own `repr`, which is how it is frozen into a submitted script. A descendant is made from its parent
by `dataclasses.replace`, so it states its difference and nothing else.
"""

from dataclasses import dataclass, field

from fairway.average import EmaConfig, SwaConfig
from fairway.evaluate.config import EvaluateConfig
from fairway.evaluate.diagnostic import AdaptThenScore, StreamHints
from fairway.evaluate.planner import Range
from fairway.model.model_config import ModelConfig
from fairway.quant.qat import LinearRounding
from fairway.quant.rules import QuantConfig
from fairway.tokens.batches import OrderConfig
from fairway.train.config import TrainConfig
from fairway.train.schedule import When


@dataclass(frozen=True, kw_only=True)
class TokensConfig:
    """What the model reads: pieces of how large a vocabulary, of which text, in which order."""

    vocab_size: int  # number of token ids, special ones included
    # reversible text transform by name, undone before bytes are counted; None: as the data is
    transform: str | None = None
    # the challenge's own shards, by the name that `fairway fetch` takes; None: there are none
    published: str | None = None
    order: OrderConfig = field(default_factory=OrderConfig)  # of the training rows
    # score only so many of the validation text's first tokens; None: all of them
    val_tokens: int | None = None


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a run may use beside its training time, which is `train.seconds`."""

    cap_bytes: int = 16_000_000  # largest size of artifact and code together, in bytes
    eval_seconds: float = 600.0  # seconds for the whole evaluation, learning included

    def __post_init__(self) -> None:
        if self.cap_bytes < 1 or self.eval_seconds <= 0:
            raise ValueError(f"{self}: both must be positive")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One run from shards to score."""

    name: str  # name of the recipe, and of its run folder unless --out is given
    parent: str | None  # name of the recipe it was derived from; None: of none
    claim_bpb: float | None = None  # published score, bits per byte; None: there is none
    pull_request: int | None = None  # number at openai/parameter-golf; None: there is none
    tokens: TokensConfig
    model: ModelConfig
    train: TrainConfig
    round_from: When | None = None  # training sees rounded weights from here on (late QAT, #414)
    round_as: LinearRounding | None = None  # how training rounds; None: as quant.rules say
    average: EmaConfig | SwaConfig | None = None
    quant: QuantConfig
    evaluate: EvaluateConfig
    evaluate_range: Range | None = None  # what may be chosen instead, where the clock asks for it
    # a number that is no score, computed beside it
    diagnostic: AdaptThenScore | StreamHints | None = None
    budget: Budget = field(default_factory=Budget)
    seed: int = 1337  # decides initial weights and all else that is random

    def __post_init__(self) -> None:
        if self.tokens.vocab_size != self.model.vocab_size:
            raise ValueError(
                f"{self.name}: tokens.vocab_size={self.tokens.vocab_size} and model.vocab_size="
                f"{self.model.vocab_size} differ; the model must know every piece and no other"
            )
        if self.train.batch.joined and self.tokens.order.order != "documents":
            raise ValueError(
                f"{self.name}: train.batch.joined reads the rows of a batch as one text, and in "
                f"tokens.order.order={self.tokens.order.order!r} they are not; set it to "
                f"'documents', or joined to false"
            )
        needed = self.quant.reserve_seconds if self.quant.needs_hessians else 0.0
        if self.train.seconds is not None and self.train.reserve_seconds < needed:
            raise ValueError(
                f"{self.name}: train.reserve_seconds={self.train.reserve_seconds} is less than "
                f"quant.reserve_seconds={needed}: Hessians read training text, so their time is "
                f"training time"
            )
        if self.train.loops_at is not None and self.model.loop is None:
            raise ValueError(
                f"{self.name}: train.loops_at={self.train.loops_at}, but the model has no loop; "
                f"set loops_at to None or give model.loop"
            )
