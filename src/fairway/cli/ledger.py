"""Commands about runs that were made: list and compare them, and what their changes did."""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import UseAppendAction, arg

from fairway.cli.answer import Answer, No, require_places
from fairway.cli.words import Folders, MaybeCount, MaybeFile, MaybeName, Name
from fairway.runtime.extras import extra

if TYPE_CHECKING:
    from fairway.runs.database import RunsDatabase
    from fairway.runs.record import RunRecord
    from fairway.runs.rules import RuleSet

Conditions = Annotated[tuple[str, ...], UseAppendAction, arg(metavar="NAME=VALUE")]
MaybeNumber = Annotated[float | None, arg(metavar="X")]
USUAL = Path("runs") / "runs.sqlite"


def runs(
    runs: MaybeFile = None,
    scan: Folders = (),
    where: Conditions = (),
    since: MaybeName = None,
    compare: bool = False,
    rules: Name = "parameter-golf",
    threshold_nats: MaybeNumber = None,
    significance: MaybeNumber = None,
    num_seeds: MaybeCount = None,
) -> Answer:
    """list runs, find some, compare them; --scan DIR makes the database from run folders

    The database is one SQLite file. `fairway seeds` fills one; so does every run that is told of
    one, by `fairway run ... --runs FILE` or by the variable FAIRWAY_RUNS.

    Args:
        runs: the database; otherwise that of the variable FAIRWAY_RUNS, or runs.sqlite in the first
            folder of --scan, or runs/runs.sqlite
        scan: read all run folders below these first, and record them
        where: only runs that meet this: recipe=pocket, seed!=42, bits_per_byte<1.9, or any setting
            of a recipe, such as train.steps=60; may be given several times
        since: only runs recorded since that day or time, such as 2026-05-03; UTC
        compare: the first group of runs that differ in their seed alone against every other
        rules: what decides whether one is better: parameter-golf, or parameter-golf-list
        threshold_nats: advantage in nats per token to show, instead of that of the rules
        significance: p value that must not be reached, instead of that of the rules
        num_seeds: seeds that each side must have, instead of those of the rules
    """
    from fairway.report.compare import record_grid
    from fairway.report.table import as_plain
    from fairway.runs.database import RunsDatabase, Where
    from fairway.runs.scan import scan as scanned

    conditions = [Where.parse(text) for text in where]
    chosen = _rules(rules, threshold_nats, significance, num_seeds) if compare else None
    database = RunsDatabase(_database(runs, scan))
    answer: Answer = {"database": str(database.path)}
    if scan:
        database.check()
        found = scanned(scan)
        database.add(found.records)
        for words in found.problems:
            print(f"not recorded: {words}", file=sys.stderr)
        for folder in found.unfinished:
            print(f"no result yet: {folder}", file=sys.stderr)
        answer |= {
            "recorded": len(found.records),
            "problems": list(found.problems),
            "unfinished": [str(folder) for folder in found.unfinished],
        }
    held = database.runs(conditions, since)
    print(as_plain(record_grid(held)), file=sys.stderr)
    answer["runs"] = [_listed(record) for record in held]
    if chosen is not None:
        answer |= _compared(held, database, chosen)
    if answer.get("problems"):
        raise No(answer)
    return answer


def effects(
    runs: MaybeFile = None,
    where: Conditions = (),
    since: MaybeName = None,
    csv: MaybeFile = None,
    page: MaybeFile = None,
) -> Answer:
    """what each change of a recipe did to each stage's score, of all that was tried

    A run is matched with the one of the same seed from which it differs in one setting, at equal
    steps or at equal seconds. p values are corrected for the number of changes tried (Holm).

    Args:
        runs: the database; otherwise that of the variable FAIRWAY_RUNS, or runs/runs.sqlite
        where: only runs that meet this, as for `fairway runs`
        since: only runs recorded since that day or time, such as 2026-05-03; UTC
        csv: file to write the figures to, a line for each change and stage
        page: HTML file to write, with a picture
    """
    with extra("report", "fairway effects"):
        from fairway.report.effects import effects_csv, effects_grids, write_effects_page
    from fairway.report.table import as_plain
    from fairway.runs.database import RunsDatabase, Where
    from fairway.runs.effects import ledger
    from fairway.runtime.files import atomic_write

    require_places(csv, page)
    database = RunsDatabase(_database(runs))
    found = ledger(database.runs([Where.parse(text) for text in where], since))
    if not found.effects:
        raise ValueError(
            f"no two of the {found.num_runs} runs with a score differ in one setting alone and "
            f"share seed, text and version; run a recipe and one change of it: fairway seeds"
        )
    print("\n\n".join(as_plain(grid) for grid in effects_grids(found)), file=sys.stderr)
    if csv is not None:
        atomic_write(csv, effects_csv(found).encode())
    if page is not None:
        write_effects_page(found, page)
    return {"database": str(database.path), **found.to_json()}


def _database(named: Path | None, scan: tuple[Path, ...] = ()) -> Path:
    from fairway.runs.database import DATABASE, ENVIRONMENT

    if named is not None:
        return named
    if os.environ.get(ENVIRONMENT):
        return Path(os.environ[ENVIRONMENT])
    return scan[0] / DATABASE if scan else USUAL


def _rules(
    name: str, threshold: float | None, significance: float | None, num_seeds: int | None
) -> "RuleSet":
    from fairway.runs.rules import rule_set

    given = {
        "threshold_nats": threshold,
        "significance": significance,
        "num_seeds": num_seeds,
    }
    changes = {field: value for field, value in given.items() if value is not None}
    chosen = rule_set(name)
    return replace(chosen, name=f"{name}, changed", **changes) if changes else chosen


def _compared(records: "Sequence[RunRecord]", database: "RunsDatabase", rules: "RuleSet") -> Answer:
    from fairway.report.compare import group_grid
    from fairway.report.table import as_plain
    from fairway.runs.compare import compare
    from fairway.runs.groups import group_runs

    groups = group_runs(records, database.group_sizes())
    found = [compare(groups[0], other, rules) for other in groups[1:]]
    print("\n" + as_plain(group_grid(groups)), file=sys.stderr)
    for comparison in found:
        print("\n" + "\n".join(comparison.sentences), file=sys.stderr)
    return {
        "groups": [group.to_json() for group in groups],
        "comparisons": [comparison.to_json() for comparison in found],
    }


def _listed(record: "RunRecord") -> Answer:
    result = record.result
    return {
        "run_id": record.run_id,
        "group_id": record.group_id,
        "folder": str(record.folder),
        "recipe": result.recipe,
        "seed": record.seed,
        "finished": record.finished,
        "recorded": record.recorded,
        "bits_per_byte": result.score and result.score.bits_per_byte,
        "bytes_total": result.artifact and result.artifact.bytes_total,
        "steps": result.train.steps,
        "train_seconds": result.train.seconds,
        "proof": result.proof and result.proof.holds,
        "audit": result.audit and result.audit.verdict,
    }
