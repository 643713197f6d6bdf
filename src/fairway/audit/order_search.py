"""Is there an order of scoring in which the nats of each token depend only on what came before?

Asked of a scorer that in stream order reads ahead. One document after the other is replaced, its
length kept, and the documents whose nats move are those that read it. Where that graph has no
cycle, there is an order; where it has one, two edits show it. What follows from the answer is for
`causality.py` to decide.
"""

import heapq
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise

import numpy as np
from scipy.sparse.csgraph import connected_components

from fairway.audit.case import Case
from fairway.audit.comparison import Comparison, differences
from fairway.audit.scoring_order import (
    BY_LENGTH,
    EXPLICIT,
    ScoringOrder,
    document_of,
    document_starts,
    permutation_bits,
    tie_bits,
)
from fairway.audit.stream import Edit

MANNERS = ("uniform", "text")  # in which each document is replaced
SHARE = 0.25  # of the time left, for replacing one document after the other
MOST_DOCUMENTS = 512
CYCLES_TRIED = 12
LEAKS_EXPLAINED = 6
ENOUGH_PAIRS = 4
LATE_PARTS = 8  # documents whose second half is replaced


@dataclass(frozen=True)
class Step:
    """One edit within a document, and the first token of the next document that it moved."""

    edit: Edit
    document: int
    token: int
    nats: float


@dataclass(frozen=True)
class Cycle:
    """Documents of which each has to be scored before the next, and the last before the first.

    steps  replacing text from the moved token on moved a token of the next document, and in the
           end one that does not come after the first edit
    """

    steps: tuple[Step, ...]

    @property
    def documents(self) -> tuple[int, ...]:
        return tuple(step.document for step in self.steps)


