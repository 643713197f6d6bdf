"""The training of a published script, step by step: its weights in, its weights out.

For whoever wants to compare: our own training loop, optimizers and averages under the settings that
a script's variables mean, on batches that the caller gives, everything under the script's names.
"""

from collections.abc import Mapping
from itertools import islice

import torch
from torch import Tensor

from fairway.average import Swa, build_average
from fairway.interop.published_weights import (
    load_published,
    parse_checkpoint_environment,
    to_published,
)
from fairway.model.gpt import GPT
from fairway.quant.qat import detach, late_rounding
from fairway.recipes.diff import override
from fairway.recipes.recipe import Recipe
from fairway.train.config import build_clock
from fairway.train.loop import training_steps
from fairway.train.param_groups import build_optimizers

Trained = dict[str, Tensor | dict[str, Tensor]]


def train_steps(
    lineage: str,
    env: Mapping[str, str],
    state_dict: Mapping[str, Tensor],
    tokens: Tensor,
    targets: Tensor,
    micro_batches: int,
) -> Trained:
    """Train as the script of that lineage does under these variables, in float32 on one process.

    state_dict       initial weights under the script's own names, of any float type
    tokens, targets  (n, B, T) ids: the micro-batches in the order they are used, and what follows
                     each token
    micro_batches    how many of them make a step; n / micro_batches steps are taken of the
                     `ITERATIONS` that the schedules are laid out for

    Returns, of each step, `loss`, `lr_scale`, `momentum`, `grad_norm` (before clipping; all float64
    (steps,)), `looping` and `rounding` (bool (steps,)), and after the last one `state_dict` and
    `average`, float32, by the script's names: what training ends with and what the script goes on
    with, the same where it does not average.

    Raises ValueError for variables or tensors that do not fit, or a run that a clock would end.
    """
    environment = parse_checkpoint_environment(lineage, env, state_dict)
    recipe = environment.script.apply(environment.script.default(), environment)
    steps = _check_batches(recipe, tokens, targets, micro_batches)
    rows, context = tokens.shape[1:]
    shape = {"rows": rows, "context": context, "micro_batches": micro_batches}
    config = override(recipe.train, {f"batch.{name}": size for name, size in shape.items()})

    model = GPT(recipe.model)
    load_published(model, environment, state_dict)
    optimizers = build_optimizers(model, config.optimizer, muon_dtype=torch.float32)
    average = build_average(model, recipe.average)
    rounding = late_rounding(recipe.round_from, recipe.round_as or recipe.quant)
    batches = zip(tokens.long(), targets.long(), strict=True)
    loop = training_steps(
        model, batches, config, optimizers, build_clock(config), milestones=rounding
    )
    taken: dict[str, list[float]] = {name: [] for name in ("loss", "lr_scale", "momentum")}
    taken |= {"grad_norm": [], "looping": [], "rounding": []}
    for step in islice(loop, steps):
        average.update(step)
        taken["loss"].append(step.loss.item())
        taken["lr_scale"].append(step.lr_scale)
        taken["momentum"].append(step.momentum)
        assert step.grad_norm is not None
        taken["grad_norm"].append(step.grad_norm.item())
        taken["looping"].append(recipe.model.loop is not None and model.loops_active)
        taken["rounding"].append(
            any(m.when.reached(step.progress, step.lr_scale) for m in rounding)
        )
    detach(model)

    # What the script holds without any use for it, nothing has moved.
    idle = {name: tensor.float().clone() for name, tensor in state_dict.items()}
    flags = ("looping", "rounding")
    last = _float32(model.state_dict())
    # A script that has gathered nothing yet goes on with the weights as they are.
    averaged = last if isinstance(average, Swa) and not average.count else average.state_dict()
    return {
        **{
            name: torch.tensor(values, dtype=torch.bool if name in flags else torch.float64)
            for name, values in taken.items()
        },
        "state_dict": idle | to_published(lineage, recipe.model, last),
        "average": idle | to_published(lineage, recipe.model, averaged),
    }


def _float32(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().float() for name, tensor in state.items()}


def _check_batches(recipe: Recipe, tokens: Tensor, targets: Tensor, micro_batches: int) -> int:
    """The number of steps that the batches make."""
    if tokens.ndim != 3 or tokens.shape != targets.shape:
        raise ValueError(
            f"tokens {tuple(tokens.shape)} and targets {tuple(targets.shape)} must both be "
            f"(micro-batches, rows, context)"
        )
    steps, rest = divmod(len(tokens), micro_batches) if micro_batches > 0 else (0, 1)
    if rest or not steps:
        raise ValueError(
            f"{len(tokens)} micro-batches are no whole number of steps of {micro_batches}"
        )
    if recipe.train.steps is None:
        raise ValueError(
            "a clock ends this run, so no two are alike: set MAX_WALLCLOCK_SECONDS=0, and "
            "ITERATIONS to the steps of the whole run"
        )
    if steps > recipe.train.steps:
        raise ValueError(
            f"{len(tokens)} micro-batches are {steps} steps, more than "
            f"ITERATIONS={recipe.train.steps}"
        )
    return steps
