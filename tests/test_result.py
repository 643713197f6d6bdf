from dataclasses import replace
from pathlib import Path

import pytest

from fairway.audit.findings import AuditReport, ProbeResult
from fairway.result import (
    ArtifactResult,
    EvaluateResult,
    ProofResult,
    ResultFile,
    RunResult,
    StageResult,
    TrainResult,
    read_result,
    write_result,
)
from fairway.runtime.device import machine
from fairway.runtime.plugins import Plugin

STARTED = RunResult(
    recipe="pocket",
    seed=1,
    device="cpu",
    machine=machine(),
    params=1000,
    train=TrainResult(seconds=2.0, steps=5, tokens=960, tokens_per_second=480.0),
)
STAGE = StageResult(bits_per_byte=1.5, nats_per_token=2.5, seconds=0.1)
PROOF = ProofResult(
    tokens=10,
    coded_bytes=7,
    coded_bits_per_byte=1.6,
    claimed_bits_per_byte=1.5,
    decoded_equal=True,
    holds=True,
)


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    whole = replace(
        STARTED,
        stages={"float": STAGE},
        curves={"frozen": ((10, 1.5), (20, 1.4))},
        chunks={"gain_bits_per_byte": (0.1, None)},
        proof=PROOF,
        plugins=(Plugin(name="mine:Learner", version="1", sha256="ab"),),
    )
    write_result(tmp_path, whole)
    assert read_result(tmp_path) == whole


def test_what_was_not_run_is_not_mentioned() -> None:
    assert set(STARTED.to_json()) == {"recipe", "seed", "device", "machine", "params", "train"}


def test_a_result_grows_in_its_file_stage_by_stage(tmp_path: Path) -> None:
    found = ResultFile(tmp_path, STARTED)
    assert read_result(tmp_path) == STARTED
    found.add_stage("float", STAGE)
    found.add_stage("quantized", STAGE)
    found.add(proof=PROOF)
    assert list(read_result(tmp_path).stages) == ["float", "quantized"]
    assert read_result(tmp_path) == found.result
    follower = ResultFile(tmp_path / "nowhere", STARTED, write=False)
    follower.add(proof=PROOF)
    assert follower.result.proof == PROOF


def test_a_run_holds_unless_something_says_no() -> None:
    illegal = AuditReport("m", {"causality": ProbeResult("causality", False, "it peeks")})
    assert STARTED.holds
    assert replace(STARTED, proof=PROOF).holds
    assert not replace(STARTED, proof=replace(PROOF, holds=False)).holds
    assert not replace(STARTED, audit=illegal).holds


def test_a_run_that_missed_a_budget_does_not_hold() -> None:
    def clocked(train: float, evaluate: float) -> RunResult:
        return replace(
            STARTED,
            train=replace(STARTED.train, seconds=train, budget_seconds=60.0),
            evaluate=EvaluateResult(seconds=evaluate, budget_seconds=60.0),
        )

    assert clocked(60.0, 60.0).holds
    assert not clocked(60.1, 1.0).holds
    assert not clocked(1.0, 60.1).holds
    file = ArtifactResult(
        bytes_total=101, bytes_model=101, bytes_code=0, bytes_tokenizer=0, cap_bytes=101, sha256="a"
    )
    assert replace(STARTED, artifact=file).holds
    assert not replace(STARTED, artifact=replace(file, cap_bytes=100)).holds


@pytest.mark.parametrize("text", ["{", "[]", '{"recipe": "pocket"}'])
def test_a_file_that_is_no_result_is_named(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="fairway run RECIPE"):
        read_result(tmp_path)
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(ValueError, match=r"result\.json"):
        read_result(tmp_path)
