"""Small, made-up results for the tests of this folder."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from fairway.audit.findings import AuditReport, ProbeResult
from fairway.proof.certificate import Certificate
from fairway.recipes.diff import set_json, to_json
from fairway.recipes.registry import recipe
from fairway.report.run_folder import RunFolder, TrainingCurve
from fairway.result import (
    ArtifactResult,
    CompressorResult,
    DiagnosticResult,
    EvaluateResult,
    ProofResult,
    RunResult,
    ScoreResult,
    StageResult,
    TensorResult,
    TrainResult,
    write_result,
)
from fairway.runs.record import RunRecord

NUM_BYTES, NUM_TOKENS = 1_000_000, 280_000

TRAIN = TrainResult(seconds=58.0, budget_seconds=60.0, steps=300, tokens=614_400)
ARTIFACT = ArtifactResult(
    bytes_total=99_000,
    bytes_model=90_000,
    bytes_code=9_000,
    bytes_tokenizer=20_000,
    cap_bytes=100_000,
    sha256="ab" * 32,
    tensors={
        "embed.weight": TensorResult(weights=40_000, bytes=35_000.0, rounding_error=0.004),
        "blocks.0.mlp.up.weight": TensorResult(weights=50_000, bytes=37_000.0, rounding_error=0.02),
        "blocks.0.gain": TensorResult(weights=100, bytes=200.0),
    },
)
PROOF = ProofResult(
    tokens=4096,
    coded_bytes=2750,
    coded_bits_per_byte=1.5043,
    claimed_bits_per_byte=1.5041,
    decoded_equal=True,
    holds=True,
)
CERTIFICATE = Certificate(
    artifact_sha256="cd" * 32,
    text_sha256="ef" * 32,
    bitstream_sha256="01" * 32,
    num_tokens=4096,
    num_bytes=14_625,
    text_bytes=14_625,
    coded_bytes=2750,
    side_bytes=20,
    coded_bits_per_byte=1.5043,
    claimed_bits_per_byte=1.5041,
    read_bits_per_byte=1.5042,
    decoded_equal=True,
    encode_seconds=1.0,
    decode_seconds=1.0,
    threads=2,
    circumstances={},
)
DIAGNOSTICS = {
    "adapt_then_score": DiagnosticResult(
        warning="", illegal_bits_per_byte=1.23456, honest_bits_per_byte=1.5
    )
}


def score(bits: float) -> ScoreResult:
    nats = bits * math.log(2) * NUM_BYTES
    return ScoreResult(bits_per_byte=bits, nats=nats, tokens=NUM_TOKENS, bytes=NUM_BYTES)


def stage(bits: float, seconds: float) -> StageResult:
    nats = bits * math.log(2) * NUM_BYTES / NUM_TOKENS
    return StageResult(bits_per_byte=bits, nats_per_token=nats, seconds=seconds)


def audited(*probes: ProbeResult, problem: str = "") -> AuditReport:
    return AuditReport("model.fwy", {probe.name: probe for probe in probes}, problem=problem)


def bare_result(name: str = "looped", *, seed: int = 1) -> RunResult:
    """A run that was stopped after training: nothing but what must be there."""
    return RunResult(recipe=name, seed=seed, device="cpu", params=123_456, train=TRAIN)


def scored_result(bits: float = 1.5, *, recipe: str = "looped", seed: int = 1) -> RunResult:
    """A run that has a score, a proof and an audit, and nothing to draw but its seconds."""
    return replace(
        bare_result(recipe, seed=seed),
        score=score(bits),
        evaluate=EvaluateResult(seconds=30.0, budget_seconds=60.0),
        proof=PROOF,
        audit=audited(ProbeResult("causality", True, "24 cuts, no change")),
    )


def full_result(bits: float = 1.5, *, recipe: str = "looped", seed: int = 1) -> RunResult:
    """A run in which every stage was run and every promise kept."""
    return replace(
        scored_result(bits, recipe=recipe, seed=seed),
        stages={
            "float": stage(bits + 0.03, 1.5),
            "quantized": stage(bits + 0.05, 1.25),
            "sliding": stage(bits + 0.02, 5.0),
            "ttt": stage(bits, 20.0),
        },
        artifact=ARTIFACT,
        baselines={
            "xz": CompressorResult(alone=2.7, primed=2.3),
            "zstd": CompressorResult(alone=2.75, primed=2.35),
            "ppmd": CompressorResult(alone=2.2, primed=1.9),
        },
        chunks={
            "tokens": (100, 200, 300, 400),
            "bits_per_byte": (1.9, 1.8, 1.7, 1.6),
            "score_seconds": (0.1, 0.11, 0.1, 0.1),
            "learn_seconds": (0.3, 0.3, 0.3, 0.0),
            "frozen_bits_per_byte": (1.9, 1.85, 1.8, 1.78),
            "gain_bits_per_byte": (0.0, 0.1, 0.2, None),
        },
        curves={
            "frozen": tuple((10_000 * i, 1.52) for i in range(1, 101)),
            "learning": tuple((10_000 * i, 1.52 - 0.0002 * i) for i in range(1, 101)),
        },
    )


def recipe_data(
    name: str = "looped", parent: str | None = "plain", **changes: object
) -> dict[str, Any]:
    """A recipe of today as `recipe.json` has it; in `changes` two underscores stand for a dot."""
    config = replace(recipe("pocket"), name=name, parent=parent, claim_bpb=1.49)
    for path, value in changes.items():
        config = set_json(config, path.replace("__", "."), value)
    return to_json(config)


def run_of(result: RunResult, recipe: dict[str, Any] | None = None) -> RunFolder:
    """A run folder with nothing else in it."""
    return RunFolder(
        RunRecord(folder=Path("runs/my run"), result=result), recipe, None, TrainingCurve()
    )


def write_run(
    folder: Path, result: RunResult, recipe: dict[str, Any] | None = None, steps: int = 40
) -> Path:
    """A run folder with a log of `steps` training steps."""
    folder.mkdir(parents=True)
    write_result(folder, result)
    (folder / "recipe.json").write_text(json.dumps(recipe or recipe_data(result.recipe)))
    lines: list[dict[str, Any]] = [{"event": "begin", "stage": "train"}]
    lines += [
        {
            "event": "update",
            "stage": "train",
            "step": step,
            "train_loss": 2 + 3 / step,
            "lr_scale": 1 - step / steps,
        }
        for step in range(1, steps + 1)
    ]
    lines.append({"event": "update", "stage": "evaluate", "done": 5, "loss": 99.0})
    (folder / "train.log").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder
