"""What torchrun does with several machines and with lost ranks, on the loopback interface."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from fairway.prepare import prepare_documents

VERSES = [f"{i} green bottles hanging on the wall, {i * 7} more. ".encode() * 6 for i in range(40)]
TINY = (  # noqa: SIM905
    "--tokens.vocab-size 300 --model.vocab-size 300 --model.num-layers 2 --model.model-dim 32 "
    "--model.train-context 32 --model.attention.num-heads 2 --model.attention.num-kv-heads 2 "
    "--model.attention.rope-dims 8 --model.attention.exclusive-layers 1 --train.batch.rows 2 "
    "--train.batch.context 32 --train.batch.micro-batches 3 --evaluate.context 32 "
    "--evaluate.stride 32 --quant.calibration-batches 2 --threads 1 --compute-dtype float32"
).split()
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cluster") / "data"
    prepare_documents(folder, VERSES[:-1], VERSES[-1:], vocab_size=300, source="a song")
    return folder


def command(data: Path, out: Path, steps: int, *more: str, stage: str = "train") -> list[str]:
    options = ["--out", str(out), "--train.steps", str(steps), "--resume", "auto", *TINY, *more]
    return ["-m", "fairway", stage, "pocket", str(data), *options]


def torchrun(*words: str, log: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *words],
        stdout=log.open("wb"),
        stderr=subprocess.STDOUT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def weights(out: Path) -> dict[str, Tensor]:
    held = load_file(out / "checkpoint.safetensors")
    return {name: tensor for name, tensor in held.items() if name.startswith("model.")}


def test_two_machines_end_with_the_artifact_of_one(data: Path, tmp_path: Path) -> None:
    """Two processes on each of two machines, four on one, and one alone, which trains the same.

    A micro-batch on each of four ranks is a step of four on one, to the last bit. The run is in the
    first rank's folder alone.
    """
    meeting = ["--rdzv-backend", "c10d", "--rdzv-id", "song", "--rdzv-endpoint"]
    whole = ("--train.batch.micro-batches", "4", "--proof-tokens", "0", "--audit-seconds", "0")
    port = free_port()
    agents = [
        torchrun(
            *("--nnodes", "2", "--nproc-per-node", "2", *meeting, f"127.0.0.1:{port}"),
            *command(data, tmp_path / name, 5, *whole, stage="run"),
            log=tmp_path / f"{name}.log",
        )
        for name in ("here", "there")
    ]
    for agent, name in zip(agents, ("here", "there"), strict=True):
        assert agent.wait(200) == 0, (tmp_path / f"{name}.log").read_text()
    (both,) = (result.parent for result in tmp_path.glob("*here/result.json"))
    one = torchrun(
        *("--standalone", "--nproc-per-node", "4"),
        *command(data, tmp_path / "one", 5, *whole, stage="run"),
        log=tmp_path / "one.log",
    )
    assert one.wait(200) == 0, (tmp_path / "one.log").read_text()
    assert (both / "model.fwy").read_bytes() == (tmp_path / "one" / "model.fwy").read_bytes()
    for folder in (both, tmp_path / "one"):
        waited = json.loads((folder / "result.json").read_text())["train"]["waiting_share"]
        assert 0.0 <= waited < 1.0
        said = updates(folder / "train.log")[-1][-1]["waiting_share"]
        assert said == pytest.approx(waited, abs=0.1)  # a moment later

    alone = command(data, tmp_path / "alone", 5, "--train.batch.micro-batches", "4")
    subprocess.run([sys.executable, *alone], check=True)
    expected, together = weights(tmp_path / "alone"), weights(both)
    assert expected.keys() == together.keys()
    for name in expected:
        assert torch.equal(together[name], expected[name]), name
    assert "waiting_share" not in (tmp_path / "alone" / "train.log").read_text()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_rank_is_started_again_and_nothing_is_lost(
    number: signal.Signals, data: Path, tmp_path: Path
) -> None:
    log, ranks = tmp_path / "log", ["--standalone", "--nproc-per-node", "2"]
    more = ["--checkpoint-seconds", "0.3", "--peer-seconds", "4"]
    run = torchrun(
        *ranks, "--max-restarts", "3", *command(data, tmp_path / "run", 120, *more), log=log
    )
    wait_until(lambda: (tmp_path / "run" / "checkpoint.safetensors").exists())
    (victim,) = [pid for pid in children(run.pid) if rank_of(pid) == "1"]
    os.kill(victim, number)
    assert run.wait(120) == 0, log.read_text()
    said = log.read_text()
    assert f"process {victim}) " in said  # by name
    assert "going on after step" in said
    undisturbed = torchrun(
        *ranks, *command(data, tmp_path / "calm", 120), log=tmp_path / "calm.log"
    )
    assert undisturbed.wait(120) == 0
    calm, again = weights(tmp_path / "calm"), weights(tmp_path / "run")
    assert all(torch.equal(again[name], calm[name]) for name in calm)


def test_the_training_clock_goes_on_over_restarts(data: Path, tmp_path: Path) -> None:
    """Two ranks, killed twice: the seconds before each death are charged, none given anew."""
    budget, log, out = 20.0, tmp_path / "log", tmp_path / "run"
    options = ["--out", str(out), "--train.seconds", str(budget), "--resume", "auto", "--json"]
    more = ["--checkpoint-seconds", "0.3", "--peer-seconds", "4"]
    run = torchrun(
        *("--standalone", "--nproc-per-node", "2", "--max-restarts", "3"),
        *("-m", "fairway", "train", "pocket", str(data), *options, *TINY, *more),
        log=log,
    )
    for starts in (1, 2):  # 2 s of training each, and more, for a line is written every 2 s
        wait_until(lambda n=starts: bool(run.poll()) or len(updates(out / "train.log")) == n, 150)
        seen = len(updates(out / "train.log")[-1])
        wait_until(lambda seen=seen: len(updates(out / "train.log")[-1]) > seen)
        wait_until(lambda: (out / "checkpoint.safetensors").exists())
        (victim,) = [pid for pid in children(run.pid) if rank_of(pid) == "1"]
        os.kill(victim, signal.SIGKILL)
    assert run.wait(180) == 0, log.read_text()
    assert log.read_text().count("going on after step") >= 2
    facts = json.loads(next(x for x in log.read_text().splitlines() if x.startswith('{"seconds"')))
    assert facts["budget_seconds"] == budget
    assert facts["seconds"] <= budget
    trained = [part[-1]["seconds"] - part[0]["seconds"] for part in updates(out / "train.log")]
    assert len(trained) == 3
    assert sum(trained) <= budget  # by the log's own clock, which knows nothing of the budget
    for before, after in pairwise(updates(out / "train.log")):
        assert after[0]["done"] >= before[-1]["done"]


def updates(log: Path) -> list[list[dict]]:
    """What each start logged of its training; a line that is being written does not count yet."""
    starts: list[list[dict]] = []
    for line in log.read_text().splitlines(keepends=True) if log.exists() else []:
        if not line.endswith("\n"):
            break
        event = json.loads(line)
        if event.get("stage") != "train":
            continue
        if event["event"] == "begin":
            starts.append([])
        elif event["event"] == "update" and "train_loss" in event:
            starts[-1].append(event)
    return [start for start in starts if start]


def children(pid: int) -> Iterator[int]:
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        yield int(child)


def rank_of(pid: int) -> str:
    lines = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return next((line[5:].decode() for line in lines if line.startswith(b"RANK=")), "")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)
