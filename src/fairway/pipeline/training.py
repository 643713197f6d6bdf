"""Training as a stage of a run: batches, clock, average and checkpoints around `train/loop.py`."""

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from fairway.average import build_average
from fairway.model.gpt import GPT
from fairway.pipeline.folder import RunFolder
from fairway.quant.qat import detach, late_rounding, plain_name
from fairway.recipes.recipe import Recipe
from fairway.result import TrainResult
from fairway.runs.description import RECIPE, read_recipe, read_run
from fairway.runtime.attention_backend import choose_attention_backend
from fairway.runtime.device import send
from fairway.runtime.kernel_choice import choose_kernels
from fairway.runtime.run_log import Stage
from fairway.runtime.setup import Runtime
from fairway.runtime.spent import Spent
from fairway.tokens.batches import Batch, Batches
from fairway.tokens.shards import DataFolder
from fairway.train.checkpoints import CHECKPOINT, Checkpoints
from fairway.train.compiled import compile_loss
from fairway.train.config import build_clock, context_warmup, parts_at
from fairway.train.divergence import Arrived
from fairway.train.loop import Step, TrainingInterrupted, training_steps
from fairway.train.memory import require_memory, surely_fits
from fairway.train.param_groups import build_optimizers
from fairway.train.train_state import Checkpoint, checkpoint_state, restore, restore_model

SPENT = "train.spent"
REPORT_SECONDS = 2.0  # between two losses that are read and written down


@dataclass(frozen=True, kw_only=True)
class Trained:
    """weights            averaged, float32, as they ship
    spent              seconds of the training budget, of all starts together
    began              when they would have begun in one go, by `time.perf_counter`
    tokens_per_second  of the steps alone
    waiting_share      of this start's steps, what went by in waiting for other ranks; None: none
    compiled, note     as `TrainResult` has them
    """

    weights: dict[str, Tensor]
    spent: Spent
    began: float
    budget_seconds: float | None
    steps: int
    tokens: int
    tokens_per_second: float
    waiting_share: float | None
    compiled: bool
    note: str | None

    @property
    def deadline(self) -> float | None:
        """When the training budget ends, by `time.perf_counter`; None where steps are counted."""
        return None if self.budget_seconds is None else self.began + self.budget_seconds

    def result(self) -> TrainResult:
        """With all seconds spent by now: whatever else reads training text belongs to them."""
        return TrainResult(
            seconds=self.spent.seconds,
            budget_seconds=self.budget_seconds,
            steps=self.steps,
            tokens=self.tokens,
            tokens_per_second=self.tokens_per_second,
            waiting_share=self.waiting_share,
            compiled=self.compiled,
            note=self.note,
        )


def train_and_average(
    model: GPT,
    recipe: Recipe,
    data: DataFolder,
    folder: RunFolder,
    runtime: Runtime,
    checkpoint_seconds: float = 60.0,
    reserve_seconds: float = 0.0,
) -> Trained:
    """Train `model` in place; leaves the averaged weights in it, and a checkpoint in the folder.

    Goes on from the newest checkpoint that is there; seconds spent before count. Asked to stop, it
    keeps a checkpoint after the step, and raises `Stopped`, which says how to go on.

    reserve_seconds  of the clock for what follows on this machine, if more than the recipe keeps
    """
    training = Training(model, recipe, data, folder, runtime, checkpoint_seconds)
    training.reserve_seconds = reserve_seconds
    training.resume()
    if not training.finished:
        training.run()
    return training.trained()


