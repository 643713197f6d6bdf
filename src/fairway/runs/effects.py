"""What each change of a recipe did to each stage's score: a ledger of all that was tried.

A run is matched with the one of the same seed from which it differs in exactly one setting. What
two of them may say depends on what they shared: as many steps, or as many seconds on one machine. A
change that makes steps slower can win the one and lose the other.

Whoever tries many things finds some that look good. So every change is counted, p values are Holm's
over all of them (Scand. J. Statist. 6, 1979), and beside the best there stands what the best of so
many changes without any effect would look like.
"""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from statistics import fmean, median, variance
from typing import Any, Literal, NamedTuple

from fairway.recipes.diff import ABSENT, diff
from fairway.runs.groups import Group, group_runs, short
from fairway.runs.record import RunRecord
from fairway.runtime.strict_json import JsonObject

Equal = Literal["steps", "seconds", "neither"]
SCORE = "score"  # the stage that counts, by whatever means it was reached
STAGES = ("float", "quantized", "sliding", SCORE)
FEWEST_FOR_MEDIAN = 5  # changes
OUTLIER = 0.05  # odds that any change of equal spread is judged by its own


@dataclass(frozen=True, kw_only=True)
class StageEffect:
    """Of a change on one stage, in bits per byte; negative is better.

    differences     of each pair of runs
    standard_error  of their mean; None where no pair of the ledger has a second one
    margin          to each side, within which the effect lies with odds of 95 %; as above
    p               two-sided, of a change without effect
    p_holm          the same, for all that was tried
    """

    differences: tuple[float, ...]
    standard_error: float | None = None
    margin: float | None = None
    p: float | None = None
    p_holm: float | None = None

    @property
    def mean(self) -> float:
        return fmean(self.differences)

    @property
    def variance(self) -> float | None:
        """Of the sample; None of a single pair."""
        return variance(self.differences) if len(self.differences) > 1 else None


@dataclass(frozen=True, kw_only=True)
class Effect:
    """One setting changed, all else alike.

    old, new     values as JSON has them; `ABSENT` where a setting is not there
    equal        what the pairs shared: steps, seconds on one machine, or neither
    seeds        of the pairs; one comes twice where the change was tried on two backgrounds
    backgrounds  recipes on which it was tried
    stages       by name, as far as both runs of every pair have them
    step_time    seconds of a training step, new over old: the mean of all pairs
    num_bytes    bytes of the artifact, new less old: the mean; None where there are none
    """

    recipe: str
    path: str
    old: object
    new: object
    equal: Equal
    seeds: tuple[int, ...]
    backgrounds: int
    stages: dict[str, StageEffect] = field(default_factory=dict)
    step_time: float
    num_bytes: float | None = None

    @property
    def name(self) -> str:
        return f"{self.path} {short(self.old)} → {short(self.new)}"

    def to_json(self) -> JsonObject:
        about: dict[str, Any] = {
            "recipe": self.recipe,
            "setting": self.path,
            "old": _plain(self.old),
            "new": _plain(self.new),
            "equal": self.equal,
            "seeds": list(self.seeds),
            "backgrounds": self.backgrounds,
            "step_time": self.step_time,
            "num_bytes": self.num_bytes,
        }
        stages = {
            name: {
                "bits_per_byte": stage.mean,
                "standard_error": stage.standard_error,
                "margin": stage.margin,
                "p": stage.p,
                "p_holm": stage.p_holm,
            }
            for name, stage in self.stages.items()
        }
        return {**about, "stages": stages}


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """All changes that the runs can tell of, best first within what they held equal.

    num_runs   with a score
    unmatched  groups of runs that differ from every other in more than one setting
    luck       by what was equal, bits per byte of score by which the best of as many changes
               without effect would seem better; None where that is unknown
    """

    effects: tuple[Effect, ...]
    num_runs: int
    unmatched: tuple[str, ...]
    luck: Mapping[Equal, float | None]

    @property
    def tried(self) -> int:
        """Changes that were tried, those that cannot be told apart included."""
        return len(self.effects) + len(self.unmatched)

    def to_json(self) -> JsonObject:
        return {
            "tried": self.tried,
            "runs": self.num_runs,
            "unmatched": list(self.unmatched),
            "luck_bits_per_byte": {str(equal): bits for equal, bits in self.luck.items()},
            "effects": [effect.to_json() for effect in self.effects],
        }


class _Pair(NamedTuple):
    """Two groups that differ in one setting, the one with the usual value first."""

    path: str
    old: object
    new: object
    base: Group
    other: Group


