"""One self-contained HTML page about one run or several.

Gathers what the page says; how it looks is in `page.html.j2`, the pictures are in `plots.py`, the
numbers in `table.py` and `compare.py`, the judgement in `checks.py` and `runs/`. All text passes
through the template's escaping; only our own pictures do not.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from markupsafe import Markup

from fairway.audit.findings import KINDS
from fairway.recipes.diff import diff, from_json, set_json, to_json
from fairway.report.checks import checks, count, diagnostics, fixed
from fairway.report.compare import group_grid, run_grid
from fairway.report.excerpt import MOST_TOKENS
from fairway.report.marked_text import text_view
from fairway.report.overlays import overlay_svgs
from fairway.report.plots import PICTURES, inline_svgs
from fairway.report.run_folder import RecipeData, RunFolder, read_run
from fairway.report.table import (
    artifact_grid,
    circumstances,
    compressor_grid,
    run_title,
    stage_grid,
)
from fairway.report.templates import template
from fairway.result import ScoreResult
from fairway.runs.compare import compare
from fairway.runs.groups import group_runs
from fairway.runs.record import ABOUT
from fairway.runs.rules import CHALLENGE
from fairway.runtime.files import atomic_write

Recipes = Mapping[str, RecipeData]
Change = tuple[str, str, str]  # dotted setting, value before, value now, as JSON text


def write_report(runs: Sequence[Path], out: Path, recipes: Recipes | None = None) -> Path:
    """Write the page about `runs` to the file `out` and return it.

    recipes  the recipes known by name, as plain data: what a run's recipe is compared with

    Raises ValueError when a folder has no result.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(out, render([read_run(path) for path in runs], recipes or {}).encode())
    return out


