"""Data and a run to measure where none is named: the built-in text, and seconds of training."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fairway.cli import main as fairway
from fairway.demo import prepare_builtin

TRAIN_SECONDS = 12


@contextmanager
def given_or_small_data(data: Path | None) -> Iterator[Path]:
    """The folder named, or else one that is made now and removed afterwards."""
    if data is not None:
        yield data
        return
    with tempfile.TemporaryDirectory() as folder:
        yield make_data(Path(folder))


@contextmanager
def given_or_small_run(run: Path | None, data: Path | None) -> Iterator[tuple[Path, Path]]:
    """(run, data) as named, or else both made now and removed afterwards."""
    if run is not None and data is not None:
        yield run, data
        return
    with tempfile.TemporaryDirectory() as folder:
        yield make_run(Path(folder))


def make_data(folder: Path) -> Path:
    """The built-in text in 2,048 pieces, as `folder`/data."""
    return prepare_builtin(folder / "data", 2048).path


def make_run(folder: Path) -> tuple[Path, Path]:
    """`folder`/run with a model of the pocket recipe that has hardly learned, and its data."""
    run, data = folder / "run", make_data(folder)
    train = ["train", "pocket", str(data), "--out", str(run)]
    for command in (
        [*train, "--train.seconds", str(TRAIN_SECONDS)],
        ["pack", str(run), str(data)],
    ):
        if fairway(command):
            raise SystemExit(f"`fairway {' '.join(command)}` failed")
    return run, data
