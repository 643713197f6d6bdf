"""A run from Python: what `fairway run` does, with the same names."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from fairway.pipeline.story import RunOptions
from fairway.pipeline.story import run as run_recipe
from fairway.recipes.recipe import Recipe
from fairway.recipes.registry import recipe as find_recipe
from fairway.result import RunResult
from fairway.runtime.progress import Progress, silent


def run(
    recipe: Recipe | str,
    data: str | Path,
    out: str | Path,
    options: RunOptions | None = None,
    *,
    progress: Progress = silent,
    **settings: Any,
) -> RunResult:
    """One run, from shards to a score that is proved, audited and reported in the folder `out`.

    recipe    one, or its name, `recipe.json` of any run, or `file.py:function`
    data      a data folder, which `fairway.prepare` makes
    options   how and where it is made: see `RunOptions`
    progress  called with all that the run's log is told
    settings  of the options, by name: resume="auto", proof_tokens=0, ...

    Raises ValueError for whatever the user can mend, before any time is spent where it can be known
    before. Interrupted by Ctrl-C it keeps a checkpoint, and goes on with resume="auto".
    """
    chosen = find_recipe(recipe) if isinstance(recipe, str) else recipe
    how = replace(options or RunOptions(), **settings)
    return run_recipe(chosen, Path(data), Path(out), how, progress=progress)
