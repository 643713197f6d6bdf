"""What a run found, as typed data: all that `result.json` holds.

Whoever reads a result reads it here: report, records and command line know fields, not keys. A
stage that was not run is None.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from fairway.artifact.config_json import config_from_json, config_to_json
from fairway.audit.findings import AuditReport
from fairway.proof.certificate import SettledFacts
from fairway.runtime.device import Machine
from fairway.runtime.files import atomic_write, read_file
from fairway.runtime.identity import sealed, unsealed
from fairway.runtime.limits import one_line
from fairway.runtime.plugins import Plugin
from fairway.runtime.strict_json import JsonObject, json_object

RESULT = "result.json"
MOST_RESULT = 1 << 26  # bytes


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """seconds, budget_seconds  calibration included; no budget where steps were counted
    waiting_share  of the steps' time, what the first rank spent in waiting for the others; None: it
                   was alone
    compiled  steps ran through `torch.compile`; None: an earlier version did not say
    note      what a reader must know about the steps; None where there is nothing to know
    """

    seconds: float
    budget_seconds: float | None = None
    steps: int
    tokens: int
    tokens_per_second: float | None = None
    waiting_share: float | None = None
    compiled: bool | None = None
    note: str | None = None

    @property
    def over_time(self) -> bool:
        return self.budget_seconds is not None and self.seconds > self.budget_seconds


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """The model scored at one stage: as trained, quantized, by sliding windows, learning."""

    bits_per_byte: float
    nats_per_token: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class TensorResult:
    """One tensor of a file.

    bytes           its share of the file; see `artifact/tensor_sizes.py`
    rounding_error  |rounded - trained| / |trained|, root mean squares; None where it is not known
    """

    weights: int
    bytes: float
    rounding_error: float | None = None


@dataclass(frozen=True, kw_only=True)
class ArtifactResult:
    """groups   bytes by section of the file; together they are the file
    tensors  by name
    """

    bytes_total: int
    bytes_model: int
    bytes_code: int
    bytes_tokenizer: int
    cap_bytes: int | None = None
    sha256: str
    groups: dict[str, int] = field(default_factory=dict)
    tensors: dict[str, TensorResult] = field(default_factory=dict)

    @property
    def over_cap(self) -> bool:
        return self.cap_bytes is not None and self.bytes_total > self.cap_bytes


@dataclass(frozen=True, kw_only=True)
class ScoreResult:
    """The score that counts.

    bits_per_byte  8 * code_bytes / bytes; where there is no code, what the nats come to
    code_bytes     of the whole text's code, ties included, in settled arithmetic; None: a score in
                   native arithmetic is the length of no code, but near one
    scope          which part of the validation text was scored; None: all that the recipe scores
    """

    bits_per_byte: float
    nats: float
    tokens: int
    bytes: int
    code_bytes: int | None = None
    scope: str | None = None

    def coded(self, code_bytes: int) -> "ScoreResult":
        """The score as the length of a code of so many bytes."""
        return replace(self, code_bytes=code_bytes, bits_per_byte=8 * code_bytes / self.bytes)

    @property
    def nats_bits_per_byte(self) -> float:
        """What the sum of nats comes to."""
        if self.code_bytes is None:
            return self.bits_per_byte
        return self.nats / math.log(2) / self.bytes


@dataclass(frozen=True, kw_only=True)
class EvaluateResult:
    """note     what a reader must know about its time; None where there is nothing to know
    learned  the chunks that were learned from, as runs [first, stop); None: all that could be
    """

    arithmetic: str = "native"
    seconds: float
    budget_seconds: float | None = None
    planned_seconds: float | None = None
    stride: int | None = None
    note: str | None = None
    learned: tuple[tuple[int, int], ...] | None = None

    @property
    def over_time(self) -> bool:
        return self.budget_seconds is not None and self.seconds > self.budget_seconds


@dataclass(frozen=True, kw_only=True)
class ProofResult:
    """What the certificate says, in short.

    side_bytes      of the proof file, beside the code
    decoded_tokens  of `tokens`, those that were decoded again; None: all
    settled         what settled arithmetic rested on; None: the arithmetic was native
    """

    tokens: int
    coded_bytes: int
    side_bytes: int | None = None
    coded_bits_per_byte: float
    claimed_bits_per_byte: float
    decoded_equal: bool
    decoded_tokens: int | None = None
    settled: SettledFacts | None = None
    holds: bool


@dataclass(frozen=True, kw_only=True)
class CompressorResult:
    """Bits per byte of a general compressor: alone, and after reading the training text.

    It read `prime_bytes` of `train_bytes` first and compressed `scored_bytes` of `val_bytes`.
    """

    alone: float
    primed: float
    prime_bytes: int | None = None
    train_bytes: int | None = None
    scored_bytes: int | None = None
    val_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class DiagnosticResult:
    """A number that is no score, what it must be called, and the honest score beside it."""

    warning: str
    illegal_bits_per_byte: float
    honest_bits_per_byte: float


@dataclass(frozen=True, kw_only=True)
class _Figures:
    """All of a `RunResult` that its annotations alone turn into JSON and back."""

    recipe: str
    seed: int
    made_with: str | None = None
    data: dict[str, str] = field(default_factory=dict)
    device: str
    machine: Machine | None = None
    params: int
    train: TrainResult
    artifact: ArtifactResult | None = None
    stages: dict[str, StageResult] = field(default_factory=dict)
    score: ScoreResult | None = None
    evaluate: EvaluateResult | None = None
    documents: str | None = None
    curves: dict[str, tuple[tuple[int, float], ...]] = field(default_factory=dict)
    chunks: dict[str, tuple[float | None, ...]] = field(default_factory=dict)
    diagnostics: dict[str, DiagnosticResult] = field(default_factory=dict)
    proof: ProofResult | None = None
    baselines: dict[str, CompressorResult] = field(default_factory=dict)
    plugins: tuple[Plugin, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RunResult(_Figures):
    """One run.

    made_with  sha256 of all that makes the run, as `run.json` lists it
    data     sha256 of each file of the text: shards, byte counts, tokenizer
    stages   "float", "quantized", "sliding", "ttt", as far as they were scored
    documents  sha256 of `documents.safetensors`: what each document cost
    curves   "frozen" and "learning": (bytes so far, bits per byte so far)
    chunks   columns of equal length, one entry for each group of chunks (`evaluate/curves.py`)
    plugins  classes from outside this package that the recipe names
    """

    audit: AuditReport | None = None

    @property
    def holds(self) -> bool:
        """Whether nothing that was checked says no: neither clock nor cap, proof nor audit."""
        over_time = self.train.over_time or (self.evaluate is not None and self.evaluate.over_time)
        proved = self.proof is None or self.proof.holds
        legal = self.audit is None or self.audit.exit_status != 1
        return proved and legal and not over_time and not (self.artifact and self.artifact.over_cap)

    def before_packing(self) -> "RunResult":
        """Without all that was found on the packed file, and what was compared with it."""
        return RunResult(
            recipe=self.recipe,
            seed=self.seed,
            made_with=self.made_with,
            data=self.data,
            device=self.device,
            machine=self.machine,
            params=self.params,
            train=self.train,
            stages={name: found for name, found in self.stages.items() if name == "float"},
            plugins=self.plugins,
        )

    def to_json(self) -> JsonObject:
        """Plain data without the stages that were not run."""
        data = config_to_json(_Figures(**_held(self)))
        if self.audit is not None:
            data["audit"] = self.audit.to_json()
        return {key: value for key, value in data.items() if value not in (None, {}, [])}

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> "RunResult":
        """Inverse of `to_json`; ValueError names what is missing or unknown."""
        figures = config_from_json(_Figures, {k: v for k, v in data.items() if k != "audit"})
        audit = data.get("audit")
        report = AuditReport.from_json(json_object(audit, "audit")) if audit else None
        return cls(**_held(figures), audit=report)


def _held(figures: _Figures) -> dict[str, Any]:
    return {f.name: getattr(figures, f.name) for f in fields(_Figures)}


class ResultFile:
    """A result that grows stage by stage, in memory and in the run folder.

    write  False on processes that only follow
    """

    def __init__(self, folder: Path, result: RunResult, *, write: bool = True) -> None:
        self.folder, self.write = folder, write
        self.keep(result)

    def keep(self, result: RunResult) -> None:
        self.result = result
        if self.write:
            write_result(self.folder, result)

    def add(self, **found: object) -> None:
        """Fields of `RunResult` that are known now."""
        self.keep(replace(self.result, **found))

    def add_stage(self, name: str, found: StageResult) -> None:
        self.add(stages={**self.result.stages, name: found})


def write_result(folder: Path, result: RunResult) -> None:
    atomic_write(folder / RESULT, json.dumps(sealed(result.to_json()), indent=1).encode())


def read_result(folder: Path) -> RunResult:
    """The result of a run folder; ValueError where there is none, or it is no result."""
    path = folder / RESULT
    if not path.is_file():
        raise ValueError(
            f"{folder} has no {RESULT}; a run folder is what `fairway run RECIPE DATA --out "
            f"{folder}` writes"
        )
    try:
        return RunResult.from_json(unsealed(read_file(path, MOST_RESULT)))
    except ValueError as error:
        raise ValueError(
            f"{path}: {one_line(error)}; run the stage that writes it again"
        ) from error
