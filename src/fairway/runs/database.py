"""All runs in one SQLite file, which is filled by runs and can be made anew from their folders.

Every change is one transaction in a write-ahead log: a process that is killed leaves all of a run
or nothing, and two that write wait for each other. SQLite needs a disk of this machine for that:
runs on several nodes are recorded by one of them, from their folders.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fairway.runs.record import RunRecord
from fairway.runtime.limits import one_line
from fairway.runtime.strict_json import json_object, parse_json

SCHEMA_VERSION = 1
APPLICATION = 0x66775901  # SQLite's application_id of our files
WAIT_SECONDS = 60.0  # for another process that writes
ENVIRONMENT = "FAIRWAY_RUNS"  # the variable that names a database
DATABASE = "runs.sqlite"  # its name beside run folders

COLUMNS = {  # what a run can be found by: name, type
    "run_id": "TEXT PRIMARY KEY", "folder": "TEXT", "recipe": "TEXT", "seed": "INTEGER",
    "group_id": "TEXT", "text_id": "TEXT", "version": "TEXT", "torch": "TEXT", "machine": "TEXT",
    "device": "TEXT", "finished": "INTEGER", "recorded": "TEXT", "params": "INTEGER",
    "steps": "INTEGER", "train_seconds": "REAL", "eval_seconds": "REAL", "bits_per_byte": "REAL",
    "nats_per_token": "REAL", "bytes_total": "INTEGER", "proof": "INTEGER", "audit": "TEXT",
    "holds": "INTEGER", "settings": "TEXT", "record": "TEXT",
}  # fmt: skip
OPERATORS = {"!=": "IS NOT", "<=": "<=", ">=": ">=", "=": "IS", "<": "<", ">": ">"}


@dataclass(frozen=True)
class Where:
    """One condition: a column of `COLUMNS`, or a setting by its dotted path, against a value."""

    name: str
    operator: str
    value: object

    @classmethod
    def parse(cls, text: str) -> "Where":
        """From `recipe=pocket`, `bits_per_byte<1.9`, `train.steps=60`; ValueError for else.

        >>> Where.parse("seed!=42")
        Where(name='seed', operator='!=', value=42)
        """
        for operator in OPERATORS:
            name, found, value = text.partition(operator)
            if found and name and not set(name) & set("!<>="):
                return cls(name.strip(), operator, _value(value.strip()))
        raise ValueError(
            f"{text!r} is no condition; write NAME=VALUE (or !=, <, <=, >, >=), where NAME is one "
            f"of {', '.join(_SHOWN)}, or a setting such as train.steps"
        )

    def sql(self) -> tuple[str, list[object]]:
        value = self.value
        if isinstance(value, list | dict):
            value = json.dumps(value, separators=(",", ":"))  # as SQLite writes it
        operator = OPERATORS[self.operator]
        if self.name in COLUMNS:
            return f"{self.name} {operator} ?", [value]
        return f"json_extract(settings, ?) {operator} ?", [_json_path(self.name), value]


_SHOWN = [name for name in COLUMNS if name not in ("settings", "record")]


class RunsDatabase:
    """The file at `path`. Nothing is opened, and no file made, before it is used.

    Every method raises ValueError where the file is none of ours, damaged, of a newer version, or
    held by another process for longer than a minute; nothing is written then.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def check(self) -> None:
        """ValueError where nothing could be recorded here; makes no file."""
        if self.path.exists():
            with self._opened():
                pass
        elif not self.path.resolve().parent.is_dir():
            raise ValueError(f"there is no folder {self.path.parent} for the database of runs")

    def add(self, records: Iterable[RunRecord]) -> None:
        """Record runs, all of them or none; a run that is there already is renewed."""
        with self._writing() as connection:
            for record in records:
                row = _row(record)
                marks = ", ".join("?" * len(row))
                connection.execute(
                    f"INSERT OR REPLACE INTO runs ({', '.join(row)}) VALUES ({marks})",
                    list(row.values()),
                )
                connection.execute("DELETE FROM stages WHERE run_id = ?", [record.run_id])
                connection.executemany(
                    "INSERT INTO stages VALUES (?, ?, ?, ?, ?)",
                    [
                        (record.run_id, name, s.bits_per_byte, s.nats_per_token, s.seconds)
                        for name, s in record.result.stages.items()
                    ],
                )

    def runs(self, where: Sequence[Where] = (), since: str | None = None) -> list[RunRecord]:
        """Those that meet every condition, in the order in which they were recorded.

        since  a day or time, ISO 8601; without a zone it is UTC
        """
        conditions = [condition.sql() for condition in where]
        if since is not None:
            conditions.append(("recorded >= ?", [_utc(since)]))
        text = " AND ".join(f"({sql})" for sql, _ in conditions) or "1"
        values = [value for _, held in conditions for value in held]
        with self._reading() as connection:
            self._require_known(connection, where)
            rows = connection.execute(
                f"SELECT folder, record FROM runs WHERE {text} ORDER BY recorded, run_id", values
            ).fetchall()
        return [self._record(folder, held) for folder, held in rows]

    def _record(self, folder: str, held: str) -> RunRecord:
        try:
            return RunRecord.from_json(json_object(parse_json(held), "a record"))
        except (ValueError, KeyError) as error:
            raise ValueError(
                f"{self.path}: the run of {folder} was recorded by a version whose results this "
                f"one cannot read ({one_line(error)}); use that one, or record it anew with "
                f"fairway runs --scan DIR --runs NEW-FILE"
            ) from error

    def group_sizes(self) -> dict[str, int]:
        """How many runs with a score there are of each group, by its id."""
        with self._reading() as connection:
            return dict(
                connection.execute(
                    "SELECT group_id, COUNT(*) FROM runs WHERE bits_per_byte IS NOT NULL GROUP BY 1"
                )
            )

    def _require_known(self, connection: sqlite3.Connection, where: Sequence[Where]) -> None:
        for name in (w.name for w in where if w.name not in COLUMNS):
            known = connection.execute(
                "SELECT 1 FROM runs WHERE json_type(settings, ?) IS NOT NULL", [_json_path(name)]
            ).fetchone()
            if known is None and connection.execute("SELECT 1 FROM runs").fetchone():
                raise ValueError(
                    f"no run in {self.path} has a setting {name!r}; name one as recipe.json has "
                    f"it, such as train.steps, or one of {', '.join(_SHOWN)}"
                )

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        if not self.path.is_file():
            raise ValueError(
                f"no database of runs at {self.path}; `fairway runs --scan DIR` makes one from run "
                f"folders, `fairway run ... --runs {self.path}` adds to one"
            )
        with self._opened() as connection:
            if not connection.execute("PRAGMA user_version").fetchone()[0]:
                raise ValueError(f"{self.path} is empty: nothing was recorded in it yet")
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        self.check()
        with self._opened() as connection:
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            if mode != "wal":
                raise ValueError(
                    f"the disk of {self.path} cannot keep a write-ahead log (SQLite: {mode}); name "
                    f"a file on a disk of this machine"
                )
            connection.execute("BEGIN IMMEDIATE")
            _make_tables(connection)
            yield connection
            connection.execute("COMMIT")

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """Whatever SQLite has to say against the file becomes one ValueError."""
        try:
            with closing(
                sqlite3.connect(self.path, timeout=WAIT_SECONDS, isolation_level=None)
            ) as connection:
                self._require_ours(connection)
                yield connection
        except sqlite3.OperationalError as error:
            raise ValueError(f"{self.path}: {one_line(error)}; is it in use, or read-only?") from (
                error
            )
        except sqlite3.DatabaseError as error:
            raise ValueError(
                f"{self.path} is no database of runs, or is damaged ({one_line(error)}); make it "
                f"anew from the run folders: fairway runs --scan DIR --runs NEW-FILE"
            ) from error

    def _require_ours(self, connection: sqlite3.Connection) -> None:
        owner = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if owner == APPLICATION and version == SCHEMA_VERSION:
            return
        if owner == APPLICATION:
            newer = version > SCHEMA_VERSION
            raise ValueError(
                f"{self.path} was written by {'a newer' if newer else 'an older'} fairway: it has "
                f"version {version} of the tables, and this one reads {SCHEMA_VERSION}; "
                f"{'update fairway' if newer else 'fairway runs --scan DIR --runs NEW-FILE'}"
            )
        if owner or version or connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            raise ValueError(f"{self.path} is a database of another program; name another file")


