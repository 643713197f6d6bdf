"""The campaign of damaged and forged files, in brief: none is believed, none does harm."""

import subprocess
import sys
from pathlib import Path

import pytest

CAMPAIGN = Path(__file__).parents[2] / "benchmarks" / "faults" / "files.py"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["model", "proof", "compressed", "SentencePiece", "data.json"])
def test_no_forged_file_is_believed_or_does_harm(kind: str) -> None:
    done = subprocess.run(
        [sys.executable, str(CAMPAIGN), "--brief", "--only", kind],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_a_few_flips_and_cuts_of_every_kind_are_refused_or_harmless() -> None:
    few = ["--brief", "--flips", "10", "--cuts", "5", "--extensions", "5", "--fuzz", "10"]
    done = subprocess.run(
        [sys.executable, str(CAMPAIGN), *few, "--no-bombs"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert ", 0 failures" in done.stdout
