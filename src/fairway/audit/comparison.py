"""When are two scores of one text the same, and did an edit of later text change earlier nats?

All probes compare with what is here: repeated calls tell how far equal scores may lie apart
(`Noise`), and `Comparison` holds the nats of edited streams against those of the stream as it is.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from fairway.audit.scoring_order import ScoringOrder
from fairway.audit.stream import Edit, moves_documents

ROUNDING_NATS = 2e-5  # float32 arithmetic in another order stays below this
SAFETY = 4.0  # times the largest difference seen between equal calls
MOST_REPEATS = 10  # of a scorer that does not repeat itself

Score = Callable[[np.ndarray], np.ndarray | None]  # tokens (n,) -> nats (n - 1,), None: it failed


@dataclass(frozen=True)
class Noise:
    """How far two nats that should be equal may lie apart.

    floor     nats: the largest difference between repetitions of one call; 0 for most scorers
    relative  half a unit in the last place of the format the nats are rounded to
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


def largest_difference(a: np.ndarray, b: np.ndarray) -> float:
    """Nats between the two entries that lie furthest apart; infinite for rows of unlike length."""
    return float(differences(a, b).max(initial=0.0)) if a.size == b.size else np.inf


def relative_rounding(nats: np.ndarray) -> float:
    """Half a unit in the last place of the coarsest float format that holds all nats exactly."""
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
        """The nats every other call is compared with."""
        return self.plain[-1]

    def noise(self) -> Noise:
        # The first call is left out: where it differs from the later ones that is state, and a
        # floor as high as what the state did would hide everything else.
        pairs = zip(self.plain[1:], self.plain[2:], strict=False)
        gaps = [largest_difference(a, b) for a, b in pairs if a.size == b.size]
        return Noise(max(gaps, default=0.0), relative_rounding(self.nats))


def repeat(
    score: Score, tokens: np.ndarray, vocab_size: int, first: np.ndarray, repeats: int
) -> Repeats:
    """Score `tokens` again, and once with its second half replaced in between."""
    edited = Edit(len(tokens) // 2, len(tokens), "uniform").apply(tokens, vocab_size)
    seen = Repeats(tokens, edited, [first])
    for number in range(repeats):
        if number == 1:
            seen.on_edited = score(edited)
        nats = score(tokens)
        seen.plain += [] if nats is None else [nats]
    while 0.0 < seen.noise().floor < np.inf and len(seen.plain) < MOST_REPEATS:
        nats = score(tokens)
        if nats is None:
            break
        seen.plain.append(nats)
    return seen


@dataclass(frozen=True)
class Leak:
    """One edit that changed earlier nats.

    first, last  the first and the last token that differ
    changed      entries of the nats that moved although they precede token `first`
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
        """How many tokens ahead the farthest entry saw."""
        return self.first - (int(self.changed[0]) + 1)


@dataclass
class Comparison:
    """The early nats of edited streams against those of the stream as it is.

    tokens (n,), nats (n - 1,) of the stream as it is
    compared  first and last token changed by each edit, and whether it moved document marks
    renewed   how often the nats of the unedited stream turned out to have moved
    order     in which tokens and nats stand here, None for stream order
    """

    score: Score
    tokens: np.ndarray
    nats: np.ndarray
    noise: Noise
    vocab_size: int
    compared: list[tuple[int, int, bool]] = field(default_factory=list)
    leaks: list[Leak] = field(default_factory=list)
    renewed: int = 0
    odd_lengths: list[int] = field(default_factory=list)
    order: ScoringOrder | None = None

    def place(self, token: int) -> int:
        """Where in the stream a token stands that is number `token` in the order of scoring."""
        return token if self.order is None else int(self.order.places[token])

    def try_edit(self, edit: Edit) -> Leak | None:
        edited = edit.apply(self.tokens, self.vocab_size)
        nats = self.score(edited)
        return None if nats is None else self.check(edit, edited, nats)

    def check(self, edit: Edit, edited: np.ndarray, nats: np.ndarray) -> Leak | None:
        """`compare`, and for the first leaks a look at whether it was the scorer that changed."""
        leak = self.compare(edit, edited, nats)
        return None if leak is not None and self._scorer_changed() else leak

    def _scorer_changed(self) -> bool:
        """Whether the unedited stream is scored otherwise too by now: state, and no leak.

        The determinism probe reports it; here the comparison starts anew.
        """
        if len(self.leaks) > 1 or self.renewed >= 3:
            return False
        now = self.score(self.tokens)
        if now is None or now.size != self.nats.size:
            return False
        if largest_difference(now, self.nats) <= self.noise.threshold:
            return False
        self.nats, self.renewed = now, self.renewed + 1
        self.leaks.clear()
        return True

    def compare(self, edit: Edit, edited: np.ndarray, nats: np.ndarray) -> Leak | None:
        """A leak, which is kept, if an entry before the first edited token moved."""
        if nats.size != self.nats.size:
            self.odd_lengths.append(nats.size)
            return None
        differs = np.flatnonzero(edited != self.tokens)
        if not differs.size or differs[0] < 2:
            return None  # no entry lies before it
        first, last = int(differs[0]), int(differs[-1])
        moved = moves_documents(self.tokens, edited)
        if moved and self.order is not None:
            return None  # lengths are told: this is another message
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
