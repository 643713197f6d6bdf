"""Run folders, made up: all that a database of runs reads, in milliseconds."""

import json
import math
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fairway.recipes.diff import override, to_json
from fairway.recipes.registry import recipe, smoke
from fairway.result import (
    RunResult,
    ScoreResult,
    StageResult,
    TrainResult,
    write_result,
)
from fairway.runs.documents import Documents, write_documents
from fairway.runtime.identity import json_sha256, sealed

DATA = {"train_000000.bin": "aa" * 32, "val_000000.bin": "bb" * 32, "tokenizer.model": "cc" * 32}
VERSIONS = {"fairway": "0.1.0", "torch": "2.13.0"}
NUM_DOCUMENTS, TOKENS_EACH, BYTES_EACH = 40, 50, 180
STAGES = ("float", "quantized", "sliding", "ttt")


def write_run(
    folder: Path,
    nats_per_token: float | None = 3.0,
    *,
    seed: int = 1,
    data: dict[str, str] = DATA,
    versions: dict[str, str] = VERSIONS,
    settled: dict[str, Any] | None = None,
    seconds: float | None = None,
    spread: float = 0.3,
    **changes: object,
) -> Path:
    """A finished run folder with a score of so many nats per token; without one where None.

    seconds  of training; others for each folder where None
    spread   standard deviation of documents, the same in every run but for a hundredth of it
    changes  of the recipe; two underscores stand for a dot
    """
    folder.mkdir(parents=True)
    chosen = override(
        smoke(recipe("pocket")), {k.replace("__", "."): v for k, v in changes.items()}
    )
    described = to_json(replace(chosen, seed=seed))
    made = {"recipe": described, "data": data, "versions": versions, "plugins": []}
    settled = {"compute_dtype": "float32", "compiled": False, "evaluation": None, **(settled or {})}
    (folder / "recipe.json").write_text(json.dumps(described))
    held = {"made_with": made, "settled": settled, "finished": nats_per_token is not None}
    (folder / "run.json").write_text(json.dumps(sealed(held)))
    spent = zlib.crc32(str(folder).encode()) / 1e6 if seconds is None else seconds
    steps = chosen.train.steps or 100
    result = RunResult(
        recipe=chosen.name,
        seed=seed,
        made_with=json_sha256(made),
        data=data,
        device="cpu",
        params=1000,
        train=TrainResult(seconds=spent, steps=steps, tokens=100 * steps),
    )
    write_result(
        folder, result if nats_per_token is None else scored(folder, result, nats_per_token, spread)
    )
    return folder


def scored(folder: Path, result: RunResult, nats_per_token: float, spread: float) -> RunResult:
    each = np.random.default_rng(0).normal(0.0, spread, NUM_DOCUMENTS)
    nats = (nats_per_token + each - each.mean()) * TOKENS_EACH
    own_seed = int((result.made_with or "0")[:8], 16)
    own = np.random.default_rng(own_seed).normal(0.0, 0.01 * spread, NUM_DOCUMENTS)
    nats += (own - own.mean()) * TOKENS_EACH
    sizes = (np.full(NUM_DOCUMENTS, TOKENS_EACH), np.full(NUM_DOCUMENTS, BYTES_EACH))
    tokens, num_bytes = NUM_DOCUMENTS * TOKENS_EACH, NUM_DOCUMENTS * BYTES_EACH
    bits = float(nats.sum()) / math.log(2) / num_bytes
    score = ScoreResult(bits_per_byte=bits, nats=float(nats.sum()), tokens=tokens, bytes=num_bytes)
    stages = {
        name: StageResult(
            bits_per_byte=bits + 0.1 * (3 - i), nats_per_token=nats_per_token, seconds=1.0
        )
        for i, name in enumerate(STAGES)
    }
    sha256 = write_documents(folder, Documents(nats + 5.0, nats, *sizes))
    return replace(result, stages=stages, score=score, documents=sha256)
