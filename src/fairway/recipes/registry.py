"""All recipes by name with the scripts that ran them, those of users, and miniatures."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from fairway.artifact.config_json import config_from_json
from fairway.average import EmaConfig, SwaConfig
from fairway.model.model_config import ModelConfig
from fairway.recipes import naive_baseline as launch
from fairway.recipes import pr414, pr1394, pr1855, pr1945, pr2135, sota254
from fairway.recipes.diff import override, present
from fairway.recipes.names import canonical
from fairway.recipes.pocket import pocket
from fairway.recipes.recipe import Recipe
from fairway.recipes.script import Script
from fairway.runtime.files import read_file
from fairway.runtime.plugins import load_plugin
from fairway.runtime.strict_json import parse_json
from fairway.train.config import BatchConfig
from fairway.train.schedule import Curriculum, When

RUNS: tuple[tuple[Callable[[], Recipe], Script | None], ...] = (  # parents before their children
    (launch.naive_baseline, launch.SCRIPT),
    (sota254.sota254, sota254.SCRIPT),
    (sota254.sponge_bath, sota254.SCRIPT),
    (pr414.pr414, pr414.SCRIPT),
    (pr414.pr691, pr414.SCRIPT_691),
    (pr1394.pr1394, pr1394.SCRIPT_1413),
    (pr1394.pr1413, pr1394.SCRIPT_1413),
    (pr1394.pr1493, pr1394.SCRIPT_1493),
    (pr1855.pr1855, pr1855.SCRIPT),
    (pr1945.pr1945, pr1945.SCRIPT_1945),
    (pr1945.pr1953, pr1945.SCRIPT_1953),
    (pr1945.pr2014, pr1945.SCRIPT_2014),
    (pr2135.pr2135, pr2135.SCRIPT),
    (pocket, None),
)
RECIPES: dict[str, Callable[[], Recipe]] = {build.__name__: build for build, _ in RUNS}
PUBLISHED: dict[str, Script] = {build.__name__: script for build, script in RUNS if script}
SCRIPTS: dict[str, Script] = {script.name: script for script in PUBLISHED.values()}

MOST_RECIPE = 1 << 20  # bytes of a recipe.json; ours have 5,000
SMOKE_CONTEXT, SMOKE_STRIDE = 32, 16


def recipe(name: str) -> Recipe:
    """The recipe of that name, of a run's `recipe.json`, or from outside (`load_recipe`).

    ValueError lists the names.
    """
    if name.endswith(".json"):
        return read_recipe(Path(name))
    if ":" in name:
        return load_recipe(name)
    return RECIPES[canonical(name, RECIPES)]()


def load_recipe(spec: str) -> Recipe:
    """The recipe that a function of the user's own returns.

    spec  `package.module:function` or `path/file.py:function`; what it names is imported and run

    Raises ValueError naming what is missing, or what was returned instead of a recipe.
    """
    build = load_plugin(spec)
    made = build() if callable(build) else build
    if not isinstance(made, Recipe):
        raise ValueError(
            f"{spec} is {made!r}, no Recipe; let it return one, made by "
            f"`fairway.recipes.diff.derive` for example"
        )
    return made


def read_recipe(path: Path) -> Recipe:
    """The recipe that a run wrote down. Raises ValueError naming the file and what is wrong."""
    if not path.is_file():
        raise ValueError(f"no recipe at {path}; `fairway run` writes recipe.json into its folder")
    try:
        held = parse_json(read_file(path, MOST_RECIPE))
        if not isinstance(held, dict):
            raise ValueError("it is no JSON object")
        return config_from_json(Recipe, held)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def smoke(full: Recipe, *, vocab_size: int = 300, steps: int = 6) -> Recipe:
    """The same run in a few seconds on one CPU core: three narrow layers, every option still on."""
    small: dict[str, object] = {
        "name": f"{full.name}_smoke",
        "parent": full.name,
        "claim_bpb": None,
        "tokens.vocab_size": vocab_size,
        "tokens.transform": None,
        "tokens.published": None,
        "tokens.order.together": min(2, full.tokens.order.together),
        "train.seconds": None,
        "train.steps": steps,
        "train.reserve_seconds": 0.0,
        "train.momentum_warmup.fraction": None,
        "train.momentum_warmup.steps": 2,
        "train.batch": _small_batch(full.train.batch),
        "round_from": When(progress=0.5) if full.round_from else None,
        "average": _quick_average(full),
        "quant.min_elements": 256,
        "quant.calibration_batches": 2,
        "quant.reserve_seconds": 0.0,
        "quant.awq.group": 8,
        "quant.low_rank.rank": 1,
        "quant.low_rank.num_tensors": 1,
        "quant.low_rank.group": 8,
        "evaluate": full.evaluate.smoke(SMOKE_CONTEXT, SMOKE_STRIDE),
        "evaluate_range": None,
        "diagnostic": full.diagnostic and full.diagnostic.smoke(SMOKE_CONTEXT, SMOKE_STRIDE),
    }
    return override(full, present(full, small | _small_model(full.model, vocab_size)))


def _small_model(model: ModelConfig, vocab_size: int) -> dict[str, object]:
    layers, attention = 3, model.attention
    everywhere = attention.exclusive_layers == model.num_layers
    ngrams = tuple(replace(table, buckets=64, dim=8) for table in model.embedding.ngrams)
    return {
        "model.vocab_size": vocab_size,
        "model.model_dim": 32,
        "model.num_layers": layers,
        "model.attention.num_heads": 4,
        "model.attention.num_kv_heads": 2 if attention.num_kv_heads < attention.num_heads else 4,
        "model.attention.rope_dims": 4 if attention.rope_dims else None,
        "model.attention.exclusive_layers": (
            layers if everywhere else min(1, attention.exclusive_layers)
        ),
        "model.attention.gate.window": 4,
        "model.mlp.ratio": 2.0,
        "model.embedding.dim": 16 if model.embedding.dim else None,
        "model.embedding.ngrams": ngrams,
        "model.embedding.smear_window": 4,
        "model.embedding.value.dim": 8,
        "model.embedding.value.layers": (1, 2),
        "model.train_context": SMOKE_CONTEXT,
        "model.loop.first": 1,
        "model.loop.last": 1,
        "model.loop.extra_passes": 1,
        "model.parallel.start": 2,
    }


def _small_batch(batch: BatchConfig) -> BatchConfig:
    return BatchConfig(
        rows=2,
        context=SMOKE_CONTEXT,
        micro_batches=min(2, batch.micro_batches),
        joined=batch.joined,
        context_curriculum=_halved(batch.context_curriculum, SMOKE_CONTEXT),
        context_warmup=min(2, batch.context_warmup),
        micro_batch_ramp=_halved(batch.micro_batch_ramp, 2),
    )


def _halved(curriculum: Curriculum | None, top: int) -> Curriculum | None:
    return None if curriculum is None else Curriculum(stages=((0.5, top // 2), (1.0, top)))


def _quick_average(full: Recipe) -> EmaConfig | SwaConfig | None:
    # So few steps never bring the rate below a published threshold.
    if isinstance(full.average, SwaConfig):
        return replace(full.average, every=1, lr_scale_below=2.0)
    return full.average
