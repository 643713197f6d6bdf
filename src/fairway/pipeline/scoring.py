"""The validation text scored at each stage of a run, and planned into its clock beforehand."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fairway.evaluate.bpb import Score
from fairway.evaluate.config import EvaluateConfig, make_predictor, plan_text
from fairway.evaluate.curves import Curve, curve_data
from fairway.evaluate.diagnostic import WARNING, adapt_then_score
from fairway.evaluate.planner import Estimate, Range, largest_that_fits
from fairway.evaluate.predictor import Chunk, ChunkPlan, Frozen, Predictor
from fairway.evaluate.timed import CheckpointConfig, Evaluation
from fairway.evaluate.timed import evaluate as walk
from fairway.model.gpt import GPT
from fairway.recipes.recipe import Recipe
from fairway.result import DiagnosticResult, EvaluateResult, ScoreResult, StageResult
from fairway.runtime.setup import Runtime
from fairway.tokens.val_text import ValText


def plan_into_clock(model: GPT, recipe: Recipe, text: ValText, runtime: Runtime) -> Estimate:
    """The evaluation that this machine can finish in `budget.eval_seconds`, as measured.

    A run of so many steps takes the recipe's own settings: it is to give the same file again.
    Raises ValueError where nothing that the recipe allows fits.
    """
    fast = "bfloat16" if runtime.compute_dtype == torch.bfloat16 else "float32"
    config = recipe.evaluate.resolved(recipe.model.train_context, fast, runtime.compiled)
    epochs = (getattr(config.ttt, "epochs", 1),)
    choices = Range(strides=(config.stride,), epochs=epochs)
    if recipe.evaluate_range is not None and recipe.train.steps is None:
        choices = recipe.evaluate_range
    return largest_that_fits(
        model,
        config,
        choices,
        recipe.budget.eval_seconds,
        len(text.tokens),
        text.document_starts,
        ranks=runtime.ranks,
        say=lambda line: runtime.log.say(f"evaluation, {line}"),
    )


def score_text(
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
    """Score a text as a stage of the log, which also tells what its time did to the score."""
    num_scored = 0
    with runtime.log.stage(name, total=text.num_targets) as stage:

        def on_chunk(chunk: Chunk, nats: Tensor) -> None:
            nonlocal num_scored
            num_scored += chunk.num_targets
            stage.update(num_scored)

        found = walk(
            predictor,
            plans,
            text.tokens,
            text.target_bytes,
            budget_seconds=budget_seconds,
            lesson_seconds=lesson_seconds,
            spent_seconds=spent_seconds,
            checkpoint=None if checkpoint is None else CheckpointConfig(path=checkpoint),
            observe=on_chunk,
            ranks=runtime.ranks,
        )
        stage.update(num_scored, bits_per_byte=found.score.bits_per_byte)
    if found.note is not None:
        runtime.log.say(f"{name}: {found.note}")
    return found


def without_learning(config: EvaluateConfig) -> EvaluateConfig:
    return replace(config, ttt=None, mixture=None)


def score_windows(
    model: GPT, planned: Estimate, text: ValText, runtime: Runtime, name: str
) -> StageResult:
    """Without learning, and each window on its own: the quickest look at a model."""
    config = without_learning(planned.config)
    config = replace(config, stride=config.context or 1)
    frozen = Frozen(model, config.rows, runtime.ranks)
    return stage_result(score_text(frozen, plan_text(config, text), text, runtime, name))


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The model of an artifact scored as it was planned.

    sliding   without learning, chunk by chunk as `learning` does, so that they can be compared
    learning  the score that counts
    """

    planned: Estimate
    sliding: Evaluation
    learning: Evaluation

    @property
    def score(self) -> ScoreResult:
        return score_result(self.learning.score)

    @property
    def evaluate(self) -> EvaluateResult:
        return EvaluateResult(
            seconds=self.learning.seconds,
            budget_seconds=self.learning.budget_seconds,
            planned_seconds=self.planned.total_seconds,
            stride=self.planned.config.stride,
            note=self.learning.note,
        )

    @property
    def stages(self) -> dict[str, StageResult]:
        return {"sliding": stage_result(self.sliding), "ttt": stage_result(self.learning)}

    @property
    def curves(self) -> dict[str, tuple[tuple[int, float], ...]]:
        return {
            "frozen": running_curve(self.sliding.curve),
            "learning": running_curve(self.learning.curve),
        }

    @property
    def chunks(self) -> dict[str, tuple[float | None, ...]]:
        columns = curve_data(self.learning.curve, self.sliding.curve, most=100)
        return {name: tuple(column) for name, column in columns.items()}


def score_as_planned(
    model: GPT, recipe: Recipe, planned: Estimate, text: ValText, runtime: Runtime
) -> Scored:
    """By sliding windows, and once more while learning from what was scored."""
    config, ranks = planned.config, runtime.ranks
    plans = plan_text(config, text)
    sliding = score_text(Frozen(model, config.rows, ranks), plans, text, runtime, "score sliding")
    began = time.perf_counter()
    predictor = make_predictor(model, config, seed=recipe.seed, ranks=ranks)
    learning = score_text(
        predictor,
        plans,
        text,
        runtime,
        "score and learn",
        budget_seconds=recipe.budget.eval_seconds,
        lesson_seconds=planned.lesson_seconds,
        spent_seconds=time.perf_counter() - began,
    )
    return Scored(planned=planned, sliding=sliding, learning=learning)


def diagnose(
    model: GPT, recipe: Recipe, text: ValText, runtime: Runtime
) -> dict[str, DiagnosticResult]:
    """Numbers that are no scores, if the recipe asks for one."""
    if recipe.diagnostic is None:
        return {}
    with runtime.log.stage("adapt then score"):
        found = adapt_then_score(
            model, recipe.diagnostic, text.tokens, text.target_bytes, runtime.ranks
        )
    runtime.log.say(f"adapt_then_score: {found}")
    result = DiagnosticResult(
        warning=WARNING,
        illegal_bits_per_byte=found.illegal_bits_per_byte,
        honest_bits_per_byte=found.honest.bits_per_byte,
    )
    return {"adapt_then_score": result}


def stage_result(found: Evaluation) -> StageResult:
    return StageResult(
        bits_per_byte=found.score.bits_per_byte,
        nats_per_token=found.score.nats_per_token,
        seconds=found.seconds,
    )


def score_result(score: Score) -> ScoreResult:
    return ScoreResult(
        bits_per_byte=score.bits_per_byte,
        nats=score.nats,
        tokens=score.num_tokens,
        bytes=score.num_bytes,
    )


def running_curve(curve: Curve, most: int = 200) -> tuple[tuple[int, float], ...]:
    """(bytes so far, bits per byte so far) at up to `most` places."""
    shown = curve.thinned(most)
    num_bytes = np.cumsum(shown.num_bytes).tolist()
    bits = shown.running_bits_per_byte()
    return tuple((n, b) for n, b in zip(num_bytes, bits, strict=True) if b is not None)
