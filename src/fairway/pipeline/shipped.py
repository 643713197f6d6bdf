"""What a submitted script does: train as the run did, pack, score the file. `main` is all of it.

The stages are those of `story.py`, and so are the files that they give. Nothing here resumes,
proves, audits or reports: whoever wants that has this package. `fairway.submission` makes the
script, with all that `main` needs for one recipe and nothing else.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
import torch.distributed as dist
from torch import Tensor

from fairway.artifact.container import unpack
from fairway.average import build_average
from fairway.evaluate.bpb import Score
from fairway.evaluate.chunks import cut_chunk
from fairway.evaluate.clocked import Budget, Clocked
from fairway.evaluate.config import plan_text
from fairway.evaluate.predictor import score_stream
from fairway.model.gpt import GPT
from fairway.pipeline.packing import calibrate, make_artifact, seconds_to_calibrate
from fairway.pipeline.scoring import coded_predictor
from fairway.pipeline.training import Dealt, compile_training
from fairway.quant.qat import detach, late_rounding
from fairway.recipes.recipe import Recipe
from fairway.runtime.attention_backend import choose_attention_backend
from fairway.runtime.device import choose_device, seed_everything
from fairway.runtime.distributed import Ranks
from fairway.runtime.setup import Runtime
from fairway.tokens.batches import Batches
from fairway.tokens.shards import DataFolder
from fairway.tokens.val_text import ValText
from fairway.train.config import build_clock
from fairway.train.loop import training_steps
from fairway.train.param_groups import build_optimizers

REPORT_SECONDS = 2.0  # between two losses that are read and printed


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """What a run settled, and so what its script holds.

    recipe          with the evaluation that was planned
    header          the config that the header of the artifact holds
    compiled        training runs through `torch.compile`
    """

    recipe: Recipe
    header: dict[str, Any]
    compute_dtype: Literal["float32", "bfloat16"]
    compiled: bool


class Printed:
    """A log that is printed: one JSON line each, by the first process."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet, self.began = quiet, time.perf_counter()

    def write(self, event: str, **values: object) -> None:
        if not self.quiet:
            seconds = round(time.perf_counter() - self.began, 3)
            print(json.dumps({"event": event, "seconds": seconds, **values}), flush=True)

    def say(self, text: str) -> None:
        self.write("say", text=text)

    @contextmanager
    def stage(self, name: str, total: float | None = None) -> Iterator["Printed"]:
        self.write("begin", stage=name, total=total)
        yield self
        self.write("end", stage=name)

    def update(
        self, done: float = 0.0, total: float = 0.0, *, text: str = "", **numbers: float
    ) -> None:
        if numbers:
            self.write("update", done=done, **numbers)


@dataclass(frozen=True, kw_only=True)
class Place:
    """As much of a `Runtime` as the stages read."""

    device: torch.device
    compute_dtype: torch.dtype
    ranks: Ranks
    log: Printed
    compiled: bool = False


def main(frozen: Frozen, script: Path) -> None:
    """`script` trains, packs and scores; with --eval it scores the file that lies beside it.

    DATA_PATH is the folder of shards and tokenizer, SEED another seed, MODEL_PATH the file. Several
    processes are started with torchrun.
    """
    env = os.environ
    recipe = replace(frozen.recipe, seed=int(env.get("SEED", frozen.recipe.seed)))
    ranks = Ranks.from_env()
    place = Place(
        device=choose_device(None, local_rank=ranks.local_rank),
        compute_dtype=getattr(torch, frozen.compute_dtype),
        ranks=ranks,
        log=Printed(quiet=not ranks.is_main),
    )
    runtime, log = cast(Runtime, place), place.log
    data = DataFolder(Path(env.get("DATA_PATH", "./data")))
    log.write("run", recipe=recipe.name, seed=recipe.seed, data=str(data.path))
    trains = "--eval" not in sys.argv
    name = f"{'retrained' if trains else 'model'}_seed{recipe.seed}.fwy"
    path = Path(env.get("MODEL_PATH", script.with_name(name)))
    with together(ranks, place.device):
        if trains:
            weights, deadline = train(frozen, recipe, data, runtime)
            model = GPT(recipe.model).to(place.device).eval()
            model.load_state_dict(weights)
            calibration = calibrate(model, weights, recipe, data, runtime, deadline)
            if ranks.is_main:
                code_bytes, tokenizer = script.stat().st_size, data.tokenizer.to_bytes()
                file = make_artifact(
                    recipe, frozen.header, weights, calibration, tokenizer, code_bytes, log.update
                )
                path.write_bytes(file)
            ranks.barrier()
        score(frozen, recipe, path, data, runtime)


