"""The command that shows recipes. Their names alone cost no PyTorch."""

import json
from typing import Annotated

from tyro.conf import Positional, arg

from fairway.cli.answer import Answer, read_env
from fairway.cli.words import MaybeFile, MaybeName


def recipes(
    name: Annotated[str | None, Positional, arg(metavar="RECIPE")] = None,
    diff: MaybeName = None,
    against: MaybeFile = None,
) -> Answer:
    """list all recipes, show one, or compare it: [RECIPE] [--diff OTHER | --against ENV.json]

    Lists all recipes, shows one as JSON, or prints what differs between two.

    Args:
        name: the recipe to show: a name, the recipe.json of any run, package.module:function or
            path/file.py:function; without one all names are listed
        diff: the recipe to compare it with
        against: JSON file of variables: prints every setting in which the recipe differs from what
            its script does under them
    """
    if name is None:
        from fairway.recipes.names import SUMMARIES

        if diff is not None or against is not None:
            raise ValueError("name the recipe to compare: fairway recipes RECIPE --diff OTHER")
        for each, summary in SUMMARIES.items():
            print(f"{each:16s} {summary}")
        return {"recipes": list(SUMMARIES)}
    from fairway.model.blank import num_params
    from fairway.recipes.diff import diff as differences
    from fairway.recipes.diff import to_json
    from fairway.recipes.registry import recipe

    chosen = recipe(name)
    if diff is not None:
        changes = differences(recipe(diff), chosen)
        print(*changes, sep="\n")
        values = {c.path: {diff: repr(c.old), name: repr(c.new)} for c in changes}
        return {"name": name, "other": diff, "changes": values}
    if against is not None:
        from fairway.interop.settings import differences_from

        differing = differences_from(chosen, read_env(against))
        print(*differing or ["no setting differs"], sep="\n")
        return {
            "name": name,
            "against": str(against),
            "changes": {c.path: {"script": repr(c.old), name: repr(c.new)} for c in differing},
        }
    answer = to_json(chosen) | {"params": num_params(chosen.model)}
    print(json.dumps(answer, indent=1))
    return answer
