"""Training as a stage of a run: batches, clock, average and checkpoint around `train/loop.py`."""

import json
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from fairway.artifact.config_json import config_from_json, config_to_json
from fairway.average import build_average
from fairway.model.gpt import GPT
from fairway.quant.qat import attach, detach
from fairway.recipes.recipe import Recipe
from fairway.result import TrainResult
from fairway.runtime.attention_backend import choose_attention_backend
from fairway.runtime.files import atomic_write
from fairway.runtime.run_log import Stage
from fairway.runtime.setup import Runtime
from fairway.tokens.batches import Batch, Batches
from fairway.tokens.shards import DataFolder
from fairway.train.compiled import compile_loss
from fairway.train.loop import (
    Milestone,
    Step,
    TrainingInterrupted,
    build_clock,
    interruptible,
    training_steps,
)
from fairway.train.param_groups import build_optimizers
from fairway.train.train_state import (
    Checkpoint,
    checkpoint_state,
    read_train_state,
    restore,
    restore_model,
    save_checkpoint,
)

CHECKPOINT, RECIPE = "checkpoint.safetensors", "recipe.json"
REPORT_SECONDS = 2.0  # between two losses that are read and written down


@dataclass(frozen=True, kw_only=True)
class Trained:
    """weights            averaged, float32, as they ship
    began              when the clock of the training budget started, by `time.perf_counter`
    tokens_per_second  of the steps alone
    """

    weights: dict[str, Tensor]
    began: float
    budget_seconds: float | None
    steps: int
    tokens: int
    tokens_per_second: float

    @property
    def deadline(self) -> float | None:
        """When the training budget ends, by `time.perf_counter`; None where steps are counted."""
        return None if self.budget_seconds is None else self.began + self.budget_seconds

    def result(self) -> TrainResult:
        """With the seconds until now: whatever else reads training text belongs to them."""
        return TrainResult(
            seconds=time.perf_counter() - self.began,
            budget_seconds=self.budget_seconds,
            steps=self.steps,
            tokens=self.tokens,
            tokens_per_second=self.tokens_per_second,
        )


def train_and_average(
    model: GPT,
    recipe: Recipe,
    data: DataFolder,
    out: Path,
    runtime: Runtime,
    resume: bool = False,
    reserve_seconds: float = 0.0,
) -> Trained:
    """Train `model` in place; leaves the averaged weights in it, and a checkpoint in `out`.

    resume           go on from the checkpoint there; seconds spent before count
    reserve_seconds  of the clock for what follows on this machine, if more than the recipe keeps

    Ctrl-C keeps a checkpoint, says how to go on, and ends the run with ValueError.
    """
    training = Training(model, recipe, data, out, runtime)
    training.reserve_seconds = reserve_seconds
    if resume:
        training.resume()
    elif runtime.ranks.is_main:
        recipe_json = json.dumps(config_to_json(recipe), indent=1)
        atomic_write(out / RECIPE, recipe_json.encode())
    training.run()
    return training.finish()


class Training:
    """One training, and all that its next step depends on: written by `save`, read by `resume`.

    steps, tokens    finished so far, by all ranks
    spent_seconds    of earlier sessions, before `run`
    reserve_seconds  of the clock, for what follows
    session          when this one began, and the tokens there were by then
    """

    def __init__(
        self, model: GPT, recipe: Recipe, data: DataFolder, out: Path, runtime: Runtime
    ) -> None:
        config = recipe.train
        self.model, self.recipe, self.out, self.runtime = model, recipe, out, runtime
        self.batches = Batches(
            data.train,
            recipe.tokens.order,
            rows=config.batch.rows,
            context=config.batch.context,
            bos_id=recipe.model.bos_id,
        )
        self.optimizers = build_optimizers(
            model, config.optimizer, muon_dtype=runtime.compute_dtype, ranks=runtime.ranks
        )
        self.average = build_average(model, recipe.average)
        self.steps = self.tokens = 0
        self.spent_seconds = self.reserve_seconds = 0.0
        self.began = time.perf_counter()
        self.session = (self.began, 0)

    def save(self, *, finished: bool) -> None:
        """Every rank takes part; the first one writes."""
        state = checkpoint_state(
            self.model,
            self.optimizers,
            step=self.steps,
            extra=self.average.checkpoint(),
            position=self.batches.position,
            tokens=self.tokens,
            spent_seconds=time.perf_counter() - self.began,
            finished=finished,
        )
        if self.runtime.ranks.is_main:
            save_checkpoint(self.out / CHECKPOINT, state)

    def resume(self) -> None:
        """Raises ValueError where there is no checkpoint, or it is of another recipe."""
        saved = _checkpoint_of(self.recipe, self.out)
        restore(saved, self.model, self.optimizers)
        self.average.restore(saved.extra)
        self.steps, self.tokens = saved.step, saved.numbers["tokens"]
        self.batches.position = saved.numbers["position"]
        self.spent_seconds = saved.numbers["spent_seconds"]
        self.runtime.log.say(
            f"going on after step {self.steps}, {self.spent_seconds:.0f} s into training"
        )

    def run(self) -> None:
        """Take steps until the clock says stop."""
        seconds, runtime = self.recipe.train.seconds, self.runtime
        backend = choose_attention_backend(runtime.device, runtime.compute_dtype, None)
        if runtime.device.type == "cuda":
            runtime.log.say(f"attention by {backend.name}: {backend.reason}")
        if runtime.compiled:
            with backend.active():  # what is chosen while compiling stays chosen
                _compile(self.model, self.recipe, runtime)
        self.began = time.perf_counter() - self.spent_seconds
        total = seconds or float(self.recipe.train.steps or 0)
        with runtime.log.stage("train", total=total) as stage, backend.active():
            try:
                self._take_steps(stage)
            except TrainingInterrupted:
                detach(self.model)
                self.save(finished=False)
                raise ValueError(
                    f"interrupted after step {self.steps}; everything is kept in "
                    f"{self.out / CHECKPOINT}. To go on, give the same command again with --resume"
                ) from None
        if not self.steps:
            raise ValueError(f"no step fits into {seconds} seconds; give --train.seconds more")

    def finish(self) -> Trained:
        """Write the last checkpoint and leave the averaged weights in the model."""
        detach(self.model)
        seconds = time.perf_counter() - self.began
        self.save(finished=True)
        self.model.load_state_dict(self.average.state_dict())
        self.model.eval()
        return Trained(
            weights=self.model.shipped_state_dict(),
            began=self.began,
            budget_seconds=self.recipe.train.seconds,
            steps=self.steps,
            tokens=self.tokens,
            tokens_per_second=self.tokens / seconds,
        )

    def _take_steps(self, stage: Stage) -> None:
        config, ranks = self.recipe.train, self.runtime.ranks
        dealt, last, reported = Dealt(self.batches, self.runtime), None, -REPORT_SECONDS
        self.session = (time.perf_counter(), self.tokens)
        with interruptible() as stop:
            for last in training_steps(
                self.model,
                dealt,
                config,
                self.optimizers,
                build_clock(
                    config,
                    ranks=ranks,
                    spent_seconds=self.spent_seconds,
                    reserve_seconds=self.reserve_seconds,
                ),
                ranks=ranks,
                milestones=_late_rounding(self.recipe),
                compute_dtype=self.runtime.compute_dtype,
                first_step=self.steps,
                stop=stop,
            ):
                self.average.update(last)
                dealt.step_done(last.micro_batches)
                self.steps, self.tokens = last.number, self.tokens + last.tokens
                if time.perf_counter() - reported < REPORT_SECONDS:
                    stage.update(self._done())
                    continue
                reported = time.perf_counter()
                self._report(stage, last)
            if last is not None:
                self._report(stage, last)

    def _done(self) -> float:
        """Seconds or steps, whichever ends the run."""
        by_clock = self.recipe.train.seconds is not None
        return time.perf_counter() - self.began if by_clock else float(self.steps)

    def _report(self, stage: Stage, step: Step) -> None:
        began, tokens_before = self.session
        rate = (self.tokens - tokens_before) / (time.perf_counter() - began)
        stage.update(
            self._done(),
            step=step.number,
            train_loss=step.loss.item(),
            lr_scale=step.lr_scale,
            tokens_per_second=round(rate),
        )


