"""Run folders, found: what a database of runs is made of."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fairway.result import RESULT
from fairway.runs.description import RUN
from fairway.runs.record import RunRecord, require_own_artifact


@dataclass(frozen=True)
class Scan:
    """What was found in some folders and all below.

    problems    one sentence for each folder that cannot be recorded
    unfinished  runs that were begun and have no result yet
    """

    records: tuple[RunRecord, ...]
    problems: tuple[str, ...]
    unfinished: tuple[Path, ...]


def scan(folders: Sequence[Path]) -> Scan:
    """Read every run below; ValueError where one of `folders` is not there."""
    records: dict[str, RunRecord] = {}
    problems: list[str] = []
    unfinished: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"there is no folder {folder}")
        for path in _run_folders(folder):
            if not (path / RESULT).is_file():
                unfinished.append(path)
                continue
            try:
                record = read_record(path)
            except (ValueError, OSError) as error:
                problems.append(str(error))
                continue
            records.setdefault(record.run_id, record)  # a copy of a folder is no second run
    return Scan(tuple(records.values()), tuple(problems), tuple(unfinished))


def read_record(folder: Path) -> RunRecord:
    """A run that may be recorded; ValueError for one that does not say what it was."""
    record = RunRecord.of(folder)
    if not (folder / RUN).is_file():
        raise ValueError(
            f"{folder} has no {RUN}, so that nobody can tell what else would be the same run"
        )
    require_own_artifact(record)
    return record


def _run_folders(folder: Path) -> Iterator[Path]:
    """Outermost first; those moved into `earlier/` too: they were tried."""
    for path, subfolders, files in os.walk(folder):
        subfolders.sort()
        if RESULT in files or RUN in files:
            yield Path(path)
