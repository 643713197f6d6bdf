"""The validation text scored at each stage of a run, and planned into its clock beforehand."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fairway.evaluate.bpb import Score
from fairway.evaluate.chunks import Chunk, ChunkPlan
from fairway.evaluate.config import (
    EvaluateConfig,
    make_predictor,
    make_settled_predictor,
    plan_text,
)
from fairway.evaluate.curves import Curve, curve_data
from fairway.evaluate.fitting import first_that_fit
from fairway.evaluate.frozen import Frozen
from fairway.evaluate.planner import Estimate, NothingFits, largest_that_fits
from fairway.evaluate.predictor import Predictor
from fairway.evaluate.saved import CheckpointConfig
from fairway.evaluate.timed import Evaluation, evaluate_in_time
from fairway.evaluate.token_nats import TokenNats
from fairway.model.gpt import GPT
from fairway.proof.coded import Coded
from fairway.proof.prove import walk_of
from fairway.proof.settled_stream import CodedScore
from fairway.recipes.recipe import Recipe
from fairway.result import DiagnosticResult, EvaluateResult, RunResult, ScoreResult, StageResult
from fairway.runs.documents import Documents, write_documents
from fairway.runtime.distributed import Ranks
from fairway.runtime.native import explain
from fairway.runtime.setup import Runtime
from fairway.runtime.spent import Spent
from fairway.tokens.val_text import ValText

SPENT = "score.spent"
SLIDING, LEARNING = "score sliding", "score and learn"


def token_nats_file(folder: Path, name: str) -> Path:
    """Where a run keeps what each token cost in a pass, until it is finished."""
    return folder / f"{name}.nats.npy"


def plan_into_clock(
    model: GPT, recipe: Recipe, text: ValText, runtime: Runtime, fit: bool = False
) -> Estimate:
    """The evaluation that this machine can finish in `budget.eval_seconds`, as measured.

    A run of so many steps takes the recipe's own settings: it is to give the same file again.
    fit  where nothing that the recipe allows fits, its fastest evaluation of the first documents

    Raises `NothingFits` otherwise.
    """
    # Settled arithmetic computes in float64, and compiles nothing.
    native = not recipe.evaluate.settled
    fast = "bfloat16" if native and runtime.compute_dtype == torch.bfloat16 else "float32"
    compiled = native and runtime.compiled
    config = recipe.evaluate.resolved(recipe.model.train_context, fast, compiled)
    choices = recipe.evaluate_range if recipe.train.steps is None else None
    try:
        return largest_that_fits(
            model,
            config,
            text,
            recipe.budget.eval_seconds,
            choices=choices,
            ranks=runtime.ranks,
            progress=lambda *_, text="", **__: runtime.log.say(f"evaluation, {text}"),
        )
    except NothingFits as nothing:
        if not fit:
            raise
        seconds = recipe.budget.eval_seconds
        found, part = first_that_fit(model, nothing.fastest, text, seconds, ranks=runtime.ranks)
        runtime.log.say(f"evaluation, {found}; of {part.scope}")
        return found


def planned_part(planned: Estimate, text: ValText, seconds: float) -> ValText:
    """What of the text the estimate is for."""
    if planned.documents is None:
        return text
    return text.leading(planned.documents, f"all that fits {seconds:.0f} s")


def score_text(
    predictor: Predictor,
    plans: Sequence[ChunkPlan],
    text: ValText,
    runtime: Runtime,
    name: str,
    *,
    budget_seconds: float | None = None,
    lesson_seconds: float | Sequence[float] = 0.0,
    spent_seconds: float = 0.0,
    checkpoint: CheckpointConfig | None = None,
    identity: str = "",
    token_nats: TokenNats | None = None,
) -> Evaluation:
    """Score a text as a stage of the log, which also tells what its time did to the score.

    predictor   where it is a `CodedScore`, it writes down what it scores
    identity    of what `checkpoint` is kept for, see `evaluate_in_time` and `evaluation_identity`
    token_nats  is told what each token cost
    """
    num_scored = 0
    with runtime.stop.looked_at(), runtime.log.stage(name, total=text.num_targets) as stage:

        def on_chunk(chunk: Chunk, nats: Tensor) -> None:
            nonlocal num_scored
            num_scored += chunk.num_targets
            if isinstance(predictor, CodedScore):
                predictor.book(chunk, nats)
            stage.update(num_scored)
            if token_nats is not None:
                token_nats.book(chunk, nats)

        found = evaluate_in_time(
            predictor,
            plans,
            text,
            budget_seconds=budget_seconds,
            lesson_seconds=lesson_seconds,
            spent_seconds=spent_seconds,
            checkpoint=checkpoint,
            identity=identity,
            stop=runtime.stop,
            on_chunk=on_chunk,
            ranks=runtime.ranks,
        )
        stage.update(num_scored, bits_per_byte=found.score.bits_per_byte)
    if found.note is not None:
        runtime.log.say(f"{name}: {found.note}")
    return found


class Passes:
    """The passes over the validation text, each of which goes on from where it was interrupted.

    folder      where they keep their checkpoints until `clean`
    identity    of the run and of the artifact that is scored
    """

    def __init__(
        self, folder: Path, identity: str, planned: Estimate, text: ValText, runtime: Runtime
    ) -> None:
        self.folder, self.identity, self.planned = folder, identity, planned
        self.text, self.runtime = text, runtime

    def windows(self, model: GPT, name: str) -> StageResult:
        """Without learning, and each window on its own: the quickest look at a model."""
        config = self.planned.config.frozen()
        config = replace(config, stride=config.context or 1)
        frozen = Frozen(model, config.rows, self.runtime.ranks)
        return stage_result(self._walk(frozen, plan_text(config, self.text), name))

    def sliding(self, model: GPT) -> Evaluation:
        """By sliding windows, through the same chunks as `learning`, so that they can be compared
        one by one."""
        config = self.planned.config
        frozen = Frozen(model, config.rows, self.runtime.ranks)
        return self._walk(frozen, plan_text(config, self.text), SLIDING)

    def learning(self, model: GPT, recipe: Recipe) -> tuple[Evaluation, Coded | None]:
        """While learning from what was scored, which counts; in settled arithmetic its code, too.

        Several ranks write none: the ties of each are its own.
        """
        config, ranks, seed = self.planned.config, self.runtime.ranks, recipe.seed
        for part, native in ((config.mixture, "ngram"), (config.tilt, "hints")):
            if part is not None:
                self.runtime.log.say(explain(native))
        with Spent(self.folder / SPENT if ranks.is_main else None).running() as spent:
            predictor = coded_predictor(model, config, self.text, seed=seed, ranks=ranks)
            found = self._walk(
                predictor,
                plan_text(config, self.text),
                LEARNING,
                budget_seconds=recipe.budget.eval_seconds,
                lesson_seconds=self.planned.lessons,
                spent_seconds=lambda: spent.seconds,
            )
        return found, code_of(predictor, found)

    def _walk(
        self,
        predictor: Predictor,
        plans: Sequence[ChunkPlan],
        name: str,
        *,
        budget_seconds: float | None = None,
        lesson_seconds: float | Sequence[float] = 0.0,
        spent_seconds: Callable[[], float] = lambda: 0.0,
    ) -> Evaluation:
        """The file also keeps what was found, until that is written down."""
        token_nats = None
        if self.runtime.ranks.is_main and name in (SLIDING, LEARNING):
            token_nats = TokenNats(token_nats_file(self.folder, name), self.text.num_targets)
        return score_text(
            predictor,
            plans,
            self.text,
            self.runtime,
            name,
            budget_seconds=budget_seconds,
            lesson_seconds=lesson_seconds,
            spent_seconds=spent_seconds(),  # making the predictor is spent by now
            checkpoint=CheckpointConfig(path=self.folder / f"{name}.safetensors", keep=True),
            identity=self.identity,
            token_nats=token_nats,
        )

    def clean(self) -> None:
        """Nothing is left to go on with: what they found is written down, or is void."""
        (self.folder / SPENT).unlink(missing_ok=True)
        for pattern in ("score *.safetensors*", "score *.nats.npy"):
            for path in self.folder.glob(pattern):
                path.unlink(missing_ok=True)  # ranks of one machine share the folder


def coded_predictor(
    model: GPT, config: EvaluateConfig, text: ValText, *, seed: int, ranks: Ranks
) -> Predictor:
    """What `config` asks for; in settled arithmetic it also writes the code, where one rank sees
    all of the text."""
    if not config.settled or ranks.world_size > 1:
        return make_predictor(model, config, seed=seed, ranks=ranks)
    predictor = make_settled_predictor(model, config, seed=seed)
    return CodedScore(predictor, text.tokens.long(), walk_of(model))


def code_of(predictor: Predictor, found: Evaluation) -> Coded | None:
    """What a predictor has written of all that it scored, if it is one that writes."""
    if not isinstance(predictor, CodedScore):
        return None
    return predictor.finish(found.score, found.seconds)


def keep_documents(folder: Path, text: ValText, sliding: Evaluation, learning: Evaluation) -> str:
    """What each document cost, beside the result; returns the hash of the file."""
    frozen, learned = sliding.documents.nats, learning.documents.nats
    return write_documents(folder, Documents(frozen, learned, *sliding.documents.sizes(text)))


def with_scores(
    result: RunResult,
    planned: Estimate,
    sliding: Evaluation,
    learning: Evaluation,
    coded: Coded | None,
    scope: str = "",
) -> RunResult:
    """The result with the score that counts, and how it came about.

    scope  of the text that was scored
    """
    frozen, score = sliding.curve, score_result(learning.score, coded)
    score = replace(score, scope=scope or None)
    return replace(
        result,
        stages={**result.stages, "sliding": stage_result(sliding), "ttt": stage_result(learning)},
        score=score,
        evaluate=EvaluateResult(
            arithmetic=planned.config.arithmetic,
            seconds=learning.seconds,
            budget_seconds=learning.budget_seconds,
            planned_seconds=planned.total_seconds,
            stride=planned.config.stride,
            note=learning.note,
            learned=learning.schedule,
        ),
        curves={"frozen": running_curve(frozen), "learning": running_curve(learning.curve)},
        chunks={k: tuple(v) for k, v in curve_data(learning.curve, frozen, most=100).items()},
    )


def diagnose(
    model: GPT, recipe: Recipe, text: ValText, runtime: Runtime
) -> dict[str, DiagnosticResult]:
    """Numbers that are no scores, if the recipe asks for one."""
    if recipe.diagnostic is None:
        return {}
    name = recipe.diagnostic.name
    with runtime.log.stage(name.replace("_", " ")):
        config = recipe.evaluate.resolved(recipe.model.train_context)
        found = recipe.diagnostic.found(model, config, text, runtime.ranks)
    runtime.log.say(f"{name}: {found}")
    result = DiagnosticResult(
        warning=found.warning,
        illegal_bits_per_byte=found.illegal_bits_per_byte,
        honest_bits_per_byte=found.honest.bits_per_byte,
    )
    return {name: result}


def score_result(score: Score, coded: Coded | None) -> ScoreResult:
    """The length of the code, where there is one, and what the nats come to where there is not."""
    found = ScoreResult(
        bits_per_byte=score.bits_per_byte,
        nats=score.nats,
        tokens=score.num_tokens,
        bytes=score.num_bytes,
    )
    return found if coded is None else found.coded(coded.num_bytes)


def stage_result(found: Evaluation) -> StageResult:
    return StageResult(
        bits_per_byte=found.score.bits_per_byte,
        nats_per_token=found.score.nats_per_token,
        seconds=found.seconds,
    )


def running_curve(curve: Curve, most: int = 200) -> tuple[tuple[int, float], ...]:
    """(bytes so far, bits per byte so far) at up to `most` places."""
    shown = curve.thinned(most)
    num_bytes = np.cumsum(shown.num_bytes).tolist()
    bits = shown.running_bits_per_byte()
    return tuple((n, b) for n, b in zip(num_bytes, bits, strict=True) if b is not None)
