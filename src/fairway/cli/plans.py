"""Commands about runs that nobody has started yet."""

import sys
from typing import Annotated

from tyro.conf import arg

from fairway.cli.answer import Answer
from fairway.cli.words import MaybeSeconds, RecipeName


def plan(
    recipe: RecipeName,
    gpus: Annotated[str | None, arg(metavar="8xH100")] = None,
    seconds: MaybeSeconds = None,
    dollars_per_hour: Annotated[float | None, arg(metavar="DOLLARS")] = None,
) -> Answer:
    """what a run will take and give, before it is started: RECIPE

    Here, a few steps are taken on random tokens. For GPUs, steps are predicted from the published
    runs on 8 x H100.

    Args:
        recipe: a name (`fairway recipes`), the recipe.json of any run, or a function of your own
            that returns one: package.module:function or path/file.py:function
        gpus: plan for these, such as 8xH100, 1xH200 or 2xA100; otherwise for this machine
        seconds: of training; otherwise the recipe's own
        dollars_per_hour: of all GPUs together; otherwise what people paid for H100s
    """
    from fairway.planning.plan import plan_here, plan_on_gpus
    from fairway.recipes.registry import recipe as named

    chosen = named(recipe)
    if gpus is None:
        found = plan_here(chosen, seconds)
    else:
        found = plan_on_gpus(chosen, gpus, seconds, dollars_per_hour)
    off = f"± {found.error:.0%}"
    lines = {
        "where": found.where,
        "parameters": f"{found.params:,}",
        "step": f"{1000 * found.step_seconds:,.1f} ms {off}, "
        f"{found.flops_per_second / 1e12:,.2f} TFLOP/s",
        "training": f"{found.steps:,} steps, {found.tokens:,} tokens in {found.seconds:,.0f} s",
        "evaluation": f"at most {found.eval_seconds:,.0f} s, which it is planned into",
        "artifact": f"about {found.artifact_bytes:,} bytes before it is fitted to "
        f"{found.cap_bytes:,}",
    }
    if found.dollars is not None:
        lines["price"] = f"{found.dollars:,.2f} dollars at {found.dollars_per_hour:,.2f} an hour"
    for name, words in lines.items():
        print(f"{name:<11} {words}")
    print(f"({found.basis})", file=sys.stderr)
    return found.to_json()