def ledger(records: Sequence[RunRecord]) -> Ledger:
    """The effects that these runs can tell of.

    Which of two values is the old one: the one that more of the runs have; the earlier at a tie.
    """
    groups = group_runs(records)
    pairs = _pairs(groups)
    effects, matched = [], set()
    for held in _by_change(pairs):
        effect = _effect(held)
        if effect is not None:
            effects.append(effect)
            matched |= {id(group) for pair in held for group in (pair.base, pair.other)}
    effects = _with_odds(effects)
    unmatched = tuple(group.name for group in groups if id(group) not in matched)
    kinds: dict[Equal, int] = {"steps": 0, "seconds": 1, "neither": 2}
    effects.sort(key=lambda e: (e.recipe, kinds[e.equal], e.stages[SCORE].mean))
    return Ledger(
        effects=tuple(effects),
        num_runs=sum(len(group.records) for group in groups),
        unmatched=unmatched if len(groups) > 1 else (),
        luck={
            equal: _luck([e.stages[SCORE] for e in effects if e.equal == equal])
            for equal in kinds
            if any(e.equal == equal for e in effects)
        },
    )


def _pairs(groups: Sequence[Group]) -> list[_Pair]:
    """Groups that differ in exactly one setting, were scored on one text, and of which one has the
    usual value."""
    parts = [
        {name: json.dumps(value, sort_keys=True) for name, value in g.records[0].experiment.items()}
        for g in groups
    ]
    found = []
    for i, j in combinations(range(len(groups)), 2):
        names = parts[i].keys() | parts[j].keys()
        if sum(parts[i].get(name) != parts[j].get(name) for name in names) != 1:
            continue
        differences = diff(groups[i].records[0].experiment, groups[j].records[0].experiment)
        if len(differences) == 1 and differences[0].path != "validation text":
            path, old, new = differences[0]
            found.append(_Pair(path, old, new, groups[i], groups[j]))
    usual = _usual_values(groups, {pair.path for pair in found})
    turned = [
        pair if _key(pair.old) == usual[pair.path] else _Pair(pair.path, *_swapped(pair))
        for pair in found
    ]
    return [pair for pair in turned if _key(pair.old) == usual[pair.path]]


def _swapped(pair: _Pair) -> tuple[object, object, Group, Group]:
    return pair.new, pair.old, pair.other, pair.base


def _usual_values(groups: Sequence[Group], paths: set[str]) -> dict[str, str]:
    """For each setting the value that most runs have; groups come in the order of their runs."""
    found: dict[str, str] = {}
    for path in paths:
        counts: Counter[str] = Counter()
        for group in groups:
            counts[_key(_at(group.records[0].experiment, path))] += len(group.records)
        found[path] = counts.most_common(1)[0][0]  # the first of those with the highest count
    return found


def _at(value: Any, path: str) -> object:
    for name in path.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return ABSENT
        value = value[name]
    return value


def _key(value: object) -> str:
    return json.dumps(_plain(value), sort_keys=True)


def _plain(value: object) -> Any:
    return "absent" if value is ABSENT else value


def _by_change(pairs: Sequence[_Pair]) -> list[list[_Pair]]:
    """Pairs of one recipe, change, and what they held equal."""
    found: dict[tuple[str, ...], list[_Pair]] = defaultdict(list)
    for pair in pairs:
        recipe = pair.base.records[0].result.recipe
        found[recipe, pair.path, _key(pair.old), _key(pair.new), _equal(pair)].append(pair)
    return list(found.values())


def _equal(pair: _Pair) -> Equal:
    base, other = (g.records[0].settings["train"] for g in (pair.base, pair.other))
    assert isinstance(base, Mapping)
    assert isinstance(other, Mapping)
    if base.get("steps") is not None and base.get("steps") == other.get("steps"):
        return "steps"
    if base.get("seconds") is not None and base.get("seconds") == other.get("seconds"):
        return "seconds"
    return "neither"


def _effect(pairs: Sequence[_Pair]) -> Effect | None:
    """None where no two runs are of one seed, or no two of one machine where seconds are equal."""
    first, equal = pairs[0], _equal(pairs[0])
    matched = [
        (by_seed[record.seed], record)
        for pair in pairs
        for by_seed in [{r.seed: r for r in pair.base.records}]
        for record in {r.seed: r for r in pair.other.records}.values()
        if record.seed in by_seed
        and (equal != "seconds" or record.machine == by_seed[record.seed].machine)
    ]
    if not matched:
        return None
    stages = {}
    for stage in STAGES:
        scores = [(_bits(a, stage), _bits(b, stage)) for a, b in matched]
        differences = [b - a for a, b in scores if a is not None and b is not None]
        if len(differences) == len(matched):
            stages[stage] = StageEffect(differences=tuple(differences))
    sizes = [(a.result.artifact, b.result.artifact) for a, b in matched]
    grown = [b.bytes_total - a.bytes_total for a, b in sizes if a is not None and b is not None]
    return Effect(
        recipe=first.base.records[0].result.recipe,
        path=first.path,
        old=first.old,
        new=first.new,
        equal=equal,
        seeds=tuple(b.seed for _, b in matched),
        backgrounds=len(pairs),
        stages=stages,
        step_time=fmean(_step_seconds(b) / _step_seconds(a) for a, b in matched),
        num_bytes=fmean(grown) if grown else None,
    )