class Training:
    """One training, and all that its next step depends on: written by `save`, read by `resume`.

    steps, tokens  finished so far, by all ranks
    finished       no step is left to take
    reserve_seconds  of the clock, for what follows
    session        when this start began, and the tokens there were by then
    """

    def __init__(
        self,
        model: GPT,
        recipe: Recipe,
        data: DataFolder,
        folder: RunFolder,
        runtime: Runtime,
        checkpoint_seconds: float,
    ) -> None:
        config = recipe.train
        self.model, self.recipe, self.runtime = model, recipe, runtime
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
        self.warmup = context_warmup(config.batch)
        self.steps = self.tokens = 0
        self.finished, self.reserve_seconds = False, 0.0
        self.step_seconds = 0.0  # of all steps, once they are finished
        self.spent = Spent(folder.path / SPENT if runtime.ranks.is_main else None)
        self.session = (time.perf_counter(), 0)
        self.path = folder.path / CHECKPOINT
        self.checkpoints = Checkpoints(
            folder.path,
            folder.made,
            every_seconds=checkpoint_seconds,
            ranks=runtime.ranks,
            say=runtime.log.say,
        )

    def state(self) -> Checkpoint:
        """A copy; every rank takes part."""
        return checkpoint_state(
            self.model,
            self.optimizers,
            step=self.steps,
            extra=self.average.checkpoint(),
            plain=plain_name,
            position=self.batches.position,
            tokens=self.tokens,
            spent_seconds=self.spent.seconds,
            finished=self.finished,
            context=self.warmup.context,
            context_since=self.warmup.since,
        )

    def resume(self) -> None:
        """From the newest checkpoint, where there is one; ValueError where it is another's."""
        saved = self.checkpoints.newest()
        if saved is None:
            if self.spent.before:
                self.runtime.log.say(
                    f"no checkpoint yet: training begins anew, {self.spent.before:.0f} s into its "
                    f"time"
                )
            return
        restore(saved, self.model, self.optimizers)
        self.average.restore(saved.extra)
        self.steps, self.tokens = saved.step, saved.numbers["tokens"]
        self.batches.position = saved.numbers["position"]
        self.finished = bool(saved.numbers["finished"])
        self.warmup.context = saved.numbers.get("context")
        self.warmup.since = saved.numbers.get("context_since")
        self.step_seconds = saved.numbers["spent_seconds"]
        self.spent.before = max(self.spent.before, self.step_seconds)
        self.runtime.log.say(
            f"going on after step {self.steps}, {self.spent.before:.0f} s into training"
        )

    def run(self) -> None:
        """Take steps until the clock says stop; keep what came about."""
        seconds, runtime = self.recipe.train.seconds, self.runtime
        backend = choose_attention_backend(runtime.device, runtime.compute_dtype, None)
        if runtime.device.type == "cuda":
            runtime.log.say(f"attention by {backend.name}: {backend.reason}")
        if not surely_fits(self.recipe.model, self.recipe.train, runtime.device):
            runtime.log.say(
                require_memory(
                    self.recipe.model, self.recipe.train, runtime.device, runtime.compute_dtype
                )
            )
        kernels, said = choose_kernels(runtime.device)
        if runtime.compiled:
            with backend.active(), kernels():  # what is chosen while compiling stays chosen
                compile_training(self.model, self.recipe, runtime)
        total = seconds or float(self.recipe.train.steps or 0)
        with (
            runtime.stop.looked_at(),
            self.spent.running(),
            runtime.log.stage("train", total=total) as stage,
            backend.active(),
            kernels(),
            self.checkpoints,
        ):
            runtime.log.say(f"kernels of a step: {said}")
            try:
                with runtime.ranks.lockstep():
                    self._take_steps(stage)
            except TrainingInterrupted:
                self._stop()
            if not self.steps:
                raise ValueError(f"no step fits into {seconds} seconds; give --train.seconds more")
            self._tell_cost()
            detach(self.model)
            self.finished, self.step_seconds = True, self.spent.seconds
            self.checkpoints.save(self.state)

    def trained(self) -> Trained:
        """The averaged weights, which are in the model from now on."""
        self.model.load_state_dict(self.average.state_dict())
        self.model.eval()
        return Trained(
            weights=self.model.shipped_state_dict(),
            spent=self.spent,
            began=time.perf_counter() - self.spent.seconds,
            budget_seconds=self.recipe.train.seconds,
            steps=self.steps,
            tokens=self.tokens,
            tokens_per_second=self.tokens / self.step_seconds,
            waiting_share=self._waiting_share(),
            compiled=self.runtime.compiled,
            note=self.runtime.obstacle or None,
        )

    def _waiting_share(self) -> float | None:
        """Of this start's steps, what went by in waiting for other ranks; None without others."""
        ranks = self.runtime.ranks
        share = None if ranks.world_size == 1 else ranks.meter.waiting_share
        return None if share is None else round(share, 4)

    def _stop(self) -> None:
        """Keep a checkpoint and raise Stopped."""
        self.checkpoints.save(self.state)
        self.runtime.ranks.barrier()  # torchrun ends the first one too once another has left
        stop = self.runtime.stop
        raise stop.stopped(
            f"stopped by {stop.name} after step {self.steps}; everything is kept in {self.path}. "
            f"To go on, give the same command again with --resume"
        ) from None

    def _take_steps(self, stage: Stage) -> None:
        config, runtime = self.recipe.train, self.runtime
        dealt, last, reported = Dealt(self.batches, runtime), None, -REPORT_SECONDS
        self.session = (time.perf_counter(), self.tokens)
        for last in training_steps(
            self.model,
            dealt,
            config,
            self.optimizers,
            build_clock(
                config,
                ranks=runtime.ranks,
                spent_seconds=self.spent.seconds,
                reserve_seconds=self.reserve_seconds,
            ),
            ranks=runtime.ranks,
            milestones=late_rounding(
                self.recipe.round_from, self.recipe.round_as or self.recipe.quant
            ),
            compute_dtype=runtime.compute_dtype,
            first_step=self.steps,
            stop=lambda: runtime.stop.asked,
            warmup=self.warmup,
        ):
            self.average.update(last)
            dealt.step_done(last.micro_batches)
            self.steps, self.tokens = last.number, self.tokens + last.tokens
            if self.checkpoints.due():
                self.checkpoints.save_beside(self.state)
            if last.arrived is None or time.perf_counter() - reported < REPORT_SECONDS:
                stage.update(self._done())
                continue
            reported = time.perf_counter()
            self._report(stage, last)
        if last is not None:  # all are over, and its loss is there to be read
            self._report(stage, last._replace(arrived=Arrived(last.number, last.loss.item())))

    def _tell_cost(self) -> None:
        """What checkpoints cost the training, where any was written on the way."""
        made = self.checkpoints
        if not made.count:
            return
        share = made.copy_seconds / max(1e-9, time.perf_counter() - self.session[0])
        self.runtime.log.write(
            "checkpoints",
            count=made.count,
            copy_seconds=made.copy_seconds,
            share=share,
        )
        self.runtime.log.say(
            f"checkpoints: {made.count}, {1000 * made.copy_seconds / made.count:.1f} ms each, "
            f"{share:.2%} of the training thread's time"
        )

    def _done(self) -> float:
        """Seconds or steps, whichever ends the run."""
        by_clock = self.recipe.train.seconds is not None
        return self.spent.seconds if by_clock else float(self.steps)

    def _report(self, stage: Stage, step: Step) -> None:
        assert step.arrived is not None
        began, tokens_before = self.session
        rate = (self.tokens - tokens_before) / (time.perf_counter() - began)
        share = self._waiting_share()
        update = stage.update if share is None else partial(stage.update, waiting_share=share)
        update(
            self._done(),
            step=step.arrived.step,
            train_loss=step.arrived.loss,
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
        return Batch(*(send(part.contiguous(), self.runtime.device) for part in batch))

    def step_done(self, micro_batches: int) -> None:
        """All ranks together took so many."""
        self.batches.position += micro_batches
        self.taken = 0


def load_trained(out: Path, device: torch.device) -> tuple[Recipe, GPT]:
    """The recipe of a run folder and its model with the averaged weights of its checkpoint."""
    path, run = out / RECIPE, read_run(out)
    if not path.is_file() or run is None:
        raise ValueError(f"{out} is no run folder: it has no {RECIPE}; `fairway train` makes one")
    recipe = read_recipe(out)
    model = GPT(recipe.model).to(device)
    saved = Checkpoints(out, run["made_with"]).newest()
    if saved is None:
        raise ValueError(f"{out} has no {CHECKPOINT} yet; finish its training with --resume")
    if not saved.numbers.get("finished"):
        raise ValueError(
            f"training in {out} was interrupted after step {saved.step}; finish it with --resume"
        )
    average = build_average(model, recipe.average)
    restore_model(saved, model)
    average.restore(saved.extra)
    model.load_state_dict(average.state_dict())
    return recipe, model.eval()


def compile_training(model: GPT, recipe: Recipe, runtime: Runtime) -> None:
    """Compile the training step, before the clock starts."""
    batch = recipe.train.batch
    loops = {False, True} if recipe.model.loop else {model.loops_active}
    model.train()
    with runtime.log.stage("compile"):
        shape, parts = (batch.rows, batch.context), {None}
        if batch.joined:
            stages = batch.context_curriculum.stages if batch.context_curriculum else ((1.0, 0),)
            shape = (1, batch.rows * batch.context)
            parts = {parts_at(batch, end - 1e-9) for end, _ in stages}
        loss = compile_loss(model, *shape, runtime.compute_dtype, loops, parts)
    model.loss = loss  # type: ignore[method-assign]
