"""A folder of ours that was handed in, read: all that it holds of each seed, and what is found."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fairway.result import RESULT, RunResult
from fairway.runs.description import MOST_DESCRIPTION, RECIPE, RUN
from fairway.runs.record import ARTIFACT
from fairway.runs.rules import RuleSet
from fairway.runtime.files import read_file
from fairway.runtime.identity import unsealed
from fairway.runtime.limits import one_line
from fairway.runtime.progress import Progress, silent
from fairway.runtime.setup import LOG
from fairway.runtime.strict_json import JsonObject, json_object, parse_json
from fairway.submission.folder import (
    COPIED,
    SUBMISSION,
    log_facts,
    seed_name,
)
from fairway.submission.script import SCRIPT
from fairway.tokens.shards import DataFolder

Answer = Literal["pass", "fail", "unknown"]
AS_CLOSE = 1e-9  # relative: figures that were written down once more


@dataclass(frozen=True)
class Finding:
    """check  the question, in a word or two
    said   what was found
    mend   what to do about it; empty where nothing is to be done
    """

    check: str
    answer: Answer
    said: str
    mend: str = ""


@dataclass(frozen=True, kw_only=True)
class Seed:
    """All that a folder holds of one seed. told: what its log says of itself"""

    number: int
    result: RunResult
    made: JsonObject
    recipe: JsonObject
    told: Mapping[str, Any]
    model: Path


@dataclass(frozen=True, kw_only=True)
class Case:
    """A folder of ours, read.

    known  runs of this thing that a database of runs knows of; None: there is none
    """

    folder: Path
    rules: RuleSet
    described: JsonObject
    seeds: tuple[Seed, ...]
    data: DataFolder | None = None
    known: int | None = None
    seconds: float = 60.0
    progress: Progress = field(default=silent, repr=False)

    @property
    def code_bytes(self) -> int:
        return (self.folder / SCRIPT).stat().st_size


def is_ours(folder: Path) -> bool:
    """Whether `fairway submit` wrote it, or somebody who made it look so."""
    return any(folder.glob("result_seed*.json")) or any(folder.glob("*.fwy"))


def read_case(folder: Path, **options: Any) -> Case:
    """Raises ValueError naming the file that is missing or damaged."""
    described = read_object(folder / SUBMISSION)
    numbers = described.get("seeds")
    numbers = numbers if isinstance(numbers, list) else []
    if {type(number) for number in numbers} != {int}:
        raise ValueError(f"{folder / SUBMISSION} lists no seeds; write it with `fairway submit`")
    seeds = []
    for number in dict.fromkeys(n for n in numbers if isinstance(n, int)):
        missing = [name for name, needed in COPIED.items() if needed]
        missing = [n for n in missing if not (folder / seed_name(n, number)).is_file()]
        if missing:
            raise ValueError(f"{folder} has no {seed_name(missing[0], number)}; hand it in as well")
        run = read_sealed(folder / seed_name(RUN, number))
        made = json_object(run.get("made_with"), f"made_with of seed {number}")
        json_object(made.get("versions"), f"versions of seed {number}")
        seeds.append(
            Seed(
                number=number,
                result=RunResult.from_json(read_sealed(folder / seed_name(RESULT, number))),
                made=dict(made),  # type: ignore[arg-type]
                recipe=read_sealed(folder / seed_name(RECIPE, number)),
                told=log_facts(folder / seed_name(LOG, number)),
                model=folder / seed_name(ARTIFACT, number),
            )
        )
    return Case(folder=folder, described=described, seeds=tuple(seeds), **options)


def of_seed(case: Case, seed: Seed) -> Mapping[str, Any]:
    held = case.described.get("seed_results")
    found = held.get(str(seed.number)) if isinstance(held, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def close(told: object, value: float) -> bool:
    number = isinstance(told, int | float) and not isinstance(told, bool)
    return number and math.isclose(float(told), value, rel_tol=AS_CLOSE)  # type: ignore[arg-type]


def read_object(path: Path) -> JsonObject:
    try:
        found = parse_json(read_file(path, MOST_DESCRIPTION))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {one_line(error)}; write it with `fairway submit`") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no JSON object; write it with `fairway submit`")
    return found


def read_sealed(path: Path) -> JsonObject:
    try:
        return unsealed(read_file(path, MOST_DESCRIPTION), required=True)
    except ValueError as error:
        raise ValueError(
            f"{path} was edited, or is damaged ({one_line(error, 100)}); copy the run's own"
        ) from error
