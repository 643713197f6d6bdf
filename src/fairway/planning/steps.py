"""Seconds of a training step on this machine: a few are taken, on random tokens.

Nothing is trained and no text is read, for it costs the same.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fairway.average import build_average
from fairway.model.gpt import GPT
from fairway.pipeline.training import compile_training
from fairway.planning.figure import Figure
from fairway.recipes.recipe import Recipe
from fairway.runtime.attention_backend import choose_attention_backend
from fairway.runtime.device import seed_everything
from fairway.runtime.kernel_choice import choose_kernels
from fairway.runtime.setup import Runtime
from fairway.train.clock import StepClock
from fairway.train.config import TrainConfig
from fairway.train.loop import training_steps
from fairway.train.param_groups import build_optimizers

MEASURE_SECONDS = 8.0  # for each phase of a run: loop off, loop on
WARM_UP_STEPS = 5
PARTS = 4  # of the measured steps, whose means are compared
LEAST_ERROR = 0.05  # of what was measured for seconds and is to hold for minutes

Now = Callable[[], float]


class StepTime(NamedTuple):
    """seconds of a step, and half of what lies between the fastest and slowest part, as a share"""

    mean: float
    spread: float


def step_seconds(recipe: Recipe, runtime: Runtime, *, now: Now = time.perf_counter) -> Figure:
    """Mean over the run, with its loop on as long as the recipe says, for some seconds and at least
    twice.

    runtime  with number type and compilation as the run has them
    """
    phases = (False, True) if recipe.model.loop is not None else (False,)
    measured = [_measured(recipe, runtime, loops=loops, now=now) for loops in phases]
    off, on = measured[0], measured[-1]
    return Figure(
        value=off.mean + (on.mean - off.mean) * loop_share(recipe),
        error=max(LEAST_ERROR, off.spread, on.spread),
        basis="steps measured now on random tokens; the error is how far apart they were",
    )


def loop_share(recipe: Recipe) -> float:
    """Of the run, in which the loop is on."""
    return 0.0 if recipe.model.loop is None else 1.0 - (recipe.train.loops_at or 0.0)


def _measured(recipe: Recipe, runtime: Runtime, *, loops: bool, now: Now) -> StepTime:
    """Of a step with the loop on or off, its part in the average included."""
    device, dtype = runtime.device, runtime.compute_dtype
    seed_everything(0)
    model = GPT(recipe.model).to(device).train()
    average = build_average(model, recipe.average)
    backend = choose_attention_backend(device, dtype, None)
    kernels, _ = choose_kernels(device)
    times: list[float] = []
    with backend.active(), kernels():
        if runtime.compiled:
            compile_training(model, recipe, runtime)
        model.loops_active = loops
        walk = training_steps(
            model,
            _random_batches(recipe, device),
            _endless(recipe.train),
            build_optimizers(model, recipe.train.optimizer, muon_dtype=dtype),
            StepClock(1_000_000),
            compute_dtype=dtype,
        )
        began = time.perf_counter()
        while len(times) < 2 or time.perf_counter() - began < MEASURE_SECONDS:
            begin = now()
            average.update(next(walk))
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(now() - begin)
    counted = np.array(times[min(WARM_UP_STEPS, len(times) - 1) :])
    parts = [part.mean() for part in np.array_split(counted, min(PARTS, len(counted)))]
    mean = float(counted.mean())
    return StepTime(mean, float(max(parts) - min(parts)) / mean / 2)


def _endless(config: TrainConfig) -> TrainConfig:
    """The model's loop stays as it is, on or off, and the number of steps says nothing."""
    return replace(config, loops_at=None, seconds=None, steps=1_000_000, reserve_seconds=0.0)


def _random_batches(recipe: Recipe, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    batch = recipe.train.batch
    while True:
        tokens = torch.randint(2, recipe.model.vocab_size, (batch.rows, batch.context + 1))
        yield tokens[:, :-1].to(device).contiguous(), tokens[:, 1:].to(device).contiguous()
