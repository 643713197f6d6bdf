"""Whether one recipe beats another by more than its seeds differ.

The field's rule: a new best must be lower by at least 0.005 nats per token, at p < 0.01. Nats per
token mean the same thing on both sides only with the same tokenizer, and bits per byte only on the
same text; where they do not, the comparison says so instead of giving a number.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from fairway.report.checks import NOT_RUN, count, fixed
from fairway.report.table import Grid
from fairway.result import RunResult, ScoreResult

THRESHOLD_NATS = 0.005  # per token
SIGNIFICANCE = 0.01


@dataclass(frozen=True)
class Group:
    """The runs of one recipe that have a score."""

    name: str
    seeds: tuple[int, ...]
    bits_per_byte: tuple[float, ...]
    nats_per_token: tuple[float, ...]
    texts: frozenset[tuple[int, int]]  # (bytes, tokens) of what was scored

    @property
    def num_bytes(self) -> frozenset[int]:
        return frozenset(num_bytes for num_bytes, _ in self.texts)


@dataclass(frozen=True)
class Comparison:
    """`other` against `base`, in nats per token; negative is better.

    p_differs   two-sided: how often seeds alone would differ as much
    p_beats     one-sided: how often an advantage of only the threshold would look like this
    problem     why there is nothing to test; the other fields are None then
    """

    base: str
    other: str
    difference: float | None = None
    p_differs: float | None = None
    p_beats: float | None = None
    problem: str = ""

    @property
    def sentence(self) -> str:
        if self.difference is None or self.p_differs is None or self.p_beats is None:
            return f"{self.other} against {self.base}: {self.problem}"
        less = "lower" if self.difference < 0 else "higher"
        said = (
            f"{self.other} is {abs(self.difference):.5f} nats per token {less} than {self.base} "
            f"(Welch's t-test: p = {_p(self.p_differs)})"
        )
        if self.p_beats < SIGNIFICANCE:
            return (
                f"{said}. It beats the field's threshold of {THRESHOLD_NATS} nats "
                f"at p = {_p(self.p_beats)} < {SIGNIFICANCE}."
            )
        return (
            f"{said}. It does not beat the field's threshold of {THRESHOLD_NATS} nats "
            f"at p < {SIGNIFICANCE}: p = {_p(self.p_beats)}."
        )


def group_runs(results: Sequence[RunResult]) -> list[Group]:
    """Runs by recipe, in order of appearance. Runs without a score are in no group."""
    by_name: dict[str, list[tuple[int, ScoreResult]]] = {}
    for result in results:
        if result.score is not None and result.score.tokens:
            by_name.setdefault(result.recipe, []).append((result.seed, result.score))
    return [
        Group(
            name,
            tuple(seed for seed, _ in members),
            tuple(score.bits_per_byte for _, score in members),
            tuple(score.nats / score.tokens for _, score in members),
            frozenset((score.bytes, score.tokens) for _, score in members),
        )
        for name, members in by_name.items()
    ]


def compare(base: Group, other: Group) -> Comparison:
    """Welch's t-test: the two sides may vary differently."""
    problem = _problem(base, other)
    if problem:
        return Comparison(base.name, other.name, problem=problem)
    ours, theirs = list(other.nats_per_token), list(base.nats_per_token)
    shifted = [nats + THRESHOLD_NATS for nats in ours]
    return Comparison(
        base.name,
        other.name,
        fmean(ours) - fmean(theirs),
        _welch(ours, theirs, "two-sided"),
        _welch(shifted, theirs, "less"),
    )


def _welch(ours: list[float], theirs: list[float], alternative: str) -> float:
    from scipy.stats import ttest_ind  # a second that a report of one run should not pay

    found: Any = ttest_ind(ours, theirs, equal_var=False, alternative=alternative)
    return float(found.pvalue)


def _problem(base: Group, other: Group) -> str:
    if len(base.num_bytes | other.num_bytes) > 1:
        sizes = ", ".join(f"{size:,}" for size in sorted(base.num_bytes | other.num_bytes))
        return f"not the same text ({sizes} bytes), so the scores cannot be compared"
    if len(base.texts | other.texts) > 1:
        tokens = ", ".join(f"{n:,}" for _, n in sorted(base.texts | other.texts))
        return (
            f"not the same tokenizer ({tokens} tokens), so nats per token cannot be compared; "
            f"bits per byte differ by "
            f"{fmean(other.bits_per_byte) - fmean(base.bits_per_byte):+.5f}"
        )
    fewest = min(len(base.seeds), len(other.seeds))
    if fewest < 2:
        return "needs two or more seeds on both sides for a test; the field asks for three"
    if len(set(base.nats_per_token)) == 1 and len(set(other.nats_per_token)) == 1:
        return "all seeds of a side have the same score, so there is no spread to test against"
    return ""


def group_grid(groups: Sequence[Group]) -> Grid:
    """Mean and sample standard deviation by recipe."""
    rows = [
        (
            group.name,
            ", ".join(str(seed) for seed in group.seeds),
            fixed(fmean(group.bits_per_byte), 5),
            _deviation(group.bits_per_byte),
            fixed(fmean(group.nats_per_token), 5),
            _deviation(group.nats_per_token),
        )
        for group in groups
    ]
    columns = ("recipe", "seeds", "bits per byte", "deviation", "nats per token", "deviation")
    best = min(range(len(groups)), key=lambda i: fmean(groups[i].bits_per_byte), default=None)
    return Grid("Recipes", columns, tuple(rows), strong=best if len(groups) > 1 else None)


def run_grid(results: Sequence[tuple[str, RunResult]]) -> Grid:
    """One line for each (folder name, result)."""
    rows = [
        (
            folder,
            result.recipe,
            str(result.seed),
            fixed(result.score.bits_per_byte if result.score else None, 5),
            count(result.artifact.bytes_total if result.artifact else None),
            fixed(result.train.seconds, 0),
            _proved(result),
            result.audit.verdict if result.audit else NOT_RUN,
        )
        for folder, result in results
    ]
    columns = ("run", "recipe", "seed", "bits per byte", "bytes", "train s", "proof", "audit")
    return Grid("Runs", columns, tuple(rows))


def _proved(result: RunResult) -> str:
    if result.proof is None:
        return NOT_RUN
    return "decodes" if result.proof.decoded_equal and result.proof.holds else "BROKEN"


def _deviation(values: Sequence[float]) -> str:
    return fixed(stdev(values), 5) if len(values) > 1 else "one seed"


def _p(value: float) -> str:
    """
    >>> _p(0.0321), _p(0.0000004), _p(float("nan"))
    ('0.0321', '4e-07', 'undefined')
    """
    if math.isnan(value):
        return "undefined"
    return f"{value:.4f}" if value >= 0.0001 else f"{value:.0e}"
