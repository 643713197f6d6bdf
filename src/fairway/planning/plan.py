"""What a run of a recipe will come to: measured on this machine, or from published step times.

Nothing is trained and no text is read: steps are taken on random tokens, which cost the same.
"""

import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fairway.artifact.budget import predict_bytes
from fairway.model.blank import blank, num_params
from fairway.model.flops import flops_per_token
from fairway.model.gpt import GPT
from fairway.planning.published import DOLLARS, GPUS, NODE, STEPS, StepModel, fit_steps
from fairway.recipes.recipe import Recipe
from fairway.recipes.registry import recipe as named
from fairway.runtime.device import (
    choose_compute_dtype,
    choose_device,
    machine,
    seed_everything,
)
from fairway.runtime.kernel_choice import choose_kernels
from fairway.runtime.strict_json import JsonObject
from fairway.train.clock import StepClock
from fairway.train.config import TrainConfig
from fairway.train.loop import training_steps
from fairway.train.param_groups import build_optimizers

MEASURE_SECONDS = 6.0  # for each phase of a run: loop off, loop on
WARM_UP_STEPS = 3
LEAST_ERROR = 0.05  # of what was measured for seconds and is to hold for minutes


class _StepTime(NamedTuple):
    """seconds of a step, and half of what lies between the fastest and slowest tenth, as a share"""

    median: float
    spread: float


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One run, as far as it can be known beforehand.

    where          the machine: "8 x H100", or the processor's name
    step_seconds   mean over the run, with its loop on as long as the recipe says
    seconds        of training; what the recipe keeps back for calibration included
    error          by how much steps may be off, as a share; how that is known is in `basis`
    artifact_bytes before it is fitted to the cap, by untrained weights
    eval_seconds   the budget of the recipe, which an evaluation is planned into
    dollars        of training and evaluation, at `dollars_per_hour` for all GPUs
    """

    recipe: str
    where: str
    params: int
    step_seconds: float
    steps: int
    tokens: int
    seconds: float
    error: float
    basis: str
    artifact_bytes: int
    cap_bytes: int
    eval_seconds: float
    flops_per_second: float
    dollars: float | None = None
    dollars_per_hour: float | None = None

    def to_json(self) -> JsonObject:
        return asdict(self)


def plan_on_gpus(
    recipe: Recipe, gpus: str, seconds: float | None = None, dollars_per_hour: float | None = None
) -> Plan:
    """From published step times.

    gpus              such as "8xH100"; another GPU counts by its peak, which nobody has checked
    seconds           of training; None: the recipe's own
    dollars_per_hour  for all GPUs; None: what people paid for an H100, for each

    Raises ValueError for a GPU that is not known.
    """
    number, name = _gpus(gpus)
    steps = published_steps()
    blank = blank_model(recipe)
    flops = mean_flops(recipe, blank)
    step = steps.seconds(flops, number, GPUS[name] / GPUS["H100"])
    basis = f"fitted to {len(STEPS)} published runs on {NODE} x H100, each predicted by the others"
    if (number, name) != (NODE, "H100"):
        basis += f"; scaled to {number} x {name} by peak arithmetic, which no run has confirmed"
    price = number * DOLLARS if dollars_per_hour is None else dollars_per_hour
    return _plan(recipe, blank, f"{number} x {name}", step, seconds, steps.error, basis, price)


def plan_here(recipe: Recipe, seconds: float | None = None, device: str | None = None) -> Plan:
    """From steps taken on this machine now, for some seconds and at least twice."""
    where = choose_device(device)
    dtype, _ = choose_compute_dtype(where)
    phases = (False, True) if _has_loop(recipe) else (False,)
    measured = [_measured_step(recipe, where, dtype, loops=loops) for loops in phases]
    off, on = measured[0], measured[-1]
    step = off.median + (on.median - off.median) * _loop_share(recipe)
    found = machine()
    name = f"{found.processor}, {found.cores} cores"
    if where.type == "cuda":
        name = torch.cuda.get_device_name(where)
    basis = "steps measured now on random tokens; the error is how far apart they were"
    error = max(LEAST_ERROR, off.spread, on.spread)
    return _plan(recipe, blank_model(recipe), name, step, seconds, error, basis, None)


@cache
def published_steps() -> StepModel:
    """The model of `published.py`, with the operations that our recipes of those runs take."""
    flops = []
    for step in STEPS:
        known = named(step.recipe)
        flops.append(mean_flops(known, blank_model(known)))
    return fit_steps(flops, [step.milliseconds / 1e3 for step in STEPS])


def _plan(
    recipe: Recipe,
    blank: GPT,
    where: str,
    step: float,
    seconds: float | None,
    error: float,
    basis: str,
    dollars_per_hour: float | None,
) -> Plan:
    clock = seconds if seconds is not None else recipe.train.seconds
    kept = max(recipe.train.reserve_seconds, recipe.quant.reserve_seconds)
    if clock is None:
        steps = recipe.train.steps or 0
        clock = steps * step + kept
    else:
        steps = int(max(0.0, clock - kept) / step)
    evaluation = recipe.budget.eval_seconds
    dollars = None
    if dollars_per_hour is not None:
        dollars = dollars_per_hour * (clock + evaluation) / 3600
    tokens = recipe.train.batch.tokens_per_step
    return Plan(
        recipe=recipe.name,
        where=where,
        params=num_params(recipe.model),
        step_seconds=step,
        steps=steps,
        tokens=steps * tokens,
        seconds=clock,
        error=error,
        basis=basis,
        artifact_bytes=_artifact_bytes(recipe),
        cap_bytes=recipe.budget.cap_bytes,
        eval_seconds=evaluation,
        flops_per_second=mean_flops(recipe, blank) / step,
        dollars=dollars,
        dollars_per_hour=dollars_per_hour,
    )


def _gpus(words: str) -> tuple[int, str]:
    """
    >>> _gpus("8xH100"), _gpus("a100")
    ((8, 'H100'), (1, 'A100'))
    """
    found = re.fullmatch(r"(?:(\d+)\s*x\s*)?([A-Z]\d+)", words.strip().upper().replace("X", "x"))
    if found is None or found[2] not in GPUS or found[1] == "0":
        raise ValueError(f"{words!r} is not like 8xH100; GPUs that are known: {', '.join(GPUS)}")
    return int(found[1] or 1), found[2]


def blank_model(recipe: Recipe) -> GPT:
    return blank(recipe.model)


def _has_loop(recipe: Recipe) -> bool:
    return recipe.model.loop is not None


def _loop_share(recipe: Recipe) -> float:
    """Of the run, in which the loop is on."""
    if not _has_loop(recipe):
        return 0.0
    return 1.0 - (recipe.train.loops_at or 0.0)


def mean_flops(recipe: Recipe, blank: GPT) -> float:
    """Operations of a step, mean over the run."""
    batch = recipe.train.batch
    off, on = (flops_per_token(blank, batch.context, loops=loops) for loops in (False, True))
    return (off + (on - off) * _loop_share(recipe)) * batch.tokens_per_step


def _artifact_bytes(recipe: Recipe) -> int:
    seed_everything(0)
    state = GPT(recipe.model).shipped_state_dict()
    return predict_bytes({name: torch.randn(t.shape) for name, t in state.items()}, recipe.quant)


def _measured_step(
    recipe: Recipe, device: torch.device, dtype: torch.dtype, *, loops: bool
) -> _StepTime:
    """Of a step with the loop on or off, over a few seconds."""
    config = recipe.train
    seed_everything(0)
    model = GPT(recipe.model).to(device).train()
    model.loops_active = loops
    optimizers = build_optimizers(model, config.optimizer, muon_dtype=dtype)
    kernels, _ = choose_kernels(device)
    times: list[float] = []
    with kernels():
        walk = training_steps(
            model,
            _random_batches(recipe, device),
            _without_loops(config),
            optimizers,
            StepClock(1_000_000),
            compute_dtype=dtype,
        )
        began = time.perf_counter()
        while len(times) < 2 or time.perf_counter() - began < MEASURE_SECONDS:
            begin = time.perf_counter()
            next(walk)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - begin)
    low, median, high = np.quantile(times[min(WARM_UP_STEPS, len(times) - 1) :], (0.1, 0.5, 0.9))
    return _StepTime(float(median), float((high - low) / median / 2))


def _without_loops(config: TrainConfig) -> TrainConfig:
    """The model's loop stays as it is, on or off, and the number of steps says nothing."""
    return replace(config, loops_at=None, seconds=None, steps=1_000_000, reserve_seconds=0.0)


def _random_batches(recipe: Recipe, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    batch = recipe.train.batch
    tokens = torch.randint(2, recipe.model.vocab_size, (batch.rows, batch.context + 1))
    tokens = tokens.to(device)
    while True:
        yield tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
