"""After the scores: prove, audit, compare, report; and the text of the demo."""

import shutil
from pathlib import Path
from typing import Any

from fairway.artifact.config_json import config_to_json
from fairway.artifact.loaded_model import load_model
from fairway.audit.artifact import audit_artifact
from fairway.pipeline.story import ARTIFACT, write_result
from fairway.prepare import prepare_documents
from fairway.proof.prove import prove
from fairway.recipes.recipe import Recipe
from fairway.recipes.registry import RECIPES
from fairway.report.compressors import compare_with_compressors
from fairway.report.page import write_report
from fairway.runtime.files import atomic_write
from fairway.runtime.setup import Runtime
from fairway.text import builtin_documents, split_documents
from fairway.tokens.shards import DataFolder
from fairway.tokens.val_text import ValText

PRIMING_TOKENS, SCORED_TOKENS = 8_000_000, 4_000_000  # by compressors, which are slow


def judge_run(
    result: dict[str, Any],
    recipe: Recipe,
    data: DataFolder,
    out: Path,
    runtime: Runtime,
    *,
    proof_tokens: int,
    audit_seconds: float = 0.0,
) -> dict[str, Any]:
    """Proof, audit, baselines and report of what `pipeline.run` gave; completes the run folder.

    The work of one process. `result.json` is written after every stage, so that whatever goes wrong
    late loses nothing.
    """
    write_result(out, result)
    result["proof"] = _prove(recipe, data, out, runtime, proof_tokens)
    write_result(out, result)
    if audit_seconds:
        with runtime.log.stage("audit"):
            report = audit_artifact(
                out / ARTIFACT,
                data,
                seconds=audit_seconds,
                cap_bytes=recipe.budget.cap_bytes,
                eval_seconds=recipe.budget.eval_seconds,
                seed=recipe.seed,
                progress=lambda *_, text="", **__: runtime.log.write("audit", text=text),
            )
        result["audit"] = report.to_json()
        write_result(out, result)
    text = ValText.of(data, recipe.tokens.val_tokens)
    with runtime.log.stage("baselines", total=8) as stage:
        tail = data.train[max(0, len(data.train) - PRIMING_TOKENS) :]
        found = compare_with_compressors(
            data.tokenizer.decode(tail),
            data.tokenizer.decode(text.tokens[:SCORED_TOKENS].tolist()),
            progress=lambda done=0.0, total=0.0, **_: stage.update(done),
        )
        result["baselines"] = {name: config_to_json(each) for name, each in found.items()}
    write_result(out, result)
    configs = {name: config_to_json(make()) for name, make in RECIPES.items()}
    write_report([out], out / "report.html", recipes=configs)
    return result


def _prove(
    recipe: Recipe, data: DataFolder, out: Path, runtime: Runtime, proof_tokens: int
) -> dict[str, Any]:
    text = ValText.of(data, recipe.tokens.val_tokens)
    num_targets = min(proof_tokens, len(text.tokens) - 1)
    with runtime.log.stage("prove", total=2 * num_targets) as stage:
        certificate = prove(
            load_model(out / ARTIFACT),
            text.tokens,
            text.target_bytes,
            out=out / "proof.fwp",
            num_targets=num_targets,
            seed=recipe.seed,
            progress=lambda done, total: stage.update(done),
        )
    atomic_write(out / "certificate.json", certificate.to_json().encode())
    return {
        "tokens": certificate.num_tokens,
        "coded_bytes": certificate.coded_bytes,
        "coded_bits_per_byte": certificate.coded_bits_per_byte,
        "claimed_bits_per_byte": certificate.claimed_bits_per_byte,
        "decoded_equal": certificate.decoded_equal,
        "holds": certificate.holds,
    }


def prepare_builtin(out: Path, vocab_size: int) -> DataFolder:
    """The built-in text as a data folder; made anew, since it depends on the interpreter."""
    shutil.rmtree(out, ignore_errors=True)
    train, val = split_documents(builtin_documents())
    prepare_documents(out, train, val, vocab_size=vocab_size, source="CPython's own documentation")
    return DataFolder(out)
