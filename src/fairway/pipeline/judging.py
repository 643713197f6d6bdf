"""What is done with a score: prove it, audit it, compare it, report it. The work of one process."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fairway.artifact.config_json import config_to_json
from fairway.artifact.loaded_model import load_model
from fairway.audit.artifact import audit_artifact
from fairway.audit.findings import AuditReport
from fairway.evaluate.clocked import Chunks
from fairway.evaluate.token_nats import TokenNats
from fairway.pipeline.scoring import LEARNING, SLIDING, token_nats_file
from fairway.proof.certificate import Certificate
from fairway.proof.coded import Coded
from fairway.proof.prove import prove
from fairway.recipes.recipe import Recipe
from fairway.recipes.registry import RECIPES
from fairway.report.compressors import compare_with_compressors
from fairway.report.excerpt import EXCERPT, make_excerpt, write_excerpt
from fairway.result import CompressorResult, ProofResult, RunResult
from fairway.runtime.extras import extra
from fairway.runtime.files import atomic_write
from fairway.runtime.setup import Runtime
from fairway.tokens.shards import DataFolder
from fairway.tokens.val_text import ValText

PROOF, CERTIFICATE = "proof.fwp", "certificate.json"
PRIMING_TOKENS, SCORED_TOKENS = 8_000_000, 4_000_000  # given to compressors, which are slow


def prove_score(
    artifact: Path,
    recipe: Recipe,
    text: ValText,
    runtime: Runtime,
    num_tokens: int | None,
    *,
    learned: Chunks | None = None,
    coded: Coded | None = None,
    decode_seconds: float | None = None,
) -> ProofResult:
    """Encode the first `num_tokens` targets, None: all, and decode them again.

    learned         the chunks that the score was learned from, where the clock left some out
    coded           what scoring wrote of all of them, so that they are not encoded again
    decode_seconds  after which decoding stops; None: all is decoded

    Proof and certificate lie beside the artifact.
    """
    num_targets = min(num_tokens or text.num_targets, text.num_targets)
    walks = 1 if coded is not None else 2
    with runtime.log.stage("prove", total=walks * num_targets) as stage:
        certificate = prove(
            load_model(artifact),
            text,
            out=artifact.with_name(PROOF),
            num_targets=None if num_tokens is None else num_targets,
            learned=learned,
            seed=recipe.seed,
            coded=coded,
            decode_seconds=decode_seconds,
            progress=stage.update,
        )
    atomic_write(artifact.with_name(CERTIFICATE), certificate.to_json().encode())
    return proof_result(certificate)


def proof_result(certificate: Certificate) -> ProofResult:
    return ProofResult(
        tokens=certificate.num_tokens,
        coded_bytes=certificate.coded_bytes,
        side_bytes=certificate.side_bytes,
        coded_bits_per_byte=certificate.coded_bits_per_byte,
        claimed_bits_per_byte=certificate.claimed_bits_per_byte,
        decoded_equal=certificate.decoded_equal,
        decoded_tokens=certificate.decoded_tokens,
        settled=certificate.settled,
        holds=certificate.holds,
    )


def audit_run(
    artifact: Path, recipe: Recipe, data: DataFolder, runtime: Runtime, seconds: float
) -> AuditReport | None:
    """Probe the artifact for about so many seconds; 0 leaves it out.

    Raises ValueError where a probe could not be asked, for then there is no verdict to keep.
    """
    if not seconds:
        return None
    with runtime.log.stage("audit") as stage:
        report = audit_artifact(
            artifact,
            data,
            seconds=seconds,
            cap_bytes=recipe.budget.cap_bytes,
            eval_seconds=recipe.budget.eval_seconds,
            seed=recipe.seed,
            progress=stage.update,
        )
    if report.broken:
        raise ValueError(
            f"the audit found no verdict: {report.broken}; the score is kept, and the same command "
            "with --resume asks again, or with --audit-seconds 0 leaves it out"
        )
    return report


def compare(data: DataFolder, text: ValText, runtime: Runtime) -> dict[str, CompressorResult]:
    """General compressors on the same text."""
    tail = data.train[max(0, len(data.train) - PRIMING_TOKENS) :]
    train = data.tokenizer.decode(tail)
    val = data.tokenizer.decode(text.tokens[:SCORED_TOKENS].tolist())
    with runtime.log.stage("baselines") as stage:
        return compare_with_compressors(train, val, progress=stage.update)


def keep_excerpt(
    folder: Path, text: ValText, data: DataFolder, result: RunResult, runtime: Runtime
) -> None:
    """What the page shows of the text, token by token, as far as the run knows what each cost."""
    if result.score is None or (folder / EXCERPT).is_file():
        return
    frozen_nats = result.stages["sliding"].nats_per_token * result.score.tokens
    columns = []
    for name, total in ((SLIDING, frozen_nats), (LEARNING, result.score.nats)):
        path = token_nats_file(folder, name)
        nats = TokenNats(path, text.num_targets).read() if path.is_file() else np.full(1, np.nan)
        if not math.isclose(nats.sum(), total, rel_tol=1e-4):  # not whole, or not of this run
            runtime.log.say("report, without the text: what each token cost was not kept")
            return
        columns.append(nats)
    excerpt = make_excerpt(text, data.tokenizer, *columns)
    write_excerpt(folder / EXCERPT, excerpt, result)


def write_page(runs: Sequence[Path], out: Path) -> Path:
    """One page about run folders, beside the recipes that this version knows.

    Raises `MissingExtra` where what draws its pictures is not installed.
    """
    with extra("report", "a page"):
        from fairway.report.page import write_report

    known = {name: config_to_json(make()) for name, make in RECIPES.items()}
    return write_report(runs, out, recipes=known)
