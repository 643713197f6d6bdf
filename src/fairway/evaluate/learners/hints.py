"""Hints: the token that most often followed the last tokens before, and how often it did (#2130).

Contexts of one length are told apart by the published hash of their tokens and by nothing else: two
that share it count as one, as they do there. Whether a hint is trusted, and what it is worth, is in
`tilt.py`; the same in C++, many times as fast, in `hints_compiled.py`.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, Self

import numpy as np
import torch
from torch import Tensor

NONE = -1  # no context like this one was seen
# One for each place of the longest context, the oldest token first.
COEFFICIENTS = (
    36313, 27191, 51647, 81929, 131071, 196613, 262147, 393241, 524309, 655373, 786433, 917521,
    1048583, 1179653, 1310729,
)  # fmt: skip
LONGEST = len(COEFFICIENTS)
OF_CONTEXT, OF_TOKEN, KEY_MASK = 1_000_003, 1_441_801, (1 << 64) - 1


class Hints(NamedTuple):
    """For each token that was read what was expected before it.

    tokens      (n,) int64; -1 where the context is new
    confidence  (n,) float64: how many of the context's occurrences that token followed; 0 there
    """

    tokens: Tensor
    confidence: Tensor


class HintMemory(Protocol):
    """All contexts read so far, and the place in the text where the next token is awaited."""

    def branch(self) -> Self:
        """A memory that reads this one, at its place, and writes to itself."""
        ...

    def absorb(self, branch: Self) -> None:
        """Know what a branch of this memory has read since, and stand where it stands."""
        ...

    def stand_after(self, place: Sequence[int]) -> None:
        """Forget the place and take that after these tokens; after none, contexts begin anew."""
        ...

    def place(self) -> list[int]:
        """The last tokens, as many as a context has: `stand_after` them is to stand here."""
        ...

    def expected(self) -> tuple[int, float]:
        """The token expected next and its confidence."""
        ...

    def push(self, token: int) -> None:
        """Learn that `token` came, and move on."""
        ...

    def read(self, tokens: Tensor) -> Hints:
        """Push each of tokens (n,) int64, asking before each what is expected."""
        ...


class _Context(NamedTuple):
    number: int = 0  # of occurrences
    best: int = NONE
    count: int = 0  # of times that `best` followed


class PlainHintMemory:
    """`HintMemory` as it is meant, in dictionaries.

    length  of a context, in tokens
    parent  read where this memory holds nothing; never written
    """

    def __init__(self, length: int, parent: "PlainHintMemory | None" = None) -> None:
        self.length, self.parent = length, parent
        self.contexts: dict[int, _Context] = {}
        self.pairs: dict[int, int] = {}  # by key of context and token: how often they came
        self.tail: list[int] = [] if parent is None else list(parent.tail)

    def branch(self) -> "PlainHintMemory":
        return PlainHintMemory(self.length, self)

    def absorb(self, branch: "PlainHintMemory") -> None:
        self.contexts |= branch.contexts
        self.pairs |= branch.pairs
        self.tail = list(branch.tail)

    def stand_after(self, place: Sequence[int]) -> None:
        self.tail = list(place[-self.length :])

    def place(self) -> list[int]:
        return list(self.tail)

    def expected(self) -> tuple[int, float]:
        context = self._context(self._key()) if len(self.tail) == self.length else None
        if context is None or not context.number:
            return NONE, 0.0
        return context.best, context.count / context.number

    def push(self, token: int) -> None:
        if len(self.tail) == self.length:
            key = self._key()
            context, pair = self._context(key), (key * OF_CONTEXT ^ token * OF_TOKEN) & KEY_MASK
            count = self._pair(pair) + 1
            self.pairs[pair] = count
            best = (context.best, context.count)
            if count > context.count:  # strictly: of two as frequent, the earlier one stays
                best = (token, count)
            self.contexts[key] = _Context(context.number + 1, *best)
        # As published: where a text begins, its first token also stands for the one before it.
        self.tail = [*(self.tail or [token]), token][-self.length :]

    def read(self, tokens: Tensor) -> Hints:
        found = []
        for token in tokens.tolist():
            found.append(self.expected())
            self.push(token)
        expected, confidence = zip(*found, strict=True) if found else ((), ())
        return Hints(
            torch.tensor(expected, dtype=torch.long), torch.tensor(confidence, dtype=torch.float64)
        )

    def _key(self) -> int:
        key = 0
        for token, coefficient in zip(self.tail, COEFFICIENTS, strict=False):
            key ^= token * coefficient
        return key

    def _context(self, key: int) -> _Context:
        own = self.contexts.get(key)
        if own is None:
            return _Context() if self.parent is None else self.parent._context(key)
        return own

    def _pair(self, key: int) -> int:
        own = self.pairs.get(key)
        if own is None:
            return 0 if self.parent is None else self.parent._pair(key)
        return own


def trusted(hints: Hints, threshold: float) -> Tensor:
    """(n,) int64: the hints whose confidence is at least `threshold`; -1 where there is none."""
    return hints.tokens.where(hints.confidence >= threshold, NONE)


def as_array(tokens: Tensor) -> np.ndarray:
    return np.ascontiguousarray(tokens.to("cpu", torch.int64).numpy())
