"""A run records itself: at its end, and when it is stopped."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fairway.pipeline.recording import recorded
from fairway.recipes.registry import recipe, smoke
from fairway.result import RunResult
from fairway.runs.database import RunsDatabase
from fairway.runtime.distributed import Ranks

Go = Callable[..., RunResult]


def test_a_run_is_recorded_when_it_is_stopped_and_when_it_ends(go: Go, tmp_path: Path) -> None:
    out, database = tmp_path / "run", tmp_path / "runs.sqlite"

    def stopped() -> None:
        with recorded(out, database, Ranks()):
            go(smoke(recipe("pocket")), out)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    (run,) = RunsDatabase(database).runs()
    database.unlink()
    with recorded(out, database, Ranks()):
        pass
    (again,) = RunsDatabase(database).runs()
    assert again == run
    assert run.finished
    assert run.folder == out


def test_what_could_not_be_recorded_is_said_before_anything_is_run(tmp_path: Path) -> None:
    database = tmp_path / "runs.sqlite"
    database.write_text("no database at all, but long enough to be taken for one" * 9)

    def run() -> None:
        with recorded(tmp_path, database, Ranks()):
            pytest.fail("it was run")

    with pytest.raises(ValueError, match="no database of runs"):
        run()


def test_nothing_is_recorded_unless_it_is_asked_for(tmp_path: Path) -> None:
    with recorded(tmp_path, None, Ranks()):
        pass
    with recorded(tmp_path, tmp_path / "runs.sqlite", Ranks(rank=1, world_size=2)):
        pass
    assert not list(tmp_path.iterdir())


def test_a_run_that_could_not_be_recorded_says_how_to(go: Go, tmp_path: Path) -> None:
    out, database = tmp_path / "run", tmp_path / "runs.sqlite"

    def run() -> None:
        with recorded(out, database, Ranks()):
            go(smoke(recipe("pocket"), steps=2), out)
            (out / "model.fwy").write_bytes(b"another")

    with pytest.raises(ValueError, match=r"is finished, but was not recorded: .*--scan"):
        run()