def train(
    frozen: Frozen, recipe: Recipe, data: DataFolder, runtime: Runtime
) -> tuple[dict[str, Tensor], float | None]:
    """The averaged weights, float32, and when the training budget ends."""
    config, ranks, device = recipe.train, runtime.ranks, runtime.device
    seed_everything(recipe.seed)
    model = GPT(recipe.model).to(device)
    reserve = seconds_to_calibrate(model, recipe, data, runtime)
    seed_everything(recipe.seed)  # what was timed at random must not reach training
    rows, context = config.batch.rows, config.batch.context
    order, bos_id = recipe.tokens.order, recipe.model.bos_id
    dealt = Dealt(Batches(data.train, order, rows=rows, context=context, bos_id=bos_id), runtime)
    optimizers = build_optimizers(
        model, config.optimizer, muon_dtype=runtime.compute_dtype, ranks=ranks
    )
    average = build_average(model, recipe.average)
    backend = choose_attention_backend(device, runtime.compute_dtype, None)
    with runtime.log.stage("train") as stage, backend.active():
        if frozen.compiled:
            compile_training(model, recipe, runtime)
        began = reported = time.perf_counter()
        for step in training_steps(
            model,
            dealt,
            config,
            optimizers,
            build_clock(config, ranks=ranks, reserve_seconds=reserve),
            ranks=ranks,
            milestones=late_rounding(recipe.round_from, recipe.round_as or recipe.quant),
            compute_dtype=runtime.compute_dtype,
        ):
            average.update(step)
            dealt.step_done(step.micro_batches)
            if step.arrived is not None and time.perf_counter() - reported >= REPORT_SECONDS:
                reported = time.perf_counter()
                number, loss = step.arrived
                stage.update(reported - began, step=number, train_loss=loss)
        detach(model)
    model.load_state_dict(average.state_dict())
    deadline = None if config.seconds is None else began + config.seconds
    return model.shipped_state_dict(), deadline


def score(frozen: Frozen, recipe: Recipe, path: Path, data: DataFolder, runtime: Runtime) -> None:
    """The text scored by the file alone, learning as the run did; printed as the last line.

    Where the result of the run lies beside its model, the lessons are those that it names, for its
    clock was that of another machine; else they are as many as the recipe's seconds allow. In
    settled arithmetic the score is the length of the text's code, which is written; several ranks
    write none, as in a run, and print what the nats come to.
    """
    artifact, ranks, config = unpack(path.read_bytes()), runtime.ranks, recipe.evaluate
    learned, seconds = None, recipe.budget.eval_seconds
    result = path.with_name(path.name.replace("model", "result").replace(".fwy", ".json"))
    if result.is_file():
        learned, seconds = json.loads(result.read_bytes())["evaluate"].get("learned"), None
    if artifact.config != frozen.header:
        raise ValueError(f"{path} is the model of another recipe than this script's")
    model = GPT(recipe.model)
    model.load_state_dict(artifact.state_dict())
    text = ValText.of(data, recipe.tokens.val_tokens)
    with runtime.log.stage("score and learn", total=text.num_targets) as stage:
        began = time.perf_counter()
        model = model.to(runtime.device).eval()
        predictor: Any = coded_predictor(model, config, text, seed=recipe.seed, ranks=ranks)
        spent = time.perf_counter() - began
        clocked = Clocked(
            predictor,
            learned,
            targets_left=text.num_targets,
            budget=Budget(seconds, 0.0, spent),
            ranks=ranks,
        )
        total, bits, code_bytes = Score(), 0.0, None
        chunks = (cut_chunk(plan, text) for plan in plan_text(config, text))
        if config.settled and ranks.world_size == 1:
            score_stream(clocked, chunks, predictor.book, total)
            coded = predictor.finish(total, clocked.spent_seconds)
            bits, code_bytes = coded.bits_per_byte, coded.num_bytes
        else:
            bits = score_stream(clocked, chunks, booked=total).bits_per_byte
        stage.update(total.num_tokens, bits_per_byte=bits)
    runtime.log.write(
        "score",
        val_bpb=bits,
        code_bytes=code_bytes,
        val_loss=total.nats_per_token,
        nats=total.nats,
        tokens=total.num_tokens,
        bytes=total.num_bytes,
        lessons=len(clocked.learned),
        eval_seconds=clocked.spent_seconds,
    )


@contextmanager
def together(ranks: Ranks, device: torch.device) -> Iterator[None]:
    """The processes that torchrun started, as one group."""
    several = ranks.world_size > 1
    if several:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    yield
    if several:
        dist.destroy_process_group()
