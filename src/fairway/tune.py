"""Settings of test-time training, chosen on training documents: validation text is never opened.

The held-out documents are the last of the training shards. A long run has read them, so the level
of what is found is too low; which settings are better than which carries over, and that is all that
is taken from here. The present settings are the first trial, so the answer is never worse on that
text. The search itself is Optuna's.
"""

import json
import logging
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from torch import Tensor

from fairway.artifact.config_json import config_to_json
from fairway.artifact.loaded_model import LoadedModel
from fairway.evaluate.bpb import Score
from fairway.evaluate.config import EvaluateConfig, make_predictor, plan_evaluation
from fairway.evaluate.learners.documents import DocumentAdapters, Phased
from fairway.evaluate.learners.sgd import Sgd
from fairway.evaluate.planner import estimate, measure_rates
from fairway.evaluate.predictor import Chunk, read_chunks, score_stream
from fairway.runtime.files import atomic_write
from fairway.tokens.byte_count import byte_table
from fairway.tokens.shards import DataFolder

NOTE = (
    "found on training documents, which training may have read: the level is too low, the order "
    "of settings is what counts"
)


@dataclass(frozen=True, kw_only=True)
class TuneConfig:
    """How long to search, and on how much text."""

    seconds: float = 300.0  # for the whole search, the trial of the present settings included
    trials: int | None = None  # at most; None: as many as time allows
    tokens: int = 20_000  # of held-out training text, from whole documents
    eval_seconds: float | None = None  # a whole evaluation must fit so many seconds ...
    eval_tokens: int | None = None  # ... for a text of so many tokens
    seed: int = 0  # of the search

    def __post_init__(self) -> None:
        if self.seconds <= 0 or self.tokens < 2 or (self.trials is not None and self.trials < 1):
            raise ValueError(
                f"seconds={self.seconds}, tokens={self.tokens}, trials={self.trials}: all must be "
                "positive, and two tokens are the least that can be priced"
            )
        if (self.eval_seconds is None) != (self.eval_tokens is None):
            raise ValueError("eval_seconds and eval_tokens say one thing together: give both")


@dataclass(frozen=True, kw_only=True)
class TuneResult:
    """best, baseline  bits per byte on the held-out text
    override           path and value of every setting that changed, for --set
    """

    config: EvaluateConfig
    best: float
    baseline: float
    trials: int
    seconds: float
    tokens: int
    override: dict[str, Any]

    @property
    def flags(self) -> str:
        """What to add to a command line of `fairway run` or `fairway score`."""
        parts = [f"--set 'evaluate.{path}={json.dumps(v)}'" for path, v in self.override.items()]
        return " ".join(parts)

    def to_json(self) -> dict[str, Any]:
        return {
            "best_bits_per_byte": self.best,
            "baseline_bits_per_byte": self.baseline,
            "gain_bits_per_byte": self.baseline - self.best,
            "trials": self.trials,
            "seconds": self.seconds,
            "tokens": self.tokens,
            "evaluate": config_to_json(self.config),
            "override": self.override,
            "flags": self.flags,
            "note": NOTE,
        }

    def write(self, path: Path) -> None:
        atomic_write(path, json.dumps(self.to_json(), indent=1).encode())


class _OutOfTime(Exception):
    """The search is over in the middle of a trial, which is then no trial."""


def tune(
    loaded: LoadedModel,
    data: DataFolder,
    present: EvaluateConfig,
    config: TuneConfig,
    tell: Callable[[str], None] = lambda line: None,
) -> TuneResult:
    """Search settings for the ways to learn that `present` has switched on.

    Raises ValueError where nothing in `present` learns, or the training text is too short.
    """
    begin = time.perf_counter()
    present = present.resolved(loaded.model.config.train_context)
    if present.ttt is None and present.mixture is None:
        raise ValueError(
            "nothing in this evaluation learns, so there is nothing to tune; switch something on, "
            'as in --set \'evaluate.ttt={"type":"Sgd"}\''
        )
    tokens, target_bytes, starts = held_out(data, config.tokens)
    trials = 0

    def bits_of(chosen: EvaluateConfig, trial: optuna.Trial | None) -> float:
        """Bits per byte; stops where time is over, or where the trial is worse than others were."""
        nonlocal trials
        running = Score()

        def observe(chunk: Chunk, nats: Tensor) -> None:
            running.add(nats, chunk.num_bytes)
            if trial is None:
                return
            if time.perf_counter() - begin > config.seconds:
                raise _OutOfTime
            # A tenth of the text at a time: chunks of different trials differ in length.
            tenth = 10 * running.num_tokens // len(tokens)
            trial.report(running.bits_per_byte if running.num_bytes else 99.0, tenth)
            if trial.should_prune():
                raise optuna.TrialPruned

        plans = plan_evaluation(chosen, len(tokens), starts)
        predictor = make_predictor(loaded.model, chosen, seed=config.seed)
        score = score_stream(predictor, read_chunks(plans, tokens, target_bytes), observe)
        trials += 1
        return score.bits_per_byte

    baseline = bits_of(present, None)
    tell(f"present settings: {baseline:.5f} bits per byte of {len(tokens):,} training tokens")
    best, best_config = baseline, present

    def objective(trial: optuna.Trial) -> float:
        nonlocal best, best_config
        chosen = suggested(trial, present)
        if not _fits(loaded, chosen, config, starts):
            raise optuna.TrialPruned
        bits = bits_of(chosen, trial)
        if bits < best:
            best, best_config = bits, chosen
            tell(f"trial {trial.number + 1}: {bits:.5f}, {_shown(changes(present, chosen))}")
        return bits

    with warnings.catch_warnings(), _quiet():
        # Two reports of one tenth are one too many for Optuna, which says so each time.
        warnings.simplefilter("ignore", UserWarning)
        study = optuna.create_study(
            sampler=optuna.samplers.TPESampler(seed=config.seed, n_startup_trials=6),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=2),
        )
        left = config.seconds - (time.perf_counter() - begin)
        if left > 0:
            study.optimize(objective, n_trials=config.trials, timeout=left, catch=(_OutOfTime,))
    return TuneResult(
        config=best_config,
        best=best,
        baseline=baseline,
        trials=trials,
        seconds=time.perf_counter() - begin,
        tokens=len(tokens),
        override=changes(present, best_config),
    )


