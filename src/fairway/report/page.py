"""One self-contained HTML page about one run or several.

Gathers what the page says; how it looks is in `template.py`, the pictures are in `plots.py`, the
numbers in `table.py` and the judgement in `checks.py` and `compare.py`. All text passes through the
template's escaping; only our own pictures do not.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from fairway import __version__
from fairway.report import compare as comparing
from fairway.report.checks import checks, count, diagnostics, fixed, section
from fairway.report.plots import inline_svgs
from fairway.report.run_folder import RunFolder, read_run
from fairway.report.table import (
    artifact_grid,
    baseline_grid,
    circumstances,
    run_title,
    stage_grid,
)
from fairway.report.template import PAGE

Recipes = Mapping[str, Mapping[str, Any]]
ABOUT = frozenset({"name", "parent", "claim_bpb"})  # says which recipe it is, not what it does
ABSENT = "absent"  # this side does not have the setting


def write_report(runs: Sequence[Path], out: Path, recipes: Recipes | None = None) -> Path:
    """Write the page about `runs` to the file `out` and return it.

    recipes  the recipes known by name, as plain data: what a run's recipe is compared with

    Raises ValueError when a folder has no result.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(render([read_run(path) for path in runs], recipes or {}), encoding="utf-8")
    return out


def render(runs: Sequence[RunFolder], recipes: Recipes) -> str:
    """The page as text: the same runs give the same text."""
    if not runs:
        raise ValueError("a report needs a run folder: `fairway report RUN...`")
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(PAGE)
    first = runs[0].result
    several = len(runs) > 1
    return template.render(
        version=__version__,
        title=f"{len(runs)} runs compared" if several else str(first.get("recipe", runs[0].name)),
        subtitle="The first recipe is what the others are measured against."
        if several
        else circumstances(first),
        runs=[_one_run(run, recipes, f"r{i}") for i, run in enumerate(runs)],
        comparison=_comparison(runs) if several else None,
    )


def _comparison(runs: Sequence[RunFolder]) -> dict[str, Any]:
    groups = comparing.group_runs([run.result for run in runs])
    return {
        "groups": comparing.group_grid(groups),
        "sentences": [comparing.compare(groups[0], other).sentence for other in groups[1:]],
        "runs": comparing.run_grid([(run.name, run.result) for run in runs]),
        "threshold": comparing.THRESHOLD_NATS,
        "significance": comparing.SIGNIFICANCE,
    }


def _one_run(run: RunFolder, recipes: Recipes, prefix: str) -> dict[str, Any]:
    result, score = run.result, section(run.result, "score")
    promises = checks(result)
    svgs = inline_svgs(run, prefix)
    names = ("stages", "running", "chunks", "loss", "seconds", "artifact")
    claim, claim_words = claim_of(run)
    return {
        "name": run.name,
        "subtitle": run_title(result),
        "score": fixed(score["bits_per_byte"], 4) if score else "",
        "scored": f"{count(score.get('bytes'))} bytes",
        "claim": claim,
        "claim_words": claim_words,
        "checks": promises,
        "broken": [check for check in promises if check.state == "broken"],
        "stages": stage_grid(result),
        "baselines": baseline_grid(result),
        "artifact": artifact_grid(result),
        "pictures": {name: Markup(svgs[name]) if name in svgs else "" for name in names},
        "diagnostics": [(n, fixed(v, 4), words) for n, v, words in diagnostics(result)],
        "probes": _probes(result),
        "certificate": _json(run.certificate),
        "parent": (run.recipe or {}).get("parent"),
        "difference": _difference(run, recipes),
        "recipe_words": recipe_words(run, recipes),
        "recipe": _json(run.recipe),
        "commands": "\n".join(commands(run, recipes)),
    }


def claim_of(run: RunFolder) -> tuple[str, str]:
    """The recipe's published score, and what this run's is beside it."""
    claim = (run.recipe or {}).get("claim_bpb")
    score = section(run.result, "score").get("bits_per_byte")
    if claim is None:
        return "", "This recipe has no published score."
    if score is None:
        return fixed(claim, 4), "published for this recipe"
    difference = score - claim
    side = "above" if difference > 0 else "below"
    if abs(difference) < 5e-6:
        return fixed(claim, 4), "published for this recipe; this run has the same"
    return fixed(claim, 4), f"published for this recipe; this run is {abs(difference):.5f} {side}"


