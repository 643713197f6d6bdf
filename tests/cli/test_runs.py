"""What makes runs and files, as typed: from our recipes and from published ones."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fairway.cli import main
from fairway.evaluate.planner import Rates
from fairway.interop.environment import model_config, parse_environment
from fairway.interop.published_weights import published_shapes
from fairway.prepare import prepare_documents

from .conftest import IN_FLOAT32, OPTIONS, VERSES, Ask


@pytest.mark.slow
def test_two_ranks_train_what_one_trains(work: Path, tmp_path: Path) -> None:
    """Through torchrun, as on eight GPUs: three micro-batches a step over two ranks."""
    (tmp_path / "in_float32.py").write_text(IN_FLOAT32)
    command = [
        str(tmp_path / "in_float32.py"), "train", "pocket", str(work / "data"), "--threads", "1",
        "--out", str(tmp_path), *OPTIONS,
    ]  # fmt: skip
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", *command]
    done = subprocess.run(
        torchrun, capture_output=True, text=True, timeout=120, env={**os.environ}, check=False
    )
    assert done.returncode == 0, done.stderr
    alone = load_file(work / "run" / "checkpoint.safetensors")
    both = load_file(tmp_path / "checkpoint.safetensors")
    assert alone.keys() == both.keys()
    for name in (n for n in alone if n.startswith("model.")):
        torch.testing.assert_close(both[name], alone[name], rtol=1e-4, atol=5e-5, msg=name)


def test_a_published_checkpoint_becomes_a_model(ask: Ask, work: Path) -> None:
    env = {
        "VOCAB_SIZE": "300", "NUM_LAYERS": "2", "MODEL_DIM": "32", "NUM_HEADS": "2",
        "NUM_KV_HEADS": "1", "TRAIN_SEQ_LEN": "32",
    }  # fmt: skip
    (work / "env.json").write_text(json.dumps(env))
    shapes = published_shapes("baseline", model_config(parse_environment("baseline", env)))
    torch.manual_seed(0)
    torch.save({name: torch.randn(shape) / 8 for name, shape in shapes.items()}, work / "theirs.pt")
    tokenizer = "data/tokenizer.model"
    made = ask("import", "theirs.pt", "--lineage", "baseline", "--env", "env.json", "--tokenizer",
               tokenizer, "--out", "theirs.fwy")  # fmt: skip
    assert made["params"] > 10_000
    before = ask("score", "theirs.fwy", "data")["bits_per_byte"]
    packed = ask("pack", "theirs.fwy", "data", "--recipe", "pr1394", "--out", "small.fwy")
    assert packed["bytes_total"] < 0.6 * made["bytes"]  # small tensors stay in half precision
    assert ask("score", "small.fwy", "data")["bits_per_byte"] == pytest.approx(before, rel=0.05)


def test_a_run_starts_from_a_published_script_s_variables(ask: Ask, work: Path) -> None:
    env = {"NUM_LAYERS": "3", "MODEL_DIM": "32", "NUM_HEADS": 2, "NUM_KV_HEADS": 1,
           "TRAIN_SEQ_LEN": 32, "VOCAB_SIZE": 300, "TRAIN_BATCH_TOKENS": 512}  # fmt: skip
    (work / "run_env.json").write_text(json.dumps(env))
    answer = ask("train", "naive_baseline", "data", "--env", "run_env.json", "--train.steps", "2",
               "--out", "from_env")  # fmt: skip
    recipe = json.loads((work / "from_env" / "recipe.json").read_text())
    assert recipe["model"]["num_layers"] == 3
    assert recipe["model"]["model_dim"] == 32
    assert answer["tokens"] == 2 * 512
    (work / "run_env.json").write_text('{"NUM_LAYERZ": "3"}')
    assert main(["train", "naive_baseline", "data", "--env", "run_env.json"]) == 2


def test_a_run_that_does_not_fit_its_clock_ends_with_a_line_to_paste_which_mends_it(
    ask: Ask, work: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture
) -> None:
    """And what it scores then, result, table, page and certificate all tell."""
    prepare_documents(work / "many", VERSES[:20], VERSES[20:26], vocab_size=300, source="a song")
    rates = Rates(score=1e-3, learn=1e-3)  # seconds for each token that goes in
    for module in ("planner", "fitting"):
        monkeypatch.setattr(f"fairway.evaluate.{module}.measure_rates", lambda *_, **__: rates)
    words = ["run", "pocket", "many", "--out", "fits", *OPTIONS, "--audit-seconds", "0",
             "--proof-tokens", "20", "--compute-dtype", "float32"]  # fmt: skip
    words += ["--budget.eval-seconds", "3"]
    capsysbinary.readouterr()
    assert main(words) == 2
    *_, line = capsysbinary.readouterr().err.decode().strip().splitlines()
    assert shlex.split(line) == ["fairway", *words, "--fit"]
    assert not (work / "fits" / "result.json").exists()
    found = ask(*shlex.split(line)[1:])
    scope = found["score"]["scope"]
    assert "of 6 documents" in scope
    assert found["score"]["bytes"] < sum(map(len, VERSES[20:26]))
    folder = work / "fits"
    assert json.loads((folder / "certificate.json").read_text())["scope"] == scope
    assert scope in (folder / "report.html").read_text()
    again = ask(*words, "--resume", "auto")  # settled once: nobody has to say it again
    assert again["score"] == found["score"]
