"""The story: text to a proven score. Start reading here.

`run` composes the stages and holds no logic of theirs; each arrow of the picture in the README is a
line of it. Reports, audits of other people's scorers and the command line are further on.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairway.artifact.budget import fit_to_cap
from fairway.artifact.config_json import config_to_json
from fairway.artifact.container import pack, unpack
from fairway.artifact.served import load
from fairway.average import build_average
from fairway.evaluate.bpb import Score
from fairway.evaluate.predictor import (
    Chunk,
    ChunkPlan,
    Frozen,
    Predictor,
    read_chunks,
    score_stream,
)
from fairway.evaluate.ttt import EvaluateConfig, make_predictor, plan_evaluation
from fairway.model.gpt import GPT, num_params
from fairway.quant.gptq import collect_hessians
from fairway.quant.plan import factor_hessians, quantize
from fairway.recipes.recipe import Recipe
from fairway.runtime.attention_backend import choose_attention_backend
from fairway.runtime.device import choose_compute_dtype, machine, seed_everything
from fairway.runtime.distributed import Ranks
from fairway.runtime.files import atomic_write
from fairway.runtime.run_log import RunLog
from fairway.tokens.batches import Batches
from fairway.tokens.shards import DataFolder
from fairway.train.checkpoint import checkpoint_state, save_checkpoint
from fairway.train.loop import TrainingInterrupted, build_clock, interruptible, training_steps
from fairway.train.param_groups import build_optimizers


@dataclass(frozen=True)
class Here:
    """Where a run happens."""

    device: torch.device
    compute_dtype: torch.dtype
    ranks: Ranks
    log: RunLog


def set_up(log: RunLog, device: torch.device, ranks: Ranks | None = None) -> Here:
    """Choose the number type that is fastest here; says which and why."""
    ranks = ranks or Ranks()
    dtype, reason = choose_compute_dtype(device, ranks=ranks)
    log.say(f"training in {str(dtype).removeprefix('torch.')} on {device}: {reason}")
    return Here(device, dtype, ranks, log)


def run(recipe: Recipe, data: DataFolder, out: Path, here: Here) -> dict[str, Any]:
    """One run, from shards to an artifact that was rebuilt from its file and scored.

    Returns what `result.json` holds. Raises ValueError for whatever the user can mend, before any
    time is spent where that can be known before.
    """
    check_fit(recipe, data)
    log, stages = here.log, {}
    seed_everything(recipe.seed)
    model = GPT(recipe.model).to(here.device)
    atomic_write(out / "recipe.json", json.dumps(config_to_json(recipe), indent=1).encode())

    weights, trained = train_and_average(model, recipe, data, out, here)
    hessians = calibrate(model, weights, recipe, data, here)
    trained["seconds"] = time.perf_counter() - trained.pop("began")
    text = ValText.of(data)
    chosen = recipe.evaluate.resolved(recipe.model.train_context)
    sliding = replace(chosen, ttt=None, mixture=None)
    windows = replace(sliding, stride=chosen.context or 1)
    unrounded = Frozen(model, windows.rows)
    stages["float"], _ = evaluate(unrounded, windows, text, here, "score float")

    artifact = out / "model.fwy"
    with log.stage("pack") as stage:
        atomic_write(artifact, make_artifact(recipe, weights, hessians, data, stage.update))
    served = load(artifact, here.device)  # nothing in memory may flatter the score
    frozen = Frozen(served.model, sliding.rows)
    stages["quantized"], _ = evaluate(frozen, windows, text, here, "score quantized")
    stages["sliding"], curve = evaluate(frozen, sliding, text, here, "score sliding")
    predictor = make_predictor(served.model, chosen, seed=recipe.seed)
    stages["ttt"], learning = evaluate(predictor, chosen, text, here, "score and learn")
    score = stages["ttt"].pop("score")
    for stage_result in stages.values():
        stage_result.pop("score", None)
    found = machine()
    return {
        "recipe": recipe.name,
        "seed": recipe.seed,
        "device": f"{found['processor']}, {found['cores']} cores, {here.device}",
        "machine": found,
        "params": num_params(recipe.model),
        "train": trained,
        "stages": stages,
        "artifact": describe_artifact(artifact, recipe.budget.cap_bytes),
        "score": {
            "bits_per_byte": score.bits_per_byte,
            "nats": score.nats,
            "tokens": score.num_tokens,
            "bytes": score.num_bytes,
        },
        "evaluate": {
            "seconds": stages["ttt"]["seconds"],
            "budget_seconds": recipe.budget.eval_seconds,
        },
        "curves": {"frozen": curve, "learning": learning},
    }


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


def train_and_average(
    model: GPT, recipe: Recipe, data: DataFolder, out: Path, here: Here
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Train `model` in place; returns the averaged weights and what `result.json` says of it.

    Ctrl-C keeps a checkpoint, says so, and ends the run.
    """
    config, log = recipe.train, here.log
    batches = Batches(
        data.train,
        recipe.tokens.order,
        rows=config.batch.rows,
        context=config.batch.context,
        bos_id=recipe.model.bos_id,
    )
    optimizers = build_optimizers(
        model, config.optimizer, muon_dtype=here.compute_dtype, ranks=here.ranks
    )
    average = build_average(model, recipe.average)
    backend = choose_attention_backend(here.device, here.compute_dtype, None)
    began = time.perf_counter()
    clock = build_clock(config, ranks=here.ranks)
    total = config.seconds or float(config.steps or 0)
    tokens = number = 0
    checkpoint = out / "checkpoint.safetensors"

    def save(number: int) -> None:
        state = checkpoint_state(
            model,
            optimizers,
            step=number,
            extra=average.checkpoint(),
            position=batches.position,
            spent_seconds=time.perf_counter() - began,
        )
        save_checkpoint(checkpoint, state)

    dealt = _dealt(batches, here)
    with log.stage("train", total=total) as stage, interruptible() as stop, backend.active():
        try:
            for step in training_steps(
                model,
                dealt,
                config,
                optimizers,
                clock,
                ranks=here.ranks,
                compute_dtype=here.compute_dtype,
                stop=stop,
            ):
                average.update(step)
                number, tokens = step.number, tokens + step.tokens
                if number % 25 == 0 or number == 1:
                    spent = time.perf_counter() - began
                    stage.update(
                        spent if config.seconds else number,
                        step=number,
                        train_loss=step.loss.item(),
                        lr_scale=step.lr_scale,
                        tokens_per_second=round(tokens / spent),
                    )
        except TrainingInterrupted:
            save(number)
            raise ValueError(
                f"interrupted after step {number}; the weights are kept in {checkpoint}"
            ) from None
    if not number:
        raise ValueError(f"no step fits into {config.seconds} seconds; give --train.seconds more")
    trained_seconds = time.perf_counter() - began
    if here.ranks.is_main:
        save(number)
    model.load_state_dict(average.state_dict())
    model.eval()
    return model.shipped_state_dict(), {
        "began": began,
        "budget_seconds": config.seconds,
        "steps": number,
        "tokens": tokens,
        "tokens_per_second": tokens / trained_seconds,
    }