def recipe_words(run: RunFolder, recipes: Recipes) -> str:
    if run.recipe is None:
        return "The folder has no recipe.json."
    name, parent = run.recipe.get("name"), run.recipe.get("parent")
    if parent is None:
        return f"{name} derives from no other recipe."
    if parent not in recipes:
        return f"{name} derives from {parent}, which is not among the recipes of this version."
    if not recipe_difference(run.recipe, recipes[parent]):
        return f"{name} derives from {parent} and differs from it in name only."
    return f"{name} derives from {parent} and differs from it in these settings."


def recipe_difference(
    recipe: Mapping[str, Any], parent: Mapping[str, Any]
) -> list[tuple[str, str, str]]:
    """(dotted setting, value in the parent, value in the recipe), both as JSON text.

    A part that only one side has is one difference, shown whole.

    >>> recipe_difference({"name": "b", "lr": 0.02, "loop": {"first": 3, "last": 5}},
    ...                   {"name": "a", "lr": 0.04, "loop": None})
    [('lr', '0.04', '0.02'), ('loop', 'null', '{"first": 3, "last": 5}')]
    """
    return _differences(_settings(recipe), _settings(parent), "")


def _differences(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], path: str
) -> list[tuple[str, str, str]]:
    rows: list[tuple[str, str, str]] = []
    for key in [*ours, *(key for key in theirs if key not in ours)]:
        a, b, name = ours.get(key), theirs.get(key), f"{path}{key}"
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            rows += _differences(a, b, f"{name}.")
        elif a != b or (key in ours) != (key in theirs):
            rows.append((name, _text(theirs, key), _text(ours, key)))
    return rows


def _text(side: Mapping[str, Any], key: str) -> str:
    return json.dumps(side[key]) if key in side else ABSENT


def _settings(recipe: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in recipe.items() if key not in ABOUT}


def commands(run: RunFolder, recipes: Recipes) -> list[str]:
    """What to type to get this run again; `commands` of the result where it has them.

    DATA stands for the data folder, which a result does not name.
    """
    if run.result.get("commands"):
        return [str(command) for command in run.result["commands"]]
    name = str(run.result.get("recipe") or (run.recipe or {}).get("name", "RECIPE"))
    words, by_hand = ["fairway", "run", name, "DATA", "--out", f"runs/{run.name}"], []
    if run.recipe is not None and name in recipes:
        for setting, _, value in recipe_difference(run.recipe, recipes[name]):
            if value[0] in "[{n":  # a list, a part, or null: no single word sets it
                by_hand.append(f"# with {setting} = {value}, as recipe.json has it")
            else:
                words += [f"--{setting.replace('_', '-')}", value.strip('"')]
    return [
        *by_hand,
        shlex.join(words),
        shlex.join(["fairway", "audit", f"runs/{run.name}/model.fwy", "DATA"]),
        shlex.join(["fairway", "report", f"runs/{run.name}"]),
    ]


def _difference(run: RunFolder, recipes: Recipes) -> list[tuple[str, str, str]]:
    parent = (run.recipe or {}).get("parent")
    if run.recipe is None or parent is None or parent not in recipes:
        return []
    return recipe_difference(run.recipe, recipes[parent])


def _probes(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    probes = section(section(result, "audit"), "probes")
    return [
        {
            "name": name,
            "ok": bool(probe.get("ok")),
            "summary": probe.get("summary", ""),
            "findings": [_finding(finding) for finding in probe.get("findings", ())],
            "not_covered": list(probe.get("not_covered", ())),
        }
        for name, probe in probes.items()
    ]


def _finding(finding: Any) -> str:
    if not isinstance(finding, Mapping):
        return str(finding)
    kind = f" (likely {finding['kind']}: {finding.get('kind_name')})" if finding.get("kind") else ""
    return f"{finding.get('said', '')}{kind}"


def _json(value: Mapping[str, Any] | None) -> str:
    return "" if value is None else json.dumps(value, indent=2, ensure_ascii=False)
