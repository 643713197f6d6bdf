"""A run of a model of a few thousand weights, and commands as typed in its folder."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fairway.cli import main
from fairway.prepare import prepare_documents
from fairway.runtime import setup

VERSES = [f"{i} green bottles hanging on the wall, {i * 7} more. ".encode() * 6 for i in range(40)]
TINY = {
    "tokens.vocab_size": 300,
    "model.vocab_size": 300,
    "model.num_layers": 2,
    "model.model_dim": 32,
    "model.train_context": 32,
    "model.attention.num_heads": 2,
    "model.attention.num_kv_heads": 2,
    "model.attention.rope_dims": 8,
    "model.attention.exclusive_layers": 1,
    "train.steps": 5,
    "train.batch.rows": 2,
    "train.batch.context": 32,
    "train.batch.micro_batches": 3,
    "evaluate.context": 32,
    "evaluate.stride": 32,
    "quant.calibration_batches": 2,
}
Ask = Callable[..., dict]
MODEL = "run/model.fwy"


OPTIONS = [w for path, value in TINY.items() for w in ("--" + path.replace("_", "-"), str(value))]


# Both sides of a comparison must compute alike, whatever is faster on this machine.
IN_FLOAT32 = """
import sys, torch
from fairway.cli import main
from fairway.runtime import setup
setup.choose_compute_dtype = lambda device, ranks=None: (torch.float32, "as the test wants it")
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    prepare_documents(folder / "data", VERSES[:-1], VERSES[-1:], vocab_size=300, source="a song")
    train = ["train", "pocket", str(folder / "data"), "--out", str(folder / "run"), *OPTIONS]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            setup, "choose_compute_dtype", lambda *_, **__: (torch.float32, "as the test wants it")
        )
        assert main(train) == 0
    assert main(["pack", str(folder / "run"), str(folder / "data")]) == 0
    (folder / "file.txt").write_bytes(VERSES[3] + b"\xff\x00\n" + VERSES[7])
    return folder


@pytest.fixture
def ask(work: Path, capsysbinary: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Ask:
    monkeypatch.chdir(work)

    def run(*argv: str, status: int = 0) -> dict:
        assert main([*argv, "--json"]) == status, capsysbinary.readouterr().err.decode()
        return json.loads(capsysbinary.readouterr().out.splitlines()[-1])

    return run
