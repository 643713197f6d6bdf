"""All recipes by name, and the miniature of each."""

from collections.abc import Callable
from dataclasses import replace
from difflib import get_close_matches

from fairway.average import EmaConfig, SwaConfig
from fairway.model.attention import AttentionConfig
from fairway.model.embedding import EmbeddingConfig
from fairway.model.gpt import ModelConfig
from fairway.quant.rules import QuantConfig
from fairway.recipes.naive_baseline import naive_baseline
from fairway.recipes.pocket import pocket
from fairway.recipes.pr414 import pr414, pr691
from fairway.recipes.pr1394 import pr1394, pr1413, pr1493
from fairway.recipes.pr1855 import pr1855
from fairway.recipes.recipe import Recipe
from fairway.recipes.sota254 import sota254, sponge_bath
from fairway.train.loop import BatchConfig, TrainConfig
from fairway.train.schedule import Curriculum, When

RECIPES: dict[str, Callable[[], Recipe]] = {  # parents before their children
    "naive_baseline": naive_baseline,
    "sota254": sota254,
    "sponge_bath": sponge_bath,
    "pr414": pr414,
    "pr691": pr691,
    "pr1394": pr1394,
    "pr1413": pr1413,
    "pr1493": pr1493,
    "pr1855": pr1855,
    "pocket": pocket,
}

SMOKE_CONTEXT, SMOKE_STRIDE = 32, 16


def recipe(name: str) -> Recipe:
    """The recipe of that name; ValueError lists the names there are."""
    if name not in RECIPES:
        close = get_close_matches(name, RECIPES, n=1)
        hint = f"; did you mean {close[0]}?" if close else "."
        raise ValueError(f"unknown recipe {name!r}{hint} Recipes: {', '.join(RECIPES)}")
    return RECIPES[name]()


def smoke(full: Recipe, *, vocab_size: int = 300, steps: int = 6) -> Recipe:
    """The same run in a few seconds on one CPU core: three narrow layers, every option still on."""
    return replace(
        full,
        name=f"{full.name}_smoke",
        parent=full.name,
        claim_bpb=None,
        tokens=replace(full.tokens, vocab_size=vocab_size, transform=None, published=None),
        model=_small_model(full.model, vocab_size),
        train=_short_training(full.train, steps),
        round_from=When(progress=0.5) if full.round_from else None,
        average=_quick_average(full),
        quant=_quick_quant(full.quant),
        evaluate=full.evaluate.smoke(SMOKE_CONTEXT, SMOKE_STRIDE),
        evaluate_range=None,
        diagnostic=full.diagnostic and full.diagnostic.smoke(SMOKE_CONTEXT, SMOKE_STRIDE),
    )


def _small_model(model: ModelConfig, vocab_size: int) -> ModelConfig:
    layers = 3
    every_layer = model.attention.exclusive_layers == model.num_layers
    attention: AttentionConfig = replace(
        model.attention,
        num_heads=4,
        num_kv_heads=2 if model.attention.num_kv_heads < model.attention.num_heads else 4,
        rope_dims=4 if model.attention.rope_dims else None,
        exclusive_layers=layers if every_layer else min(1, model.attention.exclusive_layers),
        gate=replace(model.attention.gate, window=4) if model.attention.gate else None,
    )
    embedding: EmbeddingConfig = replace(
        model.embedding,
        dim=16 if model.embedding.dim else None,
        ngrams=tuple(replace(table, buckets=64, dim=8) for table in model.embedding.ngrams),
        smear_window=4,
        value=replace(model.embedding.value, dim=8, layers=(1, 2))
        if model.embedding.value
        else None,
    )
    return replace(
        model,
        vocab_size=vocab_size,
        model_dim=32,
        num_layers=layers,
        attention=attention,
        mlp=replace(model.mlp, ratio=2.0),
        embedding=embedding,
        train_context=SMOKE_CONTEXT,
        loop=replace(model.loop, first=1, last=1, extra_passes=1) if model.loop else None,
        parallel=replace(model.parallel, start=2) if model.parallel else None,
    )


def _short_training(train: TrainConfig, steps: int) -> TrainConfig:
    warmup = train.momentum_warmup
    batch = BatchConfig(
        rows=2,
        context=SMOKE_CONTEXT,
        micro_batches=min(2, train.batch.micro_batches),
        context_curriculum=_halved(train.batch.context_curriculum, SMOKE_CONTEXT),
        micro_batch_ramp=_halved(train.batch.micro_batch_ramp, 2),
    )
    return replace(
        train,
        seconds=None,
        steps=steps,
        reserve_seconds=0.0,
        batch=batch,
        momentum_warmup=replace(warmup, fraction=None, steps=2) if warmup else None,
    )


def _halved(curriculum: Curriculum | None, top: int) -> Curriculum | None:
    return None if curriculum is None else Curriculum(stages=((0.5, top // 2), (1.0, top)))


def _quick_average(full: Recipe) -> EmaConfig | SwaConfig | None:
    # So few steps never bring the rate below a published threshold.
    if isinstance(full.average, SwaConfig):
        return replace(full.average, every=1, lr_scale_below=2.0)
    return full.average


def _quick_quant(quant: QuantConfig) -> QuantConfig:
    low_rank = quant.low_rank
    return replace(
        quant,
        min_elements=256,
        calibration_batches=2,
        reserve_seconds=0.0,
        low_rank=replace(low_rank, rank=1, num_tensors=1, group=8) if low_rank else None,
    )