def _dealt(batches: Batches, here: Here) -> Iterator[tuple[Tensor, Tensor]]:
    """This rank's micro-batches: the global ones, dealt out in turn."""
    ranks = here.ranks
    while True:
        batch = batches.at(batches.position + ranks.rank)
        batches.position += ranks.world_size
        yield batch.tokens.to(here.device), batch.targets.to(here.device)


def calibrate(
    model: GPT, weights: dict[str, Tensor], recipe: Recipe, data: DataFolder, here: Here
) -> dict[str, Any]:
    """Hessians of training text, inside the training budget, for they are learned from it."""
    if not recipe.quant.needs_hessians:
        return {}
    batch = recipe.train.batch
    # Rows the training order would take next: any training text serves.
    order = replace(recipe.tokens.order, seed=recipe.tokens.order.seed + 1)
    rows = Batches(data.train, order, rows=batch.rows, context=batch.context)
    texts = (rows.at(i).tokens for i in range(recipe.quant.calibration_batches))
    with here.log.stage("calibrate"), torch.inference_mode():
        hessians = collect_hessians(
            model, texts, lambda _, tokens: model.hidden(tokens), here.ranks
        )
    return {name: h for name, h in hessians.items() if name in weights}


def make_artifact(
    recipe: Recipe,
    weights: dict[str, Tensor],
    hessians: dict[str, Any],
    data: DataFolder,
    tell: Callable[..., None] = lambda done, **numbers: None,
) -> bytes:
    """The file: weights rounded as little as the cap allows. Raises OverBudget."""
    factors = factor_hessians(hessians)
    config = {
        "recipe": recipe.name,
        "model": config_to_json(recipe.model),
        "evaluate": config_to_json(recipe.evaluate.resolved(recipe.model.train_context)),
        "loops_active": recipe.model.loop is not None,
    }
    tokenizer = data.tokenizer.to_bytes()

    def attempt(factor: float) -> bytes:
        packed = pack(config, tokenizer, quantize(weights, factors, recipe.quant, factor))
        tell(0, clip_factor=factor, bytes=len(packed))
        return packed

    _, packed = fit_to_cap(attempt, recipe.budget.cap_bytes, low=0.6, high=3.0)
    return packed


