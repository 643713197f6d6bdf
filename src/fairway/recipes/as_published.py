"""A published recipe with every switch as its script has it, where ours differs on purpose.

What cannot be switched, and why each is otherwise here, is in `docs/lineage.md`.
"""

from fairway.recipes.diff import override
from fairway.recipes.recipe import Recipe
from fairway.recipes.registry import PUBLISHED

PUBLISHED_RESERVE = {"pr1855": 0.5, "pr2135": 0.5}  # seconds, which their Hessians overran


def as_published(recipe: Recipe) -> Recipe:
    """`recipe` as its script runs it; ValueError for one that no script ran.

    A warmdown in steps counts steps, gradients are clipped on each process where the script does
    so, the rest of a chunk teaches nothing, documents are scored longest first, every clip is as
    the rules say, what rounding lost is mended as in #1797, and Hessians have the seconds that the
    record gave them.
    """
    if recipe.name not in PUBLISHED:
        raise ValueError(
            f"{recipe.name} was never published; only {', '.join(PUBLISHED)} have a script to be "
            f"as published"
        )
    changes: dict[str, object] = {"quant.clip": "exact"}
    script = PUBLISHED[recipe.name]
    if recipe.train.seconds is not None and "WARMDOWN_ITERS" in script.variables:
        steps = script.read(recipe)["WARMDOWN_ITERS"]
        changes |= {"train.warmdown.fraction": None, "train.warmdown.steps": steps}
    if script.banked:
        changes["train.clip_on_each_rank"] = True
    if recipe.quant.low_rank is not None:
        changes["quant.low_rank.form"] = "published"
    if hasattr(recipe.evaluate.ttt, "leftover"):
        changes["evaluate.ttt.leftover"] = False
    if recipe.evaluate.learner.chunk_targets() is None:  # documents side by side
        changes["evaluate.order"] = "longest_first"
    if recipe.diagnostic is not None and hasattr(recipe.diagnostic, "sgd"):
        changes["diagnostic.sgd.leftover"] = False
    if recipe.name in PUBLISHED_RESERVE and recipe.train.seconds is not None:
        reserve = PUBLISHED_RESERVE[recipe.name]
        changes |= {"train.reserve_seconds": reserve, "quant.reserve_seconds": reserve}
    return override(recipe, changes)
