"""What a run of a recipe will come to: measured on this machine, or from what published runs took.

Nothing is trained. Each figure says by how much it may be off, and how that is known.
"""

import re
import time
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import torch

from fairway.artifact.budget import predict_bytes
from fairway.evaluate.planner import NothingFits
from fairway.model.blank import blank, num_params
from fairway.model.flops import flops_per_token
from fairway.model.gpt import GPT
from fairway.pipeline.packing import COARSEST, FINEST, seconds_to_calibrate
from fairway.pipeline.scoring import plan_into_clock
from fairway.pipeline.story import new_model
from fairway.planning.figure import Figure
from fairway.planning.memory import rank_memory, usable_bytes
from fairway.planning.published import (
    DOLLARS,
    GPUS,
    NODE,
    RUNS,
    SEEDS_ERROR,
    UNCLOCKED_SECONDS,
    StepModel,
    fit_steps,
)
from fairway.planning.steps import Now, loop_share, step_seconds
from fairway.recipes.recipe import Recipe
from fairway.recipes.registry import recipe as named
from fairway.runtime.device import machine, seed_everything
from fairway.runtime.setup import Runtime
from fairway.runtime.strict_json import JsonObject
from fairway.tokens.shards import DataFolder
from fairway.tokens.val_text import ValText
from fairway.train.memory import free_bytes

