"""The training loop: an iterator of steps, and all that must hold within one.

It knows nothing of averaging, logging, validation or saving: the caller does those between two
steps, in plain code. What a step multiplies its rates by is in `schedule.py`, when the run is over
in `clock.py`, which optimizer steps what in `param_groups.py`, saving in `train_state.py`.
"""

# torch names its foreach functions as if they were private.
# pyright: reportPrivateImportUsage=false

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fairway.model.segments import Parts
from fairway.runtime.device import send
from fairway.runtime.distributed import Ranks
from fairway.train.clock import Clock
from fairway.train.config import BatchConfig, TrainConfig, context_warmup, parts_at
from fairway.train.divergence import Arrived, DivergenceWatch
from fairway.train.exchange import GradientExchange
from fairway.train.muon import gradients_of
from fairway.train.param_groups import Optimizers
from fairway.train.schedule import (
    ContextWarmup,
    When,
    current,
    decay_scale,
    lr_scale,
    momentum,
    steps_left,
)

Batch = tuple[Tensor, Tensor]  # tokens (B, T) and the token that follows each, (B, T)


class Step(NamedTuple):
    number: int  # steps finished, so the first one is 1
    progress: float  # when it began
    loss: Tensor  # () mean nats per token over all ranks, detached; reading it waits for the device
    lr_scale: float
    tokens: int  # over all ranks
    micro_batches: int = 1  # over all ranks, as planned
    momentum: float = 0.0  # of the matrices
    grad_norm: Tensor | None = None  # () of all gradients, before clipping; as `loss` to be read
    arrived: Arrived | None = None  # the newest loss that can be read without waiting


@dataclass(frozen=True)
class Milestone:
    """Something done to the model once, before the first step at which `when` is reached.

    A resumed run does it again, so it must be a switch, not a change that adds up.
    """

    name: str
    when: When
    apply: Callable[[nn.Module], None]


class OutOfBatches(ValueError):
    """No rank has a batch left, and the clock has not run out."""


class TrainingInterrupted(KeyboardInterrupt):
    """All ranks stopped between two steps because one was asked to; the model is whole."""


def training_steps(
    model: nn.Module,
    batches: Iterator[Batch],
    config: TrainConfig,
    optimizers: Optimizers,
    clock: Clock,
    *,
    ranks: Ranks | None = None,
    milestones: Sequence[Milestone] = (),
    compute_dtype: torch.dtype = torch.float32,
    first_step: int = 0,
    stop: Callable[[], bool] | None = None,
    warmup: ContextWarmup | None = None,
    overlapped: bool = True,
) -> Iterator[Step]:
    """Train `model` in place until `clock` runs out, yielding after every optimizer step.

    model          has `loss(tokens (B, T), targets (B, T))`, the mean nats per token
    batches        this rank's micro-batches; ranks may have different numbers of them, or none
    compute_dtype  of the forward pass. A model with an attribute `compute_dtype` casts by itself
                   and is given this one; any other runs under autocast
    first_step     steps already finished, for a run that continues
    warmup         after a change of context; one that has seen the first steps, for a run that
                   continues. None: a new one
    stop           asked before every step, on every rank or on none; if one says yes, all raise
                   `TrainingInterrupted`
    overlapped     ranks exchange gradients during backward; False: after it, with the same result

    Raises `TrainingDiverged` when the loss or a gradient is not finite: on a CPU before the weights
    are touched, on a GPU at most two steps later, so that the GPU never waits for the check.
    The same seed, batches and number of steps give the same weights, bit for bit.
    """
    ranks, device = ranks or Ranks(), next(model.parameters()).device
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    watch = DivergenceWatch(parameters, device)
    pending = [*_loop_milestones(model, config), *milestones]
    if warmup is None:
        warmup = context_warmup(config.batch)
    progress = 0.0
    exchange = GradientExchange(parameters, optimizers.owners, ranks)
    with exchange.overlapping() if overlapped else nullcontext():
        for number in count(first_step):
            # One step may be in flight, so that the GPU has work while the next is being sent. Near
            # the end none may, or the clock would stop later than it knows.
            watch.settle(in_flight=1 if progress < 0.98 else 0)
            progress = clock.progress(number)
            if progress >= 1.0:
                watch.settle(in_flight=0)
                return
            left = steps_left(progress, number, config.steps)
            scale = lr_scale(progress, config.warmdown, left)
            _pass_milestones(pending, model, progress, scale)
            # Before a batch is taken: the place in the batches must be that of the finished steps.
            if stop is not None and _total(int(stop()), ranks):
                watch.settle(in_flight=0)
                raise TrainingInterrupted(f"stopped after step {number}")
            micro_batches = _micro_batches(config.batch, progress)
            work = _fetch(batches, config.batch, progress, micro_batches, ranks)
            tokens = _count_tokens(work, number, progress, ranks)
            with _training(model, device, compute_dtype, parts_at(config.batch, progress)):
                loss, norms, gradients = _backward(model, work, tokens, config, exchange)
            watch.check(number + 1, loss, norms, rate=scale)
            norm = torch.linalg.vector_norm(norms)
            if not config.clip_on_each_rank:
                _clip(gradients, norm, config.grad_clip)
            risen = scale * warmup.scale(progress, number)
            kept = _set_rates(optimizers, config, progress, number, risen)
            optimizers.step()
            optimizers.zero_grad()
            yield Step(
                number + 1, progress, loss, scale, tokens, micro_batches, kept, norm, watch.arrived
            )


