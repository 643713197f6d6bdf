"""The unedited stream: is every token scored, and is it scored the same when asked again?

`probe_coverage` asks for n - 1 finite, non-negative nats; `probe_determinism` makes the same call
again, later, and in a fresh process.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from fairway.audit.case import Case
from fairway.audit.comparison import differences, largest_difference
from fairway.audit.findings import Finding, ProbeResult, found
from fairway.audit.stream import Edit


def probe_coverage(case: Case) -> ProbeResult:
    """Are there n - 1 nats, all of them finite, none negative, and none given away?"""
    answer, wanted = case.answer, len(case.stream) - 1
    nats = answer.nats
    if nats is None:
        said = f"the scorer {answer.problem}; one number per target is needed ({wanted:,})"
        return found("coverage", "no nats", [Finding(said)], prices=0)
    findings, given = [], nats.size
    if given < wanted:
        missing = wanted - given
        tail = missing < 0.1 * wanted
        said = (
            f"{given:,} nats for {wanted:,} targets: {missing:,} tokens "
            f"({missing / wanted:.1%}) are not scored"
        )
        part = "the end of the text has no nats" if tail else "part of the text has no nats"
        findings.append(Finding.of(part, said))
    elif given > wanted:
        said = f"{given:,} nats for {wanted:,} targets: {given - wanted:,} too many"
        findings.append(Finding.of("too many nats", said))
    if not answer.dtype.startswith(("float", "bfloat", "list", "tuple")):
        findings.append(Finding(f"the nats are {answer.dtype}, so they are whole; return floats"))
    for name, bad, symptom in (
        ("NaN", np.isnan(nats), "nats that are no numbers"),
        ("infinite", np.isinf(nats), "nats that are no numbers"),
        ("negative (a probability above one)", nats < 0, "a probability above one"),
    ):
        if bad.any():
            first = int(np.flatnonzero(bad)[0])
            said = (
                f"{np.count_nonzero(bad):,} of {given:,} nats are {name}, the first at token "
                f"{first + 1} ({nats[first]:.6g})"
            )
            findings.append(Finding.of(symptom, said))
    findings += _given_away(case, nats[:wanted])
    summary = f"{given:,} nats for {wanted:,} targets" + ("" if findings else ", all finite")
    return found("coverage", summary, findings, prices=int(given), targets=int(wanted))


def _given_away(case: Case, nats: np.ndarray) -> list[Finding]:
    """Exactly zero nats are honest only if another token there would have cost something."""
    free = np.flatnonzero(nats == 0)
    if not free.size:
        return []
    sample = np.unique(free[np.linspace(0, free.size - 1, 8).astype(int)])
    places = [int(i) + 1 for i in sample if _always_free(case, int(i))]
    if not places:
        return []
    token, symptom = places[0], "nothing is scored there"
    said = (
        f"{free.size:,} tokens cost exactly 0 nats; at {len(places)} of {len(sample)} of those "
        f"tried (token {token} first) any other token is free too, so {symptom}"
    )
    check = (
        f"edited = tokens.copy(); edited[{token}] = 5  # any other token\n"
        f"score(tokens)[{token - 1}], score(edited)[{token - 1}]  # 0.0, 0.0"
    )
    return [Finding.of(symptom, said, check)]


def _always_free(case: Case, entry: int) -> bool:
    """Whether two other tokens in its place cost nothing either."""
    for seed in (0, 1):
        if case.session.spent(case.answer.seconds):
            return False  # nothing is said of what there is no time to ask
        edit = Edit(entry + 1, entry + 2, "uniform", seed)
        nats = case.score(edit.apply(case.stream, case.vocab_size))
        if nats is None or nats.size <= entry or nats[entry] != 0:
            return False
    return True


def probe_determinism(case: Case) -> ProbeResult:
    """The same call again, at the end of the audit, and in a process that was asked nothing yet."""
    session, seen, plain = case.session, case.seen, case.seen.plain
    noise = seen.noise()
    limit = max(case.tolerance, noise.threshold)
    findings = []
    if noise.floor > case.tolerance:
        findings.append(_unsteady(plain[1:], "repeating the same call changed"))
    first_gap = largest_difference(plain[0], plain[1]) if len(plain) > 1 else 0.0
    if first_gap > limit:
        findings.append(_unsteady(plain[:2], "the second call changed"))
    times = len(plain)
    if not findings and not session.spent(case.call_seconds):
        nats = case.score(seen.tokens)
        if nats is not None and largest_difference(seen.nats, nats) > limit:
            what = f"{session.calls:,} calls later the same call changed"
            findings.append(_unsteady([seen.nats, nats], what))
        times += 1
    pairs, gap = _fresh_process(case)
    fresh_gap = max((largest_difference(*pair) for pair in pairs), default=0.0)
    if fresh_gap > limit:
        worst = max(pairs, key=lambda pair: largest_difference(*pair))
        findings.append(_unsteady(worst, "a fresh process changed", in_order=False))
    summary = f"{times} equal calls, largest difference {max(noise.floor, first_gap):.3g} nats"
    if pairs:
        summary += f"; in a fresh process {fresh_gap:.3g}"
    return found(
        "determinism",
        summary,
        findings,
        [f"a fresh process ({gap})"] if gap else [],
        noise_nats=_finite(noise.floor),
        first_call_nats=_finite(first_gap),
        fresh_nats=_finite(fresh_gap) if pairs else None,
    )


def _fresh_process(case: Case) -> tuple[list[tuple[np.ndarray, np.ndarray]], str]:
    """Nats here and in a fresh process of the same streams, and why there are not two such pairs.

    The edited stream comes first: whoever remembers streams remembers the wrong one then.
    """
    session, seen = case.session, case.seen
    fresh = session.scorer.fresh()
    if fresh is None:
        return [], "the scorer is a function of this one; pass FILE.py:FUNCTION"
    try:
        if session.seconds_left() < case.load_seconds + 2 * case.call_seconds:
            return [], f"loading takes {case.load_seconds:.1f} s, more than is left"
        answers = [fresh.call(t, session.seconds_left()) for t in (seen.edited, seen.tokens)]
    finally:
        fresh.close()
    session.calls += 2
    here_and_there = zip((seen.on_edited, seen.nats), (a.nats for a in answers), strict=True)
    pairs = [(old, new) for old, new in here_and_there if old is not None and new is not None]
    problem = answers[0].problem or answers[1].problem or "no call"
    return pairs, "" if len(pairs) == 2 else problem


def _unsteady(calls: Sequence[np.ndarray], what: str, in_order: bool = True) -> Finding:
    """A finding on the worst of successive pairs; `in_order`: each call came after the other."""
    before, after = max(
        pairwise(calls), key=lambda pair: largest_difference(*pair), default=(calls[0],) * 2
    )
    symptom = "the result depends on more than the tokens"
    if before.size != after.size:
        said = f"{what} how many nats there are from {before.size:,} to {after.size:,}: {symptom}"
        return Finding.of(symptom, said)
    gap = differences(before, after)
    worst = int(gap.argmax())
    said = (
        f"{what} the nats of {np.count_nonzero(gap):,} of {gap.size:,} tokens, most of all token "
        f"{worst + 1}: from {before[worst]:.6g} to {after[worst]:.6g}"
    )
    sums = [float(np.nansum(call)) for call in calls]
    falling = all(later < earlier for earlier, later in pairwise(sums))
    if in_order and falling and sums[0] - sums[-1] > 1e-3 * abs(sums[0]):
        symptom = "it remembers what it read"
        said += f"; the total fell from {sums[0]:.6g} to {sums[-1]:.6g}"
    return Finding.of(symptom, f"{said}: {symptom}")


def _finite(value: float) -> float | None:
    """JSON knows no infinity."""
    return value if np.isfinite(value) else None


def length_note(case: Case) -> list[str]:
    """One sentence if the nats depend on how long the stream is; it is no fault.

    A learning rate that falls over the stream needs its length, which is announced beforehand.
    """
    nats, n = case.seen.nats, len(case.tokens)
    for keep in (2 * n // 3, n // 2):
        if case.session.spent(case.call_seconds):
            return []
        answer = case.session.call(case.tokens[:keep])
        if answer.nats is None:
            return [f"a stream of {keep:,} instead of {n:,} tokens is not scored: {answer.problem}"]
        both = min(answer.nats.size, keep - 1, nats.size)
        gap = differences(answer.nats[:both], nats[:both])
        moved = np.flatnonzero(gap > case.comparison.noise.moved_threshold)
        if moved.size:
            return [
                f"the nats depend on the length of the stream: with {keep:,} of {n:,} tokens those "
                f"of token {moved[0] + 1} are {gap[moved[0]]:.3g} off; a schedule over the stream "
                "does that, and it is legal"
            ]
    return []
