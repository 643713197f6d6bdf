"""Commands about runs that nobody has started yet."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from fairway.cli.answer import Answer
from fairway.cli.words import MaybeCount, MaybeName, MaybeSeconds, RecipeName

if TYPE_CHECKING:
    from fairway.planning.plan import Plan


def plan(
    recipe: RecipeName,
    data: Annotated[Path | None, Positional, arg(metavar="DATA")] = None,
    gpus: Annotated[str | None, arg(metavar="8xH100")] = None,
    device: MaybeName = None,
    threads: MaybeCount = None,
    seconds: MaybeSeconds = None,
    dollars_per_hour: Annotated[float | None, arg(metavar="DOLLARS")] = None,
) -> Answer:
    """what a run will take and give, before it is started: RECIPE [DATA]

    Here, a few steps are taken on random tokens, for some 20 seconds. For GPUs, all is predicted
    from the published runs on 8 x H100. Each figure is told with its error.

    Args:
        data: the data folder whose validation text is to be scored; without one, evaluation is
            known by its budget alone
        gpus: plan for these, such as 8xH100, 1xH200 or 2xA100; otherwise for this machine
        device: of this machine: cpu, cuda or cuda:N; otherwise a GPU where there is one
        threads: of this machine's CPU; otherwise all cores
        seconds: of training; otherwise the recipe's own
        dollars_per_hour: of the whole machine; otherwise, with --gpus, what people paid for H100s
    """
    from fairway.planning.plan import plan_here, plan_on_gpus
    from fairway.recipes.registry import recipe as named
    from fairway.runtime.setup import runtime_for

    chosen = named(recipe)
    if gpus is not None:
        here = {"DATA": data, "--device": device, "--threads": threads}
        if given := [name for name, value in here.items() if value is not None]:
            raise ValueError(f"{', '.join(given)}: that is for this machine, and --gpus for others")
        found = plan_on_gpus(chosen, gpus, seconds, dollars_per_hour)
    else:
        with runtime_for(device=device, threads=threads) as runtime:
            found = plan_here(
                chosen, runtime.measured(), seconds, data=data, dollars_per_hour=dollars_per_hour
            )
    _show(found)
    return found.to_json()


def _show(found: "Plan") -> None:
    step, gib = found.step_seconds, 2**30
    rate = f"{found.flops_per_second / 1e12:,.2f} TFLOP/s"
    memory = found.memory.shown(f"{found.memory.value / gib:,.2f} GiB")
    lines = {
        "where": (found.where, ""),
        "parameters": (f"{found.params:,}", ""),
        "step": (f"{step.shown(f'{1000 * step.value:,.1f} ms')}, {rate}", step.basis),
        "training": (
            f"{found.steps.shown(f'{found.steps.value:,.0f} steps')} in {found.seconds:,.0f} s, "
            f"{found.tokens.value:,.0f} tokens",
            "",
        ),
        "memory": (
            f"{memory} of {found.memory_there / gib:,.1f} on each rank, in micro-batches of "
            f"{found.rows:,} rows; {found.most_rows:,} would fit",
            found.memory.basis,
        ),
        "artifact": (
            f"{found.artifact_bytes.shown(f'{found.artifact_bytes.value:,.0f} bytes')}, of "
            f"{found.cap_bytes:,}",
            found.artifact_bytes.basis,
        ),
        "evaluation": (
            found.eval_seconds.shown(f"{found.eval_seconds.value:,.1f} s"),
            found.eval_seconds.basis,
        ),
    }
    if found.dollars is not None:
        price = found.dollars.shown(f"{found.dollars.value:,.2f} dollars")
        lines["price"] = (f"{price} at {found.dollars_per_hour:,.2f} an hour", found.dollars.basis)
    for name, (words, _) in lines.items():
        print(f"{name:<11} {words}")
    for name, (_, basis) in lines.items():
        if basis:
            print(f"{name:<11} {basis}", file=sys.stderr)
