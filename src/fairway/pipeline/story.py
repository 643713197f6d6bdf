"""The story: text to a proven score. Start reading here.

`fairway run` calls `run`, and so does Python, to start a run, to watch it, and to go on with it:

    def watch(done=0, total=0, *, text="", **numbers): print(text, done, total, numbers)
    result = run(recipe("pocket"), Path("data"), Path("runs/a"), progress=watch)
    result = run(recipe("pocket"), Path("data"), Path("runs/a"), RunOptions(resume="yes"))

`run_on` tells the story: each arrow of the picture in the README is a part of it. A part whose
result is there already, from an earlier start of the same run, is skipped.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from fairway.artifact.config_json import plugins_of
from fairway.artifact.loaded_model import load_model
from fairway.evaluate.planner import Estimate
from fairway.model.blank import num_params
from fairway.model.gpt import GPT
from fairway.pipeline.code import keep_script, script_of
from fairway.pipeline.compiling import choose_steps
from fairway.pipeline.folder import RunFolder, owned
from fairway.pipeline.judging import audit_run, compare, keep_excerpt, prove_score, write_page
from fairway.pipeline.options import RunOptions
from fairway.pipeline.packing import (
    ARTIFACT,
    HESSIANS,
    describe_artifact,
    expect_to_fit,
    is_packed,
    kept_calibration,
    pack_run,
    seconds_to_calibrate,
)
from fairway.pipeline.recording import recorded
from fairway.pipeline.scoring import (
    Passes,
    diagnose,
    keep_documents,
    plan_into_clock,
    planned_part,
    with_scores,
)
from fairway.pipeline.tracking import tracked
from fairway.pipeline.training import Trained, train_and_average
from fairway.proof.coded import Coded
from fairway.quant.hessian import Calibration
from fairway.recipes.recipe import Recipe
from fairway.report.compressors import require
from fairway.result import RESULT, ResultFile, RunResult, TrainResult, read_result
from fairway.runtime.device import machine, seed_everything
from fairway.runtime.extras import MissingExtra
from fairway.runtime.progress import Progress, silent
from fairway.runtime.setup import Runtime, runtime_for
from fairway.runtime.sharing import share, shared_file
from fairway.tokens.shards import DataFolder
from fairway.tokens.val_text import ValText

REPORT = "report.html"
Prepare = Callable[[Path], object]  # makes the data folder of that name


DEFAULTS = RunOptions()


def run(
    recipe: Recipe,
    data: Path,
    out: Path,
    options: RunOptions = DEFAULTS,
    *,
    prepare: Prepare | None = None,
    runs: Path | None = None,
    progress: Progress = silent,
) -> RunResult:
    """One run, from shards to a score that is proved, audited and reported in the folder `out`.

    prepare   makes the folder `data` first
    runs      database in which the run is recorded (`runs/database.py`); None: in none
    progress  called with all that the run's log is told

    Under torchrun every process calls this; all but the first return once the scores are there.
    Raises ValueError for whatever the user can mend, before any time is spent and any file is
    touched where that can be known before; `Stopped` where a signal asked for it.
    """
    require()  # a figure missing at the end is missing for good
    with (
        _runtime(options, recipe, out, progress) as runtime,
        owned(out, runtime.ranks),
        recorded(out, runs, runtime.ranks),
    ):
        folder = open_data(data, runtime, prepare)
        return run_on(runtime, recipe, folder, out, options)


def train(
    recipe: Recipe,
    data: Path,
    out: Path,
    options: RunOptions = DEFAULTS,
    *,
    progress: Progress = silent,
) -> TrainResult:
    """The first stage alone; `fairway pack` goes on from the checkpoint in `out`."""
    with _runtime(options, recipe, out, progress) as runtime, owned(out, runtime.ranks):
        text = open_data(data, runtime)
        folder = _open_folder(out, recipe, text, runtime, options)
        runtime = folder.settle(runtime, options.compiled, options.compute_dtype)
        model = new_model(recipe, text, runtime)
        runtime = choose_steps(folder, recipe, runtime, options.compiled)
        expect_to_fit(model, recipe, text.tokenizer.to_bytes(), 0, runtime)
        reserve = seconds_to_calibrate(model, recipe, text, runtime)
        folder.begin(recipe, runtime)
        seconds = options.checkpoint_seconds
        return train_and_average(model, recipe, text, folder, runtime, seconds, reserve).result()


def run_on(
    runtime: Runtime, recipe: Recipe, data: DataFolder, out: Path, options: RunOptions = DEFAULTS
) -> RunResult:
    """`run` where log, device and data are there already. `result.json` grows with every stage, so
    that whatever goes wrong late loses nothing."""
    folder = _open_folder(out, recipe, data, runtime, options)
    before = earlier_result(folder, runtime)
    if folder.finished and before is not None:
        runtime.log.say(f"{out} holds this run, finished: nothing is left to do")
        return before
    runtime = folder.settle(runtime, options.compiled, options.compute_dtype)
    model, text = new_model(recipe, data, runtime), ValText.of(data, recipe.tokens.val_tokens)
    runtime = choose_steps(folder, recipe, runtime, options.compiled)
    planned = plan_once(folder, model, recipe, text, runtime, options.fit)
    text = planned_part(planned, text, recipe.budget.eval_seconds)
    reserve = seconds_to_calibrate(model, recipe, data, runtime)
    script = script_of(folder, recipe, planned.config, data.tokenizer, runtime)
    expect_to_fit(model, recipe, data.tokenizer.to_bytes(), len(script), runtime)
    folder.begin(recipe, runtime, planned)
    keep_script(folder, script, runtime)
    runtime.log.write("facts", made_with=folder.sha256, recipe=recipe.name, seed=recipe.seed)
    if not data.recorded:
        runtime.log.say(unrecorded(data))
    seed_everything(recipe.seed)  # what planning took at random must not reach training

    seconds = options.checkpoint_seconds
    trained = train_and_average(model, recipe, data, folder, runtime, seconds, reserve)
    artifact, passes = out / ARTIFACT, Passes(out, folder.sha256, planned, text, runtime)
    packed = is_packed(artifact, before, runtime)
    calibration = Calibration({}, {})
    if not packed:
        calibration = kept_calibration(folder, model, trained, recipe, data, runtime)
    first = before or first_result(recipe, trained, runtime, folder)
    first = first if packed else first.before_packing()
    found = ResultFile(out, first, write=runtime.ranks.is_main)
    if "float" not in first.stages:
        found.add_stage("float", passes.windows(model, "score float"))
    if not packed:
        runtime.ranks.barrier()  # whose neighbours in the folder may still be keeping their score
        passes.clean()  # what was begun on another file
        weights, config = trained.weights, planned.config
        pack_run(artifact, recipe, config, weights, calibration, data, len(script), runtime)
    with shared_file(runtime.ranks, artifact) as file:
        cap, code_bytes = recipe.budget.cap_bytes, len(script)
        found.add(artifact=describe_artifact(file, cap, code_bytes, trained.weights))
        loaded = load_model(file, runtime.device).model  # nothing in memory may flatter the score
    coded = score(loaded, recipe, passes, found)
    runtime.log.write("facts", **facts(found.result))

    judge = runtime.alone()  # what follows may take longer than peers would wait
    if judge is not None:
        judge_run(recipe, data, text, judge, options, found, coded)
        (out / HESSIANS).unlink(missing_ok=True)
        passes.clean()
        folder.finish()
    return found.result


@contextmanager
def _runtime(
    options: RunOptions, recipe: Recipe, out: Path, progress: Progress
) -> Iterator[Runtime]:
    with (
        tracked(options.track, recipe, out, progress) as told,
        runtime_for(
            device=options.device,
            threads=options.threads,
            progress=told,
            peer_seconds=options.peer_seconds,
        ) as runtime,
    ):
        yield runtime


def _open_folder(
    out: Path, recipe: Recipe, data: DataFolder, runtime: Runtime, options: RunOptions
) -> RunFolder:
    return RunFolder.open(out, recipe, data, runtime, options.resume, options.overwrite)


def facts(result: RunResult) -> dict[str, object]:
    """What ties a log to the result of its run, once it is scored."""
    assert result.artifact is not None
    assert result.score is not None
    return {
        "model_sha256": result.artifact.sha256,
        "train_seconds": result.train.seconds,
        "steps": result.train.steps,
        "nats": result.score.nats,
        "tokens": result.score.tokens,
        "bytes": result.score.bytes,
        "code_bytes": result.score.code_bytes,
    }


def score(model: GPT, recipe: Recipe, passes: Passes, found: ResultFile) -> Coded | None:
    """The packed model on the validation text, as far as that is not done; the text as bits, where
    scoring wrote them and they are still to be proved."""
    coded = None
    if "quantized" not in found.result.stages:
        found.add_stage("quantized", passes.windows(model, "score quantized"))
    if found.result.score is None:
        sliding, (learning, coded) = passes.sliding(model), passes.learning(model, recipe)
        scored = with_scores(
            found.result, passes.planned, sliding, learning, coded, passes.text.scope
        )
        if found.write:
            documents = keep_documents(found.folder, passes.text, sliding, learning)
            scored = replace(scored, documents=documents)
        found.keep(scored)
    elif found.result.score.code_bytes is not None and found.result.proof is None:
        _, coded = passes.learning(model, recipe)  # as an earlier start kept it
    if recipe.diagnostic is not None and not found.result.diagnostics:
        found.add(diagnostics=diagnose(model, recipe, passes.text, passes.runtime))
    return coded


def judge_run(
    recipe: Recipe,
    data: DataFolder,
    text: ValText,
    runtime: Runtime,
    options: RunOptions,
    found: ResultFile,
    coded: Coded | None = None,
) -> None:
    """Proof, audit, comparison and page, as far as they are not done; each is done as a whole.

    coded  the text as bits, where scoring wrote them
    """
    out, done = found.folder, found.result
    if done.proof is None and options.proof_tokens:
        proved(recipe, text, runtime, options, found, coded)
    if done.audit is None:
        found.add(audit=audit_run(out / ARTIFACT, recipe, data, runtime, options.audit_seconds))
    if not done.baselines:
        found.add(baselines=compare(data, text, runtime))
    with runtime.log.stage("report"):
        keep_excerpt(out, text, data, done, runtime)
        try:
            write_page([out], out / REPORT)
        except MissingExtra as missing:  # all else is there, and the page can be written any time
            runtime.log.say(f"no {REPORT}: {missing}; then: fairway report {out}")


def proved(
    recipe: Recipe,
    text: ValText,
    runtime: Runtime,
    options: RunOptions,
    found: ResultFile,
    coded: Coded | None,
) -> None:
    """Add the proof: of the first tokens, or in settled arithmetic of all; then the score is the
    length of their code."""
    evaluate, score, seconds = found.result.evaluate, found.result.score, None
    settled = evaluate is not None and evaluate.arithmetic == "settled"
    if evaluate is not None and evaluate.budget_seconds is not None:
        left = max(0.0, evaluate.budget_seconds - evaluate.seconds)
        seconds = min(left, options.proof_share * evaluate.budget_seconds)
    proof = prove_score(
        found.folder / ARTIFACT,
        recipe,
        text,
        runtime,
        None if settled else options.proof_tokens,
        learned=None if evaluate is None else evaluate.learned,
        coded=coded,
        decode_seconds=seconds if settled else None,
    )
    if settled and score is not None:
        score = score.coded(proof.coded_bytes)
    found.add(proof=proof, score=score)


def earlier_result(folder: RunFolder, runtime: Runtime) -> RunResult | None:
    """What an earlier start of this run has found so far, if any."""
    if folder.is_new:
        return None

    def read() -> dict | None:
        path = folder.path
        return read_result(path).to_json() if (path / RESULT).is_file() else None

    held = share(runtime.ranks, read)
    if not isinstance(held, dict):
        return None
    result = RunResult.from_json(held)
    return result if result.made_with == folder.sha256 else None


def plan_once(
    folder: RunFolder, model: GPT, recipe: Recipe, text: ValText, runtime: Runtime, fit: bool
) -> Estimate:
    """The evaluation as the first start planned it, or planned now."""
    if folder.settled is not None and folder.settled.evaluation is not None:
        return folder.settled.evaluation
    return plan_into_clock(model, recipe, text, runtime, fit)


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
    return GPT(recipe.model).to(runtime.device)


def first_result(
    recipe: Recipe, trained: Trained, runtime: Runtime, folder: RunFolder
) -> RunResult:
    """What is known once training is over."""
    found = machine()
    return RunResult(
        recipe=recipe.name,
        seed=recipe.seed,
        made_with=folder.sha256,
        data=folder.data,
        device=f"{found.processor}, {found.cores} cores, {runtime.device}",
        machine=found,
        params=num_params(recipe.model),
        train=trained.result(),
        plugins=tuple(plugins_of(recipe)),
    )


def unrecorded(data: DataFolder) -> str:
    """What to know of a text that came without hashes."""
    return (
        f"{data.path} has no data.json, so that nobody can tell whether its files are as they were "
        f"published; {RESULT} records the sha256 of each"
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
    wanted = recipe.tokens.transform
    if wanted is not None and data.tokenizer.transform != wanted:
        raise ValueError(
            f"recipe {recipe.name!r} reads text transformed by {wanted!r}, and {data.path} holds "
            f"none; prepare it with --transform {wanted}, or run with --tokens.transform None"
        )
    if len(data.val) < 2:
        raise ValueError("the validation split is empty")
