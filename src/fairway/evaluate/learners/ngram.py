"""What followed the last few tokens before: exact counts, the newest successor, recent successors.

Contexts of several lengths are looked up by their very tokens, so nothing collides and whatever is
counted has occurred. The long ones act as a copy expert: what they point at continues a phrase seen
earlier. This file says what each context suggests; how far it is believed is in `mixture.py`. The
same in C++, to the last bit, is in `ngram_compiled.py`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, Self, TypeAlias

import numpy as np
from torch import Tensor

Counts: TypeAlias = "int | dict[int, int] | dict[int, float]"  # an int: that token and no other

# Contexts of one kind are believed alike, so a kind is what is known of a context beforehand: how
# old its newest occurrence is, how many it has, how many different successors they had.
AGES = (60, 250, 1_000, 5_000)  # tokens; the last class is older still
NUMBERS = (0, 1, 2, 3, 4, 4, 4, 4, *(5,) * 8, *(6,) * 48)  # class of a number below 64
NUM_AGES, NUM_NUMBERS, NUM_SUCCESSORS = len(AGES) + 1, 8, 5
NUM_KINDS = NUM_AGES * NUM_NUMBERS * NUM_SUCCESSORS


class Expert(NamedTuple):
    """One expert's distribution: `counts` over their `total`, or all of it on one token.

    kind  index of the sort of expert, into `Memory.orders_of_kinds`
    """

    kind: int
    counts: Counts
    total: float

    def probability(self, token: int) -> float:
        if isinstance(self.counts, int):
            return 1.0 if self.counts == token else 0.0
        return self.counts.get(token, 0) / self.total

    @property
    def pointed(self) -> int:
        """The only token it holds possible, or -1."""
        return self.counts if isinstance(self.counts, int) else -1

    def add_to(self, distribution: np.ndarray, weight: float) -> None:
        """Add it, `weight` times, to a distribution (V,)."""
        if isinstance(self.counts, int):
            distribution[self.counts] += weight
        else:
            tokens = np.fromiter(self.counts, int, len(self.counts))
            numbers = np.fromiter(self.counts.values(), float, len(self.counts))
            distribution[tokens] += numbers * (weight / self.total)


class Says(NamedTuple):
    """What the experts say of some targets, each before it is read, laid end to end.

    numbers  (targets,) int64, experts of each
    kinds    (n,) int64 of each expert
    ahead    (n,) float64, the probability each gives the token that came
    pointed  (n,) int64, the only token it points at; -1 where it is spread over several
    """

    numbers: np.ndarray
    kinds: np.ndarray
    ahead: np.ndarray
    pointed: np.ndarray


class NgramMemory(Protocol):
    """What a mixture asks of a memory; see `Memory`."""

    def orders_of_kinds(self) -> list[int]: ...
    def branch(self) -> Self: ...
    def absorb(self, branch: Self) -> None: ...
    def stand_after(self, history: Sequence[int]) -> None: ...
    def push(self, token: int) -> None: ...
    def read(self, text: Tensor, num_targets: int) -> None: ...
    def gather(self, text: Tensor, num_targets: int) -> Says: ...
    def suggestions(self) -> tuple[np.ndarray, np.ndarray]: ...
    def ahead(self, token: int) -> np.ndarray: ...
    def join(self, kept: np.ndarray, model: np.ndarray) -> np.ndarray: ...


def orders_of_kinds(orders: Sequence[int]) -> list[int]:
    """The contexts' length for each kind: counts, then newest, then recent successors."""
    by_order = [order for order in orders for _ in range(NUM_KINDS)]
    return by_order * 2 + [0] * NUM_NUMBERS + [1] * NUM_NUMBERS


@dataclass(slots=True)
class _Context:
    """What followed one context. `number` counts by update exclusion, see `Memory.push`."""

    number: int
    newest: int
    time: int  # when it last occurred
    counts: int | dict[int, int]  # a lone successor needs no dictionary, and most have only one

    def copy(self) -> "_Context":
        counts = self.counts if isinstance(self.counts, int) else dict(self.counts)
        return _Context(self.number, self.newest, self.time, counts)


