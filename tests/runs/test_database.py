"""The database: found again, two writers at once, killed writers, and files that are none of it."""

import multiprocessing
import os
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from fairway.runs.database import RunsDatabase, Where
from fairway.runs.record import RunRecord

from .run_folders import write_run


def record(folder: Path, **about: object) -> RunRecord:
    return RunRecord.of(write_run(folder, **about))  # type: ignore[arg-type]


@pytest.fixture
def database(tmp_path: Path) -> RunsDatabase:
    """Three recipes' worth of runs."""
    found = RunsDatabase(tmp_path / "runs.sqlite")
    found.add(
        [
            record(tmp_path / "a1", nats_per_token=3.0, seed=1),
            record(tmp_path / "a2", nats_per_token=3.1, seed=2),
            record(tmp_path / "b1", nats_per_token=2.9, seed=1, train__steps=9, name="longer"),
            record(tmp_path / "c1", nats_per_token=None, seed=1, train__optimizer__muon__lr=0.5),
        ]
    )
    return found


def test_runs_come_back_as_they_were(tmp_path: Path) -> None:
    runs = [record(tmp_path / "a"), record(tmp_path / "b", seed=2)]
    database = RunsDatabase(tmp_path / "runs.sqlite")
    database.add(runs)
    database.add(runs[:1])  # again
    assert {r.run_id: r for r in database.runs()} == {r.run_id: r for r in runs}


@pytest.mark.parametrize(
    ("condition", "names"),
    [
        ("recipe=longer", {"b1"}),
        ("recipe!=longer", {"a1", "a2", "c1"}),
        ("seed=2", {"a2"}),
        ("train.steps>=9", {"b1"}),
        ("train.optimizer.muon.lr=0.5", {"c1"}),
        ("bits_per_byte=null", {"c1"}),
        ("nats_per_token<3.05", {"a1", "b1"}),
        ("finished=true", {"a1", "a2", "b1"}),
        ("evaluate.mixture!=null", {"a1", "a2", "b1", "c1"}),
    ],
)
def test_conditions_find_what_they_say(
    database: RunsDatabase, condition: str, names: set[str]
) -> None:
    assert {run.folder.name for run in database.runs([Where.parse(condition)])} == names


def test_conditions_that_mean_nothing_are_refused(database: RunsDatabase) -> None:
    with pytest.raises(ValueError, match="is no condition"):
        Where.parse("recipe")
    with pytest.raises(ValueError, match=r"no run in .* has a setting 'train.stepz'"):
        database.runs([Where.parse("train.stepz=60")])
    with pytest.raises(ValueError, match="names no setting"):
        database.runs([Where.parse('x"] = 1 --=2')])
    with pytest.raises(ValueError, match="give a day or time"):
        database.runs(since="yesterday")


def test_since_is_a_moment(database: RunsDatabase, tmp_path: Path) -> None:
    old = record(tmp_path / "old", seed=7)
    database.add([replace(old, recorded="2001-05-03T12:00:00+00:00")])
    assert len(database.runs()) == 5
    assert len(database.runs(since="2001-05-04")) == 4
    assert len(database.runs(since="2001-05-03T12:00+01:00")) == 5


def test_groups_are_counted_by_their_runs_with_a_score(database: RunsDatabase) -> None:
    assert sorted(database.group_sizes().values()) == [1, 2]


def start(path: Path, one: RunRecord, number: int, first: int) -> tuple[BaseProcess, int]:
    """A process that records so many runs one by one, and a pipe with the seeds of those that it
    has recorded, 8 bytes each."""
    told, tell = os.pipe()

    def write() -> None:
        for seed in range(first, first + number):
            result = replace(one.result, seed=seed, made_with=f"{seed:064}")
            RunsDatabase(path).add([replace(one, result=result)])
            os.write(tell, seed.to_bytes(8, "little"))

    process = multiprocessing.get_context("fork").Process(target=write)
    process.start()
    os.close(tell)
    return process, told


