"""The unedited stream: is every token priced, and is it priced the same when asked again?

Two probes live here because they look at the same few calls: `coverage` (n - 1 finite,
non-negative prices) and `determinism` (the same call again, later, and in a fresh process). The
repetitions also measure the noise floor below which the other probes cannot see.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from fairway.audit.findings import Finding, ProbeResult
from fairway.audit.scorer import Answer, Session
from fairway.audit.stream import Edit

ROUNDING_NATS = 2e-5  # float32 arithmetic in another order stays below this
SAFETY = 4.0  # times the largest difference seen between equal calls


@dataclass(frozen=True)
class Noise:
    """How far two prices that should be equal may lie apart.

    floor     nats: the largest difference between repetitions of one call; 0 for most scorers
    relative  half a unit in the last place of the format the prices are rounded to
    """

    floor: float
    relative: float

    @property
    def threshold(self) -> float:
        """Nats above which a difference is a change. Exactly 0 for a scorer without noise."""
        return SAFETY * self.floor

    @property
    def moved_threshold(self) -> float:
        """The same when shapes differ too: they change the order, hence the rounding, of sums."""
        return max(self.threshold, ROUNDING_NATS)


def differences(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """|a - b|, where equal infinities and NaN beside NaN count as equal, and NaN alone as inf."""
    with np.errstate(invalid="ignore"):
        gap = np.abs(a - b)
    gap[(a == b) | (np.isnan(a) & np.isnan(b))] = 0.0
    gap[np.isnan(gap)] = np.inf
    return gap


def relative_rounding(nats: np.ndarray) -> float:
    """Half a unit in the last place of the coarsest float format that holds all prices exactly."""
    finite = nats[np.isfinite(nats)]
    as_single = finite.astype(np.float32)
    if not np.array_equal(as_single, finite):
        return 2.0**-53
    if not np.any(as_single.view(np.uint32) & 0xFFFF):
        return 2.0**-8  # bfloat16
    with np.errstate(over="ignore"):
        half = np.array_equal(finite.astype(np.float16), finite)
    return 2.0**-11 if half else 2.0**-24


@dataclass
class Repeats:
    """Calls on one stream (`plain`) and on one edit of it, in the order they were made."""

    tokens: np.ndarray
    edited: np.ndarray
    plain: list[np.ndarray]
    on_edited: np.ndarray | None = None

    @property
    def nats(self) -> np.ndarray:
        """The prices every other call is compared with."""
        return self.plain[-1]

    def noise(self) -> Noise:
        # The first call is left out: where it differs from the later ones that is state, and a
        # floor as high as what the state did would hide everything else.
        floor = 0.0
        for earlier, later in zip(self.plain[1:], self.plain[2:], strict=False):
            if earlier.size == later.size:
                floor = max(floor, float(differences(earlier, later).max(initial=0.0)))
        return Noise(floor, relative_rounding(self.nats))


def repeat(
    session: Session, tokens: np.ndarray, vocab_size: int, first: np.ndarray, repeats: int
) -> Repeats:
    """Price `tokens` again, and once with its second half replaced in between."""
    half = len(tokens) // 2
    edited = Edit(half, len(tokens), "uniform").apply(tokens, vocab_size)
    seen = Repeats(tokens, edited, [first])
    for number in range(repeats):
        if number == 1:
            seen.on_edited = session.call(edited).nats
        answer = session.call(tokens)
        if answer.nats is not None:
            seen.plain.append(answer.nats)
    while 0.0 < seen.noise().floor < np.inf and len(seen.plain) < 10:
        answer = session.call(tokens)
        if answer.nats is None:
            break
        seen.plain.append(answer.nats)
    return seen


def probe_coverage(
    session: Session, tokens: np.ndarray, vocab_size: int, answer: Answer
) -> ProbeResult:
    """Are there n - 1 prices, all of them finite, none negative, and none given away?"""
    wanted = len(tokens) - 1
    if answer.nats is None:
        said = f"the scorer {answer.problem}; one price per target is needed ({wanted:,})"
        return ProbeResult("coverage", False, "no prices", (Finding(said),), (), {"prices": 0})
    findings = []
    given = answer.nats.size
    if given < wanted:
        missing = wanted - given
        kinds = ("E7", "E6") if missing < 0.1 * wanted else ("E6", "E7")
        said = (
            f"{given:,} prices for {wanted:,} targets: {missing:,} tokens "
            f"({missing / wanted:.1%}) are not priced"
        )
        findings.append(Finding(said, kinds))
    elif given > wanted:
        said = f"{given:,} prices for {wanted:,} targets: {given - wanted:,} too many"
        findings.append(Finding(said, ("E8",)))
    if not answer.dtype.startswith(("float", "bfloat", "list", "tuple")):
        said = f"the prices are {answer.dtype}, so they are rounded to whole nats; return floats"
        findings.append(Finding(said))
    nats = answer.nats
    for name, bad in (
        ("NaN", np.isnan(nats)),
        ("infinite", np.isinf(nats)),
        ("negative (a probability above one)", nats < 0),
    ):
        if bad.any():
            where = np.flatnonzero(bad)
            said = (
                f"{where.size:,} of {given:,} prices are {name}, the first at token "
                f"{where[0] + 1} ({nats[where[0]]:.6g} nats)"
            )
            findings.append(Finding(said, ("C2",) if name.startswith("neg") else ()))
    findings += _given_away(session, tokens, vocab_size, nats[:wanted])
    summary = f"{given:,} prices for {wanted:,} targets" + ("" if findings else ", all finite")
    details = {"prices": int(given), "targets": int(wanted)}
    return ProbeResult("coverage", not findings, summary, tuple(findings), (), details)


def _given_away(
    session: Session, tokens: np.ndarray, vocab_size: int, nats: np.ndarray
) -> list[Finding]:
    """Prices of exactly zero are honest only if another token there would have cost something."""
    free = np.flatnonzero(nats == 0)
    if not free.size:
        return []
    sample = np.unique(free[np.linspace(0, free.size - 1, 8).astype(int)])
    unpriced = []
    for i in sample:
        for seed in (0, 1):
            edited = Edit(int(i) + 1, int(i) + 2, "uniform", seed).apply(tokens, vocab_size)
            answer = session.call(edited)
            if answer.nats is None or answer.nats.size <= i or answer.nats[i] != 0:
                break
        else:
            unpriced.append(int(i) + 1)
    if not unpriced:
        return []
    said = (
        f"{free.size:,} prices are exactly 0 nats; at {len(unpriced)} of {len(sample)} of those "
        f"tried (token {unpriced[0]} first) any other token is free too, so nothing is priced there"
    )
    return [Finding(said, ("E6", "B1"), _zero_check(unpriced[0]))]


def _zero_check(token: int) -> str:
    return (
        f"edited = tokens.copy(); edited[{token}] = 5  # any other token\n"
        f"score(tokens)[{token - 1}], score(edited)[{token - 1}]  # 0.0, 0.0"
    )


def probe_determinism(
    session: Session, seen: Repeats, load_seconds: float, call_seconds: float
) -> ProbeResult:
    """The same call again, at the end of the audit, and in a process that was asked nothing yet."""
    noise = seen.noise()
    limit = max(ROUNDING_NATS, noise.threshold)
    findings = []
    if noise.floor > ROUNDING_NATS:
        findings.append(_unsteady(seen.plain[1:], "repeating the same call changed"))
    first_gap = _gap(seen.plain[0], seen.plain[1]) if len(seen.plain) > 1 else 0.0
    if first_gap > limit:
        findings.append(_unsteady(seen.plain[:2], "the second call changed"))
    times = len(seen.plain)
    if not findings and not session.spent(call_seconds):
        answer = session.call(seen.tokens)
        if answer.nats is not None and _gap(seen.nats, answer.nats) > limit:
            pair = [seen.nats, answer.nats]
            findings.append(_unsteady(pair, f"{session.calls:,} calls later the same call changed"))
        times += 1

    fresh = session.scorer.fresh()
    gaps: list[str] = []
    fresh_gap = None
    if fresh is None:
        gaps.append("a fresh process (the scorer is a function of this one; pass FILE.py:FUNCTION)")
    elif session.seconds_left() < load_seconds + 2 * call_seconds:
        gaps.append(f"a fresh process (loading takes {load_seconds:.1f} s, more than is left)")
        fresh.close()
    else:
        # The edited stream first: whoever remembers streams remembers the wrong one now.
        answers = [fresh.call(t, session.seconds_left()) for t in (seen.edited, seen.tokens)]
        session.calls += 2
        fresh.close()
        pairs = list(zip((seen.on_edited, seen.nats), (a.nats for a in answers), strict=True))
        known = [(old, new) for old, new in pairs if old is not None and new is not None]
        if len(known) < 2:
            gaps.append(
                f"a fresh process ({answers[0].problem or answers[1].problem or 'no call'})"
            )
        fresh_gap = max((_gap(old, new) for old, new in known), default=0.0)
        if fresh_gap > limit:
            worst = max(known, key=lambda pair: _gap(*pair))
            findings.append(_unsteady(list(worst), "a fresh process changed", in_order=False))
    summary = f"{times} equal calls, largest difference {max(noise.floor, first_gap):.3g} nats"
    if fresh_gap is not None:
        summary += f"; in a fresh process {fresh_gap:.3g}"
    details = {"noise_nats": noise.floor, "first_call_nats": first_gap, "fresh_nats": fresh_gap}
    return ProbeResult(
        "determinism", not findings, summary, tuple(findings), tuple(gaps), _finite(details)
    )


def _gap(a: np.ndarray, b: np.ndarray) -> float:
    return float(differences(a, b).max(initial=0.0)) if a.size == b.size else np.inf


def _unsteady(calls: Sequence[np.ndarray], what: str, in_order: bool = True) -> Finding:
    """A finding on the worst of successive pairs; `in_order`: each call came after the other."""
    before, after = max(pairwise(calls), key=lambda pair: _gap(*pair), default=(calls[0],) * 2)
    if before.size != after.size:
        said = f"{what} the number of prices from {before.size:,} to {after.size:,}"
        return Finding(said, ("C-e",))
    gap = differences(before, after)
    worst = int(gap.argmax())
    said = (
        f"{what} the prices of {np.count_nonzero(gap):,} of {gap.size:,} tokens, most of all token "
        f"{worst + 1}: from {before[worst]:.6g} to {after[worst]:.6g} nats"
    )
    sums = [float(np.nansum(call)) for call in calls]
    falling = all(later < earlier for earlier, later in pairwise(sums))
    if in_order and falling and sums[0] - sums[-1] > 1e-3 * abs(sums[0]):
        said += f"; the total fell from {sums[0]:.6g} to {sums[-1]:.6g}: it remembers what it read"
        return Finding(said, ("A4", "A3", "C-e"))
    return Finding(said + ": the result depends on more than the tokens", ("C-e",))


def _finite(details: dict[str, float | None]) -> dict[str, float | None]:
    """JSON knows no infinity."""
    return {k: v if v is None or np.isfinite(v) else None for k, v in details.items()}


def length_note(session: Session, seen: Repeats, noise: Noise, call_seconds: float) -> str | None:
    """A sentence if prices depend on how long the stream is; it is no fault.

    A learning rate that falls over the stream needs its length, which is announced beforehand.
    """
    n = len(seen.tokens)
    for keep in (2 * n // 3, n // 2):
        if session.spent(call_seconds):
            return None
        answer = session.call(seen.tokens[:keep])
        if answer.nats is None:
            return f"a stream of {keep:,} instead of {n:,} tokens is not priced: {answer.problem}"
        both = min(answer.nats.size, keep - 1, seen.nats.size)
        gap = differences(answer.nats[:both], seen.nats[:both])
        moved = np.flatnonzero(gap > noise.moved_threshold)
        if moved.size:
            return (
                f"prices depend on the length of the stream: with {keep:,} of {n:,} tokens the "
                f"price of token {moved[0] + 1} is {gap[moved[0]]:.3g} nats off; a schedule over "
                "the stream does that, and it is legal"
            )
    return None
