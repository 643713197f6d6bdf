"""What a training step costs on this machine, eager and compiled, and when compiling pays.

The seconds of steps that took turns, and of compiling them, are kept in the user's cache folder
under a hash of all that they depend on. A run that leaves the choice open compiles where that saves
more seconds than it takes.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from fairway.artifact.config_json import config_from_json, config_to_json
from fairway.recipes.recipe import Recipe
from fairway.runtime import kernels_cpu, native
from fairway.runtime.device import machine
from fairway.runtime.files import atomic_write, read_file
from fairway.runtime.identity import json_sha256, sealed, unsealed
from fairway.runtime.limits import one_line
from fairway.runtime.strict_json import Json
from fairway.runtime.version import VERSION

FOLDER = Path("~/.cache/fairway/steps")
TRIAL_SECONDS = 1800.0  # a training so long can spare what it takes to measure both
MOST_BYTES = 1 << 16  # of a file of costs
CACHED_SHARE = 0.25  # of a cold compile for what is cached, as a first guess; found: up to 0.13
COLD_SECONDS = 90.0  # of compiling a step that was never compiled here, as a first guess


@dataclass(frozen=True, kw_only=True)
class StepCosts:
    """Seconds on this machine.

    eager, compiled  medians, of steps of one micro-batch that took turns
    measured         the day, as 2026-11-28
    cold             of compiling with nothing in the compiler's cache; None: that was never seen
    cached           of compiling with all of it there, likewise
    """

    eager: float
    compiled: float
    measured: str
    cold: float | None = None
    cached: float | None = None

    def saved(self, recipe: Recipe) -> tuple[float, float]:
        """Of a whole training: seconds that compiled steps save, and those that eager ones take."""
        config = recipe.train
        steps = (config.steps or 0) * config.batch.micro_batches
        whole = steps * self.eager if config.seconds is None else config.seconds
        return whole * (1.0 - self.compiled / self.eager), whole

    def compile_seconds(self, *, cached: bool) -> float:
        """What compiling is expected to take."""
        cold = COLD_SECONDS if self.cold is None else self.cold
        if not cached:
            return cold
        return CACHED_SHARE * cold if self.cached is None else self.cached


def pays(costs: StepCosts | None, recipe: Recipe, *, cached: bool) -> tuple[bool, str]:
    """Whether to compile the steps of `recipe`, and why, for the log.

    cached  what was compiled here before is still in the compiler's cache
    """
    if costs is None:
        seconds, unknown = recipe.train.seconds, "no compiled step was ever measured here"
        if seconds is not None and seconds >= TRIAL_SECONDS:
            return True, f"{unknown}, and {seconds:,.0f} s of training can spare that"
        return False, (
            f"{unknown}; training of {TRIAL_SECONDS / 60:.0f} minutes or more does that, and so "
            f"does --compiled"
        )
    saved, whole = costs.saved(recipe)
    takes = costs.compile_seconds(cached=cached)
    return saved > takes, (
        f"compiled they would take {1000 * costs.compiled:,.0f} ms instead of "
        f"{1000 * costs.eager:,.0f} (measured here on {costs.measured}) and "
        f"{'save' if saved >= 0 else 'lose'} {abs(saved):,.1f} s of {whole:,.0f}; compiling takes "
        f"{takes:.0f} s{', from its cache' * cached}"
    )


def key_of(recipe: Recipe, dtype: torch.dtype) -> str:
    """A hash of all that the costs depend on: versions, processor, threads, kernels, shapes."""
    here = machine()
    made: dict[str, Json] = {
        "versions": [VERSION, here.torch, here.python],
        "processor": [here.processor, here.cores, here.threads],
        "kernels": native.identity(kernels_cpu.NAME, tuned=True),
        "dtype": str(dtype),
        "model": config_to_json(recipe.model),
        "batch": config_to_json(recipe.train.batch),
        "optimizer": config_to_json(recipe.train.optimizer),
    }
    return json_sha256(made)


def costs_file(key: str) -> Path:
    """Where the costs of that key are kept."""
    return FOLDER.expanduser() / f"{key}.json"


def read_costs(path: Path, say: Callable[[str], None]) -> StepCosts | None:
    """None where there are none, or none that can be read, which is told."""
    if not path.exists():
        return None
    try:
        return config_from_json(StepCosts, unsealed(read_file(path, MOST_BYTES), required=True))
    except (OSError, ValueError) as error:
        say(f"{path} is no measurement of steps ({one_line(error)}) and will be replaced")
        return None


def keep_costs(path: Path, costs: StepCosts, say: Callable[[str], None]) -> None:
    """A folder that cannot be written to is told of, and no obstacle."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, json.dumps(sealed(config_to_json(costs)), indent=1).encode())
    except (OSError, ValueError) as error:
        say(f"what steps cost here could not be kept for the next run: {one_line(error)}")
