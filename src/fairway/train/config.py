"""What a training is, as settings: its micro-batches, its schedule, when it ends.

How a step is taken is in `loop.py`; what the schedules come to at each moment, in `schedule.py`.
"""

from dataclasses import dataclass, field

from fairway.model.segments import Parts
from fairway.runtime.distributed import Ranks
from fairway.train.clock import StepClock, WallClock
from fairway.train.param_groups import OptimizerConfig
from fairway.train.schedule import (
    ContextWarmup,
    Curriculum,
    DecayTaper,
    MomentumWarmup,
    Warmdown,
    When,
    current,
)


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """One micro-batch is one forward pass on one rank; a step adds up `micro_batches` of them.

    They are dealt out to the ranks in turn. A rank beyond their number has no work in that step and
    still takes part in every collective.
    """

    rows: int = 32  # number of rows in a micro-batch
    context: int = 1024  # tokens in a row
    micro_batches: int = 1  # number per step, over all ranks together
    # Rows are cut into shorter ones (#2014): the tokens of a step stay as many.
    context_curriculum: Curriculum | None = None
    # the rows of a micro-batch are one text, in which attention restarts at each BOS and after
    # `context` tokens of a document (#1530), not at every row
    joined: bool = False
    # number of steps over which the rate rises anew after the context has changed (#2014)
    context_warmup: int = 0
    micro_batch_ramp: Curriculum | None = None  # replaces `micro_batches` while it lasts

    def __post_init__(self) -> None:
        if min(self.rows, self.context, self.micro_batches) < 1:
            raise ValueError(f"{self}: rows, context and micro_batches must be at least 1")
        if self.context_warmup < 0 or (self.context_warmup and self.context_curriculum is None):
            raise ValueError(
                f"context_warmup={self.context_warmup} follows changes of context_curriculum, "
                f"which is {self.context_curriculum}; without one set it to 0"
            )
        for _, value in self.context_curriculum.stages if self.context_curriculum else ():
            if self.context % value:
                raise ValueError(
                    f"a context of {self.context} tokens cannot be cut into rows of {value}; "
                    f"choose a context that is a multiple of every stage"
                )

    @property
    def tokens_per_step(self) -> int:
        """Tokens in one step over all ranks, apart from the ramp."""
        return self.rows * self.context * self.micro_batches


def parts_at(config: BatchConfig, progress: float) -> Parts | None:
    """How a joined micro-batch is attended to at that point of the run; None: by its rows."""
    if not config.joined:
        return None
    contexts = config.context_curriculum
    if contexts is None:
        return Parts(block=config.context, longest=config.context)
    # Every stage divides the context, so the longest one divides the row.
    return Parts(block=max(n for _, n in contexts.stages), longest=current(progress, contexts))


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Exactly one of `seconds` and `steps` ends the run."""

    seconds: float | None = None  # seconds until the run ends; None: `steps` ends it
    steps: int | None = None  # number of steps until it ends; None: `seconds` ends it
    reserve_seconds: float = 0.0  # part of `seconds` kept back for work after the last step
    batch: BatchConfig = field(default_factory=BatchConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    warmdown: Warmdown = field(default_factory=Warmdown)
    momentum_warmup: MomentumWarmup | None = None
    decay_taper: DecayTaper | None = None
    # largest norm of all gradients together (#198); None: they are not clipped
    grad_clip: float | None = 0.3
    # each process clips its own gradients before they are averaged (#1530), so that a step depends
    # on how many there are; else the average is clipped
    clip_on_each_rank: bool = False
    # share of the run after which `model.loop` starts; None: it runs from the first step
    loops_at: float | None = None

    def __post_init__(self) -> None:
        if (self.seconds is None) == (self.steps is None):
            raise ValueError(
                f"TrainConfig(seconds={self.seconds}, steps={self.steps}); give exactly one of "
                f"them, the other None"
            )
        if self.steps is not None and self.reserve_seconds:
            raise ValueError(
                f"reserve_seconds={self.reserve_seconds} is a part of `seconds`, and this run ends "
                f"after {self.steps} steps; set it to 0"
            )
        if self.grad_clip is not None and self.grad_clip <= 0:
            raise ValueError(f"grad_clip={self.grad_clip} stops all learning; None is no clipping")
        if self.momentum_warmup is not None and not self.optimizer.muon.momentum:
            raise ValueError(
                f"momentum_warmup rises to the momentum of {self.optimizer.muon}, which has none; "
                f"set momentum_warmup=None"
            )
        if self.loops_at is not None:
            When(progress=self.loops_at)
        build_clock(self)

    @property
    def loops_point(self) -> When | None:
        return None if self.loops_at is None else When(progress=self.loops_at)


def context_warmup(config: BatchConfig) -> ContextWarmup:
    return ContextWarmup(config.context_curriculum, config.context_warmup)


def build_clock(
    config: TrainConfig,
    *,
    ranks: Ranks | None = None,
    spent_seconds: float = 0.0,
    reserve_seconds: float = 0.0,
) -> StepClock | WallClock:
    """The clock that ends the run `config` describes.

    reserve_seconds  what must be kept back on this machine, where that is more than the config says
    """
    if config.steps is not None:
        return StepClock(config.steps)
    assert config.seconds is not None
    return WallClock(
        config.seconds,
        reserve_seconds=max(config.reserve_seconds, reserve_seconds),
        spent_seconds=spent_seconds,
        ranks=ranks,
    )
