"""The text an audit feeds to a scorer: a pseudo-text when none is given, and edits of any text.

An edit keeps the number of tokens, is a pure function of its four fields, and prints as the Python
that makes it again, so a finding can be checked by hand. What is compared is in `causality.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

BOS = 1  # the field's mark in front of every document
NUM_SPECIAL = 4  # pad, BOS, EOS, unknown: ids that text does not use


def pseudo_text(vocab_size: int, num_tokens: int = 1024, seed: int = 0) -> np.ndarray:
    """Tokens (num_tokens,) int64 with what caches and adapters feed on.

    Documents of uneven length, each opened by a BOS; skewed unigram counts; a book of phrases that
    come back, some of them spelled with the rarest tokens, so that an n-gram hint fires for
    frequent and for rare tokens alike.
    """
    if vocab_size < 2 or num_tokens < 2:
        raise ValueError(
            f"vocab_size={vocab_size}, num_tokens={num_tokens}: a stream needs two of both, "
            "otherwise there is nothing to predict"
        )
    rng = np.random.default_rng([seed, vocab_size, num_tokens])
    first = NUM_SPECIAL if vocab_size > 2 * NUM_SPECIAL else 0
    words = np.arange(first, vocab_size)
    weights = 1.0 / (np.arange(len(words)) + 3.0)
    weights /= weights.sum()

    book = []
    for phrase in range(24):
        length = int(rng.integers(3, 11))
        rare = phrase % 3 == 0
        book.append(rng.choice(words[-max(2, len(words) // 3) :] if rare else words, length))
    stream: list[int] = []
    while len(stream) < num_tokens:
        stream.append(BOS)
        stop = len(stream) + 12 + int(rng.exponential(70))
        favourites = rng.choice(len(book), 4, replace=False)  # a document repeats its own phrases
        while len(stream) < stop:
            if rng.random() < 0.45:
                stream.extend(book[int(rng.choice(favourites))].tolist())
            else:
                stream.extend(rng.choice(words, int(rng.integers(2, 7)), p=weights).tolist())
    return np.array(stream[:num_tokens], dtype=np.int64)


@dataclass(frozen=True)
class Edit:
    """tokens[start:stop] replaced in the manner `how`; the first of them always changes.

    seed  of the random manners; the same edit of the same text is the same stream
    """

    start: int
    stop: int
    how: str
    seed: int = 0

    def __post_init__(self) -> None:
        if self.how not in MANNERS:
            raise ValueError(f"unknown edit {self.how!r}; choose one of {', '.join(MANNERS)}")

    def apply(self, tokens: np.ndarray, vocab_size: int) -> np.ndarray:
        """A copy of tokens (n,) int64, edited, with the same length."""
        rng = np.random.default_rng([self.seed, self.start, self.stop])
        old = tokens[self.start : self.stop]
        new = MANNERS[self.how](Passage(tokens, old, vocab_size, rng))
        if self.how not in MOVING_DOCUMENTS:
            new = np.where((old == BOS) | (new == BOS), old, new)
        if new[0] == old[0]:
            new = new.copy()
            new[0] = _another(int(old[0]), vocab_size, rng)
        edited = tokens.copy()
        edited[self.start : self.stop] = new
        return edited


def _another(token: int, vocab_size: int, rng: np.random.Generator) -> int:
    """A random token other than `token`, and no BOS where there is a choice."""
    if vocab_size <= NUM_SPECIAL:
        return (token + 1) % vocab_size
    while (other := int(rng.integers(vocab_size))) in (token, BOS):
        pass
    return other


@dataclass(frozen=True)
class Passage:
    """What an edit replaces: `old` (m,), a part of `tokens` (n,)."""

    tokens: np.ndarray
    old: np.ndarray
    vocab_size: int
    rng: np.random.Generator

    def uniform(self) -> np.ndarray:
        """Any tokens at all: as far from text as can be."""
        return self.rng.integers(min(BOS + 1, self.vocab_size - 1), self.vocab_size, len(self.old))

    def constant(self) -> np.ndarray:
        """One token over and over: as predictable as can be."""
        return np.full(len(self.old), _another(int(self.old[0]), self.vocab_size, self.rng))

    def text(self) -> np.ndarray:
        """Another stretch of the same stream: plausible text, phrases and all."""
        shift = int(self.rng.integers(1, len(self.tokens)))
        return np.roll(self.tokens, shift)[: len(self.old)]

    def shuffled(self) -> np.ndarray:
        """The same tokens in another order: counts stay, phrases go."""
        return self.rng.permutation(self.old)

    def one_document(self) -> np.ndarray:
        """Every BOS becomes another token: the documents run together."""
        return np.where(self.old == BOS, _another(BOS, self.vocab_size, self.rng), self.old)

    def many_documents(self) -> np.ndarray:
        """A BOS about every sixth token: the documents become short."""
        return np.where(self.rng.random(len(self.old)) < 1 / 6, BOS, self.old)


MANNERS: dict[str, Callable[[Passage], np.ndarray]] = {
    "uniform": Passage.uniform,
    "text": Passage.text,
    "constant": Passage.constant,
    "shuffled": Passage.shuffled,
    "one document": Passage.one_document,
    "many documents": Passage.many_documents,
}
MOVING_DOCUMENTS = ("one document", "many documents")


def moves_documents(tokens: np.ndarray, edited: np.ndarray) -> bool:
    """Whether some document of the edited stream begins or ends elsewhere."""
    return not np.array_equal(tokens == BOS, edited == BOS)


def context_matches(tokens: np.ndarray, longest: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """For each target, how long a phrase before it was seen earlier, and what followed then.

    tokens   (n,) int64
    returns  length (n - 1,) of the longest repeated phrase, 0 where there is none, and the token
             (n - 1,) that followed its last occurrence, -1 where there is none
    """
    length = np.zeros(len(tokens) - 1, dtype=np.int64)
    hint = np.full(len(tokens) - 1, -1, dtype=np.int64)
    stream = tokens.tolist()
    for order in range(1, longest + 1):
        last: dict[tuple[int, ...], int] = {}
        for i in range(order - 1, len(stream) - 1):
            context = tuple(stream[i - order + 1 : i + 1])
            if context in last:
                length[i], hint[i] = order, last[context]
            last[context] = stream[i + 1]
    return length, hint
