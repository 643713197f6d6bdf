"""Eager or compiled steps on a CPU: chosen once for a run, before its clock, and told with numbers.

Compiling is tried here first, on random tokens and on a model that is thrown away, so that what it
takes and whether it works is known before anything is planned. Where it fails, the run goes on
eagerly, and its log and its result say so.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import date

import torch
from torch import Tensor

from fairway.model.gpt import GPT
from fairway.pipeline.folder import RunFolder
from fairway.pipeline.step_costs import StepCosts, costs_file, keep_costs, key_of, pays, read_costs
from fairway.pipeline.training import compile_training
from fairway.recipes.recipe import Recipe
from fairway.runtime.compiler_cache import cache_folder
from fairway.runtime.kernel_choice import choose_kernels
from fairway.runtime.setup import Runtime
from fairway.train.clock import StepClock
from fairway.train.compiled import CannotCompile
from fairway.train.loop import training_steps
from fairway.train.memory import require_memory, surely_fits
from fairway.train.param_groups import build_optimizers

TURNS = 3  # of an eager and a compiled step each, that count
MEASURE_SECONDS = 15.0  # after which no other turn is begun


def choose_steps(
    folder: RunFolder, recipe: Recipe, runtime: Runtime, asked: bool | None
) -> Runtime:
    """`runtime` as the run is to train: compiled, or eagerly.

    asked  True compiles, False does not, None does where it pays, see `step_costs.pays`

    A run that was started before keeps what it had. On GPUs, and among several ranks, nothing is
    measured: there `runtime` stays as it is. Raises ValueError where memory is too small to try.
    """
    if runtime.device.type != "cpu" or runtime.ranks.world_size > 1:
        return runtime
    say, key = runtime.log.say, key_of(recipe, runtime.compute_dtype)
    mark = cache_folder() / f"fairway-{key}"  # goes when what was compiled goes
    known = read_costs(costs_file(key), say)
    is_open = folder.settled is None and asked is None
    if is_open:
        compiled, why = pays(known, recipe, cached=mark.exists())
        say(f"steps are {'compiled' if compiled else 'eager'}: {why}")
        runtime = replace(runtime, compiled=compiled)
    if not runtime.compiled:
        return runtime
    try:
        found = compile_and_measure(recipe, runtime, known)
    except CannotCompile as error:
        say(f"steps are eager after all: {error}")
        return replace(runtime, compiled=False, obstacle=str(error))
    keep_costs(costs_file(key), found, say)
    with suppress(OSError):  # without it the next run expects to compile anew
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    if known is not None:
        return runtime
    say(
        f"a compiled step takes {1000 * found.compiled:,.0f} ms, an eager one "
        f"{1000 * found.eager:,.0f}"
    )
    if is_open and found.saved(recipe)[0] <= 0:
        say("steps are eager after all: that is faster")
        return replace(runtime, compiled=False)
    return runtime


def compile_and_measure(recipe: Recipe, runtime: Runtime, known: StepCosts | None) -> StepCosts:
    """Compile the step, and measure it beside the eager one where that is not `known`.

    Raises `CannotCompile`; ValueError where a step does not fit into memory.
    """
    from torch._dynamo.utils import counters  # takes a second to import

    kernels, _ = choose_kernels(runtime.device)
    if not surely_fits(recipe.model, recipe.train, runtime.device):
        require_memory(recipe.model, recipe.train, runtime.device, runtime.compute_dtype)
    with torch.random.fork_rng(devices=[]), kernels():
        torch.manual_seed(0)
        model = GPT(recipe.model).train()
        eager, before = model.loss, counters["inductor"].copy()
        begin = time.perf_counter()
        compile_training(model, recipe, runtime)
        seconds = time.perf_counter() - begin
        looked_up = counters["inductor"] - before
        if known is None:
            known = _measured(model, recipe, runtime, eager)
    if looked_up["fxgraph_cache_miss"]:
        return replace(known, cold=seconds)
    # Neither where an earlier run of this very process had it compiled.
    return replace(known, cached=seconds) if looked_up["fxgraph_cache_hit"] else known


def _measured(
    model: GPT, recipe: Recipe, runtime: Runtime, eager: Callable[[Tensor, Tensor], Tensor]
) -> StepCosts:
    """Whole steps of one micro-batch on random tokens, eager and compiled in turn."""
    batch = replace(recipe.train.batch, micro_batches=1, micro_batch_ramp=None)
    config, dtype = replace(recipe.train, batch=batch, loops_at=None), runtime.compute_dtype
    steps = training_steps(
        model,
        _random_batches(recipe),
        config,
        build_optimizers(model, config.optimizer, muon_dtype=dtype),
        StepClock(1_000_000),
        compute_dtype=dtype,
    )
    losses, found = (eager, model.loss), ([], [])
    until = time.perf_counter() + MEASURE_SECONDS
    for turn in range(1 + TURNS):  # the first one sets things up
        if turn > 1 and time.perf_counter() > until:
            break
        for loss, seconds in zip(losses, found, strict=True):
            model.loss = loss  # type: ignore[method-assign]
            begin = time.perf_counter()
            next(steps)
            if turn:
                seconds.append(time.perf_counter() - begin)
    slow, fast = map(statistics.median, found)
    return StepCosts(eager=slow, compiled=fast, measured=date.today().isoformat())


def _random_batches(recipe: Recipe) -> Iterator[tuple[Tensor, Tensor]]:
    batch, source = recipe.train.batch, torch.Generator().manual_seed(0)
    while True:
        shape = (batch.rows, batch.context + 1)
        tokens = torch.randint(recipe.model.vocab_size, shape, generator=source)
        yield tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
