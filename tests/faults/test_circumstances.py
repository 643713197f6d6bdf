"""Odd circumstances, in brief: a command is right, or ends with one line."""

import os
import resource
import tempfile
import time
from pathlib import Path

import circumstances
import pytest

from fairway.cli import main as fairway

from .conftest import lowered

TEXT = b"to be or not to be"


def round_trip(model: Path, folder: Path, name: str) -> int:
    source, packed, back = (folder / f"{name}{end}" for end in ("", ".fwc", ".back"))
    source.write_bytes(TEXT)
    status = fairway(["compress", str(model), str(source), str(packed)]) or fairway(
        ["decompress", str(model), str(packed), str(back)]
    )
    assert status or back.read_bytes() == TEXT
    return status


@pytest.mark.parametrize("kind", [k for k in circumstances.NAMES if k != "300 letters"])
def test_a_file_may_have_any_name(model_file: Path, tmp_path: Path, kind: str) -> None:
    assert round_trip(model_file, tmp_path, circumstances.NAMES[kind]) == 0


@pytest.mark.parametrize("seconds", [-86_400, 31_536_000])
def test_the_clock_on_the_wall_may_jump(
    model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(time, "time", time.time)  # put back at the end
    circumstances.shift(seconds)
    assert round_trip(model_file, tmp_path, "text") == 0


def test_where_temporary_files_have_no_place_it_is_right_or_one_line(
    model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setenv("TMPDIR", "/nowhere")
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert judged(round_trip(model_file, tmp_path, "text"), capsys)


def test_no_home_and_no_folder_to_stand_in_do_no_harm(
    model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOME", raising=False)
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.chdir(place)
    place.rmdir()
    assert round_trip(model_file, tmp_path, "text") == 0


@pytest.mark.parametrize("more", [0, 1, 3, 5])
def test_out_of_file_descriptors_it_is_right_or_one_line(
    model_file: Path, tmp_path: Path, capsys, more: int
) -> None:
    (tmp_path / "text").write_bytes(TEXT)
    opened = max(map(int, os.listdir("/proc/self/fd"))) + more
    with lowered(resource.RLIMIT_NOFILE, opened):
        words = ["compress", str(model_file), str(tmp_path / "text"), str(tmp_path / "packed")]
        assert judged(fairway(words), capsys)
    assert not list(tmp_path.glob(".*partial"))


def judged(status: int, capsys: pytest.CaptureFixture[str]) -> bool:
    return circumstances.judged(status, capsys.readouterr().err)["answer"] != "WRONG"