@dataclass(slots=True)
class _Recent:
    """Successors whose weight fades with time: stored as they were worth at time `since`."""

    since: int
    total: float = 0.0
    weights: dict[int, float] = field(default_factory=dict)

    def copy(self) -> "_Recent":
        return _Recent(self.since, self.total, dict(self.weights))


def number_class(number: int) -> int:
    return NUMBERS[number] if number < len(NUMBERS) else NUM_NUMBERS - 1


def age_class(age: int) -> int:
    return sum(age >= limit for limit in AGES)


class Memory:
    """All contexts seen, and the place in the text where the next token is awaited.

    orders  lengths of the contexts, ascending
    fade    tokens after which a successor of the shortest contexts (orders 0 and 1) has lost all
            but 1/e of its weight
    parent  read where this memory holds nothing; never written

    A memory with a parent is what somebody reads on with who must leave no trace: it copies what
    it changes.
    """

    def __init__(
        self, orders: Sequence[int], fade: float, vocab_size: int, parent: "Memory | None" = None
    ) -> None:
        self.orders, self.fade, self.parent = tuple(orders), fade, parent
        self.width = 2 if vocab_size <= 1 << 16 else 4
        self.contexts: dict[bytes, _Context] = {}
        self.recent: dict[bytes, _Recent] = {}
        self.time = 0 if parent is None else parent.time
        self.vocab_size = vocab_size
        self.tail = b""  # the last tokens, as many as the longest context has
        self.keys: list[bytes] = []  # the contexts that end here, the shortest first

    def orders_of_kinds(self) -> list[int]:
        return orders_of_kinds(self.orders)

    def branch(self) -> "Memory":
        """A memory that reads this one and writes to itself."""
        return Memory(self.orders, self.fade, self.vocab_size, parent=self)

    def absorb(self, branch: "Memory") -> None:
        """Know and stand as a branch of this memory does, which must not be used any more."""
        self.contexts.update(branch.contexts)
        self.recent.update(branch.recent)
        self.time, self.tail, self.keys = branch.time, branch.tail, branch.keys

    def stand_after(self, history: Sequence[int]) -> None:
        """Forget the place and take that after `history`; contexts reach no further back."""
        longest = self.orders[-1]
        recent = history[max(len(history) - longest, 0) :]
        self.tail = b"".join(token.to_bytes(self.width, "little") for token in recent)
        self._find_keys()

    def experts(self) -> list[Expert]:
        """What each context that ends here suggests, the least specific first."""
        found = []
        kinds_of_newest = len(self.orders) * NUM_KINDS
        kinds_of_recent = 2 * kinds_of_newest
        for place, key in enumerate(self.keys):
            context = self._context(key)
            if context is None:
                continue
            counts = context.counts
            successors = 1 if isinstance(counts, int) else len(counts)
            kind = (place * NUM_AGES + age_class(self.time - context.time)) * NUM_NUMBERS
            kind = (kind + number_class(context.number)) * NUM_SUCCESSORS
            kind += min(number_class(successors), NUM_SUCCESSORS - 1)
            found.append(Expert(kind, counts, context.number))
            if len(key) <= self.width:  # orders 0 and 1
                recent = self._recent(key)
                assert recent is not None
                worth = recent.total * math.exp((recent.since - self.time) / self.fade)
                kind_of_recent = kinds_of_recent + number_class(int(2.0 * worth))
                kind_of_recent += NUM_NUMBERS if key else 0
                found.append(Expert(kind_of_recent, recent.weights, recent.total))
            found.append(Expert(kinds_of_newest + kind, context.newest, 1))
        return found

    def push(self, token: int) -> None:
        """Learn that `token` came, and move on.

        Counts follow update exclusion (Moffat 1990): a context shorter than one that expected the
        token does not count it, so that short contexts say what comes where the long ones fail.
        """
        expected = False
        for key in reversed(self.keys):
            if len(key) <= self.width:
                self._push_recent(key, token)
            context = self._own_context(key)
            if context is None:
                self.contexts[key] = _Context(1, token, self.time, token)
                continue
            counts = context.counts
            lone = isinstance(counts, int)
            known = counts == token if lone else token in counts
            if not expected:
                context.number += 1
                if isinstance(counts, dict):
                    counts[token] = counts.get(token, 0) + 1
                elif counts != token:
                    context.counts = {counts: context.number - 1, token: 1}
            context.newest, context.time = token, self.time
            expected = expected or known
        self.time += 1
        longest = self.orders[-1] * self.width
        self.tail = (self.tail + token.to_bytes(self.width, "little"))[-longest:]
        self._find_keys()

    def read(self, text: Tensor, num_targets: int) -> None:
        """Push the targets of a window, which are its last tokens.

        Contexts are those of the window's own text: it may be all that a reader of it has seen.
        """
        tokens = text.tolist()
        first = len(tokens) - num_targets
        self.stand_after(tokens[:first])
        for token in tokens[first:]:
            self.push(token)

    def gather(self, text: Tensor, num_targets: int) -> Says:
        """`read`, and what the experts said of each target before it was pushed."""
        tokens = text.tolist()
        first = len(tokens) - num_targets
        self.stand_after(tokens[:first])
        numbers, kinds, ahead, pointed = [], [], [], []
        for token in tokens[first:]:
            experts = self.experts()
            numbers.append(len(experts))
            kinds += [expert.kind for expert in experts]
            ahead += [expert.probability(token) for expert in experts]
            pointed += [expert.pointed for expert in experts]
            self.push(token)
        integers = (np.array(one, np.int64) for one in (numbers, kinds, pointed))
        numbers, kinds, pointed = integers
        return Says(numbers, kinds, np.array(ahead, np.float64), pointed)

    def suggestions(self) -> tuple[np.ndarray, np.ndarray]:
        """(kinds, pointed) of the experts on the token awaited here, the least specific first."""
        experts = self.experts()
        kinds, pointed = ([e.kind for e in experts], [e.pointed for e in experts])
        return np.array(kinds, np.int64), np.array(pointed, np.int64)

    def ahead(self, token: int) -> np.ndarray:
        """The probability that each of them gives a token."""
        return np.array([expert.probability(token) for expert in self.experts()], np.float64)

    def join(self, kept: np.ndarray, model: np.ndarray) -> np.ndarray:
        """Their mixture with the model's probabilities (V,), all float64.

        kept  for each expert the share that it leaves to what lies below it
        """
        mixed = np.zeros_like(model)
        weight = 1.0  # of what is not yet shared out, from the most specific expert downwards
        for share, expert in zip(reversed(kept.tolist()), reversed(self.experts()), strict=True):
            expert.add_to(mixed, weight * (1.0 - share))
            weight *= share
        return mixed + weight * model

    def _find_keys(self) -> None:
        tail, width = self.tail, self.width
        sizes = [order * width for order in self.orders if order * width <= len(tail)]
        self.keys = [tail[len(tail) - size :] for size in sizes]

    def _context(self, key: bytes) -> _Context | None:
        own = self.contexts.get(key)
        return self.parent._context(key) if own is None and self.parent is not None else own

    def _own_context(self, key: bytes) -> _Context | None:
        """The context, copied from the parent if it must be: free to be changed."""
        own = self.contexts.get(key)
        if own is None and self.parent is not None:
            inherited = self.parent._context(key)
            if inherited is not None:
                own = self.contexts[key] = inherited.copy()
        return own

    def _recent(self, key: bytes) -> _Recent | None:
        own = self.recent.get(key)
        return self.parent._recent(key) if own is None and self.parent is not None else own

    def _push_recent(self, key: bytes, token: int) -> None:
        recent = self.recent.get(key)
        if recent is None:
            inherited = self._recent(key)
            # A new one begins now, whoever makes it: what a branch learns is what all would learn.
            recent = _Recent(self.time) if inherited is None else inherited.copy()
            self.recent[key] = recent
        # A later token weighs more instead of all earlier ones less: one addition, not thousands.
        exponent = (self.time - recent.since) / self.fade
        if exponent > 200.0:  # far from the end of float64, so nothing ever overflows
            shrink = math.exp(-exponent)
            recent.weights = {token: w * shrink for token, w in recent.weights.items()}
            recent.total *= shrink
            recent.since, exponent = self.time, 0.0
        weight = math.exp(exponent)
        recent.weights[token] = recent.weights.get(token, 0.0) + weight
        recent.total += weight
