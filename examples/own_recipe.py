"""Recipes of one's own, as their difference from `pocket`.

fairway recipes own_recipe.py:deeper --diff pocket
fairway run own_recipe.py:deeper DATA
"""

from fairway.recipes.diff import derive
from fairway.recipes.recipe import Recipe
from fairway.recipes.registry import recipe, smoke


def deeper() -> Recipe:
    """Two layers more, and ten minutes of training."""
    changes = {
        "model.num_layers": 6,
        "model.attention.exclusive_layers": 6,
        "train.seconds": 600.0,
    }
    return derive(recipe("pocket"), "deeper", changes)


def quick() -> Recipe:
    """The same kind of model in miniature: every stage of a run, in seconds."""
    return smoke(recipe("pocket"), vocab_size=512, steps=30)