def _loop_milestones(model: nn.Module, config: TrainConfig) -> list[Milestone]:
    when = config.loops_point
    if when is None:
        return []
    if not hasattr(model, "loops_active"):
        raise ValueError(
            f"loops_at={config.loops_at}, but {type(model).__name__} has no loops to switch on; "
            f"set loops_at=None or give the model a loop"
        )
    model.loops_active = False  # type: ignore[assignment]
    return [Milestone("loops", when, lambda m: setattr(m, "loops_active", True))]


def _pass_milestones(
    pending: list[Milestone], model: nn.Module, progress: float, scale: float
) -> None:
    """Do and take out those that are reached."""
    for milestone in [m for m in pending if m.when.reached(progress, scale)]:
        milestone.apply(model)
        pending.remove(milestone)


def _micro_batches(config: BatchConfig, progress: float) -> int:
    ramp = config.micro_batch_ramp
    return config.micro_batches if ramp is None else current(progress, ramp)


def _fetch(
    batches: Iterator[Batch], config: BatchConfig, progress: float, total: int, ranks: Ranks
) -> list[Batch]:
    """This rank's share of `total` micro-batches, less when its batches end."""
    contexts = config.context_curriculum
    work = []
    for _ in range(ranks.rank, total, ranks.world_size):
        batch = next(batches, None)
        if batch is None:
            break
        tokens, targets = batch
        if config.joined:
            tokens, targets = tokens.reshape(1, -1), targets.reshape(1, -1)
        elif contexts is not None:
            context = current(progress, contexts)
            if tokens.size(1) % context:
                raise ValueError(
                    f"rows of {tokens.size(1)} tokens cannot be cut into rows of {context}; "
                    f"batches should have rows of {config.context}"
                )
            tokens, targets = tokens.reshape(-1, context), targets.reshape(-1, context)
        work.append((tokens, targets))
    return work


def _count_tokens(work: Sequence[Batch], step: int, progress: float, ranks: Ranks) -> int:
    """Over all ranks."""
    found = _total(sum(tokens.numel() for tokens, _ in work), ranks)
    if not found:
        raise OutOfBatches(
            f"the batches ended after step {step}, at {progress:.1%} of the run; let them start "
            f"over (another epoch), or shorten the run with steps={step}"
        )
    return found


def _set_rates(
    optimizers: Optimizers, config: TrainConfig, progress: float, step: int, scale: float
) -> float:
    """Those of the step that follows; returns its momentum."""
    full = config.optimizer.muon.momentum
    kept = momentum(progress, step, full, config.momentum_warmup)
    optimizers.set(
        lr_scale=scale, momentum=kept, decay_scale=decay_scale(progress, config.decay_taper)
    )
    return kept


def _total(number: int, ranks: Ranks) -> int:
    """The sum over all ranks; agreed on between CPUs, so that no GPU is waited for."""
    return int(ranks.sum(torch.tensor(number)))


def _backward(
    model: nn.Module,
    work: Sequence[Batch],
    total_tokens: int,
    config: TrainConfig,
    exchange: GradientExchange,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Loss, norms and gradients of the step over all ranks, as `GradientExchange.finish` has them.

    Each micro-batch weighs as many tokens as it has, so the sum over ranks is the exact mean,
    however the work is spread.
    """
    device = next(model.parameters()).device
    loss = torch.zeros((), device=device)
    for batch in work:
        tokens, targets = (send(part, device) for part in batch)
        part = model.loss(tokens, targets) * (tokens.numel() / total_tokens)  # type: ignore[operator]
        # What is clipped before it is summed cannot leave earlier.
        exchange.last = batch is work[-1] and not config.clip_on_each_rank
        part.backward()
        loss += part.detach()
    if config.clip_on_each_rank:
        mine = gradients_of(exchange.parameters.values())
        _clip_share(mine, work, total_tokens, config.grad_clip)
    return exchange.finish(loss)


def _clip_share(
    gradients: list[Tensor], work: Sequence[Batch], total_tokens: int, largest: float | None
) -> None:
    """Clip this rank's part of the mean gradient as if it were the mean over its own tokens."""
    share = sum(tokens.numel() for tokens, _ in work) / total_tokens
    if share:
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        _clip(gradients, norm / share, largest)


def _clip(gradients: list[Tensor], norm: Tensor, largest: float | None) -> None:
    if largest is not None:
        torch._foreach_mul_(gradients, (largest / (norm + 1e-6)).clamp(max=1.0))


def _casts_itself(model: nn.Module) -> bool:
    return hasattr(model, "compute_dtype")


@contextmanager
def _training(
    model: nn.Module, device: torch.device, dtype: torch.dtype, parts: Parts | None
) -> Iterator[None]:
    """The model in training mode, multiplying in `dtype`, attending within `parts` of a row."""
    if not model.training:  # the caller may have scored something in between
        model.train()
    if not _casts_itself(model):
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            yield
        return
    before = model.compute_dtype
    model.compute_dtype, model.parts = dtype, parts  # type: ignore[assignment]
    try:
        yield
    finally:
        # scoring between two steps keeps its own precision
        model.compute_dtype, model.parts = before, None  # type: ignore[assignment]
