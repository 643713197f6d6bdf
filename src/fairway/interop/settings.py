"""A published command line as settings of a run of ours.

A record is a recipe, and the variables it was run with are read from that recipe. What a user's
variables change about the run is what they change about that. Variables that steer what this
project does its own way (which compressor, which fused kernel) change nothing.
"""

from collections.abc import Mapping

from fairway.evaluate.config import EvaluateConfig
from fairway.interop.environment import ignored_variables, parse_environment
from fairway.recipes.diff import Difference, diff
from fairway.recipes.recipe import Recipe
from fairway.recipes.registry import PUBLISHED, RECIPES
from fairway.recipes.script import Environment


def training_settings(recipe: Recipe, env: Mapping[str, str]) -> dict[str, object]:
    """What variables change about a published recipe: dotted paths and values for `override`.

    env  variables of the recipe's script; what is left out stays as the record had it

    Raises ValueError naming every variable that is unknown, contradicts another, or asks for what
    this project does not do.
    """
    if recipe.name not in PUBLISHED:
        raise ValueError(
            f"{recipe.name} is not a published run, so it has no environment variables; set its "
            f"fields themselves, or start from one of {', '.join(PUBLISHED)}"
        )
    script, record = PUBLISHED[recipe.name], RECIPES[recipe.name]()
    for prefix, reason in script.refused.items():
        if refused := sorted(name for name in env if name.startswith(prefix)):
            raise ValueError(f"{', '.join(refused)}: {reason}")
    merged = parse_environment(script.name, env, otherwise=script.read(record))
    _require_fixed(merged)
    after = script.apply(record, merged)
    return {difference.path: difference.new for difference in diff(record, after)}


def ignored_by(recipe: Recipe, env: Mapping[str, str]) -> str:
    """Which variables change nothing because the recipe's script never reads them; empty: none."""
    script = PUBLISHED[recipe.name]
    names = ignored_variables(script.name, env)
    verb = "is" if len(names) == 1 else "are"
    return f"{', '.join(names)} {verb} read by no line of {script.name}'s script" if names else ""


def differences_from(recipe: Recipe, env: Mapping[str, str]) -> list[Difference]:
    """Every setting in which a published recipe differs from its script under these variables.

    What `env` leaves out is the script's own default, not the record's. Raises ValueError as
    `parse_environment` does, and for a recipe that no script ran.
    """
    if recipe.name not in PUBLISHED:
        raise ValueError(
            f"{recipe.name} is not a published run; only {', '.join(PUBLISHED)} have a script"
        )
    script = PUBLISHED[recipe.name]
    theirs = script.apply(script.default(), parse_environment(script.name, env))
    about = ("name", "parent", "claim_bpb", "pull_request")
    return [d for d in diff(theirs, recipe) if d.path not in about]


def _require_fixed(env: Environment) -> None:
    for name, row in env.script.variables.items():
        only = env.script.defaults[name]
        if row.fixed and env[name] != only:
            raise ValueError(f"{env.describe(name)}: only {only!r} is supported")


def published_evaluation(lineage: str, env: Mapping[str, str]) -> EvaluateConfig:
    """How a script scores under these variables, less any learning that comes before scoring."""
    parsed = parse_environment(lineage, env)
    return parsed.script.evaluation(parsed)
