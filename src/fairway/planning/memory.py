"""How large micro-batches may be: what a step takes of a device's memory, before any is taken."""

from typing import NamedTuple

import torch

from fairway.planning.figure import Figure
from fairway.recipes.recipe import Recipe
from fairway.train.memory import GIB, SPARE, StepMemory, predict_step

# The five logs of `published.py` that tell theirs lie from 9 % below to 32 % above what is counted
# here; the latter is the first of all scripts, those of later ones are within a tenth.
ERROR = 0.33


class RankMemory(NamedTuple):
    """bytes  most of all at any moment of a step, on each rank
    rows   the largest micro-batch that fits what the device has, in rows
    """

    bytes: Figure
    rows: int


def rank_memory(recipe: Recipe, free_bytes: float, dtype: torch.dtype) -> RankMemory:
    """Of the recipe's own micro-batches, with `free_bytes` to be had."""
    batch = recipe.train.batch

    def step(rows: int) -> StepMemory:
        return predict_step(recipe.model, recipe.train, dtype, rows=rows, context=batch.context)

    own, one = step(batch.rows), step(1)
    if batch.rows == 1:
        own, more = one, step(2)
        each = more.peak - one.peak
    else:
        each = (own.peak - one.peak) / (batch.rows - 1)
    most = max(0, 1 + int((free_bytes - one.peak) / max(each, 1.0)))
    return RankMemory(
        Figure(
            value=own.peak,
            error=ERROR,
            basis="counted on tensors without values; the error is the largest of five published "
            "runs, that of the others a tenth",
        ),
        most if one.peak <= free_bytes else 0,
    )


def usable_bytes(gib: float) -> float:
    """Of a GPU's memory, what is left by its context, by libraries and by fragments."""
    return (1.0 - SPARE) * gib * GIB