def _make_tables(connection: sqlite3.Connection) -> None:
    """In the transaction that is open, where they are not there yet."""
    columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
    connection.execute(f"CREATE TABLE IF NOT EXISTS runs ({columns})")
    connection.execute(
        "CREATE TABLE IF NOT EXISTS stages (run_id TEXT, stage TEXT, bits_per_byte REAL, "
        "nats_per_token REAL, seconds REAL, PRIMARY KEY (run_id, stage)) WITHOUT ROWID"
    )
    connection.execute(f"PRAGMA application_id = {APPLICATION}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _row(record: RunRecord) -> dict[str, Any]:
    result, score = record.result, record.result.score
    found = {
        "run_id": record.run_id,
        "folder": str(record.folder),
        "recipe": result.recipe,
        "seed": result.seed,
        "group_id": record.group_id,
        "text_id": record.text_id,
        "version": record.versions.get("fairway"),
        "torch": record.versions.get("torch"),
        "machine": record.machine,
        "device": result.device,
        "finished": record.finished,
        "recorded": record.recorded,
        "params": result.params,
        "steps": result.train.steps,
        "train_seconds": result.train.seconds,
        "eval_seconds": result.evaluate and result.evaluate.seconds,
        "bits_per_byte": score and score.bits_per_byte,
        "nats_per_token": score and score.nats / max(1, score.tokens),
        "bytes_total": result.artifact and result.artifact.bytes_total,
        "proof": result.proof and result.proof.holds,
        "audit": result.audit and result.audit.verdict,
        "holds": result.holds,
        "settings": json.dumps(record.settings),
        "record": json.dumps(record.to_json()),
    }
    assert found.keys() == COLUMNS.keys()
    return found


def _value(text: str) -> object:
    """A number, true, false or null where the text is one, else the text."""
    try:
        return parse_json(text)
    except ValueError:
        return text


def _json_path(setting: str) -> str:
    """
    >>> _json_path("quant.rules.0.1.bits")
    '$."quant"."rules"[0][1]."bits"'
    """
    if '"' in setting:
        raise ValueError(f"{setting!r} names no setting")
    parts = (f"[{part}]" if part.isdecimal() else f'."{part}"' for part in setting.split("."))
    return "$" + "".join(parts)


def _utc(since: str) -> str:
    try:
        moment = datetime.fromisoformat(since)
    except ValueError:
        raise ValueError(
            f"--since {since}: give a day or time as in 2026-05-03 or 2026-05-03T14:00"
        ) from None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")
