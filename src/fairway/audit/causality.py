"""Does a price know text that comes after its token?

The price of token t (entry t - 1) may depend on tokens 0..t and on nothing else. So tokens from
some point on are replaced, in many places and manners, and every earlier price must stay equal -
equal, not close, unless repeating an unchanged call already moves prices. `Watch` does the
comparing; the normalization probe hands its own edited streams to it too. A second question is
asked here: does a price know the text without having read it (`probe_memory`)?
"""

import math
from dataclasses import dataclass, field

import numpy as np

from fairway.audit.findings import Finding, ProbeResult
from fairway.audit.repeats import Noise, differences
from fairway.audit.scorer import Session
from fairway.audit.stream import MANNERS, MOVING_DOCUMENTS, Edit, moves_documents

AFTER_A_LEAK = 24  # further edits once something was found: enough to tell its kind


@dataclass(frozen=True)
class Leak:
    """One edit that changed earlier prices.

    first, last  the first and the last token that differ
    changed      entries of the prices that moved although they precede token `first`
    worst        the entry that moved most, by `nats`
    moved        document marks were among what changed
    """

    edit: Edit
    first: int
    last: int
    changed: np.ndarray
    worst: int
    nats: float
    moved: bool

    @property
    def reach(self) -> int:
        """How many tokens ahead the farthest price saw."""
        return self.first - (int(self.changed[0]) + 1)


@dataclass
class Watch:
    """Compares the early prices of edited streams with those of the stream as it is."""

    tokens: np.ndarray
    nats: np.ndarray
    noise: Noise
    vocab_size: int
    compared: list[tuple[int, int, bool]] = field(default_factory=list)  # first, last, moved
    leaks: list[Leak] = field(default_factory=list)
    rebased: int = 0  # times the unedited prices themselves turned out to have moved
    odd_lengths: list[int] = field(default_factory=list)

    def try_edit(self, session: Session, edit: Edit) -> Leak | None:
        edited = edit.apply(self.tokens, self.vocab_size)
        nats = session.call(edited).nats
        return None if nats is None else self.note(session, edit, edited, nats)

    def note(
        self, session: Session, edit: Edit, edited: np.ndarray, nats: np.ndarray
    ) -> Leak | None:
        """`compare`, and for the first leaks a look at whether it was the scorer that moved."""
        leak = self.compare(edit, edited, nats)
        return None if leak is not None and self._was_drift(session) else leak

    def _was_drift(self, session: Session) -> bool:
        """Whether the unedited stream is priced otherwise too by now: state, and no leak.

        The determinism probe reports it; here the comparison starts anew.
        """
        if len(self.leaks) > 1 or self.rebased >= 3:
            return False
        now = session.call(self.tokens).nats
        if now is None or now.size != self.nats.size:
            return False
        if not np.any(differences(now, self.nats) > self.noise.threshold):
            return False
        self.nats, self.rebased = now, self.rebased + 1
        self.leaks.clear()
        return True

    def compare(self, edit: Edit, edited: np.ndarray, nats: np.ndarray) -> Leak | None:
        """Note a leak if a price before the first edited token moved."""
        if nats.size != self.nats.size:
            self.odd_lengths.append(nats.size)
            return None
        differs = np.flatnonzero(edited != self.tokens)
        if not differs.size or differs[0] < 2:
            return None  # no price lies before it
        first, last = int(differs[0]), int(differs[-1])
        moved = moves_documents(self.tokens, edited)
        self.compared.append((first, last, moved))
        threshold = self.noise.moved_threshold if moved else self.noise.threshold
        gap = differences(nats[: first - 1], self.nats[: first - 1])
        changed = np.flatnonzero(gap > threshold)
        if not changed.size:
            return None
        worst = int(gap.argmax())
        leak = Leak(edit, first, last, changed, worst, float(gap[worst]), moved)
        self.leaks.append(leak)
        return leak


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


def probe_suffixes(
    session: Session, watch: Watch, edits: list[Edit], call_seconds: float
) -> tuple[str, ...]:
    """Try the edits, a few more after the first leak; returns what there was no time for."""
    budget = len(edits)
    for number, edit in enumerate(edits):
        if number >= budget:
            break
        if session.spent(call_seconds):
            return (f"{len(edits) - number:,} of {len(edits):,} edited streams",)
        if watch.try_edit(session, edit) and budget == len(edits):
            budget = number + 1 + AFTER_A_LEAK
    if watch.leaks:
        _look_closer(session, watch, call_seconds)
    return ()


