"""Do the probabilities of all alternatives at one position add up to one?

A black box scores only the token that stands there, so the token is replaced by every other one and
the whole stream is scored again: V calls for one position. Positions are therefore few and chosen
to differ: late and early, behind phrases seen before (where caches speak) with rare and with
frequent continuations, behind document marks, cheap and dear. Each of those calls also says whether
earlier nats moved, which `case.comparison` keeps.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fairway.audit.case import Case
from fairway.audit.causality import leak_symptom
from fairway.audit.comparison import SAFETY, Noise
from fairway.audit.findings import LOOKS_LIKE, Finding, ProbeResult, found
from fairway.audit.stream import BOS, Edit, context_matches

TOLERANCE = 1e-4
ENOUGH_FAULTS = 5  # positions at fault after which no more are tried
LEAST_LOG_PROB = -700.0  # whose probability is still a float64


@dataclass(frozen=True)
class PositionSum:
    """The probabilities of the alternatives at one position.

    position       entry of the nats; the token replaced is position + 1
    probabilities  (V,) exp(-nats), NaN where the alternative has not been scored
    tolerance      how far from one the sum may lie: 1e-4, or the scorer's own rounding
    missing        alternatives for which the scorer gave no number, because of `problem`
    told           alternatives that are known not to stand there: document marks, where lengths of
                   documents are told; what they are given is not seen, so only an excess is a fault
    """

    position: int
    probabilities: np.ndarray
    tolerance: float
    missing: tuple[int, ...]
    problem: str
    told: int = 0

    @property
    def total(self) -> float:
        return float(np.nansum(self.probabilities))

    @property
    def scored(self) -> int:
        return int(np.count_nonzero(~np.isnan(self.probabilities)))

    @property
    def whole(self) -> bool:
        return self.scored == self.probabilities.size - self.told

    @property
    def faulty(self) -> bool:
        excess = self.total - 1.0
        if self.whole and not self.told:
            excess = abs(excess)
        return bool(self.missing) or excess > self.tolerance


def probe_normalization(case: Case) -> ProbeResult:
    """Add up the distribution at some positions, over the likeliest alternatives or all."""
    sums: list[PositionSum] = []
    gaps = list(case.not_covered)
    comparison, plan = case.in_order, case.plan
    tokens, told = comparison.tokens, comparison.order is not None
    hint = context_matches(tokens)[1]
    order = choose_positions(tokens, comparison.nats, case.seed)
    if told:
        order = [position for position in order if tokens[position + 1] != BOS]
    order = order[: plan.positions]
    for number, position in enumerate(order):
        if case.spent():
            gaps.append(f"{len(order) - number:,} of {len(order):,} positions")
            break
        likely = alternatives_in_order(tokens, position, int(hint[position]), case.vocab_size)
        likely = likely[likely != BOS] if told else likely
        sums.append(add_up(case, position, likely[: plan.alternatives]))
        if sum(at.faulty for at in sums) >= ENOUGH_FAULTS:
            break
    faulty, whole = [at for at in sums if at.faulty], [at for at in sums if at.whole]
    if len(whole) < len(sums) and not faulty:
        gaps.append(
            f"the whole sum at {len(sums) - len(whole):,} of {len(sums):,} positions (up to "
            f"{max(at.scored for at in sums):,} of {case.vocab_size:,} alternatives scored); more "
            "--seconds add them up"
        )
    summary = "no position tried"
    if sums:
        worst = max(
            sums, key=lambda at: abs(at.total - 1) if at.whole and not at.told else at.total
        )
        place = comparison.place(worst.position + 1)
        summary = (
            f"{len(whole):,} whole distributions; the {'largest ' if told else ''}"
            f"{'sum' if worst.whole else 'partial sum'}{'' if told else ' furthest from one'} "
            f"is {worst.total:.7g}, at token {place}"
        )
        summary += ", without document marks, which are told beforehand" if told else ""
    return found(
        "normalization",
        summary,
        [describe(case, sums)] if faulty else [],
        gaps,
        positions=len(sums),
        whole=len(whole),
        faulty=len(faulty),
        largest_error=max((abs(at.total - 1) for at in whole if not at.told), default=None),
        tolerance=max((at.tolerance for at in sums), default=TOLERANCE),
    )


def choose_positions(tokens: np.ndarray, nats: np.ndarray, seed: int) -> list[int]:
    """Every position worth adding up, the most telling first; kinds of places take turns.

    tokens (n,), nats (m,) with m <= n - 1; returns a permutation of 0..m - 1.
    """
    rng = np.random.default_rng([seed, len(tokens), 7])
    m = min(nats.size, len(tokens) - 1)
    length, hint = (values[:m] for values in context_matches(tokens))
    frequency = np.bincount(tokens, minlength=int(tokens.max()) + 1)

    def hinted(order: np.ndarray) -> Iterator[int]:
        """Places behind a known phrase, one for each continuation before any comes twice."""
        places = [int(i) for i in order if length[i] >= 2]
        seen: dict[int, int] = {}
        ranked = []
        for rank, i in enumerate(places):
            seen[int(hint[i])] = seen.get(int(hint[i]), 0) + 1
            ranked.append((seen[int(hint[i])], rank, i))
        return (i for _, _, i in sorted(ranked))

    rarity = np.where(hint >= 0, frequency[hint], 0)
    jitter = rng.random(m)
    marks = np.flatnonzero(tokens[1 : m + 1] == BOS)
    by_nats = np.argsort(np.nan_to_num(nats[:m], nan=0.0), kind="stable")
    takers = [
        iter([m - 1, 0, m // 2]),
        hinted(np.lexsort((jitter, -length, rarity))),
        hinted(np.lexsort((jitter, -length, -rarity))),
        hinted(np.lexsort((jitter, -hint))),
        (int(i) for i in rng.permutation(m)),
        (int(i) for i in by_nats),
        (int(i) for i in rng.permutation(np.arange(3 * m // 4, m))),
        (int(i) for i in by_nats[::-1]),
        (int(i) for i in np.concatenate([marks, marks + 1]) if i < m),
    ]
    chosen: dict[int, None] = {}
    while len(chosen) < m:
        for taker in takers:
            place = next((i for i in taker if i not in chosen), None)
            if place is not None:
                chosen[place] = None
    return list(chosen)


def alternatives_in_order(
    tokens: np.ndarray, position: int, hint: int, vocab_size: int
) -> np.ndarray:
    """All tokens, those that probably hold most of the mass first: a partial sum then says most."""
    frequency = np.bincount(tokens, minlength=vocab_size)[:vocab_size].astype(float)
    if hint >= 0:
        frequency[hint] = np.inf
    frequency[tokens[position + 1]] = np.inf
    return np.argsort(-frequency, kind="stable")


def add_up(case: Case, position: int, alternatives: np.ndarray) -> PositionSum:
    """Score `alternatives` at one position; the realized token was scored already."""
    comparison = case.in_order
    probabilities = np.full(case.vocab_size, np.nan)
    missing: list[int] = []
    problem = ""
    edited, edit = comparison.tokens.copy(), Edit(position + 1, position + 2, "uniform")
    realized = int(edited[position + 1])
    for token in alternatives.tolist():
        nats = comparison.nats
        if token != realized:
            if case.spent():
                break
            edited[position + 1] = token
            answer = case.score_in_order(edited)
            if answer.nats is None or answer.nats.size <= position:
                missing.append(token)
                problem = answer.problem or f"its nats are of shape {answer.shape}"
                continue
            nats = answer.nats
            comparison.check(edit, edited, nats)
        if np.isnan(nats[position]):
            missing.append(token)
            problem = "its nats are NaN"
        else:
            probabilities[token] = math.exp(max(-nats[position], LEAST_LOG_PROB))
    tolerance = max(TOLERANCE, _rounding(probabilities, comparison.noise))
    told = int(comparison.order is not None)
    return PositionSum(position, probabilities, tolerance, tuple(missing), problem, told)


def _rounding(probabilities: np.ndarray, noise: Noise) -> float:
    """How far rounding may carry a sum: errors of single terms are independent, so squares add."""
    known = probabilities[~np.isnan(probabilities)]
    with np.errstate(divide="ignore", invalid="ignore"):
        nats = np.where(known > 0, -np.log(known), 0.0)
    errors = known * (noise.floor + noise.relative * np.abs(nats))
    rounding = SAFETY * float(np.sqrt(np.square(errors).sum()))
    return rounding if math.isfinite(rounding) else math.inf


def describe(case: Case, sums: list[PositionSum]) -> Finding:
    """One finding for all positions at fault, shown on the worst of them."""
    faulty = [at for at in sums if at.faulty]
    if all(at.missing for at in faulty):
        at = faulty[0]
        place = case.in_order.place(at.position + 1)
        symptom = "a distribution scores every token before it knows which one came"
        said = (
            f"at token {place}, {len(at.missing):,} of {case.vocab_size:,} alternatives "
            f"have no nats (token id {at.missing[0]}: {at.problem}): {symptom}"
        )
        return Finding.of(symptom, said)
    at = max(faulty, key=lambda at: abs(at.total - 1))
    part = "all" if at.whole and not at.told else f"{at.scored:,} of the"
    because = symptom = sum_symptom(faulty, [at for at in sums if at.whole])
    if case.in_order.leaks:  # then each token was scored by a model fitted to that token
        symptom = leak_symptom(case.in_order, normalized=False)
        because = "the token itself took part in its score"
    place = case.in_order.place(at.position + 1)
    said = (
        f"at token {place} the probabilities of {part} {case.vocab_size:,} alternatives add up "
        f"to {at.total:.6g} instead of 1: {because} ({len(faulty):,} of {len(sums):,} "
        "positions tried)"
    )
    alternatives = f"range({case.vocab_size})"
    if at.told:
        alternatives = f"set({alternatives}) - {{{BOS}}}"
    check = (
        f"import numpy as np\ntotal = 0.0\nfor token in {alternatives}:\n"
        f"    edited = tokens.copy(); edited[{place}] = token\n"
        f"    total += np.exp(-score(edited)[{place - 1}])\ntotal  # should be 1.0"
    )
    return Finding(said, LOOKS_LIKE[symptom], check)


def sum_symptom(faulty: list[PositionSum], whole: list[PositionSum]) -> str:
    """What kind of improper score has sums like these: a symptom of `findings.LOOKS_LIKE`."""
    totals = np.array([at.total for at in faulty])
    proper = len(whole) - sum(at.whole for at in faulty)
    if proper > 2 * len(faulty) or _one_boost(faulty):
        return "one token is raised and the others are not lowered as much"
    if totals.max() > 2.0:
        return "every token is scored as if it were the expected one"
    if len(totals) >= 3 and np.ptp(totals) < 0.02 * abs(totals.mean() - 1) and not proper:
        return "the normalizer is off by the same factor everywhere"
    if totals.min() < 1.0:
        return "the normalizer is not that of the distribution"
    return "how a token is scored is decided after seeing it"


def _one_boost(faulty: list[PositionSum]) -> bool:
    """Whether one factor on one token per position explains all the sums.

    A tilt without normalizer has p(hint) * boost in place of p(hint); then
    (1 - the others' sum) / q(hint) is 1 / boost at every position.
    """
    shrinks: list[set[int]] = []
    for at in faulty:
        if not at.whole:
            return False
        q = at.probabilities
        top = np.argsort(-q)[:40]
        fits = (1.0 - (at.total - q[top])) / np.maximum(q[top], 1e-12)
        shrinks.append({round(200 * math.log(f)) for f in fits if 0 < f < 0.9})
    near = [{k + d for k in ks for d in (-1, 0, 1)} for ks in shrinks]
    return len(near) >= 3 and bool(set.intersection(*near))
