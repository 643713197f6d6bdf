"""Settings of test-time training, chosen on training documents: validation text is never opened.

The held-out documents are the last of the training shards. A long run has read them, so the level
of what is found is too low; which settings are better than which carries over, and that is all that
is taken from here. The present settings are the first trial, so the answer is never worse on that
text. The search itself is Optuna's.
"""

import hashlib
import json
import logging
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
import torch
from optuna.study import MaxTrialsCallback
from torch import Tensor

from fairway.artifact.config_json import config_to_json
from fairway.artifact.loaded_model import LoadedModel
from fairway.evaluate.bpb import Score
from fairway.evaluate.chunks import Chunk, read_chunks
from fairway.evaluate.config import EvaluateConfig, make_predictor, plan_evaluation, plan_text
from fairway.evaluate.planner import estimate, measure_rates
from fairway.evaluate.predictor import score_stream
from fairway.recipes.diff import diff
from fairway.runtime.files import atomic_write
from fairway.runtime.progress import Progress, silent
from fairway.tokens.byte_count import byte_table
from fairway.tokens.shards import DataFolder
from fairway.tokens.val_text import ValText
from fairway.tune.config import TuneConfig
from fairway.tune.journal import DONE, Identity, num_done, open_study

NOTE = (
    "found on training documents, which training may have read: the level is too low, the order "
    "of settings is what counts"
)


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
    override: dict[str, object]

    @property
    def flags(self) -> str:
        """What to add to a command line of `fairway run` or `fairway score`."""
        parts = [f"--set 'evaluate.{path}={json.dumps(v)}'" for path, v in self.override.items()]
        return " ".join(parts)

    def to_json(self) -> dict[str, object]:
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
    progress: Progress = silent,
) -> TuneResult:
    """Search settings for the ways to learn that `present` has switched on.

    progress  called with a line for the present settings and for each better ones

    Raises ValueError where nothing in `present` learns or can be searched, or the training text is
    too short.
    """
    present = present.resolved(loaded.model.config.train_context)
    if not present.learns:
        raise ValueError(
            "nothing in this evaluation learns, so there is nothing to tune; switch something on, "
            'as in --set \'evaluate.ttt={"type":"Sgd"}\''
        )
    search = _Search(loaded, present, config, held_out(data, config.tokens), progress)
    search.run()
    return TuneResult(
        config=search.best_config,
        best=search.best,
        baseline=search.baseline,
        trials=search.trials,
        seconds=search.seconds,
        tokens=len(search.text.tokens),
        override=changes(present, search.best_config),
    )


