"""An order in which documents are scored: tokens rearranged, a name, and what telling it costs.

Documents and their lengths are told to a decoder beforehand, so document marks carry no news: they
are neither edited nor compared. Which order a scorer has is found in `order_search.py`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from fairway.audit.stream import BOS

STREAM = "stream order"
EXPLICIT = "an explicit order"
# What a document is sorted by, given lengths (D,): these orders need no telling.
BY_LENGTH: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    STREAM: lambda lengths: np.arange(len(lengths)),
    "longest first": lambda lengths: -lengths,
    "shortest first": lambda lengths: lengths,
}


def document_starts(tokens: np.ndarray) -> np.ndarray:
    """(D,) where each document begins: at its BOS, and at 0 whatever stands there."""
    return np.union1d([0], np.flatnonzero(tokens == BOS))


def document_of(tokens: np.ndarray) -> np.ndarray:
    """(n,) the document that each token is in."""
    return np.searchsorted(document_starts(tokens), np.arange(len(tokens)), side="right") - 1


@dataclass(frozen=True, eq=False)
class ScoringOrder:
    """The order in which the tokens of a stream are scored, lengths of documents being told.

    places            (n,) positions in the stream, the first to be scored first
    told              (n,) by position: document marks and the given token, which cost nothing here
    name              in words
    batches           documents, those scored in step together; one after the other otherwise
    permutation_bits  telling which order it is, when its name is known: 0 for what lengths decide
    length_bits       telling how long each document is, when their number and the sum are known
    """

    places: np.ndarray
    told: np.ndarray
    name: str
    batches: tuple[tuple[int, ...], ...]
    permutation_bits: float
    length_bits: float

    @classmethod
    def of(
        cls,
        tokens: np.ndarray,
        batches: Sequence[Sequence[int]],
        name: str = EXPLICIT,
        permutation_bits: float = 0.0,
    ) -> "ScoringOrder":
        """Batches of documents, one after the other; documents of one batch go token by token.

        batches  every document of tokens (n,) in exactly one
        """
        starts = document_starts(tokens)
        document = document_of(tokens)
        batch = np.empty(len(starts), np.int64)
        for rank, members in enumerate(batches):
            batch[list(members)] = rank
        offset = np.arange(len(tokens)) - starts[document]
        places = np.lexsort((document, offset, batch[document]))
        told = np.zeros(len(tokens), bool)
        told[starts] = True
        kept = tuple(tuple(int(d) for d in members) for members in batches)
        lengths = length_bits(len(tokens), len(starts))
        return cls(places, told, name, kept, permutation_bits, lengths)

    @classmethod
    def of_lengths(cls, tokens: np.ndarray, places: np.ndarray, name: str) -> "ScoringOrder":
        """An order that is known, and that lengths decide.

        places  (n,) positions in the stream, the first to be scored first
        """
        starts, document = document_starts(tokens), document_of(tokens)
        told = np.zeros(len(tokens), bool)
        told[starts] = True
        sequence = dict.fromkeys(document[places[~told[places]]].tolist())
        batches = tuple((d,) for d in sequence)
        return cls(places, told, name, batches, 0.0, length_bits(len(tokens), len(starts)))

    @property
    def bits(self) -> float:
        return self.permutation_bits + self.length_bits

    @property
    def in_step(self) -> bool:
        """Whether some documents are scored side by side."""
        return any(len(documents) > 1 for documents in self.batches)

    @property
    def is_stream(self) -> bool:
        return np.array_equal(self.places, np.arange(len(self.places)))

    def same_as(self, other: "ScoringOrder") -> bool:
        return np.array_equal(self.places, other.places)

    def arrange(self, tokens: np.ndarray) -> np.ndarray:
        """(n,) as they stand in the order of scoring."""
        return tokens[self.places]

    def restore(self, arranged: np.ndarray) -> np.ndarray:
        """Inverse of `arrange`."""
        tokens = np.empty_like(arranged)
        tokens[self.places] = arranged
        return tokens

    def arrange_nats(self, nats: np.ndarray) -> np.ndarray:
        """(n - 1,) of the arranged tokens, all but the first; 0 for what is told."""
        if nats.size != len(self.places) - 1:
            return nats  # the probes report that
        by_token = np.concatenate([[0.0], nats])
        by_token[self.told] = 0.0
        return by_token[self.places][1:]

    def to_json(self) -> dict[str, Any]:
        listed = {"batches": [list(b) for b in self.batches]} if self.permutation_bits else {}
        return {
            "name": self.name,
            "documents": int(np.count_nonzero(self.told)),
            "permutation_bits": round(self.permutation_bits, 3),
            "length_bits": round(self.length_bits, 3),
        } | listed


def length_bits(num_tokens: int, num_documents: int) -> float:
    """log2 of the ways to cut so many tokens into so many documents.

    >>> round(length_bits(5, 2), 6)
    2.0
    """
    n, k = num_tokens - 1, num_documents - 1
    return (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(2)


def permutation_bits(num_documents: int) -> float:
    """log2 of the orders of so many documents."""
    return math.lgamma(num_documents + 1) / math.log(2)


def tie_bits(keys: Mapping[int, int], order: Sequence[int]) -> float:
    """Telling the order among those of equal key; nothing where it is that of the stream.

    order  sorted by `keys`
    """
    ties = [list(group) for _, group in groupby(order, key=lambda node: keys[node])]
    if all(tie == sorted(tie) for tie in ties) or all(tie == sorted(tie)[::-1] for tie in ties):
        return 0.0
    return sum(permutation_bits(len(tie)) for tie in ties)
