"""The whole pipeline on a user's or the built-in text: run, prove, compare, report."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from fairway import pipeline
from fairway.artifact.config_json import config_to_json
from fairway.artifact.served import load
from fairway.prepare import prepare_documents
from fairway.proof.prove import prove
from fairway.recipes.recipe import Recipe
from fairway.recipes.registry import RECIPES
from fairway.report.baselines import baselines, require
from fairway.report.page import write_report
from fairway.runtime.files import atomic_write
from fairway.text import builtin_documents, split_documents
from fairway.tokens.shards import DataFolder

PROOF_TOKENS = 2000  # enough to convince, few enough to decode in a quarter of a minute


def run_everything(
    recipe: Recipe,
    data: DataFolder,
    out: Path,
    here: pipeline.Here,
    proof_tokens: int = PROOF_TOKENS,
) -> dict[str, Any]:
    """`pipeline.run`, then proof, baselines and report; writes the run folder."""
    require()  # a figure missing at the end is missing for good
    out.mkdir(parents=True, exist_ok=True)
    result = pipeline.run(recipe, data, out, here)
    text = pipeline.ValText.of(data)
    num_targets = min(proof_tokens, len(text.tokens) - 1)
    with here.log.stage("prove", total=2 * num_targets) as stage:
        certificate = prove(
            load(out / "model.fwy"),
            text.tokens,
            text.target_bytes,
            out=out / "proof.fwp",
            num_targets=num_targets,
            seed=recipe.seed,
            progress=lambda done, total: stage.update(done),
        )
    atomic_write(out / "certificate.json", certificate.to_json().encode())
    result["proof"] = {
        "tokens": certificate.num_tokens,
        "coded_bytes": certificate.coded_bytes,
        "coded_bits_per_byte": certificate.coded_bits_per_byte,
        "claimed_bits_per_byte": certificate.claimed_bits_per_byte,
        "decoded_equal": certificate.decoded_equal,
        "holds": certificate.holds,
    }
    tokenizer = data.tokenizer
    with here.log.stage("baselines", total=6) as stage:
        tail = data.train[max(0, len(data.train) - 8_000_000) :]
        result["baselines"] = baselines(
            tokenizer.decode(tail),
            tokenizer.decode(text.tokens[:4_000_000].tolist()),
            progress=lambda done, total: stage.update(done),
        )
    atomic_write(out / "result.json", json.dumps(result, indent=1).encode())
    configs = {name: config_to_json(make()) for name, make in RECIPES.items()}
    write_report([out], out / "report.html", recipes=configs)
    return result


def prepare_builtin(out: Path, vocab_size: int) -> DataFolder:
    """The built-in text as a data folder; made anew, since it depends on the interpreter."""
    shutil.rmtree(out, ignore_errors=True)
    train, val = split_documents(builtin_documents())
    prepare_documents(out, train, val, vocab_size=vocab_size, source="CPython's own documentation")
    return DataFolder(out)


def use_threads(number: int | None) -> None:
    """All cores, or as many as were asked for."""
    if number is not None:
        torch.set_num_threads(number)
