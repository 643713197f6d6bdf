"""Proofs travel: the benchmark in brief, over every way to learn and every text."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TRAVEL = Path(__file__).parents[2] / "benchmarks" / "travel.py"


@pytest.mark.slow
def test_every_proof_comes_back_with_other_instructions_and_another_forward_pass() -> None:
    done = subprocess.run(
        [sys.executable, str(TRAVEL), "--brief", "--only", "SSE", "1 row", "NumPy"],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    decoded = {row["name"]: row for row in rows if row["name"].startswith("decoded")}
    assert set(decoded) == {"decoded: SSE", "decoded: 1 row", "decoded: NumPy"}
    assert decoded["decoded: SSE"]["Muon"] == "3/3"
    assert decoded["decoded: NumPy"]["frozen"] == "3/3"