def render(runs: Sequence[RunFolder], recipes: Recipes) -> str:
    """The page as text: the same runs give the same text."""
    if not runs:
        raise ValueError("a report needs a run folder: `fairway report RUN...`")
    several, first = len(runs) > 1, runs[0].result
    return template("page.html.j2").render(
        title=f"{len(runs)} runs compared" if several else first.recipe,
        subtitle="The first recipe is what the others are measured against."
        if several
        else circumstances(first),
        runs=[
            _one_run(run, recipes, f"r{i}", MOST_TOKENS // len(runs)) for i, run in enumerate(runs)
        ],
        comparison=_comparison(runs) if several else None,
        kinds=KINDS,
    )


def _comparison(runs: Sequence[RunFolder]) -> dict[str, object]:
    groups = group_runs([run.record for run in runs])
    return {
        "groups": group_grid(groups),
        "pictures": [Markup(svg) for svg in overlay_svgs(groups).values()],
        "sentences": [compare(groups[0], other).sentences for other in groups[1:]],
        "runs": run_grid([(run.name, run.result) for run in runs]),
        "rules": str(CHALLENGE),
    }


def scored_words(score: ScoreResult | None) -> str:
    if score is None:
        return ""
    size = f"{count(score.bytes)} bytes"
    return size if score.scope is None else f"{size}, {score.scope}"


def _one_run(run: RunFolder, recipes: Recipes, prefix: str, most_tokens: int) -> dict[str, object]:
    result, score = run.result, run.result.score
    promises = checks(result)
    svgs = inline_svgs(run, prefix)
    claim, claim_words = claim_of(run)
    recipe_words, changes = changes_of(run, recipes)
    return {
        "name": run.name,
        "prefix": prefix,
        "text": None if run.excerpt is None else text_view(run.excerpt.cut(most_tokens)),
        "subtitle": run_title(result),
        "score": fixed(score.bits_per_byte, 4) if score else "",
        "scored": scored_words(score),
        "claim": claim,
        "claim_words": claim_words,
        "checks": promises,
        "broken": [check for check in promises if check.state == "broken"],
        "stages": stage_grid(result),
        "compressors": compressor_grid(result),
        "artifact": artifact_grid(result.artifact),
        "pictures": {name: Markup(svgs.get(name, "")) for name in PICTURES},
        "diagnostics": [(n, fixed(v, 4), words) for n, v, words in diagnostics(result)],
        "probes": list(result.audit.probes.values()) if result.audit else [],
        "certificate": run.certificate.to_json() if run.certificate else "",
        "parent": (run.recipe or {}).get("parent"),
        "difference": changes,
        "recipe_words": recipe_words,
        "recipe": "" if run.recipe is None else json.dumps(run.recipe, indent=2),
        "made_of": made_of(run),
        "commands": "\n".join(commands(run, recipes)),
    }


def claim_of(run: RunFolder) -> tuple[str, str]:
    """The recipe's published score, and what this run's is beside it."""
    claim, score = (run.recipe or {}).get("claim_bpb"), run.result.score
    if claim is None:
        return "", "This recipe has no published score."
    words = "published for this recipe"
    if score is not None:
        difference = score.bits_per_byte - claim
        same, side = abs(difference) < 5e-6, "above" if difference > 0 else "below"
        words += (
            "; this run has the same" if same else f"; this run is {abs(difference):.5f} {side}"
        )
    return fixed(claim, 4), words


def changes_of(run: RunFolder, recipes: Recipes) -> tuple[str, list[Change]]:
    """How the run's recipe differs from its parent: in a sentence, and setting by setting."""
    if run.recipe is None:
        return "The folder has no recipe.json.", []
    name, parent = run.recipe.get("name"), run.recipe.get("parent")
    if parent is None:
        return f"{name} derives from no other recipe.", []
    derived = f"{name} derives from {parent}"
    if parent not in recipes:
        return f"{derived}, which is not among the recipes of this version.", []
    try:
        changes = recipe_difference(run.recipe, recipes[parent])
    except ValueError as error:
        words = f"In what it differs is not shown, since this version cannot read it: {error}."
        return f"{derived}. {words}", []
    if not changes:
        return f"{derived} and differs from it in name only.", []
    return f"{derived} and differs from it in these settings.", changes


def recipe_difference(recipe: RecipeData, parent: RecipeData) -> list[Change]:
    """(dotted setting, value in the parent, value in the recipe), both as JSON text.

    A part that only one side has, or another class on each, is one difference, shown whole.
    Raises ValueError where this version cannot read one of the recipes.
    """
    found = diff(to_json(from_json(parent)), to_json(from_json(recipe)))
    return [
        (path, json.dumps(old), json.dumps(new)) for path, old, new in found if path not in ABOUT
    ]


def made_of(run: RunFolder, most_files: int = 6) -> str:
    """By which versions, and of which files, as far as the folder knows."""
    by = ", ".join(f"{name} {version}" for name, version in run.record.versions.items())
    files = [f"{name} sha256 {digest}" for name, digest in run.result.data.items()]
    more = len(files) - most_files
    if more > 0:
        files[most_files:] = [f"and {more:,} more, which run.json lists"]
    said = [f"Made with {by}." if by else "", f"DATA: {', '.join(files)}." if files else ""]
    return " ".join(filter(None, said))


def commands(run: RunFolder, recipes: Recipes) -> list[str]:
    """What to type to get this run again.

    DATA stands for the data folder, which a result does not name.
    """
    name, notes, options = run.result.recipe, [], []
    if run.recipe is not None and name in recipes:
        try:
            options, notes = overrides(run.recipe, recipes[name])
        except ValueError as error:
            notes = [f"# with what recipe.json changes; this version cannot read it: {error}"]
    return [
        *notes,
        shlex.join(["fairway", "run", name, "DATA", "--out", f"runs/{run.name}", *options]),
        shlex.join(["fairway", "audit", f"runs/{run.name}/model.fwy", "DATA"]),
        shlex.join(["fairway", "report", f"runs/{run.name}"]),
    ]


def overrides(recipe: RecipeData, named: RecipeData) -> tuple[list[str], list[str]]:
    """Options that make a recipe of the one that is named, and notes on what none of them can say.

    Every `--set` is applied before the other options, so it must be possible without them.
    """
    config, options, notes = from_json(named), [], []
    for setting, _, text in recipe_difference(recipe, named):
        value = json.loads(text)
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            options += [f"--{setting.replace('_', '-')}", str(value)]
            continue
        try:
            config = set_json(config, setting, value)
            options += ["--set", f"{setting}={text}"]
        except ValueError:
            notes.append(f"# with {setting} = {text}, as recipe.json has it")
    return options, notes
