"""From averaged weights to one file under its cap: Hessians, rounding, coding."""

import hashlib
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fairway.artifact.budget import OverBudget, fit_to_cap, predict_bytes, require_fit
from fairway.artifact.config_json import config_from_json, config_to_json, plugins_of
from fairway.artifact.container import Artifact, pack, unpack
from fairway.artifact.loaded_model import load_model
from fairway.artifact.tensor_sizes import tensor_bytes
from fairway.evaluate.config import EvaluateConfig
from fairway.model.gpt import GPT
from fairway.pipeline.folder import RunFolder
from fairway.pipeline.training import Trained, load_trained
from fairway.quant.hessian import Calibration, collect_calibration, factor_hessians
from fairway.quant.rules import quantize
from fairway.recipes.recipe import Recipe
from fairway.recipes.registry import recipe as named
from fairway.result import ArtifactResult, RunResult, TensorResult
from fairway.runtime.files import atomic_write, file_sha256
from fairway.runtime.progress import Progress, silent
from fairway.runtime.setup import Runtime
from fairway.runtime.sharing import share, share_tensors
from fairway.runtime.tensor_file import TensorFile, read_tensors, under, write_tensors
from fairway.submission.script import SCRIPT
from fairway.tokens.batches import Batches
from fairway.tokens.shards import DataFolder
from fairway.train.checkpoints import CHECKPOINT, require_same

Now = Callable[[], float]
ARTIFACT, HESSIANS, INPUT_RMS = "model.fwy", "hessians.safetensors", "input_rms/"
RESERVE_MARGIN, MOST_RESERVED = 1.5, 0.2  # of the seconds measured; of the training clock
AFTER_SECONDS = 0.25  # for what follows the last batch: sums over ranks, and the clock's reading
FINEST, COARSEST = 0.6, 3.0  # factors on every clip_sigmas between which the cap is met
LAST_RESORT = 4.5  # beyond which a run that was trained already is not rounded, either
# Bytes of trained weights at the coarsest rounding, as shares of what Gaussian ones would take.
# Measured: 0.90 to 1.05 where clip_sigmas decides, 1.005 at full size; 0.70 to 0.85 elsewhere.
SURE, LESS_SURE, LIKELY = 0.85, 0.65, 1.05


def expect_to_fit(
    model: GPT, recipe: Recipe, tokenizer: bytes, code_bytes: int, runtime: Runtime
) -> None:
    """Log about how large the file will be, as far as the shapes of its tensors tell, and whether
    it may turn out too large.

    Raises OverBudget where not even the coarsest rounding could bring it under the cap: better now
    than after training.
    """
    generator = torch.Generator().manual_seed(0)  # the run's own numbers stay as they are
    likely = {
        name: torch.randn(tensor.shape, generator=generator).to(runtime.device)
        for name, tensor in model.shipped_state_dict().items()
    }
    cap = recipe.budget.cap_bytes - code_bytes
    if cap <= 0:
        raise OverBudget(
            f"the code alone is {code_bytes:,} bytes, and with the artifact it may have "
            f"{recipe.budget.cap_bytes:,}: raise --budget.cap-bytes"
        )
    evaluate = recipe.evaluate.resolved(recipe.model.train_context)
    more = len(pack(header_of(recipe, evaluate), tokenizer, {}))
    expected = predict_bytes(likely, recipe.quant) + more
    runtime.log.say(
        f"artifact, about {expected:,} bytes before it is fitted to {cap:,}, which {code_bytes:,} "
        f"of code leave"
    )
    coarsest = COARSEST if recipe.quant.clip == "fitted" else 1.0
    least, surely = more, float(more)
    for name, tensor in likely.items():
        plain = predict_bytes({name: tensor}, recipe.quant)
        coarse = predict_bytes({name: tensor}, recipe.quant, coarsest)
        least += coarse
        surely += coarse * (SURE if coarse < plain else LESS_SURE)
    said = f"about {least:,} bytes at {coarsest:g} times every clip_sigmas, and may have {cap:,}"
    mend = "lower bits or model_dim in the recipe, or raise --budget.cap-bytes"
    if surely > cap:
        raise OverBudget(f"the artifact would be {said}: {mend}")
    if LIKELY * least > cap:
        runtime.log.say(f"the artifact may not fit: it would be {said}; to be sure, {mend}")


