"""A run's entry in the database of runs, made by the run itself."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fairway.result import RESULT
from fairway.runs.database import RunsDatabase
from fairway.runs.scan import read_record
from fairway.runtime.distributed import Ranks


@contextmanager
def recorded(out: Path, database: Path | None, ranks: Ranks) -> Iterator[None]:
    """Record the run in the folder `out` when it ends, as far as it has come if it is stopped.

    database  None records nothing

    Raises ValueError, before anything is run, where nothing could be recorded.
    """
    if database is None or not ranks.is_main:
        yield
        return
    runs = RunsDatabase(database)
    runs.check()
    try:
        yield
    except BaseException:
        with suppress(ValueError, OSError):  # what stopped the run is what must be heard
            _record(out, runs)
        raise
    try:
        _record(out, runs)
    except (ValueError, OSError) as error:
        raise ValueError(
            f"the run in {out} is finished, but was not recorded: {error}; "
            f"fairway runs --scan {out} --runs {database}"
        ) from error


def _record(out: Path, runs: RunsDatabase) -> None:
    if (out / RESULT).is_file():
        runs.add([read_record(out)])
