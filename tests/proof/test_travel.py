"""Proofs travel: the benchmark in brief, over every way to learn and every text; and its worker
alone, over tiny models."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fairway.artifact.config_json import config_to_json
from fairway.artifact.container import pack
from fairway.artifact.loaded_model import load_model
from fairway.proof.guard import PLAIN
from fairway.proof.prove import prove
from fairway.tokens.tokenizer import ByteTokenizer

from .conftest import DOCUMENTS, corpus, tiny_model
from .test_settled_stream import WAYS

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SENT = ("frozen", "sgd and mixture", "muon", "adamw", "adapters")


def lines(command: list[str], setting: dict[str, str], seconds: float) -> list[dict]:
    done = subprocess.run(
        [sys.executable, *command],
        env=os.environ | setting,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_another_process_decodes_with_other_threads_rows_and_instructions(tmp_path: Path) -> None:
    path, model = tmp_path / "model.fwy", tiny_model(vocab_size=260)
    settings = {"model": config_to_json(model.config), "evaluate": config_to_json(WAYS["frozen"])}
    weights = {name: tensor.half() for name, tensor in model.shipped_state_dict().items()}
    path.write_bytes(pack(settings, ByteTokenizer().to_bytes(), weights))
    loaded, proofs = load_model(path), []
    expected = hashlib.sha256(b"\0".join(DOCUMENTS)).hexdigest()
    for way in SENT:
        file = tmp_path / f"{way}.fwp"
        prove(
            loaded, corpus(DOCUMENTS), out=file, evaluate=WAYS[way], guard=False, decode_seconds=0.0
        )
        proofs.append({"name": way, "path": str(file), "expected": expected})
    job = tmp_path / "job.json"
    settings = {"threads": 2, "rows": 1, "device": "cpu", "tuned": False, "numpy": False}
    noise = {"times": 0.0, "where": []}
    job.write_text(json.dumps(settings | {"model": str(path), "noise": noise, "proofs": proofs}))
    worker = str(BENCHMARKS / "measuring" / "decoding.py")
    *found, here = lines([worker, str(job)], PLAIN, 120)
    assert [(one["proof"], one["came"]) for one in found] == [(way, "same") for way in SENT]
    assert here["circumstances"]["instructions"] == "DEFAULT"


@pytest.mark.slow
def test_every_proof_comes_back_with_other_instructions_and_another_forward_pass() -> None:
    machines = ("SSE", "1 row", "NumPy")
    rows = lines([str(BENCHMARKS / "travel.py"), "--brief", "--only", *machines], {}, 1800)
    decoded = {row["name"]: row for row in rows if row["name"].startswith("decoded")}
    assert set(decoded) == {f"decoded: {machine}" for machine in machines}
    assert decoded["decoded: SSE"]["Muon"] == "3/3"
    assert decoded["decoded: NumPy"]["frozen"] == "3/3"