class _Search:
    """The best settings so far, the present ones first."""

    def __init__(
        self,
        loaded: LoadedModel,
        present: EvaluateConfig,
        config: TuneConfig,
        text: ValText,
        progress: Progress,
    ) -> None:
        self.began = time.perf_counter()
        self.loaded, self.present, self.config, self.text = loaded, present, config, text
        self.progress = progress
        self.trials = 0
        self.best_config = present
        self.best = self.baseline = self._bits_of(present)
        size = len(text.tokens)
        line = f"present settings: {self.best:.5f} bits per byte of {size:,} training tokens"
        progress(text=line)

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.began

    def run(self) -> None:
        with warnings.catch_warnings(), _quiet():
            # Two reports of one tenth are one too many for Optuna, which says so each time.
            warnings.simplefilter("ignore", UserWarning)
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study = self._study()
            left = self.config.seconds - self.seconds
            most, shared = self.config.trials, self.config.journal is not None
            if left > 0 and not (shared and most is not None and num_done(study) >= most):
                study.optimize(
                    self._objective,
                    n_trials=None if shared else most,
                    timeout=left,
                    catch=(_OutOfTime,),
                    callbacks=[MaxTrialsCallback(most, states=DONE)] if shared and most else None,
                )
            if shared:
                self._take_best(study)

    def _study(self) -> optuna.Study:
        pruner = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=2)
        if self.config.journal is not None:
            return open_study(self.config.journal, self._identity(), pruner)
        sampler = optuna.samplers.TPESampler(seed=self.config.seed, n_startup_trials=6)
        return optuna.create_study(sampler=sampler, pruner=pruner)

    def _identity(self) -> Identity:
        """What must be the same for trials of several processes to be comparable."""
        text = hashlib.sha256(self.text.tokens.numpy().tobytes()).hexdigest()
        limits = [self.config.eval_seconds, self.config.eval_tokens]
        return {
            "model": self.loaded.sha256,
            "text": text,
            "present settings": config_to_json(self.present),
            "seed": self.config.seed,
            "limit of time": limits,
        }

    def _take_best(self, study: optuna.Study) -> None:
        """The best that any process has found."""
        complete = study.get_trials(states=(DONE[0],))
        self.trials = 1 + len(complete)  # the present settings are one
        for trial in complete:
            if trial.value is not None and trial.value < self.best:
                fixed = optuna.trial.FixedTrial(trial.params)
                self.best, self.best_config = trial.value, self.present.suggested(fixed)

    def _objective(self, trial: optuna.Trial) -> float:
        chosen = self.present.suggested(trial)
        if not trial.params:
            raise ValueError(
                f"{type(self.present.ttt).__name__} suggests no values to a search, so there is "
                "nothing to tune; give it a `suggest` method"
            )
        if not self._fits(chosen):
            raise optuna.TrialPruned
        bits = self._bits_of(chosen, trial)
        if bits < self.best:
            self.best, self.best_config = bits, chosen
            found = _shown(changes(self.present, chosen))
            self.progress(text=f"trial {trial.number + 1}: {bits:.5f}, {found}")
        return bits

    def _bits_of(self, chosen: EvaluateConfig, trial: optuna.Trial | None = None) -> float:
        """Bits per byte; stops where time is over, or where the trial is worse than others were."""
        running = Score()

        def check_trial(chunk: Chunk, nats: Tensor) -> None:
            running.add(nats, chunk.num_bytes)
            if trial is None:
                return
            if self.seconds > self.config.seconds:
                raise _OutOfTime
            # A tenth of the text at a time: chunks of different trials differ in length.
            tenth = 10 * running.num_tokens // len(self.text.tokens)
            trial.report(running.bits_per_byte if running.num_bytes else 99.0, tenth)
            if trial.should_prune():
                raise optuna.TrialPruned

        plans = plan_text(chosen, self.text)
        predictor = make_predictor(self.loaded.model, chosen, seed=self.config.seed)
        score = score_stream(predictor, read_chunks(plans, self.text), check_trial)
        self.trials += 1
        return score.bits_per_byte

    def _fits(self, chosen: EvaluateConfig) -> bool:
        """Whether a whole evaluation with these settings keeps its clock, as measured."""
        seconds, size = self.config.eval_seconds, self.config.eval_tokens
        if seconds is None or size is None:
            return True
        # As many documents for their length as the held-out text has.
        every = max(2, self.config.tokens // max(1, len(self.text.document_starts)))
        plans = plan_evaluation(chosen, size, range(0, size, every))
        rates = measure_rates(self.loaded.model, chosen, plans, repeats=1)
        return estimate(chosen, rates, plans).total_seconds <= 0.9 * seconds


def held_out(data: DataFolder, size: int) -> ValText:
    """The last whole training documents of about `size` tokens."""
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
    ids = torch.from_numpy(tokens.astype(np.int64))
    return ValText(ids, torch.from_numpy(counts), tuple(starts))


def changes(before: EvaluateConfig, after: EvaluateConfig) -> dict[str, object]:
    """Dotted path and JSON value of every setting that differs."""
    old, new = config_to_json(before), config_to_json(after)
    return {path: value for path, _, value in diff(old, new)}


def _shown(override: dict[str, object]) -> str:
    return ", ".join(
        f"{path} {value:.4g}" if isinstance(value, float) else f"{path} {value}"
        for path, value in override.items()
    )


class _quiet:
    """Optuna says every trial by itself; here `progress` says those that matter."""

    def __enter__(self) -> None:
        self.before = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        optuna.logging.set_verbosity(self.before)
