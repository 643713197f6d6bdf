"""From averaged weights to one file under its cap: Hessians, rounding, coding."""

import hashlib
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fairway.artifact.budget import OverBudget, fit_to_cap, predict_bytes
from fairway.artifact.config_json import config_from_json, config_to_json
from fairway.artifact.container import pack, unpack
from fairway.artifact.loaded_model import load_model
from fairway.evaluate.config import EvaluateConfig
from fairway.model.gpt import GPT
from fairway.pipeline.training import load_trained
from fairway.quant.hessian import collect_hessians, factor_hessians
from fairway.quant.rules import quantize
from fairway.recipes.recipe import Recipe
from fairway.recipes.registry import recipe as named
from fairway.runtime.setup import Runtime
from fairway.tokens.batches import Batches
from fairway.tokens.shards import DataFolder

FINEST, COARSEST = 0.6, 3.0  # factors on every clip_sigmas between which the cap is met
SURE = 0.8  # trained weights take up to a fifth less than Gaussian ones, by which is predicted


def expect_to_fit(model: GPT, recipe: Recipe, tokenizer: bytes, runtime: Runtime) -> None:
    """Say about how large the file will be, as far as the shapes of its tensors tell.

    Raises OverBudget where not even the coarsest rounding could bring it under the cap: better now
    than after training.
    """
    generator = torch.Generator().manual_seed(0)  # the run's own numbers stay as they are
    likely = {
        name: torch.randn(tensor.shape, generator=generator).to(runtime.device)
        for name, tensor in model.shipped_state_dict().items()
    }
    cap, more = recipe.budget.cap_bytes, len(tokenizer)
    expected = predict_bytes(likely, recipe.quant) + more
    runtime.log.say(f"artifact, about {expected:,} bytes before it is fitted to {cap:,}")
    if SURE * expected <= cap:
        return
    least = predict_bytes(likely, recipe.quant, COARSEST) + more
    if SURE * least > cap:
        raise OverBudget(
            f"the artifact would be about {least:,} bytes at {COARSEST} times every clip_sigmas, "
            f"and may have {cap:,}: lower bits or model_dim in the recipe, or raise "
            f"--budget.cap-bytes"
        )


def calibrate(
    model: GPT, names: Collection[str], recipe: Recipe, data: DataFolder, runtime: Runtime
) -> dict[str, Any]:
    """Hessians of training text, inside the training budget, for they are learned from it."""
    if not recipe.quant.needs_hessians:
        return {}
    batch = recipe.train.batch
    # Rows the training order would take next: any training text serves.
    order = replace(recipe.tokens.order, seed=recipe.tokens.order.seed + 1)
    rows = Batches(data.train, order, rows=batch.rows, context=batch.context)
    count = recipe.quant.calibration_batches
    with runtime.log.stage("calibrate", total=count) as stage, torch.inference_mode():

        def texts() -> Any:
            for i in range(count):
                yield rows.at(i).tokens.to(runtime.device)
                stage.update(i + 1)

        hessians = collect_hessians(
            model, texts(), lambda _, tokens: model.hidden(tokens), runtime.ranks
        )
    return {name: h for name, h in hessians.items() if name in names}


def make_artifact(
    recipe: Recipe,
    evaluate: EvaluateConfig,
    weights: dict[str, Tensor],
    hessians: dict[str, Any],
    tokenizer: bytes,
    tell: Callable[..., None] = lambda done, **numbers: None,
) -> bytes:
    """The file: weights rounded as little as the cap allows. Raises OverBudget."""
    factors = factor_hessians(hessians)
    config = {
        "recipe": recipe.name,
        "model": config_to_json(recipe.model),
        "evaluate": config_to_json(evaluate),
        "loops_active": recipe.model.loop is not None,
    }
    attempts = 0

    def attempt(factor: float) -> bytes:
        nonlocal attempts
        packed = pack(config, tokenizer, quantize(weights, factors, recipe.quant, factor))
        attempts += 1
        tell(attempts, clip_factor=factor, bytes=len(packed))
        return packed

    _, packed = fit_to_cap(attempt, recipe.budget.cap_bytes, low=FINEST, high=COARSEST)
    return packed


def pack_again(
    source: Path,
    data: DataFolder,
    runtime: Runtime,
    recipe: str | None = None,
    cap_bytes: int | None = None,
) -> bytes:
    """A file for the model of a run folder, or for that of another file, which is rounded anew.

    recipe     by whose rules; None: the run's own
    cap_bytes  None: the recipe's
    """
    if source.is_dir():
        chosen, model = load_trained(source, runtime.device)
        evaluation = chosen.evaluate
        if recipe is not None:
            chosen = replace(chosen, quant=named(recipe).quant)
    else:
        loaded = load_model(source, runtime.device)
        if loaded.tokenizer.to_bytes() != data.tokenizer.to_bytes():
            raise ValueError(
                f"{data.path} was made with another tokenizer than {source}; prepare the text with "
                f"the model's own"
            )
        model, evaluation = loaded.model, config_from_json(EvaluateConfig, loaded.evaluate)
        if recipe is None:
            raise ValueError(f"name the recipe by whose rules {source} is rounded: --recipe NAME")
        rules = named(recipe)
        batch = replace(rules.train.batch, rows=8, context=model.config.train_context)
        chosen = replace(
            rules,
            name=f"{source.stem} by {recipe}",
            tokens=replace(rules.tokens, vocab_size=model.config.vocab_size),
            model=model.config,
            train=replace(rules.train, batch=batch, loops_at=None),
        )
    if cap_bytes is not None:
        chosen = replace(chosen, budget=replace(chosen.budget, cap_bytes=cap_bytes))
    weights = model.shipped_state_dict()
    hessians = calibrate(model, weights, chosen, data, runtime)
    evaluation = evaluation.resolved(model.config.train_context)
    with runtime.log.stage("pack") as stage:
        tokenizer = data.tokenizer.to_bytes()
        return make_artifact(chosen, evaluation, weights, hessians, tokenizer, stage.update)


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