def seconds_to_calibrate(
    model: GPT,
    recipe: Recipe,
    data: DataFolder,
    runtime: Runtime,
    *,
    now: Now = time.perf_counter,
) -> float:
    """How long `calibrate` will take here, as one batch of the untrained model does; rank 0's word.

    At most a fifth of the training clock: whatever does not fit into that is left out in the end.
    0 where nothing is clocked. The Hessians' factors belong to packing, which no clock counts.
    """
    seconds = recipe.train.seconds
    if seconds is None or not recipe.quant.needs_hessians:
        return 0.0
    rows, batch_seconds = _rows(recipe, data), 0.0
    for _ in range(2):  # the first may choose kernels, and opens the shards
        begin = now()
        _collect(model, [rows.at(0).tokens.to(runtime.device)], runtime)
        batch_seconds = now() - begin
    needed = AFTER_SECONDS + RESERVE_MARGIN * batch_seconds * recipe.quant.calibration_batches
    needed = float(runtime.ranks.broadcast(torch.tensor(needed, dtype=torch.float64)))
    kept = max(recipe.train.reserve_seconds, min(needed, MOST_RESERVED * seconds))
    runtime.log.say(f"calibrating, about {needed:.1f} s; {kept:.1f} s of the clock are kept for it")
    return kept


def calibrate(
    model: GPT,
    names: Collection[str],
    recipe: Recipe,
    data: DataFolder,
    runtime: Runtime,
    deadline: float | None = None,
    *,
    now: Now = time.perf_counter,
) -> Calibration:
    """What layers read of training text, inside the training budget, for it is learned from it.

    deadline  when that ends, by `now`: batches that rank 0 does not expect to fit are left out, all
              but the first; None takes all
    """
    if not recipe.quant.needs_hessians:
        return Calibration({}, {})
    count, done, rows = recipe.quant.calibration_batches, 0, _rows(recipe, data)
    with runtime.log.stage("calibrate", total=count) as stage:

        def texts() -> Iterator[Tensor]:
            nonlocal done
            for i in _in_time(count, deadline, runtime, now):
                yield rows.at(i).tokens.to(runtime.device)
                done = i + 1
                stage.update(done)

        calibration = _collect(model, texts(), runtime)
    if done < count:
        runtime.log.say(f"calibrate: {done} of {count} batches, for the training clock ended")
    return calibration.only(names)


def kept_calibration(
    folder: RunFolder,
    model: GPT,
    trained: Trained,
    recipe: Recipe,
    data: DataFolder,
    runtime: Runtime,
) -> Calibration:
    """That of an earlier start, or `calibrate`'s, kept in the folder until packing is done."""
    path = folder.path / HESSIANS

    def read() -> TensorFile | None:
        if not path.exists():
            return None
        found = read_tensors(path, "the Hessians of a run")
        require_same(found.facts.get("made_with"), folder.made, path)
        return found

    found = share_tensors(runtime.ranks, read)
    if found is not None:
        runtime.log.say(f"Hessians as {path.name} has them")
        tensors = {name: tensor.to(runtime.device) for name, tensor in found.tensors.items()}
        rms = under(INPUT_RMS, tensors)
        return Calibration({n: t for n, t in tensors.items() if not n.startswith(INPUT_RMS)}, rms)
    with trained.spent.running():
        calibration = calibrate(model, trained.weights, recipe, data, runtime, trained.deadline)
    if calibration.hessians and runtime.ranks.is_main:
        rms = {f"{INPUT_RMS}{name}": tensor for name, tensor in calibration.input_rms.items()}
        tensors = {**calibration.hessians, **rms}
        copies = {name: t.cpu().contiguous().clone() for name, t in tensors.items()}
        write_tensors(path, copies, {"made_with": folder.made})
    return calibration


