"""What a folder is held against: the runs that it is to beat, and how many its own were."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fairway.result import RESULT
from fairway.runs.database import RunsDatabase
from fairway.runs.description import RECIPE, RUN
from fairway.runs.groups import Group, group_runs
from fairway.runs.record import RunRecord
from fairway.submission.folder import seed_name


def standing_groups(
    folder: Path, against: Sequence[Path], database: Path | None = None
) -> tuple[Group, Group] | tuple[None, None]:
    """The runs to beat and those of the folder, as groups; nothing where none are named.

    database  that knows how many runs of either there were
    """
    if not against:
        return None, None
    known = None if database is None else RunsDatabase(database).group_sizes()
    base = group_runs([RunRecord.of(run) for run in against], known)
    own = group_runs(records_in(folder), known)
    for groups, what in ((base, "--against names"), (own, f"{folder} holds")):
        if len(groups) != 1:
            raise ValueError(
                f"{what} runs of {len(groups)} things that have scores; name the seeds of one"
            )
    return base[0], own[0]


def known_runs(folder: Path, database: Path | None) -> int | None:
    """How many runs of this thing the database knows of; None where there is none."""
    if database is None:
        return None
    return RunsDatabase(database).group_sizes().get(records_in(folder)[0].group_id, 0)


def records_in(folder: Path) -> list[RunRecord]:
    """The runs of a folder that was handed in."""
    with _as_run_folders(folder) as folders:
        return [RunRecord.of(run) for run in folders]


@contextmanager
def _as_run_folders(folder: Path) -> Iterator[list[Path]]:
    """As run folders are laid out, for as long as they are read."""
    with tempfile.TemporaryDirectory() as place:
        found = []
        for path in sorted(folder.glob(seed_name(RESULT, 0).replace("0", "*"))):
            seed = int(path.stem.rpartition("seed")[2])
            run = Path(place) / str(seed)
            run.mkdir()
            for name in (RESULT, RUN, RECIPE):
                shutil.copyfile(folder / seed_name(name, seed), run / name)
            found.append(run)
        yield found
