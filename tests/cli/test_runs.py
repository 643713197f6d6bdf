"""What makes runs and files, as typed: from our recipes and from published ones."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fairway.cli import main
from fairway.interop.environment import model_config, parse_environment
from fairway.interop.published_weights import published_shapes

from .conftest import IN_FLOAT32, OPTIONS, Ask


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