def is_packed(path: Path, result: RunResult | None, runtime: Runtime) -> bool:
    """Whether the artifact is there as the result describes it."""

    def look() -> bool:
        known = None if result is None else result.artifact
        return known is not None and path.is_file() and file_sha256(path) == known.sha256

    return bool(share(runtime.ranks, look))


def _rows(recipe: Recipe, data: DataFolder) -> Batches:
    """Rows the training order would take next: any training text serves."""
    batch = recipe.train.batch
    order = replace(recipe.tokens.order, seed=recipe.tokens.order.seed + 1)
    return Batches(data.train, order, rows=batch.rows, context=batch.context)


@torch.inference_mode()
def _collect(model: GPT, texts: Iterable[Tensor], runtime: Runtime) -> Calibration:
    return collect_calibration(model, texts, lambda _, tokens: model.hidden(tokens), runtime.ranks)


def _in_time(count: int, deadline: float | None, runtime: Runtime, now: Now) -> Iterator[int]:
    """0 .. count - 1, as long as the next ends before the deadline; at least the first."""
    seconds: list[float] = []
    for i in range(count):
        if deadline is not None and i:
            # The last one, if slow, says more of the next than those before it.
            expected = max(seconds[-1], sum(seconds) / len(seconds))
            fits = torch.tensor(now() + expected + AFTER_SECONDS <= deadline, dtype=torch.float64)
            if not bool(runtime.ranks.broadcast(fits)):
                return
        begin = now()
        yield i
        if runtime.device.type == "cuda":
            torch.cuda.synchronize(runtime.device)
        seconds.append(now() - begin)


def pack_run(
    path: Path,
    recipe: Recipe,
    evaluate: EvaluateConfig,
    weights: dict[str, Tensor],
    calibration: Calibration,
    data: DataFolder,
    code_bytes: int,
    runtime: Runtime,
) -> None:
    """Write the artifact, by one process; all go on once it is there. Raises OverBudget."""
    if runtime.ranks.is_main:
        with runtime.log.stage("pack") as stage:
            header, tokenizer = header_of(recipe, evaluate), data.tokenizer.to_bytes()
            try:
                packed = make_artifact(
                    recipe, header, weights, calibration, tokenizer, code_bytes, stage.update
                )
            except OverBudget as error:
                run = path.parent
                raise OverBudget(
                    f"{error}. What was trained is kept in {run / CHECKPOINT}: `fairway pack {run} "
                    f"{data.path}` makes a file of it with another --cap-bytes N, or by the rules "
                    f"of another --recipe NAME"
                ) from error
            atomic_write(path, packed)
    runtime.ranks.barrier()


def make_artifact(
    recipe: Recipe,
    header: dict[str, Any],
    weights: dict[str, Tensor],
    calibration: Calibration,
    tokenizer: bytes,
    code_bytes: int,
    progress: Progress = silent,
) -> bytes:
    """The file: weights rounded as little as the cap allows, or exactly as the rules say. Raises
    OverBudget.

    header      what the file's header is to say, see `header_of`
    code_bytes  of the cap, that the code takes

    Where not even the coarsest rounding that one would plan with is enough, a still coarser one is
    better than no file.
    """
    factors, rms = factor_hessians(calibration.hessians), calibration.input_rms
    attempts = 0

    def attempt(factor: float) -> bytes:
        nonlocal attempts
        rounded = quantize(weights, factors, recipe.quant, factor, rms)
        packed = pack(header, tokenizer, rounded)
        attempts += 1
        progress(attempts, clip_factor=factor, bytes=len(packed))
        return packed

    cap = recipe.budget.cap_bytes - code_bytes
    if recipe.quant.clip == "exact":
        return require_fit(attempt(1.0), cap)
    try:
        return fit_to_cap(attempt, cap, low=FINEST, high=COARSEST)[1]
    except OverBudget:
        return fit_to_cap(attempt, cap, low=COARSEST, high=LAST_RESORT)[1]