UNCONFIRMED_ERROR = 0.3  # of steps on machines that nobody has published a step of
ESTIMATE_ERROR = 0.15  # of an evaluation of which a few batches were timed
FIT_ERROR = 0.001  # what a file that is fitted to its cap leaves empty, at most
BYTES_ERROR = 0.2  # of one that is not: what weights take once they are trained


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One run, as far as it can be known beforehand.

    where          the machine: "8 x H100", or the processor's name
    step_seconds   mean over the run, with its loop on as long as the recipe says
    seconds        of training, those included that are kept back for calibration
    memory         bytes on each rank, of `memory_there`
    rows           of a micro-batch, and the most that would fit
    artifact_bytes code included
    eval_seconds   of the pass that gives the score
    dollars        of training and evaluation, and of what no clock counts
    """

    recipe: str
    where: str
    params: int
    step_seconds: Figure
    steps: Figure
    tokens: Figure
    seconds: float
    memory: Figure
    memory_there: float
    rows: int
    most_rows: int
    artifact_bytes: Figure
    cap_bytes: int
    eval_seconds: Figure
    flops_per_second: float
    dollars: Figure | None = None
    dollars_per_hour: float | None = None

    def to_json(self) -> JsonObject:
        return asdict(self)


def plan_on_gpus(
    recipe: Recipe, gpus: str, seconds: float | None = None, dollars_per_hour: float | None = None
) -> Plan:
    """From what published runs took.

    gpus              such as "8xH100"; another GPU counts by its peak, which nobody has checked
    seconds           of training; None: the recipe's own
    dollars_per_hour  for all GPUs; None: what people paid for an H100, for each

    Raises ValueError for a GPU that is not known.
    """
    number, name = _gpus(gpus)
    recipe = _with_seconds(recipe, seconds)
    speed = GPUS[name].teraflops / GPUS["H100"].teraflops
    model = published_steps()
    error = model.error
    basis = f"fitted to {len(RUNS)} published runs on {NODE} x H100, each predicted by the others"
    if (number, name) != (NODE, "H100"):
        error = max(error, UNCONFIRMED_ERROR)
        basis += (
            f"; scaled to {number} x {name} by peak arithmetic, which no run has confirmed: its "
            "error is a guess"
        )
    step = Figure(
        value=model.seconds(mean_flops(recipe), number, speed),
        error=error,
        basis=basis,
    )
    return _plan(
        recipe,
        f"{number} x {name}",
        step,
        kept=recipe.train.reserve_seconds,
        free=usable_bytes(GPUS[name].gib),
        dtype=torch.bfloat16,
        evaluation=_published_evaluation(recipe, number * speed / NODE),
        dollars_per_hour=number * DOLLARS if dollars_per_hour is None else dollars_per_hour,
    )


def plan_here(
    recipe: Recipe,
    runtime: Runtime,
    seconds: float | None = None,
    *,
    data: Path | None = None,
    dollars_per_hour: float | None = None,
    now: Now = time.perf_counter,
) -> Plan:
    """From steps taken on this machine now.

    runtime  with the number type of training, as measured
    data     as it would be trained and scored on; None: evaluation is known by its budget alone
    now      seconds by which steps are measured

    Raises ValueError where there is no such data.
    """
    recipe = _with_seconds(recipe, seconds)
    kept, evaluation = recipe.train.reserve_seconds, _budgeted(recipe)
    if data is not None:
        folder = DataFolder(data)
        model = new_model(recipe, folder, runtime)
        kept = seconds_to_calibrate(model, recipe, folder, runtime)
        text = ValText.of(folder, recipe.tokens.val_tokens)
        evaluation = _measured(model, recipe, text, runtime)
    found, device = machine(), runtime.device
    name = f"{found.processor}, {found.cores} cores"
    return _plan(
        recipe,
        torch.cuda.get_device_name(device) if device.type == "cuda" else name,
        step_seconds(recipe, runtime, now=now),
        kept=kept,
        free=free_bytes(device),
        dtype=runtime.compute_dtype,
        evaluation=evaluation,
        dollars_per_hour=dollars_per_hour,
    )


@cache
def published_steps() -> StepModel:
    """The model of `published.py`, with the operations that our recipes of those runs take."""
    flops = [mean_flops(named(run.recipe)) for run in RUNS]
    return fit_steps(flops, [run.milliseconds / 1e3 for run in RUNS])


def _plan(
    recipe: Recipe,
    where: str,
    step: Figure,
    *,
    kept: float,
    free: float,
    dtype: torch.dtype,
    evaluation: Figure,
    dollars_per_hour: float | None,
) -> Plan:
    clock, steps = recipe.train.seconds, recipe.train.steps
    if clock is None:
        number = replace(step, value=steps or 0, error=0.0)
        clock = number.value * step.value + kept
    else:
        number = replace(step, value=int(max(0.0, clock - kept) / step.value))
    memory, batch = rank_memory(recipe, free, dtype), recipe.train.batch
    dollars = None
    if dollars_per_hour is not None:
        dollars = _dollars(clock, evaluation, dollars_per_hour)
    return Plan(
        recipe=recipe.name,
        where=where,
        params=num_params(recipe.model),
        step_seconds=step,
        steps=number,
        tokens=replace(number, value=number.value * batch.tokens_per_step),
        seconds=clock,
        memory=memory.bytes,
        memory_there=free,
        rows=batch.rows,
        most_rows=memory.rows,
        artifact_bytes=artifact_bytes(recipe),
        cap_bytes=recipe.budget.cap_bytes,
        eval_seconds=evaluation,
        flops_per_second=mean_flops(recipe) / step.value,
        dollars=dollars,
        dollars_per_hour=dollars_per_hour,
    )


def _dollars(clock: float, evaluation: Figure, per_hour: float) -> Figure:
    seconds = clock + evaluation.value + UNCLOCKED_SECONDS
    # The last two are known badly, the first as well as a clock is.
    unsure = (evaluation.error or 0.0) * evaluation.value + UNCLOCKED_SECONDS / 2
    return Figure(
        value=per_hour * seconds / 3600,
        error=None if evaluation.error is None else unsure / seconds,
        basis=f"both clocks, and {UNCLOCKED_SECONDS:.0f} s for compiling and packing, as logs have",
    )


def artifact_bytes(recipe: Recipe) -> Figure:
    """Code included where the file is fitted to its cap; else of untrained weights alone."""
    seed_everything(0)
    shapes = blank(recipe.model).shipped_state_dict()
    state = {name: torch.randn(tensor.shape) for name, tensor in shapes.items()}
    cap, fitted = recipe.budget.cap_bytes, recipe.quant.clip == "fitted"
    if fitted:
        finest, coarsest = (predict_bytes(state, recipe.quant, clip) for clip in (FINEST, COARSEST))
        if coarsest <= cap <= finest:
            basis = "clips are fitted so that file and code land under the cap"
            return Figure(value=cap, error=FIT_ERROR, basis=basis)
    return Figure(
        value=predict_bytes(
            state, recipe.quant, (FINEST if finest < cap else COARSEST) if fitted else 1.0
        ),
        error=BYTES_ERROR,
        basis="of weights that nobody has trained, without code and tokenizer",
    )


def _published_evaluation(recipe: Recipe, nodes: float) -> Figure:
    """As the script of the same evaluation took, on so many times 8 x H100."""
    for run in RUNS:
        known = named(run.recipe)
        if (known.evaluate, known.model) == (recipe.evaluate, recipe.model):
            basis = (
                f"as the script of {run.recipe} took, which the code here may undercut or exceed"
            )
            return Figure(value=run.eval_seconds / nodes, error=SEEDS_ERROR, basis=basis)
    return _budgeted(recipe)


def _budgeted(recipe: Recipe) -> Figure:
    return Figure(
        value=recipe.budget.eval_seconds, error=None, basis="its budget, which it is planned into"
    )


def _measured(model: GPT, recipe: Recipe, text: ValText, runtime: Runtime) -> Figure:
    try:
        found = plan_into_clock(model, recipe, text, runtime)
    except NothingFits as nothing:
        return replace(_budgeted(recipe), basis=f"--fit: {nothing}")
    basis = f"a few batches and lessons timed now; {found}"
    return Figure(value=found.total_seconds, error=ESTIMATE_ERROR, basis=basis)


def _gpus(words: str) -> tuple[int, str]:
    """
    >>> _gpus("8xH100"), _gpus("a100")
    ((8, 'H100'), (1, 'A100'))
    """
    found = re.fullmatch(r"(?:(\d+)\s*x\s*)?([A-Z]\d+)", words.strip().upper().replace("X", "x"))
    if found is None or found[2] not in GPUS or not int(found[1] or 1):
        raise ValueError(f"{words!r} is not like 8xH100; GPUs that are known: {', '.join(GPUS)}")
    return int(found[1] or 1), found[2]


def _with_seconds(recipe: Recipe, seconds: float | None) -> Recipe:
    if seconds is None:
        return recipe
    return replace(recipe, train=replace(recipe.train, seconds=seconds, steps=None))


def mean_flops(recipe: Recipe) -> float:
    """Operations of a step, mean over the run."""
    batch, model = recipe.train.batch, blank(recipe.model)
    off, on = (flops_per_token(model, batch.context, loops=loops) for loops in (False, True))
    return (off + (on - off) * loop_share(recipe)) * batch.tokens_per_step
