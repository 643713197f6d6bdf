"""Runs that differ in their seed alone, as one group, named by what it does not share with others.

A group says what a reader of its mean must know (`reservations`): a seed given twice, a machine on
which the clock meant another number of steps, more runs of it than were given.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from fairway.recipes.diff import ABSENT, Difference, diff
from fairway.runs.record import RunRecord
from fairway.runtime.strict_json import JsonObject

MOST_NAMED = 3  # differences in a group's name
LONGEST = 40  # characters of a value there
SAME_DEPTH = 0.02  # steps may differ by this share before it is said


@dataclass(frozen=True)
class Group:
    """Runs with a score, at least one; each execution once.

    name         the recipe's, and in what it differs from others of that name
    known        runs of this group that the database knows of, those given included
    differences  from the first group of that name
    """

    name: str
    records: tuple[RunRecord, ...]
    known: int
    differences: tuple[Difference, ...] = ()

    @property
    def group_id(self) -> str:
        return self.records[0].group_id

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(record.seed for record in self.records)

    @property
    def bits_per_byte(self) -> tuple[float, ...]:
        return tuple(r.result.score.bits_per_byte for r in self.records if r.result.score)

    @property
    def nats_per_token(self) -> tuple[float, ...]:
        scores = [r.result.score for r in self.records]
        return tuple(s.nats / s.tokens for s in scores if s)

    @property
    def num_tokens(self) -> int:
        score = self.records[0].result.score
        return score.tokens if score else 0

    @property
    def num_bytes(self) -> int:
        score = self.records[0].result.score
        return score.bytes if score else 0

    @property
    def mean(self) -> float:
        """Bits per byte."""
        return fmean(self.bits_per_byte)

    @property
    def deviation(self) -> float | None:
        """Of the sample, in bits per byte; None of a single run."""
        return stdev(self.bits_per_byte) if len(self.records) > 1 else None

    @property
    def repeated(self) -> tuple[int, ...]:
        """Seeds that were run more than once."""
        return tuple(sorted({s for s in self.seeds if self.seeds.count(s) > 1}))

    @property
    def reservations(self) -> tuple[str, ...]:
        """What is said with the group's figures, each a sentence without a full stop."""
        found = []
        if self.repeated:
            seeds = ", ".join(map(str, self.repeated))
            found.append(f"seed {seeds} was run more than once: those are no further seeds")
        if self.known > len(self.records):
            found.append(
                f"{len(self.records)} of the {self.known} runs that the database knows of: they "
                f"may have been chosen for their scores"
            )
        steps = [record.result.train.steps for record in self.records]
        if max(steps) > min(steps) * (1 + SAME_DEPTH):
            machines = sorted({record.machine for record in self.records})
            where = f" on {len(machines)} kinds of machines" if len(machines) > 1 else ""
            found.append(f"trained for {min(steps):,} to {max(steps):,} steps{where}")
        if not self.records[0].settings:
            found.append("its folder does not say what was run, so it is alone")
        return tuple(found)

    def to_json(self) -> JsonObject:
        return {
            "name": self.name,
            "group_id": self.group_id,
            "seeds": list(self.seeds),
            "bits_per_byte": list(self.bits_per_byte),
            "mean_bits_per_byte": self.mean,
            "deviation_bits_per_byte": self.deviation,
            "mean_nats_per_token": fmean(self.nats_per_token),
            "known": self.known,
            "reservations": list(self.reservations),
            "folders": [str(record.folder) for record in self.records],
        }


def group_runs(records: Sequence[RunRecord], known: Mapping[str, int] | None = None) -> list[Group]:
    """Runs with a score by what they are, in order of appearance.

    known  runs with a score of each group, from `RunsDatabase.group_sizes`
    """
    members: dict[str, dict[str, RunRecord]] = {}
    for record in records:
        if record.result.score is not None and record.result.score.tokens:
            members.setdefault(record.group_id, {}).setdefault(record.run_id, record)
    first: dict[str, RunRecord] = {}  # of each recipe's name
    groups = []
    for group_id, held in members.items():
        runs = tuple(held.values())
        recipe = runs[0].result.recipe
        base = first.setdefault(recipe, runs[0])
        found = tuple(diff(base.experiment, runs[0].experiment))
        name = f"{recipe}, {named(found)}" if found else recipe
        groups.append(Group(name, runs, max((known or {}).get(group_id, 0), len(runs)), found))
    return groups


def named(differences: Sequence[Difference]) -> str:
    """Differences in short: what is new in each.

    >>> named([Difference("train.steps", 60, 120), Difference("model.loop", None, {"last": 5})])
    'train.steps 120, model.loop {"last": 5}'
    """
    told = [f"{path} {short(new)}" for path, _, new in differences[:MOST_NAMED]]
    more = len(differences) - MOST_NAMED
    return ", ".join([*told, *([f"{more} more differences"] if more > 0 else [])])


def short(value: object) -> str:
    """A value as JSON, its end cut off where it is long."""
    if value is ABSENT:
        return "absent"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
