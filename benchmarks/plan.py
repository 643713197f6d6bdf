"""What `fairway plan` says of a run here, and what the run then does. By hand.

    python benchmarks/plan.py [DATA] --recipe pocket --seconds 60
    OMP_NUM_THREADS=1 python benchmarks/plan.py --processor

Predicts a run and makes it right after, again and again; prints steps, evaluation and artifact as
predicted and as measured, and the second over the first, one JSON line each. With --processor the
two sides are processor seconds of a step, which other programs on the machine do not change.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from measuring.rows import show
from measuring.small_run import given_or_small_data

from fairway.model.gpt import GPT
from fairway.pipeline.folder import RunFolder
from fairway.pipeline.options import RunOptions
from fairway.pipeline.story import run
from fairway.pipeline.training import train_and_average
from fairway.planning import steps
from fairway.planning.figure import Figure
from fairway.planning.plan import plan_here
from fairway.planning.steps import step_seconds
from fairway.recipes.recipe import Recipe
from fairway.recipes.registry import recipe
from fairway.runtime.device import seed_everything
from fairway.runtime.setup import Runtime, runtime_for
from fairway.tokens.shards import DataFolder


def compare(name: str, predicted: Figure, measured: float) -> None:
    ratio = measured / predicted.value
    stated = {} if predicted.error is None else {"stated_error": predicted.error}
    show(name, predicted=predicted.value, measured=measured, ratio=ratio, **stated)


def by_the_clock(chosen: Recipe, data: Path, runtime: Runtime) -> None:
    """A plan, and the whole run."""
    planned = plan_here(chosen, runtime, data=data)
    with tempfile.TemporaryDirectory() as out:
        options = RunOptions(proof_tokens=0, audit_seconds=0, compiled=False)
        found = run(chosen, data, Path(out), options)
    assert found.evaluate is not None
    assert found.artifact is not None
    compare("steps", planned.steps, found.train.steps)
    compare("seconds of evaluation", planned.eval_seconds, found.evaluate.seconds)
    compare("bytes of the artifact", planned.artifact_bytes, found.artifact.bytes_total)


def by_the_processor(chosen: Recipe, data: DataFolder, runtime: Runtime) -> None:
    """A step as planned, and the mean one of a training."""
    predicted = step_seconds(chosen, runtime, now=time.process_time)
    seed_everything(chosen.seed)
    with tempfile.TemporaryDirectory() as out:
        folder = RunFolder.open(Path(out), chosen, data, runtime)
        folder.begin(chosen, runtime)
        model, begin = GPT(chosen.model), time.process_time()
        trained = train_and_average(model, chosen, data, folder, runtime)
    compare("processor seconds of a step", predicted, (time.process_time() - begin) / trained.steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--recipe", default="pocket")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--processor", action="store_true", help="processor seconds of a step")
    parser.add_argument("--brief", action="store_true", help="12 s, by the processor")
    args = parser.parse_args()
    chosen = recipe(args.recipe)
    if args.brief:
        args.seconds, args.processor, steps.MEASURE_SECONDS = 12.0, True, 2.0
    chosen = replace(chosen, train=replace(chosen.train, seconds=args.seconds))
    with given_or_small_data(args.data) as data, runtime_for(quiet=True) as runtime:
        runtime = runtime.measured(compiled=False)
        for _ in range(args.repeats):
            if args.processor:
                by_the_processor(chosen, DataFolder(data), runtime)
            else:
                by_the_clock(chosen, data, runtime)


if __name__ == "__main__":
    main()
