"""Do the nats of a token know text that comes after it?

The nats of token t (entry t - 1) may depend on tokens 0..t and on nothing else. So tokens from some
point on are replaced, in many places and manners, and every earlier entry must stay equal - equal,
not close, unless repeating an unchanged call already moves it. A second question is asked here:
does the scorer know the text without having read it (`stored_text`)?
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from fairway.audit.case import Case
from fairway.audit.comparison import Comparison
from fairway.audit.findings import Finding, ProbeResult, found
from fairway.audit.stream import MANNERS, MOVING_DOCUMENTS, Edit

AFTER_A_LEAK = 24  # further edits once something was found: enough to tell its kind


def probe_causality(case: Case) -> ProbeResult:
    """Replace later text at many cut points; every edit of the other probes counts too."""
    comparison, plan = case.comparison, case.plan
    edits = planned_edits(len(case.tokens), plan.edits, case.limits.cuts, case.seed)
    gaps = list(case.not_covered)
    if plan.edits < plan.edits_wanted:
        left_out = plan.edits_wanted - plan.edits
        gaps.append(f"{left_out:,} of {plan.edits_wanted:,} edits left out for want of time")
    tried = try_edits(comparison, edits, case.spent)
    if tried < len(edits):
        gaps.append(f"{len(edits) - tried:,} of {len(edits):,} edited streams")
    findings = [] if case.made_up else stored_text(case)
    normalized = case.result("normalization").ok  # and its edited streams are compared here
    return causality_result([comparison], normalized, findings, gaps)


def planned_edits(num_tokens: int, count: int, max_cuts: int, seed: int) -> list[Edit]:
    """Edits in the order of their worth: a plan cut short keeps the most telling ones."""
    n, rng = num_tokens, np.random.default_rng([seed, num_tokens])
    keeping = [manner for manner in MANNERS if manner not in MOVING_DOCUMENTS]
    far = [Edit(max(2, n - k), n, "uniform", s) for k in (1, 2, 8, 1 + n // 16) for s in (0, 1)]
    far += [Edit(n - 1, n, "uniform", s) for s in (2, 3)]
    extremes = [
        Edit(max(2, int(share * n)), n, manner)
        for share in (0.5, 0.1, 0.9, 0.02, 0.25, 0.75, 0.05)
        for manner in MANNERS
    ]
    places = rng.permutation(np.arange(2, n)).tolist()
    cuts = [Edit(c, n, keeping[i % len(keeping)], i) for i, c in enumerate(places[:max_cuts])]
    singles = [Edit(c, c + 1, "uniform", 1) for c in places[-40:]]
    moving = [
        Edit(c, n, manner, 1)
        for c in places[len(places) // 3 :][:20]
        for manner in MOVING_DOCUMENTS
    ]
    # Cut points come in portions between the others, so that any prefix of the plan has of all.
    head, tail = cuts[: len(cuts) // 4], cuts[len(cuts) // 4 :]
    return (far + extremes + head + singles + moving + tail)[:count]


def try_edits(
    comparison: Comparison, edits: Sequence[Edit], out_of_time: Callable[[], bool]
) -> int:
    """Try the edits, a few more after the first leak; returns how many there was time for."""
    stop = len(edits)
    for number, edit in enumerate(edits):
        if number >= stop:
            break
        if out_of_time():
            return number
        if comparison.try_edit(edit) and stop == len(edits):
            stop = number + 1 + AFTER_A_LEAK
    if comparison.leaks:
        _look_closer(comparison, out_of_time)
    return len(edits)


def _look_closer(comparison: Comparison, out_of_time: Callable[[], bool]) -> None:
    """Single tokens around what was found: they tell how far the leak reaches."""
    n = len(comparison.tokens)
    nearest = min(comparison.leaks, key=lambda leak: leak.last - leak.first)
    near = [nearest.first, nearest.worst + 2, nearest.worst + 3]
    spread = [n // 4, n // 2, 5 * n // 8, 3 * n // 4, 7 * n // 8, n - 1]
    for place in near + spread:
        for seed in range(3):
            if 2 <= place < n and not out_of_time():
                comparison.try_edit(Edit(place, place + 1, "uniform", seed))


def causality_result(
    comparisons: Sequence[Comparison],
    normalized: bool,
    others: Sequence[Finding] = (),
    not_covered: Sequence[str] = (),
) -> ProbeResult:
    """The verdict over all edits; `normalized` (the other probe's) helps to tell kinds apart."""
    findings = [describe(c, normalized) for c in comparisons if c.leaks] + list(others)
    leaks = [leak for c in comparisons for leak in c.leaks]
    odd = [size for c in comparisons for size in c.odd_lengths]
    if odd:
        symptom = "another number of nats for a stream as long"
        said = f"{len(odd):,} edited streams gave {symptom} ({odd[0]:,})"
        findings.append(Finding.of(symptom, said))
    edited = sum(len(c.compared) for c in comparisons)
    threshold = max(c.noise.threshold for c in comparisons)
    exact = "equal" if threshold == 0 else f"within {threshold:.1g}"
    summary = f"{edited:,} edited streams, all earlier nats {exact}"
    if leaks:
        summary = f"{edited:,} edited streams, {len(leaks):,} of which changed earlier nats"
    return found(
        "causality",
        summary,
        findings,
        not_covered,
        edits=edited,
        leaks=len(leaks),
        largest_nats=max((k.nats for k in leaks if np.isfinite(k.nats)), default=0.0),
        threshold_nats=threshold,
    )


def describe(comparison: Comparison, normalized: bool) -> Finding:
    """The shortest edit that shows the leak, and what the pattern of all leaks points to."""
    leak = min(comparison.leaks, key=lambda k: (k.last - k.first, -k.nats))
    symptom, edit = leak_symptom(comparison, normalized), leak.edit
    many = leak.last > leak.first
    what = f"tokens {leak.first}-{leak.last}" if many else f"token {leak.first}"
    positions = np.unique(np.concatenate([k.changed for k in comparison.leaks])).size
    said = (
        f"replacing {what} changed the nats of token {leak.worst + 1} by {leak.nats:.3g}: "
        f"{symptom} (in all, {positions:,} earlier token{'s' * (positions > 1)} moved)"
    )
    check = (
        f"edited = Edit({edit.start}, {edit.stop}, {edit.how!r}, {edit.seed})"
        f".apply(tokens, {comparison.vocab_size})  # from fairway.audit.stream import Edit\n"
        f"score(edited)[{leak.worst}] - score(tokens)[{leak.worst}]  # should be 0.0"
    )
    return Finding.of(symptom, said, check)


def leak_symptom(comparison: Comparison, normalized: bool) -> str:
    """What all the leaks together look like: a symptom of `findings.LOOKS_LIKE`."""
    n, leaks = len(comparison.tokens), comparison.leaks
    still = [moved for *_, moved in comparison.compared if not moved]
    if all(leak.moved for leak in leaks) and len(still) >= 10:
        return "where later documents begin decides earlier nats"
    if max(leak.reach for leak in leaks) <= 3:
        return "the nats read a token that comes shortly after theirs"
    inner = [first for first, last, _ in comparison.compared if n // 8 < first and last < n - 2]
    if all(leak.last >= n - 2 for leak in leaks) and len(inner) >= 10:
        if any(leak.first >= n - 2 - n // 16 for leak in leaks):
            return "the nats read the end of the text"
        return "something was fitted to the text before it was scored"
    late = [leak for leak in leaks if leak.first > n // 2] or leaks
    if any(leak.changed.size > 0.5 * (leak.first - 1) for leak in late):
        return "the scorer learned from text it had not scored"
    if max(leak.reach for leak in late) <= n // 2:
        if normalized:
            return "a block was fitted to its own later text before it was scored"
        return "the nats of a block were fitted to the tokens of that block"
    return "the nats know text that comes after their token"


def stored_text(case: Case) -> list[Finding]:
    """Does the scorer know the text by position, whatever was read before?

    Every fifth token stays, everything else becomes noise. In the same noise the kept places are
    scored once with the true tokens and once with tokens of other places; only a scorer that has
    the text stored can tell the two apart.
    """
    tokens = case.tokens
    known, fooled, places = 0, 0, 0
    for offset in range(5):
        if case.spent(calls=2):
            return []
        kept = np.arange(2 + offset, len(tokens), 5)
        noise = Edit(0, len(tokens), "uniform", offset).apply(tokens, case.vocab_size)
        counts = []
        for there in (tokens[kept], np.roll(tokens[kept], len(kept) // 2)):
            noise[kept] = there
            nats = case.score(noise)
            if nats is None or nats.size < kept[-1]:
                return []
            counts.append(np.count_nonzero(nats[kept - 1] < 0.3))
        known, fooled, places = known + counts[0], fooled + counts[1], places + len(kept)
    # Chance makes both counts alike; four standard deviations of their difference are no chance.
    if known - fooled < max(6.0, 0.02 * places, 4 * math.sqrt(2 * (fooled + 1))):
        return []
    symptom = "the text is stored"
    said = (
        f"with all text around them replaced by noise, {known:,} of {places:,} tokens still cost "
        f"less than 0.3 nats, against {fooled:,} when other tokens stand there: {symptom}"
    )
    return [Finding.of(symptom, said)]