def test_several_writers_lose_nothing(tmp_path: Path) -> None:
    one, path = record(tmp_path / "a"), tmp_path / "runs.sqlite"
    writers = [start(path, one, 20, first)[0] for first in (1000, 2000, 3000)]
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    seeds = {run.seed for run in RunsDatabase(path).runs()}
    assert seeds == {first + i for first in (1000, 2000, 3000) for i in range(20)}


def test_a_killed_writer_leaves_whole_runs_and_no_lock(tmp_path: Path) -> None:
    one, path = record(tmp_path / "a"), tmp_path / "runs.sqlite"
    kept: list[int] = []
    for attempt in range(4):
        writer, told = start(path, one, 100_000, attempt * 100_000)
        with os.fdopen(told, "rb") as pipe:
            held = pipe.read(8 * (1 + attempt))
            time.sleep(0.002 * attempt)
            writer.kill()
            held += pipe.read()
        writer.join()
        kept += [int.from_bytes(held[i : i + 8], "little") for i in range(0, len(held), 8)]
    found = RunsDatabase(path)
    found.add([record(tmp_path / "last", seed=7)])
    runs = found.runs()
    assert len(kept) >= 10
    assert set(kept) <= {run.seed for run in runs}
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("SELECT COUNT(*) FROM stages").fetchone() == (4 * len(runs),)


def test_a_newer_version_is_refused_by_name_and_left_alone(
    database: RunsDatabase, tmp_path: Path
) -> None:
    with sqlite3.connect(database.path) as connection:
        connection.execute("PRAGMA user_version = 9")
    before = database.path.read_bytes()
    another = record(tmp_path / "d", seed=9)
    for use in (database.runs, database.check, lambda: database.add([another])):
        with pytest.raises(ValueError, match="by a newer fairway: it has version 9 of the tables"):
            use()
    assert database.path.read_bytes() == before


def test_files_that_are_no_database_of_ours_are_refused_and_left_alone(tmp_path: Path) -> None:
    foreign, text = tmp_path / "foreign.sqlite", tmp_path / "notes.txt"
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE mine (x)")
    text.write_text("not a database, but longer than SQLite's header of one hundred bytes" * 3)
    one = record(tmp_path / "a")
    for path, words in ((foreign, "of another program"), (text, "no database of runs")):
        before = path.read_bytes()
        with pytest.raises(ValueError, match=words):
            RunsDatabase(path).add([one])
        assert path.read_bytes() == before


def test_a_damaged_database_says_how_to_make_it_anew(database: RunsDatabase) -> None:
    data = bytearray(database.path.read_bytes())
    data[4096:] = bytes(len(data) - 4096)
    database.path.write_bytes(data)
    with pytest.raises(ValueError, match="fairway runs --scan DIR"):
        database.runs()


def test_a_database_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no database of runs at"):
        RunsDatabase(tmp_path / "none.sqlite").runs()
    with pytest.raises(ValueError, match="there is no folder"):
        RunsDatabase(tmp_path / "none" / "runs.sqlite").check()
    assert not list(tmp_path.iterdir())


def test_a_writer_that_fails_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    database = RunsDatabase(tmp_path / "runs.sqlite")
    database.add([record(tmp_path / "a")])

    def half() -> Iterator[RunRecord]:
        yield record(tmp_path / "b", seed=2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        database.add(half())
    assert [run.seed for run in database.runs()] == [1]


def test_a_record_of_another_version_is_named_with_its_folder(
    database: RunsDatabase, tmp_path: Path
) -> None:
    with sqlite3.connect(database.path) as connection:
        connection.execute(
            "UPDATE runs SET record = json_set(record, '$.result.new', 1) WHERE seed = 2"
        )
    with pytest.raises(ValueError, match=r"the run of .*/a2 was recorded by a version .*new"):
        database.runs()
    assert len(database.runs([Where.parse("seed=1")])) == 3
