"""The validation text, and a stage of the run that prices it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairway.evaluate.chunks import Chunk, ChunkPlan
from fairway.evaluate.config import EvaluateConfig
from fairway.evaluate.curves import Curve
from fairway.evaluate.planner import Estimate, largest_that_fits
from fairway.evaluate.predictor import Predictor
from fairway.evaluate.timed import CheckpointConfig, Evaluation, evaluate_in_time
from fairway.model.gpt import GPT
from fairway.recipes.recipe import Recipe
from fairway.runtime.setup import Runtime
from fairway.tokens.val_text import ValText


def plan_into_clock(model: GPT, recipe: Recipe, text: ValText, runtime: Runtime) -> Estimate:
    """The evaluation that this machine can finish in `budget.eval_seconds`, as measured.

    A run of so many steps takes the recipe's own settings: it is to give the same file again.
    Raises ValueError where nothing that the recipe allows fits.
    """
    fast = "bfloat16" if runtime.compute_dtype == torch.bfloat16 else "float32"
    config = recipe.evaluate.resolved(recipe.model.train_context, fast, runtime.compiled)
    choices = recipe.evaluate_range if recipe.train.steps is None else None
    return largest_that_fits(
        model,
        config,
        text,
        recipe.budget.eval_seconds,
        choices=choices,
        ranks=runtime.ranks,
        progress=lambda *_, text="", **__: runtime.log.say(f"evaluation, {text}"),
    )


def evaluate(
    predictor: Predictor,
    plans: Sequence[ChunkPlan],
    text: ValText,
    runtime: Runtime,
    name: str,
    *,
    budget_seconds: float | None = None,
    lesson_seconds: float = 0.0,
    spent_seconds: float = 0.0,
    checkpoint: Path | None = None,
) -> Evaluation:
    """Score a text under the eyes of the log; what its time did to the score is said."""
    running, bits = 0, 0.0
    with runtime.log.stage(name, total=len(text.tokens) - 1) as stage:

        def on_chunk(chunk: Chunk, nats: Tensor) -> None:
            nonlocal running
            running += chunk.num_targets
            stage.update(running)

        found = evaluate_in_time(
            predictor,
            plans,
            text,
            budget_seconds=budget_seconds,
            lesson_seconds=lesson_seconds,
            spent_seconds=spent_seconds,
            checkpoint=None if checkpoint is None else CheckpointConfig(path=checkpoint),
            on_chunk=on_chunk,
            ranks=runtime.ranks,
        )
        bits = found.score.bits_per_byte
        stage.update(running, bits_per_byte=bits)
    if found.note is not None:
        runtime.log.say(f"{name}: {found.note}")
    return found


def without_learning(config: EvaluateConfig) -> EvaluateConfig:
    return replace(config, ttt=None, mixture=None)


def stage_line(found: Evaluation) -> dict[str, Any]:
    """What `result.json` says of a stage that was scored."""
    return {
        "bits_per_byte": found.score.bits_per_byte,
        "nats_per_token": found.score.nats_per_token,
        "seconds": found.seconds,
    }


def running_curve(curve: Curve, most: int = 200) -> list[tuple[int, float]]:
    """(bytes so far, bits per byte so far) at up to `most` places."""
    shown = curve.thinned(most)
    num_bytes = np.cumsum(shown.num_bytes).tolist()
    bits = shown.running_bits_per_byte()
    return [(n, b) for n, b in zip(num_bytes, bits, strict=True) if b is not None]
