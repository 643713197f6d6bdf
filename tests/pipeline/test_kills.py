"""kill -9 at any moment, then the same command line: the same artifact, and nothing torn."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fairway.result import read_result
from fairway.tokens.shards import DataFolder

RUN = Path(__file__).with_name("killed_run.py")


def start(data: Path, out: Path, resume: str = "auto") -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(RUN), str(data), str(out), resume],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def ended(process: subprocess.Popen, within: float) -> bool:
    try:
        process.wait(within)
    except subprocess.TimeoutExpired:
        return False
    return True


@pytest.mark.slow
def test_kills_at_random_moments_change_no_byte(song: DataFolder, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    began = time.perf_counter()
    assert start(song.path, whole, "no").wait(120) == 0
    seconds, chance, kills = time.perf_counter() - began, random.Random(5), 0
    log = b""
    for _ in range(40):
        process = start(song.path, parts)
        if not ended(process, chance.uniform(0.3, 0.8) * seconds if kills < 5 else 120):
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
        elif process.returncode:
            assert process.stderr is not None
            pytest.fail(process.stderr.read())
        if (parts / "train.log").exists():
            assert (parts / "train.log").read_bytes().startswith(log)
            log = (parts / "train.log").read_bytes()
        if not process.returncode:
            break
    assert kills
    assert (parts / "model.fwy").read_bytes() == (whole / "model.fwy").read_bytes()
    assert read_result(parts).score == read_result(whole).score
    assert not list(parts.glob("*.partial")) + list(parts.glob("score *"))
