"""The story: text to a proven score. Start reading here.

`run` composes the stages and holds no logic of theirs; each arrow of the picture in the README is a
line of it. Proof, audit, baselines and reports are further on, in `demo.py`.
"""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from fairway.artifact.loaded_model import LoadedModel, load_model
from fairway.evaluate.config import EvaluateConfig, make_predictor, plan_text
from fairway.evaluate.curves import curve_data
from fairway.evaluate.diagnostic import adapt_then_score
from fairway.evaluate.frozen import Frozen
from fairway.evaluate.planner import Estimate
from fairway.model.gpt import GPT, num_params
from fairway.pipeline.packing import calibrate, describe_artifact, expect_to_fit, make_artifact
from fairway.pipeline.scoring import (
    ValText,
    evaluate,
    plan_into_clock,
    running_curve,
    stage_line,
    without_learning,
)
from fairway.pipeline.training import CHECKPOINT, train_and_average
from fairway.recipes.recipe import Recipe
from fairway.runtime.device import machine, seed_everything
from fairway.runtime.files import atomic_write
from fairway.runtime.setup import Runtime
from fairway.tokens.shards import DataFolder

ARTIFACT = "model.fwy"


def run(
    recipe: Recipe, data: DataFolder, out: Path, runtime: Runtime, resume: bool = False
) -> dict[str, Any]:
    """One run, from shards to an artifact that was rebuilt from its file and scored.

    Returns what `result.json` holds. Raises ValueError for whatever the user can mend, before any
    time is spent where that can be known before.
    """
    check_fit(recipe, data)
    seed_everything(recipe.seed)
    model = GPT(recipe.model).to(runtime.device)
    tokenizer = data.tokenizer.to_bytes()
    expect_to_fit(model, recipe, tokenizer, runtime)
    text = ValText.of(data, recipe.tokens.val_tokens)
    planned = plan_into_clock(model, recipe, text, runtime)

    seed_everything(recipe.seed)  # what planning took at random must not reach training
    trained = train_and_average(model, recipe, data, out, runtime, resume)
    hessians = calibrate(model, trained.weights, recipe, data, runtime)
    trained.facts["seconds"] = time.perf_counter() - trained.began

    windows = without_learning(planned.config)
    windows = replace(windows, stride=windows.context or 1)
    unrounded = Frozen(model, windows.rows, runtime.ranks)
    in_float = evaluate(unrounded, plan_text(windows, text), text, runtime, "score float")
    artifact = out / ARTIFACT
    if runtime.ranks.is_main:
        with runtime.log.stage("pack") as stage:
            packed = make_artifact(
                recipe, planned.config, trained.weights, hessians, tokenizer, stage.update
            )
            atomic_write(artifact, packed)
    runtime.ranks.barrier()
    loaded = load_model(artifact, runtime.device)  # nothing in memory may flatter the score
    return {
        "recipe": recipe.name,
        "seed": recipe.seed,
        **machine_facts(runtime),
        "params": num_params(recipe.model),
        "train": trained.facts,
        "artifact": describe_artifact(artifact, recipe.budget.cap_bytes),
        **score_served(
            loaded, recipe, text, planned, windows, runtime, {"float": stage_line(in_float)}
        ),
    }


def train_only(
    recipe: Recipe, data: DataFolder, out: Path, runtime: Runtime, resume: bool = False
) -> dict[str, Any]:
    """The first stage alone; `fairway pack` goes on from the checkpoint."""
    check_fit(recipe, data)
    seed_everything(recipe.seed)
    model = GPT(recipe.model).to(runtime.device)
    expect_to_fit(model, recipe, data.tokenizer.to_bytes(), runtime)
    trained = train_and_average(model, recipe, data, out, runtime, resume)
    facts = trained.facts | {"params": num_params(recipe.model)}
    return facts | {"checkpoint": str(out / CHECKPOINT)}


def score_served(
    loaded: LoadedModel,
    recipe: Recipe,
    text: ValText,
    planned: Estimate,
    windows: EvaluateConfig,
    runtime: Runtime,
    stages: dict[str, Any],
) -> dict[str, Any]:
    """What `result.json` says of the model in the file: `stages`, and the score that counts."""
    frozen, config = Frozen(loaded.model, planned.config.rows, runtime.ranks), planned.config
    quantized = evaluate(frozen, plan_text(windows, text), text, runtime, "score quantized")
    plans = plan_text(
        config, text
    )  # the same for both, so that they can be compared chunk by chunk
    sliding = evaluate(frozen, plans, text, runtime, "score sliding")
    began = time.perf_counter()
    predictor = make_predictor(loaded.model, config, seed=recipe.seed, ranks=runtime.ranks)
    learning = evaluate(
        predictor,
        plans,
        text,
        runtime,
        "score and learn",
        budget_seconds=recipe.budget.eval_seconds,
        lesson_seconds=planned.lesson_seconds,
        spent_seconds=time.perf_counter() - began,
    )
    score = learning.score
    result: dict[str, Any] = {
        "stages": stages
        | {
            "quantized": stage_line(quantized),
            "sliding": stage_line(sliding),
            "ttt": stage_line(learning),
        },
        "score": {
            "bits_per_byte": score.bits_per_byte,
            "nats": score.nats,
            "tokens": score.num_tokens,
            "bytes": score.num_bytes,
        },
        "evaluate": {
            "seconds": learning.seconds,
            "budget_seconds": recipe.budget.eval_seconds,
            "planned_seconds": planned.total_seconds,
            "stride": config.stride,
            "note": learning.note,
        },
        "curves": {
            "frozen": running_curve(sliding.curve),
            "learning": running_curve(learning.curve),
        },
        "chunks": curve_data(learning.curve, sliding.curve, most=100),
    }
    if recipe.diagnostic is not None:
        with runtime.log.stage("adapt then score"):
            found = adapt_then_score(loaded.model, recipe.diagnostic, text, runtime.ranks)
        runtime.log.say(f"adapt_then_score: {found}")
        result["diagnostics"] = {"adapt_then_score": found.to_json()}
    return result


def machine_facts(runtime: Runtime) -> dict[str, Any]:
    found = machine()
    told = f"{found['processor']}, {found['cores']} cores, {runtime.device}"
    return {"device": told, "machine": found}


def check_fit(recipe: Recipe, data: DataFolder) -> None:
    """Raise ValueError where recipe and data cannot go together."""
    size = data.tokenizer.vocab_size
    if size > recipe.model.vocab_size:
        raise ValueError(
            f"the tokenizer has {size} pieces and recipe {recipe.name!r} a vocabulary of "
            f"{recipe.model.vocab_size}; prepare the text with --vocab-size "
            f"{recipe.model.vocab_size}, or choose another recipe"
        )
    if data.tokenizer.bos_id != recipe.model.bos_id:
        raise ValueError(
            f"the tokenizer's BOS is {data.tokenizer.bos_id}, the model's {recipe.model.bos_id}"
        )
    if len(data.val) < 2:
        raise ValueError("the validation split is empty")


def write_result(out: Path, result: dict[str, Any]) -> None:
    atomic_write(out / "result.json", json.dumps(result, indent=1).encode())
