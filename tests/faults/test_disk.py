"""A disk that is full or over its quota, in brief: what was there stays whole, nothing is left."""

import errno
import os
import resource
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairway.cli import main as fairway
from fairway.evaluate.token_nats import TokenNats
from fairway.report.page import write_report
from fairway.result import RunResult, TrainResult, write_result
from fairway.runtime.files import atomic_write, whole_folder
from fairway.runtime.tensor_file import write_tensors
from fairway.tokens.shards import write_shard

from .conftest import lowered

QUOTA = 100  # bytes of a file
OLD, NEW = b"what was there", bytes(range(256)) * 40
RESULT = RunResult(
    recipe="r", seed=1, device="cpu", params=9, train=TrainResult(seconds=1.0, steps=2, tokens=3)
)


def full() -> AbstractContextManager[None]:
    """Files may not grow any more, as on a full disk, but that `errno` is another one."""
    return lowered(resource.RLIMIT_FSIZE, QUOTA)


def a_folder(path: Path) -> None:
    with whole_folder(path.with_name("folder")) as folder:
        (folder / "file").write_bytes(NEW)


def a_page(path: Path) -> None:
    write_report([path.parent / "run"], path)


WRITERS: dict[str, Callable[[Path], object]] = {
    "a file": lambda path: atomic_write(path, NEW),
    "tensors": lambda path: write_tensors(path, {"a": torch.zeros(999)}, {}),
    "a shard": lambda path: write_shard(path, np.zeros(999, np.uint16)),
    "a result": lambda path: write_result(path.parent, RESULT),
    "a folder": a_folder,
    "a page": a_page,
    "what each token cost": lambda path: TokenNats(path.with_name("nats.npy"), 999),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_is_an_error_and_leaves_the_old_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(OLD)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(OLD)
    (tmp_path / "run").mkdir()
    write_result(tmp_path / "run", RESULT)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with full(), pytest.raises(OSError, match=r"full\?|too large"):
        WRITERS[kind](path)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before
    WRITERS[kind](path)  # and once there is room, it is written
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} != before


@given(st.integers(0, len(NEW) - 1))
def test_a_disk_may_be_full_after_any_byte(tmp_path_factory, room: int) -> None:
    path = tmp_path_factory.mktemp("full") / "file"
    path.write_bytes(OLD)
    with lowered(resource.RLIMIT_FSIZE, room), pytest.raises(OSError) as raised:  # noqa: PT011
        atomic_write(path, NEW)
    assert raised.value.errno == errno.EFBIG
    assert [file.read_bytes() for file in path.parent.iterdir()] == [OLD]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small file system")
def test_a_file_that_is_mapped_into_memory_has_its_room_before(tmp_path: Path) -> None:
    """Writing into a hole of one would end the process, without a word."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount here")
    try:
        with pytest.raises(OSError, match="No space left"):
            TokenNats(tmp_path / "nats.npy", 100_000)
        assert not list(tmp_path.iterdir())
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_a_command_says_so_in_one_line(
    model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text").write_bytes(NEW[:200])
    with full():
        status = fairway(
            ["compress", str(model_file), str(tmp_path / "text"), str(tmp_path / "packed")]
        )
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert (status, last.startswith("fairway compress: ")) == (2, True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["text"]