@dataclass
class DocumentGraph:
    """Which documents' nats know which documents' text.

    stream      the scorer on the text as it stands
    reads       for each document that was replaced, the documents (D,) whose nats moved
    against     the share of a document's tokens that moved when a later one was replaced, by pair
    looks_back  a document's own earlier nats moved: no order of documents mends that
    """

    case: Case
    stream: Comparison
    reads: dict[int, np.ndarray] = field(default_factory=dict)
    against: dict[tuple[int, int], float] = field(default_factory=dict)
    looks_back: bool = False

    def __post_init__(self) -> None:
        tokens = self.stream.tokens
        self.starts, self.document = document_starts(tokens), document_of(tokens)
        self.stops = np.append(self.starts[1:], len(tokens))
        self.lengths = self.stops - self.starts

    @property
    def complete(self) -> bool:
        """Whether every document was replaced."""
        return len(self.reads) == len(self.starts)

    def ask_documents(self) -> None:
        """Replace documents one by one: all, or as many as there is time for."""
        case, count = self.case, len(self.starts)
        affordable = int(SHARE * case.session.seconds_left() / case.call_seconds / len(MANNERS))
        chosen = list(range(count))
        if min(affordable, MOST_DOCUMENTS) < count:
            by_length = np.argsort(self.lengths, kind="stable").tolist()
            extremes = [by_length[-1], by_length[0], 0, count - 1]
            rest = np.random.default_rng(case.seed).permutation(count).tolist()
            chosen = list(dict.fromkeys(extremes + rest))[: max(4, min(affordable, MOST_DOCUMENTS))]
        for number, x in enumerate(chosen):
            start, stop = int(self.starts[x]) + 1, int(self.stops[x])  # marks stay
            edits = [Edit(start, stop, manner, seed) for seed, manner in enumerate(MANNERS)]
            if number < LATE_PARTS:
                edits.append(Edit((start + stop) // 2, stop, "uniform", 2))
            if case.spent(calls=len(edits)):
                return
            self.reads.setdefault(x, np.zeros(count, bool))
            for edit in edits if start < stop else ():
                self.moved_by(self._apply(edit))

    def _apply(self, edit: Edit) -> np.ndarray:
        return edit.apply(self.stream.tokens, self.stream.vocab_size)

    def moved_by(self, edited: np.ndarray) -> np.ndarray:
        """How far (n,) each token's nats moved when one document was edited; marks and noise are 0.

        The graph learns of it.
        """
        tokens, nats = self.stream.tokens, self.stream.score(edited)
        gap = np.zeros(len(tokens))
        differs = np.flatnonzero(edited != tokens)
        if nats is None or nats.size != len(tokens) - 1 or not differs.size:
            return gap
        gap[1:] = differences(nats, self.stream.nats)
        gap[self.starts] = 0.0
        gap[gap <= self.stream.noise.threshold] = 0.0
        x = int(self.document[differs[0]])
        row = self.reads.setdefault(x, np.zeros(len(self.starts), bool))
        counts = np.bincount(self.document[gap > 0], minlength=len(self.starts))
        counts[x] = 0
        row |= counts > 0
        for y in np.flatnonzero(counts[:x]).tolist():
            share = float(counts[y] / max(1, self.lengths[y] - 1))
            self.against[x, y] = max(share, self.against.get((x, y), 0.0))
        own = slice(int(self.starts[x]), int(differs[0]))
        self.looks_back |= bool(gap[own].any())
        return gap

    def explain(self, comparison: Comparison) -> None:
        """Which single document is behind a leak: halves of those that were edited, in turn."""
        order = comparison.order
        leaks = [leak for leak in comparison.leaks if not leak.moved]
        spread = np.linspace(0, len(leaks) - 1, min(len(leaks), LEAKS_EXPLAINED)).astype(int)
        for leak in (leaks[i] for i in np.unique(spread)):
            edited = leak.edit.apply(comparison.tokens, comparison.vocab_size)
            changed = leak.changed + 1
            if order is not None:
                edited, changed = order.restore(edited), order.places[changed]
            suspects = np.unique(self.document[edited != self.stream.tokens]).tolist()
            while len(suspects) > 1 and not self.case.spent():
                half = suspects[: len(suspects) // 2]
                nats = self.stream.score(self._part(edited, half))
                if nats is None or nats.size != self.stream.nats.size:
                    break
                gap = differences(nats, self.stream.nats)[changed - 1]
                guilty = bool((gap > self.stream.noise.threshold).any())
                suspects = half if guilty else suspects[len(half) :]
            if len(suspects) == 1 and not self.case.spent():
                self.moved_by(self._part(edited, suspects))

    def _part(self, edited: np.ndarray, documents: Sequence[int]) -> np.ndarray:
        """The stream with only these documents edited."""
        return np.where(np.isin(self.document, documents), edited, self.stream.tokens)

    @property
    def shows_an_order(self) -> bool:
        """Whether what is read against stream order looks like an order, and not like a leak.

        Any one pair of documents fits some order; one that moves most of a document, or several
        pairs that all fit the same one, are no accident.
        """
        pairs = self.against
        return len(pairs) >= ENOUGH_PAIRS or any(share > 0.5 for share in pairs.values())

    @property
    def mostly_reads(self) -> bool:
        """Whether of most pairs of documents one reads the other, as when each is learned from."""
        pairs = len(self.reads) * (len(self.reads) - 1) / 2
        return 2 * self._among_asked()[1].sum() >= pairs

    def cycle(self) -> Cycle | None:
        """A proof that there is no order, where one is found; documents go from left to right."""
        for documents in self._short_cycles():
            start, stop = int(self.starts[documents[0]]) + 1, int(self.stops[documents[0]])
            cuts = np.linspace(stop - 1, start, 5).astype(int).tolist()
            for cut in dict.fromkeys(cuts):
                if self.case.spent(calls=2 * len(documents)):
                    return None
                if proof := self._follow(documents, cut):
                    return proof
        return None

    def _follow(self, documents: Sequence[int], cut: int) -> Cycle | None:
        """Replace a document from `cut` on, the next one from where it moved, and so all round."""
        steps: list[Step] = []
        begin = cut
        for x, y in pairwise([*documents, documents[0]]):
            for seed, manner in enumerate(MANNERS):
                edit = Edit(begin, int(self.stops[x]), manner, seed)
                gap = np.where(self.document == y, self.moved_by(self._apply(edit)), 0.0)
                if gap.any():
                    break
            else:
                return None
            begin = int(np.flatnonzero(gap)[0])
            steps.append(Step(edit, x, begin, float(gap[begin])))
        return Cycle(tuple(steps)) if begin <= cut else None

    def _among_asked(self) -> tuple[list[int], np.ndarray]:
        """Documents that were replaced, and (k, k) which of them read which."""
        asked = sorted(self.reads)
        return asked, np.stack([self.reads[x][asked] for x in asked])

    def _short_cycles(self) -> Iterator[tuple[int, ...]]:
        """Pairs that read each other, then the shortest way round from single documents."""
        asked, reads = self._among_asked()
        pairs = np.argwhere(np.triu(reads & reads.T))[: CYCLES_TRIED // 2].tolist()
        yield from ((asked[x], asked[y]) for x, y in pairs)
        ways = (way for x in range(len(asked)) if (way := _way_round(reads, x)) and len(way) > 2)
        for way in islice(ways, CYCLES_TRIED // 2):
            yield tuple(asked[x] for x in way)

    def order(self) -> ScoringOrder | None:
        """The order that what is known allows: one that lengths decide, where there is one.

        Documents that read each other are scored in step, token by token. None where no order by
        lengths will do and not every document was asked for.
        """
        asked, reads = self._among_asked()
        _, component = connected_components(reads, directed=True, connection="strong")
        batch_of = np.arange(len(self.starts))  # a batch is named after its first document
        for group in range(component.max() + 1):
            together = np.array(asked)[component == group]
            batch_of[together] = together.min()
        members: dict[int, list[int]] = {}
        for document, batch in enumerate(batch_of.tolist()):
            members.setdefault(batch, []).append(document)
        pairs = np.argwhere(reads)
        ends = batch_of[np.array(asked)[pairs]] if len(pairs) else np.zeros((0, 2), np.int64)
        edges = {(a, b) for a, b in np.unique(ends, axis=0).tolist() if a != b}
        tokens, in_step = self.stream.tokens, self.in_step(batch_of)
        for name, key in BY_LENGTH.items():
            keys = key(self.lengths)
            lowest = {batch: int(keys[docs].min()) for batch, docs in members.items()}
            by_document = np.array([lowest[b] for b in batch_of.tolist()])
            if any((by_document[row] < by_document[x]).any() for x, row in self.reads.items()):
                continue
            sequence = _topological(lowest, edges)
            bits = tie_bits(lowest, sequence)
            batches = [members[b] for b in sequence]
            return ScoringOrder.of(tokens, batches, name + (in_step or self.apart(batches)), bits)
        if not self.complete:
            return None
        batches = [members[b] for b in _topological({b: b for b in members}, edges)]
        bits = permutation_bits(len(batches))
        return ScoringOrder.of(tokens, batches, EXPLICIT + in_step, bits)

    def apart(self, batches: Sequence[Sequence[int]]) -> str:
        """In words, how many runs of documents do not see each other, where not all are alone."""
        runs: list[set[int]] = [set()]
        for (x,) in batches:
            if any(self.reads[before][x] for before in runs[-1] if before in self.reads):
                runs.append(set())
            runs[-1].add(x)
        grouped = self.complete and 1 < len(runs) < len(batches)
        return f", in {len(runs)} batches" if grouped else ""

    def in_step(self, batch_of: np.ndarray) -> str:
        largest = int(np.bincount(batch_of).max())
        return f", up to {largest} documents in step" if largest > 1 else ""


def _way_round(reads: np.ndarray, start: int) -> tuple[int, ...] | None:
    """The shortest cycle through `start` of the graph (k, k)."""
    came_from: dict[int, int] = {}
    queue = deque([start])
    while queue:
        x = queue.popleft()
        for y in np.flatnonzero(reads[x]).tolist():
            if y == start:
                way = [x]
                while way[-1] != start:
                    way.append(came_from[way[-1]])
                return tuple(way[::-1])
            if y not in came_from:
                came_from[y] = x
                queue.append(y)
    return None


def _topological(keys: dict[int, int], edges: set[tuple[int, int]]) -> list[int]:
    """Nodes so that every edge goes forward; of those that may come next, the lowest key first.

    The standard library's sorter has no preference among those.
    """
    waits_for = dict.fromkeys(keys, 0)
    followers: dict[int, list[int]] = {node: [] for node in keys}
    for a, b in edges:
        waits_for[b] += 1
        followers[a].append(b)
    ready = [(keys[node], node) for node in keys if not waits_for[node]]
    heapq.heapify(ready)
    sequence = []
    while ready:
        node = heapq.heappop(ready)[1]
        sequence.append(node)
        for follower in followers[node]:
            waits_for[follower] -= 1
            if not waits_for[follower]:
                heapq.heappush(ready, (keys[follower], follower))
    return sequence