def _bits(record: RunRecord, stage: str) -> float | None:
    score, found = record.result.score, record.result.stages.get(stage)
    if stage == SCORE:
        return score.bits_per_byte if score else None
    return found.bits_per_byte if found else None


def _step_seconds(record: RunRecord) -> float:
    train = record.result.train
    return max(train.seconds, 1e-9) / max(train.steps, 1)


def _with_odds(effects: Sequence[Effect]) -> list[Effect]:
    """Standard errors and p values of every stage.

    The spread of a difference from seed to seed is taken to be one for all changes of a recipe that
    held the same equal: with two or three seeds each, no change could tell its own.
    """
    found = list(effects)
    for stage in STAGES:
        families: dict[tuple[str, Equal], list[int]] = defaultdict(list)
        for i, effect in enumerate(found):
            if stage in effect.stages:
                families[effect.recipe, effect.equal].append(i)
        for family in families.values():
            odds = judged([found[i].stages[stage] for i in family])
            for i, stage_effect in zip(family, odds, strict=True):
                stages = {**found[i].stages, stage: stage_effect}
                found[i] = replace(found[i], stages=stages)
        tested = [i for i, effect in enumerate(found) if _has_p(effect, stage)]
        corrected = holm([found[i].stages[stage].p or 0.0 for i in tested])
        for i, p in zip(tested, corrected, strict=True):
            stages = {**found[i].stages, stage: replace(found[i].stages[stage], p_holm=p)}
            found[i] = replace(found[i], stages=stages)
    return found


def _has_p(effect: Effect, stage: str) -> bool:
    return stage in effect.stages and effect.stages[stage].p is not None


def judged(effects: Sequence[StageEffect]) -> list[StageEffect]:
    """With the standard error and p value of each, from the spread of all.

    A change that varies from seed to seed clearly more than the rest is judged by its own spread.
    """
    from scipy.stats import chi2, t  # a second that other commands should not pay

    pooled = _spread(effects)
    if pooled is None:
        return list(effects)
    found = []
    for effect in effects:
        spread, freedom = pooled
        own, number = effect.variance, len(effect.differences)
        limit = float(chi2.isf(OUTLIER / len(effects), max(1, number - 1)))
        if own is not None and own * (number - 1) > limit * spread**2:
            spread, freedom = math.sqrt(own), number - 1
        error = spread / math.sqrt(number)
        p = 2 * float(t.sf(abs(effect.mean) / error, freedom))
        margin = error * float(t.isf(0.025, freedom))
        found.append(replace(effect, standard_error=error, margin=margin, p=p))
    return found


def _spread(effects: Sequence[StageEffect]) -> tuple[float, float] | None:
    """Standard deviation of a difference from seed to seed, and its degrees of freedom.

    Of few changes the mean of their variances; of more the median, each over what a sample of its
    size has in the median, so that one change gone wild does not hide the others. A median tells
    half as much.
    """
    from scipy.stats import chi2

    held = [(e.variance, len(e.differences) - 1) for e in effects]
    known = [(variance, freedom) for variance, freedom in held if variance is not None]
    total = sum(freedom for _, freedom in known)
    if not total or not any(variance for variance, _ in known):
        return None
    if len(known) < FEWEST_FOR_MEDIAN:
        return math.sqrt(sum(v * freedom for v, freedom in known) / total), total
    middle = median(v * freedom / float(chi2.median(freedom)) for v, freedom in known)
    return (math.sqrt(middle), total / 2) if middle else None


def holm(p_values: Sequence[float]) -> list[float]:
    """Each for all that was tested: the least level at which Holm's procedure rejects it.

    >>> holm([0.01, 0.04, 0.02])
    [0.03, 0.04, 0.04]
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    found, highest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        found[i] = highest
    return found


def _luck(effects: Sequence[StageEffect]) -> float | None:
    """Bits per byte by which the luckiest of so many changes without effect would seem better: the
    median of the smallest of as many normal deviates."""
    from scipy.stats import norm

    errors = [e.standard_error for e in effects if e.standard_error is not None]
    if not errors:
        return None
    return float(norm.isf(1 - 0.5 ** (1 / len(errors)))) * median(errors)
