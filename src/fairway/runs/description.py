"""What a run folder says of itself: what the run was made with, and the recipe."""

from pathlib import Path

from fairway.artifact.config_json import config_from_json
from fairway.recipes.recipe import Recipe
from fairway.runtime.files import read_file
from fairway.runtime.identity import unsealed
from fairway.runtime.limits import one_line
from fairway.runtime.strict_json import Json

RUN, RECIPE = "run.json", "recipe.json"
MOST_DESCRIPTION = 1 << 26  # bytes of `run.json`: a line for each shard


def read_run(folder: Path) -> dict[str, Json] | None:
    """What `run.json` says; None where there is none, ValueError where it is damaged."""
    path = folder / RUN
    if not path.is_file():
        return None
    try:
        held = unsealed(read_file(path, MOST_DESCRIPTION), required=True)
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({one_line(error, 100)}); start anew with --overwrite, which moves "
            f"the old files away"
        ) from error
    return held


def read_recipe(folder: Path) -> Recipe:
    """The recipe of a run folder; ValueError where there is none, or it is damaged."""
    path = folder / RECIPE
    try:
        return config_from_json(Recipe, unsealed(read_file(path, MOST_DESCRIPTION)))
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({one_line(error)}); start anew with --overwrite, which moves the "
            f"old files away"
        ) from error
