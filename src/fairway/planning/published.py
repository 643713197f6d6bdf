"""Step times of published runs on 8 x H100, and what they say of a step that nobody has timed.

A step takes what its arithmetic takes, and a part that does not depend on it: launches, the
optimizer, communication. Both are fitted to the published steps; how well that does for a run that
the fit has not seen (each left out in turn) is the error that is stated with every figure.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NODE = 8  # GPUs of a published run


@dataclass(frozen=True)
class PublishedStep:
    """Of one pull request's log: milliseconds of a step, mean over the run, on 8 x H100."""

    recipe: str
    milliseconds: float


STEPS = (
    PublishedStep("naive_baseline", 43.54),
    PublishedStep("sota254", 82.3),
    PublishedStep("pr414", 84.56),
    PublishedStep("pr1394", 117.8),
    PublishedStep("pr1413", 115.7),
    PublishedStep("pr1493", 129.2),
    PublishedStep("pr1855", 121.7),
    PublishedStep("pr1953", 121.6),
    PublishedStep("pr2135", 120.1),
)

# Dense bf16 peak in TFLOP/s, from the vendor's data sheets; only the first was ever run on 8 of.
GPUS = {"H100": 989.0, "H200": 989.0, "A100": 312.0, "B200": 2250.0}
DOLLARS = 22.0 / NODE  # for an hour of one H100, the middle of what the field's people paid


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