@dataclass(frozen=True)
class ValText:
    """The validation text as tokens (n,), the bytes of each target (n - 1,), document starts."""

    tokens: Tensor
    target_bytes: Tensor
    starts: list[int]

    @classmethod
    def of(cls, data: DataFolder) -> "ValText":
        tokens = data.val[:].astype(np.int64)
        starts = np.flatnonzero(tokens == data.tokenizer.bos_id).tolist()
        counts = torch.from_numpy(data.byte_counts("val"))
        return cls(torch.from_numpy(tokens), counts, starts)


def evaluate(
    predictor: Predictor, config: EvaluateConfig, text: ValText, here: Here, name: str
) -> tuple[dict[str, Any], list[tuple[int, float]]]:
    """Score a text; returns the stage's line of `result.json` and the running score.

    The running score is (bytes so far, bits per byte so far) at up to 200 places.
    """
    plans = plan_evaluation(config, len(text.tokens), text.starts)
    curve: list[tuple[int, float]] = []
    running = Score()
    every = max(1, len(plans) // 200)
    began = time.perf_counter()
    with here.log.stage(name, total=len(text.tokens) - 1) as stage:

        def observe(chunk: Chunk, nats: Tensor) -> None:
            running.add(nats, chunk.num_bytes)
            plan: ChunkPlan = chunk.plan
            if running.num_bytes and (plan.index % every == 0 or plan.is_last):
                curve.append((running.num_bytes, running.bits_per_byte))
            bits = running.bits_per_byte if running.num_bytes else 0.0
            stage.update(running.num_tokens, bits_per_byte=bits)

        chunks = read_chunks(plans, text.tokens, text.target_bytes)
        score = score_stream(predictor, chunks, observe)
    line = {
        "bits_per_byte": score.bits_per_byte,
        "nats_per_token": score.nats_per_token,
        "seconds": time.perf_counter() - began,
        "score": score,
    }
    return line, curve


def describe_artifact(path: Path, cap_bytes: int) -> dict[str, Any]:
    """Bytes of each part of the file; the code that reads it is this package, which ships apart."""
    data = path.read_bytes()
    sizes, total = unpack(data).sizes, len(data)
    tokenizer = sizes["tokenizer"]
    return {
        "bytes_total": total,
        "bytes_model": total - tokenizer,
        "bytes_code": 0,
        "bytes_tokenizer": tokenizer,
        "cap_bytes": cap_bytes,
        "sha256": hashlib.sha256(data).hexdigest(),
        "groups": sizes,
    }