def header_of(recipe: Recipe, evaluate: EvaluateConfig) -> dict[str, Any]:
    """What the file's header says."""
    config: dict[str, Any] = {
        "recipe": recipe.name,
        "model": config_to_json(recipe.model),
        "evaluate": config_to_json(evaluate),
        "loops_active": recipe.model.loop is not None,
    }
    if plugins := plugins_of((recipe.model, recipe.quant, evaluate)):
        config["plugins"] = [asdict(plugin) for plugin in plugins]
    return config


def pack_again(
    source: Path,
    data: DataFolder,
    runtime: Runtime,
    recipe: str | None = None,
    cap_bytes: int | None = None,
) -> bytes:
    """A file for the model of a run folder, or for that of another file, which is rounded anew.

    recipe     by whose rules; None: the run's own
    cap_bytes  for the file alone; None: what the recipe's cap leaves beside the run's script
    """
    script = source / SCRIPT
    code_bytes = script.stat().st_size if cap_bytes is None and script.is_file() else 0
    if source.is_dir():
        chosen, model = load_trained(source, runtime.device)
        if recipe is not None:
            chosen = replace(chosen, quant=named(recipe).quant)
    else:
        chosen, model = _model_to_round(source, data, runtime.device, recipe)
    if cap_bytes is not None:
        chosen = replace(chosen, budget=replace(chosen.budget, cap_bytes=cap_bytes))
    weights = model.shipped_state_dict()
    calibration = calibrate(model, weights, chosen, data, runtime)
    evaluation = chosen.evaluate.resolved(model.config.train_context)
    with runtime.log.stage("pack") as stage:
        header, tokenizer = header_of(chosen, evaluation), data.tokenizer.to_bytes()
        return make_artifact(
            chosen, header, weights, calibration, tokenizer, code_bytes, stage.update
        )


def _model_to_round(
    source: Path, data: DataFolder, device: torch.device, recipe: str | None
) -> tuple[Recipe, GPT]:
    """The model of a file, and a recipe that is its own but for the rules of rounding."""
    loaded = load_model(source, device)
    if loaded.tokenizer.to_bytes() != data.tokenizer.to_bytes():
        raise ValueError(
            f"{data.path} was made with another tokenizer than {source}; prepare the text with "
            f"the model's own"
        )
    if recipe is None:
        raise ValueError(f"name the recipe by whose rules {source} is rounded: --recipe NAME")
    rules, model = named(recipe), loaded.model
    batch = replace(rules.train.batch, rows=8, context=model.config.train_context)
    chosen = replace(
        rules,
        name=f"{source.stem} by {recipe}",
        tokens=replace(rules.tokens, vocab_size=model.config.vocab_size),
        model=model.config,
        train=replace(rules.train, batch=batch, loops_at=None),
        evaluate=config_from_json(EvaluateConfig, loaded.evaluate),
    )
    return chosen, model


def describe_artifact(
    path: Path, cap_bytes: int, code_bytes: int, trained: Mapping[str, Tensor] | None = None
) -> ArtifactResult:
    """Bytes of each part of the file, and of the script that is handed in with it.

    trained  the weights before they were rounded
    """
    data = path.read_bytes()
    artifact = unpack(data)
    sizes = artifact.sizes
    tokenizer = sizes["tokenizer"]
    return ArtifactResult(
        bytes_total=len(data) + code_bytes,
        bytes_model=len(data) - tokenizer,
        bytes_code=code_bytes,
        bytes_tokenizer=tokenizer,
        cap_bytes=cap_bytes,
        sha256=hashlib.sha256(data).hexdigest(),
        groups=dict(sizes),
        tensors=_describe_tensors(artifact, trained or {}),
    )


def _describe_tensors(artifact: Artifact, trained: Mapping[str, Tensor]) -> dict[str, TensorResult]:
    sizes, found = tensor_bytes(artifact), {}
    for name, weight in artifact.state_dict().items():
        error, before = None, trained.get(name)
        if before is not None and before.shape == weight.shape:
            whole = before.detach().to("cpu", torch.float32)
            norm = whole.norm().item()
            error = (weight - whole).norm().item() / norm if norm else 0.0
        found[name] = TensorResult(weights=weight.numel(), bytes=sizes[name], rounding_error=error)
    return found
