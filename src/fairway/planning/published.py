"""What published runs on 8 x H100 took, and what that says of a run that nobody has timed.

A step takes what its arithmetic takes, and a part that does not depend on it: launches, the
optimizer, communication. Both are fitted to the published steps; how well that does for a run that
the fit has not seen (each left out in turn) is the error that is stated with every figure.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NODE = 8  # GPUs of a published run


@dataclass(frozen=True, kw_only=True)
class PublishedRun:
    """Of one pull request's log, on 8 x H100; None: it does not say.

    milliseconds  of a step, mean over the run
    eval_seconds  of the pass that gives the score, mean over seeds
    gib           most memory allocated on a GPU
    model_bytes   of the artifact without its code
    """

    recipe: str
    milliseconds: float
    eval_seconds: float
    gib: float | None = None
    model_bytes: int | None = None


RUNS = (
    PublishedRun(
        recipe="naive_baseline",
        milliseconds=43.54,
        eval_seconds=1.4,
        gib=10.2,
        model_bytes=15_815_847,
    ),
    PublishedRun(recipe="sota254", milliseconds=82.3, eval_seconds=86.0),
    PublishedRun(
        recipe="pr414", milliseconds=84.56, eval_seconds=73.0, gib=20.9, model_bytes=15_487_414
    ),
    PublishedRun(
        recipe="pr1394", milliseconds=117.8, eval_seconds=84.0, gib=35.4, model_bytes=15_970_162
    ),
    PublishedRun(recipe="pr1413", milliseconds=115.7, eval_seconds=290.0, model_bytes=15_974_155),
    PublishedRun(
        recipe="pr1493", milliseconds=129.2, eval_seconds=366.5, gib=39.0, model_bytes=15_975_300
    ),
    PublishedRun(
        recipe="pr1855", milliseconds=121.7, eval_seconds=478.0, gib=41.7, model_bytes=15_865_260
    ),
    PublishedRun(recipe="pr1953", milliseconds=121.6, eval_seconds=461.5),
    PublishedRun(recipe="pr2135", milliseconds=120.1, eval_seconds=558.1),
)
SEEDS_ERROR = 0.15  # by which the evaluation of one script differs from seed to seed in these logs


@dataclass(frozen=True)
class Gpu:
    """teraflops  dense bfloat16 peak, from the vendor's data sheet
    gib        of memory, as drivers report it
    """

    teraflops: float
    gib: float


# Only the first was ever run on 8 of.
GPUS = {
    "H100": Gpu(989.0, 79.2),
    "H200": Gpu(989.0, 139.8),
    "A100": Gpu(312.0, 79.2),
    "B200": Gpu(2250.0, 178.0),
}
DOLLARS = 22.0 / NODE  # for an hour of one H100, the middle of what the field's people paid
# Of compiling, writing and reading the artifact, which no clock counts and which is paid all the
# same: 90 to 165, 120 and 20 in the logs of 2026's last records.
UNCLOCKED_SECONDS = 270.0


@dataclass(frozen=True)
class StepModel:
    """seconds of a step = fixed + flops / rate

    rate   FLOP/s of one GPU
    error  the largest deviation from a published run that was left out of the fit, as a share
    """

    fixed: float
    rate: float
    error: float

    def seconds(self, flops: float, num_gpus: int, speed: float = 1.0) -> float:
        """Of a step of so many operations over all GPUs, each `speed` times an H100."""
        return self.fixed + flops / (num_gpus * self.rate * speed)


def fit_steps(flops: Sequence[float], seconds: Sequence[float]) -> StepModel:
    """From steps of so many operations on NODE GPUs that took so long; at least three."""
    work = np.asarray(flops, float) / NODE
    taken = np.asarray(seconds, float)
    errors = []
    for left_out in range(len(work)):
        others = np.arange(len(work)) != left_out
        fixed, per_flop = _fit(work[others], taken[others])
        errors.append(abs(float((fixed + per_flop * work[left_out]) / taken[left_out]) - 1.0))
    fixed, per_flop = _fit(work, taken)
    return StepModel(fixed, 1.0 / per_flop, max(errors))


def _fit(work: np.ndarray, taken: np.ndarray) -> tuple[float, float]:
    """Least squares of the relative error, so that a short step counts as much as a long one."""
    columns = np.stack([1.0 / taken, work / taken], axis=1)
    (fixed, per_flop), *_ = np.linalg.lstsq(columns, np.ones(len(taken)), rcond=None)
    return float(fixed), float(per_flop)
