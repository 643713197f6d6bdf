"""Several runs in tables: by group, and one by one. What may be compared is decided in `runs/`."""

from collections.abc import Sequence
from statistics import fmean, stdev

from fairway.report.checks import NOT_RUN, count, fixed
from fairway.report.table import Grid
from fairway.result import RunResult
from fairway.runs.groups import Group
from fairway.runs.record import RunRecord

OUTCOME = ("bits per byte", "bytes", "proof", "audit")  # columns of a run's row


def group_grid(groups: Sequence[Group]) -> Grid:
    """Mean and sample standard deviation by group."""
    rows = [
        (
            group.name,
            ", ".join(str(seed) for seed in group.seeds),
            fixed(group.mean, 5),
            _deviation(group.bits_per_byte),
            fixed(fmean(group.nats_per_token), 5),
            _deviation(group.nats_per_token),
        )
        for group in groups
    ]
    columns = ("recipe", "seeds", "bits per byte", "deviation", "nats per token", "deviation")
    notes = [f"{group.name}: {words}" for group in groups for words in group.reservations]
    best = min(range(len(groups)), key=lambda i: groups[i].mean, default=None)
    one_text = len({group.records[0].text_id for group in groups}) == 1
    strong = best if len(groups) > 1 and one_text else None
    return Grid("Recipes", columns, tuple(rows), tuple(notes), strong)


def run_grid(results: Sequence[tuple[str, RunResult]]) -> Grid:
    """One line for each (folder name, result)."""
    rows = [
        (
            folder,
            result.recipe,
            str(result.seed),
            fixed(result.train.seconds, 0),
            *_outcome(result),
        )
        for folder, result in results
    ]
    columns = ("run", "recipe", "seed", "train s", *OUTCOME)
    return Grid("Runs", columns, tuple(rows))


def record_grid(records: Sequence[RunRecord]) -> Grid:
    """One line for each run of a database, the newest last."""
    rows = [
        (
            str(record.folder),
            record.result.recipe,
            str(record.seed),
            f"{record.result.train.steps:,}",
            fixed(record.result.train.seconds, 1),
            *_outcome(record.result),
            "finished" if record.finished else "unfinished",
        )
        for record in records
    ]
    columns = ("run", "recipe", "seed", "steps", "train s", *OUTCOME, "state")
    return Grid(f"{len(records)} runs", columns, tuple(rows))


def _outcome(result: RunResult) -> tuple[str, str, str, str]:
    """The cells of `OUTCOME`."""
    proof = NOT_RUN
    if result.proof is not None:
        holds = result.proof.decoded_equal and result.proof.holds
        proof = "decodes" if holds else "BROKEN"
    return (
        fixed(result.score.bits_per_byte if result.score else None, 5),
        count(result.artifact.bytes_total if result.artifact else None),
        proof,
        result.audit.verdict if result.audit else NOT_RUN,
    )


def _deviation(values: Sequence[float]) -> str:
    return fixed(stdev(values), 5) if len(values) > 1 else "one seed"