def _look_closer(session: Session, watch: Watch, call_seconds: float) -> None:
    """Single tokens around what was found: they tell how far the leak reaches."""
    n = len(watch.tokens)
    found = min(watch.leaks, key=lambda leak: leak.last - leak.first)
    near = [found.first, found.worst + 2, found.worst + 3]
    spread = [n // 4, n // 2, 5 * n // 8, 3 * n // 4, 7 * n // 8, n - 1]
    for place in near + spread:
        for seed in range(3):
            if 2 <= place < n and not session.spent(call_seconds):
                watch.try_edit(session, Edit(place, place + 1, "uniform", seed))


def causality_result(
    watch: Watch, normalized: bool, memory: Finding | None, not_covered: tuple[str, ...]
) -> ProbeResult:
    """The probe's verdict; `normalized` (the other probe's) helps to tell kinds apart."""
    findings = [] if memory is None else [memory]
    if watch.leaks:
        findings.insert(0, describe(watch, normalized))
    if watch.odd_lengths:
        said = (
            f"{len(watch.odd_lengths):,} edited streams of the same length gave "
            f"{watch.odd_lengths[0]:,} prices instead of {watch.nats.size:,}"
        )
        findings.append(Finding(said, ("C4",)))
    edited = len(watch.compared)
    exact = "equal" if watch.noise.threshold == 0 else f"within {watch.noise.threshold:.1g} nats"
    summary = f"{edited:,} edited streams, {len(watch.leaks):,} of which changed earlier prices"
    if not watch.leaks:
        summary = f"{edited:,} edited streams, all earlier prices {exact}"
    details = {
        "edits": edited,
        "leaks": len(watch.leaks),
        "largest_nats": max((k.nats for k in watch.leaks if np.isfinite(k.nats)), default=0.0),
        "threshold_nats": watch.noise.threshold,
    }
    return ProbeResult("causality", not findings, summary, tuple(findings), not_covered, details)


def describe(watch: Watch, normalized: bool) -> Finding:
    """The shortest edit that shows the leak, and what the pattern of all leaks points to."""
    leak = min(watch.leaks, key=lambda k: (k.last - k.first, -k.nats))
    kinds, because = classify(watch, normalized)
    many = leak.last > leak.first
    what = f"tokens {leak.first}-{leak.last}" if many else f"token {leak.first}"
    positions = np.unique(np.concatenate([k.changed for k in watch.leaks])).size
    said = (
        f"replacing {what} changed the price of token {leak.worst + 1} by {leak.nats:.3g} nats: "
        f"{because} (in all, {positions:,} earlier price{'s' * (positions > 1)} moved)"
    )
    edit = leak.edit
    check = (
        f"edited = Edit({edit.start}, {edit.stop}, {edit.how!r}, {edit.seed})"
        f".apply(tokens, {watch.vocab_size})  # from fairway.audit.stream import Edit\n"
        f"score(edited)[{leak.worst}] - score(tokens)[{leak.worst}]  # should be 0.0"
    )
    return Finding(said, kinds, check)


def classify(watch: Watch, normalized: bool) -> tuple[tuple[str, ...], str]:
    """Kinds of the catalogue, likeliest first, and the reason in words."""
    n, leaks = len(watch.tokens), watch.leaks
    still = [pair for pair in watch.compared if not pair[2]]
    if all(leak.moved for leak in leaks) and len(still) >= 10:
        return ("C-d",), "where later documents begin decides earlier prices"
    if max(leak.reach for leak in leaks) <= 3:
        return ("C-a", "C1"), "the price reads a token that comes shortly after it"
    inner = [first for first, last, _ in watch.compared if n // 8 < first and last < n - 2]
    if all(leak.last >= n - 2 for leak in leaks) and len(inner) >= 10:
        if any(leak.first >= n - 2 - n // 16 for leak in leaks):
            return ("C1",), "the price reads the end of the text"
        return ("A5", "A1", "B3"), "something was fitted to the text before it was priced"
    late = [leak for leak in leaks if leak.first > n // 2] or leaks
    if any(leak.changed.size > 0.5 * (leak.first - 1) for leak in late):
        kinds = ("A1", "A2", "A3", "A4", "A5")
        return kinds, "the scorer learned from text it had not priced"
    if max(leak.reach for leak in late) <= n // 2:
        kinds = ("A10", "A6", "A7") if normalized else ("A6", "A7", "A10")
        return kinds, "the prices of a block were fitted to later text of that block"
    return ("C1", "A1"), "the price knows text that comes after it"


def probe_memory(
    session: Session, tokens: np.ndarray, vocab_size: int, call_seconds: float
) -> Finding | None:
    """Does the scorer know the text by position, whatever was read before (a stored text)?

    Every fifth token stays, everything else becomes noise. In the same noise the kept places are
    priced once with the true tokens and once with tokens of other places; only a scorer that has
    the text stored can tell the two apart.
    """
    known, fooled, places = 0, 0, 0
    for offset in range(5):
        if session.spent(2 * call_seconds):
            return None
        kept = np.arange(2 + offset, len(tokens), 5)
        noise = Edit(0, len(tokens), "uniform", offset).apply(tokens, vocab_size)
        true, false = noise.copy(), noise.copy()
        true[kept] = tokens[kept]
        false[kept] = np.roll(tokens[kept], len(kept) // 2)
        answers = [session.call(stream).nats for stream in (true, false)]
        if any(nats is None or nats.size < kept[-1] for nats in answers):
            return None
        counts = [np.count_nonzero(nats[kept - 1] < 0.3) for nats in answers if nats is not None]
        known, fooled, places = known + counts[0], fooled + counts[1], places + len(kept)
    # Chance makes both counts alike; four standard deviations of their difference are no chance.
    if known - fooled < max(6.0, 0.02 * places, 4 * math.sqrt(2 * (fooled + 1))):
        return None
    said = (
        f"with all text around them replaced by noise, {known:,} of {places:,} tokens still cost "
        f"less than 0.3 nats, against {fooled:,} when other tokens stand there: the text is stored"
    )
    return Finding(said, ("D2",))
