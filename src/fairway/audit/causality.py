"""Do the nats of a token know text that comes after it?

The nats of token t (entry t - 1) may depend on tokens 0..t and on nothing else. So tokens from some
point on are replaced, in many places and manners, and every earlier entry must stay equal - equal,
not close, unless repeating an unchanged call already moves it. Where one does move, documents may
be scored in another order than that of the stream: `order_search.py` looks for one, and the same
edits are made in that order. A second question is asked here: does the scorer know the text
without having read it (`stored_text`)?
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fairway.audit.case import Case
from fairway.audit.comparison import Comparison
from fairway.audit.findings import Finding, ProbeResult, found
from fairway.audit.order_search import Cycle, DocumentGraph
from fairway.audit.scoring_order import STREAM, document_starts
from fairway.audit.stream import MANNERS, MOVING_DOCUMENTS, Edit

ORDERS_TRIED = 4
FEWEST_EDITS = 60  # without a leak before another order than the stream's is believed
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
    asked = bool(comparison.leaks)
    cycle = settle_order(case, edits, gaps) if asked else None
    normalized = case.result("normalization").ok  # and its edited streams are compared here
    if comparison.leaks and not asked:
        cycle = settle_order(case, edits, gaps)
        if case.order is not None:
            del case.results["normalization"]
            normalized = case.result("normalization").ok
    result = causality_result([case.in_order], normalized, findings, gaps, cycle)
    return replace(result, details={**result.details, "order": stated_order(case, cycle)})


def settle_order(case: Case, edits: Sequence[Edit], gaps: list[str]) -> Cycle | None:
    """For a scorer that reads ahead in stream order: find and try another one.

    `case.ordered` is set where the documents have an order in which the edits show less; a cycle is
    returned where two documents, or more, can have none. What there was no time for goes to `gaps`.
    """
    keeping = [edit for edit in edits if edit.how not in MOVING_DOCUMENTS]  # lengths are told
    graph, comparison = DocumentGraph(case, case.comparison), case.comparison
    only_marks = all(leak.moved for leak in comparison.leaks)
    graph.ask_documents()
    if not graph.reads:
        gaps.append("another order of scoring than the stream's, for want of time")
        return None
    for _ in range(ORDERS_TRIED):
        graph.explain(comparison)
        order = graph.order()
        if order is None or not (graph.shows_an_order or only_marks):
            return None
        if graph.looks_back and (order.in_step or not graph.mostly_reads):
            return None
        if order.in_step and (cycle := graph.cycle()):
            return cycle
        known = comparison.order
        if order.is_stream and not only_marks if known is None else order.same_as(known):
            break  # what the edits show in this one is known
        comparison = case.rearranged(order)
        tried = try_edits(comparison, keeping, case.spent)
        if tried < len(keeping):
            gaps.append(f"{len(keeping) - tried:,} of {len(keeping):,} edits of {order.name}")
        if tried < min(len(keeping), FEWEST_EDITS):
            return None  # too little to clear anybody
        if not comparison.leaks:
            break
    if comparison.order is not None and not (comparison.leaks and comparison.order.in_step):
        case.ordered = comparison
    return None


def stated_order(case: Case, cycle: Cycle | None = None) -> dict[str, Any]:
    """The order of scoring, for the report: what it is and what telling it costs."""
    documents = len(document_starts(case.tokens))
    if cycle is not None:
        return {"name": None, "documents": documents, "cycle": list(cycle.documents)}
    if case.in_order.leaks and case.order is None:
        return {"name": None, "documents": documents}
    if case.order is None:
        return {"name": STREAM, "documents": documents, "permutation_bits": 0, "length_bits": 0}
    stated, counts = case.order.to_json(), case.answer.num_bytes
    num_bytes = case.num_bytes or (float(counts.sum()) if counts is not None else 0)
    if num_bytes > 0 and len(case.tokens) == len(case.stream):
        stated["bits_per_byte"] = case.order.bits / num_bytes
    return stated


def describe_cycle(comparison: Comparison, cycle: Cycle) -> Finding:
    """Two documents, or more, of which each would have to be scored before the next."""
    symptom, told, lines = "no order of scoring exists", [], []
    for step, after in zip(cycle.steps, [*cycle.steps[1:], cycle.steps[0]], strict=True):
        edit = step.edit
        told.append(
            f"replacing tokens {edit.start}-{edit.stop - 1} of document {step.document} changed "
            f"the nats of token {step.token} of document {after.document} by {step.nats:.3g}"
        )
        lines.append(
            f"edited = Edit({edit.start}, {edit.stop}, {edit.how!r}, {edit.seed})"
            f".apply(tokens, {comparison.vocab_size})  # from fairway.audit.stream import Edit\n"
            f"score(edited)[{step.token - 1}] - score(tokens)[{step.token - 1}]"
        )
    said = f"{symptom} in which each document only knows those before: {', and '.join(told)}"
    return Finding.of(symptom, said, "\n".join([*lines, "# one of these should be 0.0"]))


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
    cycle: Cycle | None = None,
) -> ProbeResult:
    """The verdict over all edits; `normalized` (the other probe's) helps to tell kinds apart.

    cycle  shows more than the leaks do, and is described in their place
    """
    unexplained = [c for c in comparisons if c.leaks and not cycle]
    findings = [describe(c, normalized) for c in unexplained] + list(others)
    if cycle is not None:
        findings.insert(0, describe_cycle(comparisons[0], cycle))
    leaks = [leak for c in comparisons for leak in c.leaks]
    odd = [size for c in comparisons for size in c.odd_lengths]
    if odd:
        symptom = "another number of nats for a stream as long"
        said = f"{len(odd):,} edited streams gave {symptom} ({odd[0]:,})"
        findings.append(Finding.of(symptom, said))
    edited = sum(len(c.compared) for c in comparisons)
    threshold = max(c.noise.threshold for c in comparisons)
    exact = "equal" if threshold == 0 else f"within {threshold:.1g}"
    order = comparisons[0].order
    summary = f"{edited:,} edited streams, all earlier nats {exact}"
    summary += f" in the order of scoring, {order.name}" if order else ""
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
    many, order = leak.last > leak.first, comparison.order
    what = f"tokens {leak.first}-{leak.last}" if many else f"token {leak.first}"
    worst, text = comparison.place(leak.worst + 1), "tokens"
    positions = np.unique(np.concatenate([k.changed for k in comparison.leaks])).size
    check = ""
    if order is not None:
        first = comparison.place(leak.first)
        what = f"token {first}" + (" and what is scored after it" if many else "")
        text = "order.arrange(tokens)"
        listed = [list(documents) for documents in order.batches]
        check = f"order = ScoringOrder.of(tokens, {listed})  # from fairway.audit.scoring_order\n"
    where = f"in the order of scoring, {order.name}, " if order else ""
    said = (
        f"{where}replacing {what} changed the nats of token {worst} by {leak.nats:.3g}: "
        f"{symptom} (in all, {positions:,} earlier token{'s' * (positions > 1)} moved)"
    )
    edited = f"Edit({edit.start}, {edit.stop}, {edit.how!r}, {edit.seed})"
    edited += f".apply({text}, {comparison.vocab_size})"
    edited = f"order.restore({edited})" if order is not None else edited
    check += (
        f"edited = {edited}  # from fairway.audit.stream import Edit\n"
        f"score(edited)[{worst - 1}] - score(tokens)[{worst - 1}]  # should be 0.0"
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
