"""Interruptions as typed: signals, `--resume` in its three forms, a score's own checkpoint."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fairway.cli import main
from fairway.prepare import prepare_documents
from fairway.runtime.stopping import Stopped

VERSES = [f"{i} green bottles hanging on the wall, {i * 7} more. ".encode() * 6 for i in range(40)]
TINY = [
    "--tokens.vocab-size",
    "300",
    "--model.vocab-size",
    "300",
    "--model.num-layers",
    "2",
    "--model.model-dim",
    "32",
    "--model.train-context",
    "32",
    "--model.attention.num-heads",
    "2",
    "--model.attention.num-kv-heads",
    "2",
    "--model.attention.rope-dims",
    "8",
    "--model.attention.exclusive-layers",
    "1",
    "--train.batch.rows",
    "2",
    "--evaluate.ttt.chunk-tokens",
    "64",
    "--train.batch.context",
    "32",
    "--train.batch.micro-batches",
    "1",
    "--evaluate.context",
    "32",
    "--evaluate.stride",
    "32",
    "--quant.calibration-batches",
    "2",
    "--compute-dtype",
    "float32",
    "--threads",
    "1",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work") / "data"
    prepare_documents(folder, VERSES[:-1], VERSES[-1:], vocab_size=300, source="a song")
    return folder


def train(data: Path, out: Path, *more: str) -> list[str]:
    return ["train", "pocket", str(data), "--out", str(out), *TINY, *more]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_a_signal_keeps_the_last_step_and_says_how_to_go_on(
    name: str, data: Path, tmp_path: Path
) -> None:
    code = "import sys; from fairway.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, *train(data, tmp_path, "--train.steps", "100000")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for _ in _until(tmp_path / "train.log"):
        if "train_loss" in (tmp_path / "train.log").read_text():
            break
    process.send_signal(getattr(signal, name))
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + getattr(signal, name)
    line = said.splitlines()[-1]
    assert f"stopped by {name} after step" in line
    assert "--resume" in line
    step = int(line.partition("after step ")[2].partition(";")[0])
    steps = str(step + 2)
    assert main(train(data, tmp_path, "--train.steps", steps, "--resume")) == 2  # another run
    assert "Traceback" not in said


def _until(path: Path) -> Iterator[None]:
    for _ in range(1200):
        time.sleep(0.05)
        if path.exists():
            yield


def test_the_three_ways_to_start(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    five = ("--train.steps", "5")
    assert main(train(data, tmp_path, *five, "--resume")) == 2
    assert "nothing to go on from" in capsys.readouterr().err
    assert main(train(data, tmp_path, *five, "--resume", "auto", "--json")) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[-1])
    log = (tmp_path / "train.log").read_text()
    assert main(train(data, tmp_path, *five)) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(train(tmp_path / "nope", tmp_path, *five, "--overwrite")) == 2
    assert (tmp_path / "train.log").read_text() == log  # a typo costs nothing
    assert main(train(data, tmp_path, *five, "--resume", "auto", "--json")) == 0
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (again["steps"], again["tokens"]) == (first["steps"], first["tokens"])
    assert (tmp_path / "train.log").read_text().startswith(log)
    assert main(train(data, tmp_path, *five, "--overwrite")) == 0
    assert (tmp_path / "earlier" / "1" / "train.log").is_file()


def test_a_checkpoint_of_scoring_serves_one_model_only(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seed in (("a", "1"), ("b", "2")):
        assert main(train(data, tmp_path / name, "--train.steps", "5", "--seed", seed)) == 0
        assert main(["pack", str(tmp_path / name), str(data)]) == 0

    def score(name: str, *more: str) -> int:
        model = str(tmp_path / name / "model.fwy")
        checkpoint = str(tmp_path / "score.checkpoint")
        return main(["score", model, str(data), "--checkpoint", checkpoint, "--json", *more])

    assert score("b") == 0
    alone = json.loads(capsys.readouterr().out.splitlines()[-1])

    with monkeypatch.context() as patched:
        patched.setattr("fairway.evaluate.timed._stop_if_asked", _saved_and_stopped)
        assert score("a") == 130
    capsys.readouterr()
    for name, more in (("b", ()), ("a", ("--seed", "7")), ("a", ("--evaluate.stride", "16"))):
        assert score(name, *more) == 2
        assert "is the checkpoint of another evaluation" in capsys.readouterr().err
    assert score("a") == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["bits_per_byte"] != alone["bits_per_byte"]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("score")]


def _saved_and_stopped(stop, saved, predictor, state, ranks) -> None:
    saved.save(predictor, state, now=True)
    raise Stopped("stopped")


def test_a_file_is_not_written_onto_itself(data: Path, tmp_path: Path) -> None:
    assert main(train(data, tmp_path / "run", "--train.steps", "2")) == 0
    assert main(["pack", str(tmp_path / "run"), str(data)]) == 0
    model, text = str(tmp_path / "run" / "model.fwy"), tmp_path / "text"
    text.write_bytes(b"ten green bottles")
    assert main(["compress", model, str(text), str(text)]) == 2
    assert text.read_bytes() == b"ten green bottles"
    if os.geteuid() == 0:  # who else could replace it
        assert main(["compress", model, str(text), "/dev/full"]) == 2
        assert not Path("/dev/full").is_file()