class Dealt:
    """This rank's micro-batches: those of the whole run, dealt out anew at each step.

    So what a step learns from does not depend on how many ranks there are. Place p of a step goes
    to rank p % world_size, as `training_steps` expects.
    """

    def __init__(self, batches: Batches, runtime: Runtime) -> None:
        self.batches, self.runtime, self.taken = batches, runtime, 0

    def __iter__(self) -> "Dealt":
        return self

    def __next__(self) -> Batch:
        ranks = self.runtime.ranks
        place = ranks.rank + self.taken * ranks.world_size
        self.taken += 1
        batch = self.batches.at(self.batches.position + place)
        # Contiguous, as what was compiled for: other strides would be compiled for once more.
        return Batch(*(part.to(self.runtime.device).contiguous() for part in batch))

    def step_done(self, micro_batches: int) -> None:
        """All ranks together took so many."""
        self.batches.position += micro_batches
        self.taken = 0


def load_trained(out: Path, device: torch.device) -> tuple[Recipe, GPT]:
    """The recipe of a run folder and its model with the averaged weights of its checkpoint."""
    path = out / RECIPE
    if not path.is_file():
        raise ValueError(f"{out} is no run folder: it has no {RECIPE}; `fairway train` makes one")
    recipe = config_from_json(Recipe, json.loads(path.read_text()))
    model = GPT(recipe.model).to(device)
    saved = _checkpoint_of(recipe, out)
    if not saved.numbers.get("finished"):
        raise ValueError(
            f"training in {out} was interrupted after step {saved.step}; finish it with --resume"
        )
    average = build_average(model, recipe.average)
    restore_model(saved, model)
    average.restore(saved.extra)
    model.load_state_dict(average.state_dict())
    return recipe, model.eval()


def _checkpoint_of(recipe: Recipe, out: Path) -> Checkpoint:
    path, written = out / CHECKPOINT, out / RECIPE
    if not path.is_file():
        raise ValueError(f"nothing to go on from: there is no {path}; leave --resume out")
    if written.is_file():
        before = json.loads(written.read_text())
        now = config_to_json(recipe)
        changed = sorted(key for key in now if now[key] != before.get(key))
        if changed:
            raise ValueError(
                f"{path} was made with another recipe ({', '.join(changed)} differ); go on with "
                f"the options it was started with, or leave --resume out"
            )
    return read_train_state(path)


def _late_rounding(recipe: Recipe) -> list[Milestone]:
    """Training sees rounded weights from `round_from` on (#414)."""
    if recipe.round_from is None:
        return []

    def round_from_here(model: nn.Module) -> None:
        attach(model, recipe.quant)

    return [Milestone("rounding", recipe.round_from, round_from_here)]


def _compile(model: GPT, recipe: Recipe, runtime: Runtime) -> None:
    """Compile the training step, before the clock starts."""
    batch = recipe.train.batch
    loops = {False, True} if recipe.model.loop else {model.loops_active}
    model.train()
    with runtime.log.stage("compile"):
        loss = compile_loss(model, batch.rows, batch.context, runtime.compute_dtype, loops)
    model.loss = loss  # type: ignore[method-assign]
