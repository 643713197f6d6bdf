"""Do the prices of all alternatives at one position add up to one?

A black box prices only the token that stands there, so the token is replaced by every other one
and the whole stream is priced again: V calls for one position. Positions are therefore few and
chosen to differ: late and early, behind phrases seen before (where caches speak) with rare and with
frequent continuations, behind document marks, cheap and dear. Each of those calls also says whether
an earlier price moved, which `causality.Watch` notes.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fairway.audit.causality import Watch
from fairway.audit.causality import classify as causality_kinds
from fairway.audit.findings import Finding, ProbeResult
from fairway.audit.repeats import SAFETY
from fairway.audit.scorer import Session
from fairway.audit.stream import BOS, Edit, context_matches

TOLERANCE = 1e-4
ENOUGH_FAULTS = 5  # positions at fault after which no more are tried


@dataclass(frozen=True)
class Mass:
    """The probabilities of the alternatives at one position.

    position       entry of the prices; the token replaced is position + 1
    probabilities  (V,) exp(-price), NaN where the alternative has not been priced
    tolerance      how far from one the sum may lie: 1e-4, or the scorer's own rounding
    unpriced       alternatives for which the scorer gave no number
    """

    position: int
    probabilities: np.ndarray
    tolerance: float
    unpriced: tuple[int, ...]
    problem: str

    @property
    def total(self) -> float:
        return float(np.nansum(self.probabilities))

    @property
    def whole(self) -> bool:
        return not np.isnan(self.probabilities).any()

    @property
    def faulty(self) -> bool:
        if self.unpriced:
            return True
        excess = self.total - 1.0
        return (abs(excess) if self.whole else excess) > self.tolerance


def choose_positions(tokens: np.ndarray, nats: np.ndarray, seed: int) -> list[int]:
    """Every price worth adding up, the most telling first; kinds of places take turns.

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
    by_price = np.argsort(np.nan_to_num(nats[:m], nan=0.0), kind="stable")
    takers = [
        iter([m - 1, 0, m // 2]),
        hinted(np.lexsort((jitter, -length, rarity))),
        hinted(np.lexsort((jitter, -length, -rarity))),
        hinted(np.lexsort((jitter, -hint))),
        (int(i) for i in rng.permutation(m)),
        (int(i) for i in by_price),
        (int(i) for i in rng.permutation(np.arange(3 * m // 4, m))),
        (int(i) for i in by_price[::-1]),
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


def measure(
    session: Session, watch: Watch, position: int, alternatives: np.ndarray, call_seconds: float
) -> Mass:
    """Price `alternatives` at one position, the realized token from the unedited call."""
    probabilities = np.full(watch.vocab_size, np.nan)
    unpriced: list[int] = []
    problem = ""
    edited, edit = watch.tokens.copy(), Edit(position + 1, position + 2, "uniform")
    realized = int(watch.tokens[position + 1])
    for token in alternatives.tolist():
        if token == realized:
            price = float(watch.nats[position])
        elif session.spent(call_seconds):
            break
        else:
            edited[position + 1] = token
            answer = session.call(edited)
            if answer.nats is None or answer.nats.size <= position:
                unpriced.append(token)
                problem = answer.problem or f"only {answer.shape} prices"
                continue
            watch.note(session, edit, edited, answer.nats)
            price = float(answer.nats[position])
        if math.isnan(price):
            unpriced.append(token)
            problem = "its price is NaN"
        else:
            probabilities[token] = math.exp(-max(price, -700.0))
    # Rounding errors of single prices are independent, so their squares add up.
    known = probabilities[~np.isnan(probabilities)]
    with np.errstate(divide="ignore", invalid="ignore"):
        prices = np.where(known > 0, -np.log(known), 0.0)
    errors = known * (watch.noise.floor + watch.noise.relative * np.abs(prices))
    rounding = SAFETY * float(np.sqrt(np.square(errors).sum()))
    tolerance = max(TOLERANCE, rounding) if math.isfinite(rounding) else math.inf
    return Mass(position, probabilities, tolerance, tuple(unpriced), problem)


def probe_normalization(
    session: Session,
    watch: Watch,
    num_positions: int,
    num_alternatives: int,
    call_seconds: float,
    seed: int,
) -> ProbeResult:
    """Add up the distribution at some positions, over the likeliest alternatives or all."""
    masses: list[Mass] = []
    gaps: list[str] = []
    hint = context_matches(watch.tokens)[1]
    order = choose_positions(watch.tokens, watch.nats, seed)[:num_positions]
    for number, position in enumerate(order):
        if session.spent(call_seconds):
            gaps.append(f"{len(order) - number:,} of {len(order):,} positions")
            break
        tokens = alternatives_in_order(
            watch.tokens, position, int(hint[position]), watch.vocab_size
        )
        masses.append(measure(session, watch, position, tokens[:num_alternatives], call_seconds))
        if sum(mass.faulty for mass in masses) >= ENOUGH_FAULTS:
            break
    faulty = [mass for mass in masses if mass.faulty]
    whole = [mass for mass in masses if mass.whole]
    if len(whole) < len(masses) and not faulty:
        tried = max((int((~np.isnan(k.probabilities)).sum()) for k in masses), default=0)
        gaps.append(
            f"the whole sum at {len(masses) - len(whole):,} of {len(masses):,} positions (up to "
            f"{tried:,} of {watch.vocab_size:,} alternatives priced); more --seconds add them up"
        )
    finding = describe(watch, masses) if faulty else None
    worst = max(masses, key=lambda k: abs(k.total - 1) if k.whole else k.total, default=None)
    if worst is None:
        summary = "no position tried"
    else:
        kind = "sum" if worst.whole else "partial sum"
        summary = (
            f"{len(whole):,} whole distributions; the {kind} furthest from one is "
            f"{worst.total:.7g}, at token {worst.position + 1}"
        )
    details = {
        "positions": len(masses),
        "whole": len(whole),
        "faulty": len(faulty),
        "largest_error": max((abs(k.total - 1) for k in whole), default=None),
        "tolerance": max((k.tolerance for k in masses), default=TOLERANCE),
    }
    findings = () if finding is None else (finding,)
    return ProbeResult("normalization", finding is None, summary, findings, tuple(gaps), details)


def describe(watch: Watch, masses: list[Mass]) -> Finding:
    """One finding for all positions at fault, told on the worst of them."""
    faulty = [mass for mass in masses if mass.faulty]
    whole = [mass for mass in masses if mass.whole]
    crashed = [mass for mass in faulty if mass.unpriced]
    if crashed and len(crashed) == len(faulty):
        mass = crashed[0]
        said = (
            f"at token {mass.position + 1}, {len(mass.unpriced):,} of {watch.vocab_size:,} "
            f"alternatives have no price (token id {mass.unpriced[0]}: {mass.problem}): a "
            "distribution prices every token before it knows which one came"
        )
        return Finding(said, ("C2",))
    mass = max(faulty, key=lambda k: abs(k.total - 1))
    part = "all" if mass.whole else f"{int((~np.isnan(mass.probabilities)).sum()):,} of the"
    kinds, because = classify(faulty, whole)
    if watch.leaks:  # an A-fault prices each token by a model fitted to that token
        kinds, because = causality_kinds(watch, False)[0], "the token itself took part in its price"
    place = mass.position + 1
    said = (
        f"at token {place} the probabilities of {part} {watch.vocab_size:,} alternatives add up "
        f"to {mass.total:.6g} instead of 1: {because} ({len(faulty):,} of {len(masses):,} "
        "positions tried)"
    )
    check = (
        f"import numpy as np\ntotal = 0.0\nfor token in range({watch.vocab_size}):\n"
        f"    edited = tokens.copy(); edited[{place}] = token\n"
        f"    total += np.exp(-score(edited)[{place - 1}])\ntotal  # should be 1.0"
    )
    return Finding(said, kinds, check)


def classify(faulty: list[Mass], whole: list[Mass]) -> tuple[tuple[str, ...], str]:
    """What kind of improper score has sums like these."""
    totals = np.array([mass.total for mass in faulty])
    proper = len(whole) - sum(mass.whole for mass in faulty)
    one_token = "one token is raised and the others are not lowered as much"
    if proper > 2 * len(faulty) or _one_boost(faulty):
        return ("B5", "B3", "C-a"), one_token
    if totals.max() > 2.0:
        return (
            ("B1", "B4", "A7"),
            "every token is priced as if it were expected, so no distribution stands behind",
        )
    same = len(totals) >= 3 and np.ptp(totals) < 0.02 * abs(totals.mean() - 1)
    if same and not proper:
        return ("B5",), "the normalizer is off by the same factor everywhere"
    if totals.min() < 1.0:
        return ("B5", "C-a", "B2"), "the normalizer is not that of the distribution"
    return (
        ("B3", "C-a", "B2", "B4", "B5"),
        "how a token is priced is decided after seeing which token it is",
    )


def _one_boost(faulty: list[Mass]) -> bool:
    """Whether one factor on one token per position explains all the sums.

    A tilt without normalizer has p(hint) * boost in place of p(hint); then
    (1 - the others' sum) / q(hint) is 1 / boost at every position.
    """
    shrinks: list[set[int]] = []
    for mass in faulty:
        if not mass.whole:
            return False
        q = mass.probabilities
        top = np.argsort(-q)[:40]
        fits = (1.0 - (mass.total - q[top])) / np.maximum(q[top], 1e-12)
        shrinks.append({round(200 * math.log(f)) for f in fits if 0 < f < 0.9})
    near = [{k + d for k in ks for d in (-1, 0, 1)} for ks in shrinks]
    return len(near) >= 3 and bool(set.intersection(*near))
