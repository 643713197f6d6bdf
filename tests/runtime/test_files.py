"""Files are whole or not there, and nothing but files is written over."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fairway.runtime.files import atomic_write, locked, replacing, require_other


def test_the_new_file_is_there_and_nothing_else(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a", b"old")
    atomic_write(tmp_path / "a", b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"new"


def test_after_an_error_the_old_file_is_whole(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a", b"old")

    def fail_half_way() -> None:
        with replacing(tmp_path / "a") as partial:
            partial.write_bytes(b"ne")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"old"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    atomic_write(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


@pytest.mark.parametrize("device", ["/dev/null", "/dev/full"])
def test_a_device_stays_a_device(device: str) -> None:
    with pytest.raises(ValueError, match=f"{device} is a device"):
        atomic_write(Path(device), b"x")
    assert not Path(device).is_file()


def test_a_pipe_and_a_folder_are_no_place_for_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="a device or a pipe"):
        atomic_write(tmp_path / "pipe", b"x")
    here, there = os.pipe()
    with pytest.raises(ValueError, match="a device or a pipe"):
        atomic_write(Path(f"/dev/fd/{there}"), b"x")
    for end in (here, there):
        os.close(end)
    with pytest.raises(ValueError, match="is a folder"):
        atomic_write(tmp_path, b"x")
    with pytest.raises(ValueError, match="no folder"):
        atomic_write(tmp_path / "none" / "a", b"x")


def test_what_is_read_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"text")
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    with pytest.raises(ValueError, match="is the file that is read"):
        require_other(tmp_path / "a", tmp_path / "b")
    require_other(tmp_path / "a", tmp_path / "c")


HOLDER = """
import sys, time
from pathlib import Path
from fairway.runtime.files import locked
with locked(Path(sys.argv[1]), "the first"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_names_its_holder_and_ends_with_it(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    command = [sys.executable, "-c", HOLDER, str(lock)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="in use by the first"), locked(lock, "me"):
            pass
        other.kill()
    with locked(lock, "me"):
        assert lock.read_text() == "me\n"
