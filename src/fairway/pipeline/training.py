"""Training as a stage of a run: batches, clock, average and checkpoint around `train/loop.py`."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fairway.artifact.config_json import config_from_json, config_to_json
from fairway.average import Average, build_average
from fairway.model.gpt import GPT
from fairway.quant.qat import attach, detach
from fairway.recipes.recipe import Recipe
from fairway.runtime.attention_backend import choose_attention_backend
from fairway.runtime.files import atomic_write
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
TELL_SECONDS = 2.0  # between two losses that are read and written down


@dataclass(frozen=True, kw_only=True)
class Trained:
    """weights  averaged, float32, as they ship
    began    when the clock of the training budget started, by `time.perf_counter`
    facts    what `result.json` says of training
    """

    weights: dict[str, Tensor]
    began: float
    facts: dict[str, Any]


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


def train_and_average(
    model: GPT, recipe: Recipe, data: DataFolder, out: Path, runtime: Runtime, resume: bool = False
) -> Trained:
    """Train `model` in place; leaves the averaged weights in it, and a checkpoint in `out`.

    resume  go on from the checkpoint there; seconds spent before count

    Ctrl-C keeps a checkpoint, says how to go on, and ends the run with ValueError.
    """
    config, log = recipe.train, runtime.log
    batches = Batches(
        data.train,
        recipe.tokens.order,
        rows=config.batch.rows,
        context=config.batch.context,
        bos_id=recipe.model.bos_id,
    )
    optimizers = build_optimizers(
        model, config.optimizer, muon_dtype=runtime.compute_dtype, ranks=runtime.ranks
    )
    average = build_average(model, recipe.average)
    number = tokens = 0
    spent_before = 0.0
    if resume:
        saved = _checkpoint_of(recipe, out)
        restore(saved, model, optimizers)
        average.restore(saved.extra)
        number, batches.position = saved.step, saved.numbers["position"]
        tokens, spent_before = saved.numbers["tokens"], saved.numbers["spent_seconds"]
        log.say(f"going on after step {number}, {spent_before:.0f} s into training")
    elif runtime.ranks.is_main:
        recipe_json = json.dumps(config_to_json(recipe), indent=1)
        atomic_write(out / RECIPE, recipe_json.encode())
    backend = choose_attention_backend(runtime.device, runtime.compute_dtype, None)
    if runtime.device.type == "cuda":
        log.say(f"attention by {backend.name}: {backend.reason}")
    if runtime.compiled:
        with backend.active():  # what is chosen while compiling stays chosen
            _compile(model, recipe, runtime)
    began = time.perf_counter() - spent_before
    clock = build_clock(config, ranks=runtime.ranks, spent_seconds=spent_before)
    total = config.seconds or float(config.steps or 0)
    told_at, resumed_at, resumed_tokens = 0.0, time.perf_counter(), tokens

    def save(finished: bool) -> None:
        state = checkpoint_state(
            model,
            optimizers,
            step=number,
            extra=average.checkpoint(),
            position=batches.position,
            tokens=tokens,
            spent_seconds=time.perf_counter() - began,
            finished=finished,
        )
        if runtime.ranks.is_main:
            save_checkpoint(out / CHECKPOINT, state)

    def done() -> float:
        return time.perf_counter() - began if config.seconds else float(number)

    def numbers(step: Step) -> dict[str, Any]:
        rate = (tokens - resumed_tokens) / (time.perf_counter() - resumed_at)
        return {
            "step": step.number,
            "train_loss": step.loss.item(),
            "lr_scale": step.lr_scale,
            "tokens_per_second": round(rate),
        }

    dealt, last = Dealt(batches, runtime), None
    with log.stage("train", total=total) as stage, interruptible() as stop, backend.active():
        try:
            for step in training_steps(
                model,
                dealt,
                config,
                optimizers,
                clock,
                ranks=runtime.ranks,
                milestones=_late_rounding(recipe),
                compute_dtype=runtime.compute_dtype,
                first_step=number,
                stop=stop,
            ):
                average.update(step)
                dealt.step_done(step.micro_batches)
                number, tokens = step.number, tokens + step.tokens
                last = step
                if time.perf_counter() - told_at < TELL_SECONDS and number > 1:
                    stage.update(done())
                    continue
                told_at = time.perf_counter()
                stage.update(done(), **numbers(step))
            if last is not None:
                stage.update(done(), **numbers(last))
        except TrainingInterrupted:
            detach(model)
            save(finished=False)
            raise ValueError(
                f"interrupted after step {number}; everything is kept in {out / CHECKPOINT}. To "
                f"go on, give the same command again with --resume"
            ) from None
    if not number:
        raise ValueError(f"no step fits into {config.seconds} seconds; give --train.seconds more")
    detach(model)
    seconds = time.perf_counter() - began
    save(finished=True)
    model.load_state_dict(average.state_dict())
    model.eval()
    facts = {
        "budget_seconds": config.seconds,
        "steps": number,
        "tokens": tokens,
        "tokens_per_second": tokens / seconds,
    }
    return Trained(weights=model.shipped_state_dict(), began=began, facts=facts)


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
    average: Average = build_average(model, recipe.average)
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
    return [Milestone("rounding", recipe.round_from, lambda m: _attach(m, recipe))]


def _attach(model: Any, recipe: Recipe) -> None:
    attach(model, recipe.quant)


def _compile(model: GPT, recipe: Recipe, runtime: Runtime) -> None:
    """Compile the training step, before the clock starts."""
    batch = recipe.train.batch
    loops = {False, True} if recipe.model.loop else {model.loops_active}
    model.train()
    with runtime.log.stage("compile"):
        loss = compile_loss(model, batch.rows, batch.context, runtime.compute_dtype, loops)
    model.loss = loss  # type: ignore[method-assign]
