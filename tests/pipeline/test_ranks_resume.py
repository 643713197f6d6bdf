"""Two ranks: one signal stops both after the same step, and rank 0 alone reads what is there."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from fairway.tokens.shards import DataFolder
from fairway.train.train_state import read_train_state

CODE = """
import sys
from pathlib import Path
from fairway.cli import main
sys.exit(main(sys.argv[1:]))
"""
TINY = (
    "--tokens.vocab-size 300 --model.vocab-size 300 --model.num-layers 2 --model.model-dim 32 "
    "--model.train-context 32 --model.attention.num-heads 2 --model.attention.num-kv-heads 2 "
    "--model.attention.rope-dims 8 --model.attention.exclusive-layers 1 --train.batch.rows 2 "
    "--train.batch.context 32 --train.batch.micro-batches 2 --train.steps 200 "
    "--compute-dtype float32 --threads 1 --resume auto"
)


def command(ranks: int, work: Path, data: Path, out: str) -> list[str]:
    (work / "start.py").write_text(CODE)
    words = [str(work / "start.py"), "train", "pocket", str(data), "--out", out, *TINY.split()]
    start = ["-m", "torch.distributed.run", f"--nproc_per_node={ranks}"] if ranks > 1 else []
    return [sys.executable, *start, *words]


@pytest.mark.slow
def test_two_ranks_stop_together_and_end_as_one_would(song: DataFolder, tmp_path: Path) -> None:
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    out = tmp_path / "run"
    both = command(2, tmp_path, song.path, str(out))
    process = subprocess.Popen(both, stderr=subprocess.PIPE, text=True, env=env)
    for _ in range(1200):
        time.sleep(0.05)
        if (out / "train.log").exists() and "train_loss" in (out / "train.log").read_text():
            break
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=90)
    assert process.returncode
    assert "stopped by SIGTERM after step" in said
    kept = read_train_state(out / "checkpoint.safetensors")
    assert 0 < kept.step < 200
    for ranks, folder in ((2, out), (1, tmp_path / "whole")):
        argv = command(ranks, tmp_path, song.path, str(folder))
        done = subprocess.run(
            argv, capture_output=True, text=True, env=env, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
    parts = read_train_state(out / "checkpoint.safetensors")
    whole = read_train_state(tmp_path / "whole" / "checkpoint.safetensors")
    assert parts.step == whole.step == 200
    for name in (n for n in whole.tensors if n.startswith("model.")):
        torch.testing.assert_close(
            parts.tensors[name], whole.tensors[name], rtol=1e-2, atol=1e-3, msg=name
        )