def held_out(data: DataFolder, size: int) -> tuple[Tensor, Tensor, list[int]]:
    """The last whole training documents of about `size` tokens: tokens, target bytes, starts."""
    stream = data.train
    tail = stream[max(0, len(stream) - 4 * size) :]
    opens = np.flatnonzero(tail == data.tokenizer.bos_id)
    if not len(opens):
        raise ValueError(
            f"no document begins in the last {len(tail):,} training tokens; raise --tokens"
        )
    near = opens[opens <= max(len(tail) - size, opens[0])]
    tokens = tail[int(near[-1]) :]
    if len(tokens) < 2:
        raise ValueError(f"{len(stream)} training tokens are too few to tune on; give more text")
    counts = byte_table(data.tokenizer).target_bytes(tokens)
    starts = np.flatnonzero(tokens == data.tokenizer.bos_id).tolist()
    return torch.from_numpy(tokens.astype(np.int64)), torch.from_numpy(counts), starts


def suggested(trial: optuna.Trial, present: EvaluateConfig) -> EvaluateConfig:
    """The present evaluation with other settings for whatever learns in it."""
    ttt = present.ttt
    match ttt:
        case Sgd():
            ttt = _sgd(trial, ttt, present.stride, "")
        case DocumentAdapters():
            ttt = _adapters(trial, ttt)
        case Phased():
            adapters = None if ttt.adapters is None else _adapters(trial, ttt.adapters)
            ttt = replace(ttt, adapters=adapters, sgd=_sgd(trial, ttt.sgd, 1, "phase_"))
    mixture = present.mixture
    if mixture is not None:
        mixture = replace(
            mixture,
            fade=trial.suggest_float("fade", 50.0, 2000.0, log=True),
            memory=trial.suggest_float("memory", 0.9, 0.999),
            open=trial.suggest_float("open", 0.5, 0.95),
        )
    return replace(present, ttt=ttt, mixture=mixture)


def _sgd(trial: optuna.Trial, sgd: Sgd, stride: int, prefix: str) -> Sgd:
    chunk = max(stride, sgd.chunk_tokens // stride * stride)
    sizes = sorted({max(stride, chunk // 2 // stride * stride), chunk, 2 * chunk})
    return replace(
        sgd,
        lr=trial.suggest_float(f"{prefix}lr", sgd.lr / 10, sgd.lr * 10, log=True),
        epochs=trial.suggest_int(f"{prefix}epochs", 1, max(4, 2 * sgd.epochs)),
        momentum=trial.suggest_float(f"{prefix}momentum", 0.0, 0.95),
        chunk_tokens=trial.suggest_categorical(f"{prefix}chunk_tokens", sizes),
        schedule=trial.suggest_categorical(f"{prefix}schedule", ["cosine", "constant"]),
    )


def _adapters(trial: optuna.Trial, ttt: DocumentAdapters) -> DocumentAdapters:
    rank = trial.suggest_categorical("rank", [4, 8, 16, 32, 64])
    alpha = rank * trial.suggest_float("alpha_over_rank", 0.5, 4.0)
    return replace(
        ttt,
        adapters=replace(ttt.adapters, rank=rank, alpha=alpha),
        lr=trial.suggest_float("adapter_lr", ttt.lr / 10, ttt.lr * 30, log=True),
        weight_decay=trial.suggest_float("adapter_weight_decay", 0.0, 1.0),
        steps=trial.suggest_int("steps", 1, 3),
        warm=trial.suggest_categorical("warm", [True, False]),
    )


def _fits(
    loaded: LoadedModel, chosen: EvaluateConfig, config: TuneConfig, starts: list[int]
) -> bool:
    """Whether a whole evaluation with these settings keeps its clock, as measured."""
    if config.eval_seconds is None or config.eval_tokens is None:
        return True
    # As many documents for their length as the held-out text has.
    every = max(2, config.tokens // max(1, len(starts)))
    plans = plan_evaluation(chosen, config.eval_tokens, range(0, config.eval_tokens, every))
    rates = measure_rates(loaded.model, chosen, plans, repeats=1)
    return estimate(chosen, rates, plans).total_seconds <= 0.9 * config.eval_seconds


def changes(before: EvaluateConfig, after: EvaluateConfig) -> dict[str, Any]:
    """Dotted path and JSON value of every setting that differs."""

    old, new = (_flat(config_to_json(config)) for config in (before, after))
    return {path: value for path, value in new.items() if old.get(path) != value}


def _flat(tree: dict[str, Any], at: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{at}{name}.") if isinstance(value, dict) else {at + name: value}
    return flat


def _shown(override: dict[str, Any]) -> str:
    return ", ".join(
        f"{path} {value:.4g}" if isinstance(value, float) else f"{path} {value}"
        for path, value in override.items()
    )


class _quiet:
    """Optuna says every trial by itself; here `tell` says those that matter."""

    def __enter__(self) -> None:
        self.before = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        optuna.logging.set_verbosity(self.before)
