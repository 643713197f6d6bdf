"""Four clients at once for a few seconds: not one error; `benchmarks/serve.py` takes its time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_four_clients_are_answered_without_an_error(models) -> None:
    pytest.importorskip("openai")
    words = [sys.executable, str(ROOT / "benchmarks" / "serve.py"), str(models["bpe"].path)]
    env = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([*words, "--brief"], capture_output=True, text=True, check=False, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    rows = {row["name"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert rows["serve"]["errors"] == 0
    assert set(rows) == {"serve", *(f"serve: {k}" for k in ("stream", "whole", "echo", "score"))}
