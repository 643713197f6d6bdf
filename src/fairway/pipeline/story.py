"""The story: text to a proven score. Start reading here.

`fairway run` calls `run`, and so does Python, to start a run, to watch it, and to go on with it:

    def watch(done=0, total=0, *, text="", **numbers): print(text, done, total, numbers)
    result = run(recipe("pocket"), Path("data"), Path("runs/a"), progress=watch)
    result = run(recipe("pocket"), Path("data"), Path("runs/a"), RunOptions(resume=True))

`run_on` tells the story: each arrow of the picture in the README is a line of it.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from fairway.artifact.config_json import plugins_of
from fairway.artifact.loaded_model import load_model
from fairway.model.gpt import GPT, num_params
from fairway.pipeline.judging import audit_run, compare, prove_score, write_page
from fairway.pipeline.packing import (
    ARTIFACT,
    calibrate,
    describe_artifact,
    expect_to_fit,
    pack_run,
    seconds_to_calibrate,
)
from fairway.pipeline.scoring import (
    diagnose,
    plan_into_clock,
    score_as_planned,
    score_windows,
    with_scores,
)
from fairway.pipeline.training import Trained, train_and_average
from fairway.recipes.recipe import Recipe
from fairway.report.compressors import require
from fairway.result import ResultFile, RunResult, TrainResult
from fairway.runtime.device import machine, seed_everything
from fairway.runtime.progress import Progress, silent
from fairway.runtime.setup import Runtime, runtime_for
from fairway.tokens.shards import DataFolder
from fairway.tokens.val_text import ValText

REPORT = "report.html"
Prepare = Callable[[Path], object]  # makes the data folder of that name


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How and where a run is made; what it makes is the recipe's business.

    Attributes:
        proof_tokens: tokens of the validation text to encode and decode again; 0 proves nothing
        audit_seconds: seconds that auditing the result may take; 0 leaves it out
        device: cpu, cuda, or cuda:N for GPU number N; None takes a GPU where there is one
        threads: threads of the CPU; None takes all cores
        compiled: train through torch.compile; None does so on GPUs only
        resume: go on from the checkpoint in the run folder
    """

    proof_tokens: int = 2000  # enough to convince, few enough to decode in a quarter of a minute
    audit_seconds: float = 30.0
    device: str | None = None
    threads: int | None = None
    compiled: bool | None = None
    resume: bool = False

    def runtime(self, out: Path, progress: Progress) -> AbstractContextManager[Runtime]:
        return runtime_for(
            out, device=self.device, threads=self.threads, resume=self.resume, progress=progress
        )


DEFAULTS = RunOptions()


def run(
    recipe: Recipe,
    data: Path,
    out: Path,
    options: RunOptions = DEFAULTS,
    *,
    prepare: Prepare | None = None,
    progress: Progress = silent,
) -> RunResult:
    """One run, from shards to a score that is proved, audited and reported in the folder `out`.

    prepare   makes the folder `data` first
    progress  called with all that the run's log is told

    Under torchrun every process calls this; all but the first return once the scores are there.
    Raises ValueError for whatever the user can mend, before any time is spent where that can be
    known before.
    """
    require()  # a figure missing at the end is missing for good
    with options.runtime(out, progress) as runtime:
        folder = open_data(data, runtime, prepare)
        return run_on(runtime.measured(options.compiled), recipe, folder, out, options)


def train(
    recipe: Recipe,
    data: Path,
    out: Path,
    options: RunOptions = DEFAULTS,
    *,
    progress: Progress = silent,
) -> TrainResult:
    """The first stage alone; `fairway pack` goes on from the checkpoint in `out`."""
    with options.runtime(out, progress) as runtime:
        folder = open_data(data, runtime)
        runtime = runtime.measured(options.compiled)
        model = new_model(recipe, folder, runtime)
        reserve = seconds_to_calibrate(model, recipe, folder, runtime)
        trained = train_and_average(model, recipe, folder, out, runtime, options.resume, reserve)
        return trained.result()


def run_on(
    runtime: Runtime, recipe: Recipe, data: DataFolder, out: Path, options: RunOptions = DEFAULTS
) -> RunResult:
    """`run` where log, device and data are there already. `result.json` grows with every stage, so
    that whatever goes wrong late loses nothing."""
    model, text = new_model(recipe, data, runtime), ValText.of(data, recipe.tokens.val_tokens)
    planned = plan_into_clock(model, recipe, text, runtime)
    reserve = seconds_to_calibrate(model, recipe, data, runtime)
    seed_everything(recipe.seed)  # what planning took at random must not reach training

    trained = train_and_average(model, recipe, data, out, runtime, options.resume, reserve)
    hessians = calibrate(model, trained.weights, recipe, data, runtime, trained.deadline)
    found = ResultFile(out, first_result(recipe, trained, runtime), write=runtime.ranks.is_main)
    found.add_stage("float", score_windows(model, planned, text, runtime, "score float"))
    artifact = out / ARTIFACT
    pack_run(artifact, recipe, planned.config, trained.weights, hessians, data, runtime)
    found.add(artifact=describe_artifact(artifact, recipe.budget.cap_bytes))

    loaded = load_model(artifact, runtime.device).model  # nothing in memory may flatter the score
    found.add_stage("quantized", score_windows(loaded, planned, text, runtime, "score quantized"))
    sliding, learning = score_as_planned(loaded, recipe, planned, text, runtime)
    found.keep(with_scores(found.result, planned, sliding, learning))
    found.add(diagnostics=diagnose(loaded, recipe, text, runtime))

    judge = runtime.alone()  # what follows may take longer than peers would wait
    if judge is not None:
        tokens, learned = options.proof_tokens, learning.schedule
        found.add(proof=prove_score(artifact, recipe, text, judge, tokens, learned))
        found.add(audit=audit_run(artifact, recipe, data, judge, options.audit_seconds))
        found.add(baselines=compare(data, text, judge))
        write_page([out], out / REPORT)
    return found.result


def open_data(data: Path, runtime: Runtime, prepare: Prepare | None = None) -> DataFolder:
    """The data folder, after the first process has made it where that is asked for."""
    if runtime.ranks.is_main:
        with runtime.log.stage("prepare"):
            if prepare is not None:
                prepare(data)
            DataFolder(data)
    runtime.ranks.barrier()
    return DataFolder(data)


def new_model(recipe: Recipe, data: DataFolder, runtime: Runtime) -> GPT:
    """The untrained model. Raises ValueError where recipe and data, or model and cap, cannot go
    together."""
    check_fit(recipe, data)
    seed_everything(recipe.seed)
    model = GPT(recipe.model).to(runtime.device)
    expect_to_fit(model, recipe, data.tokenizer.to_bytes(), runtime)
    return model


def first_result(recipe: Recipe, trained: Trained, runtime: Runtime) -> RunResult:
    """What is known once training is over."""
    found = machine()
    return RunResult(
        recipe=recipe.name,
        seed=recipe.seed,
        device=f"{found.processor}, {found.cores} cores, {runtime.device}",
        machine=found,
        params=num_params(recipe.model),
        train=trained.result(),
        plugins=tuple(plugins_of(recipe)),
    )


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
