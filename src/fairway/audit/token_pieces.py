"""What every id of a vocabulary stands for, whoever made it.

Which files hold one, and how they are read, is in `vocabulary.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, eq=False)
class Vocabulary:
    """What every id stands for, and how a text becomes ids.

    pieces    (V) the bytes of each id in the middle of a text; empty for those that stand for none
    printed   (V) how the vocabulary's own file spells it, if it does so in letters; else `alone`
    alone     (V) what the library decodes it to by itself, as text
    encode    one document to ids, without marks around it
    targets   a stream (n,) of ids, marks included -> bytes (n - 1,) that each but the first stands
              for
    join      the ids of one document -> its bytes
    opener    the id that opens a document, if the vocabulary has one
    """

    kind: str
    pieces: Sequence[bytes]
    printed: Sequence[str]
    alone: Sequence[str]
    encode: Callable[[bytes], np.ndarray]
    targets: Callable[[np.ndarray], np.ndarray]
    join: Callable[[np.ndarray], bytes]
    opener: int | None = None

    @property
    def size(self) -> int:
        return len(self.pieces)

    @property
    def is_text(self) -> np.ndarray:
        """(V,) whether an id stands for bytes of text."""
        return np.array([bool(piece) for piece in self.pieces])

    @property
    def sizes(self) -> np.ndarray:
        """(V,) int64: bytes of each id in the middle of a text."""
        return np.array([len(piece) for piece in self.pieces], dtype=np.int64)

    def count(self, ids: np.ndarray) -> np.ndarray:
        """Bytes (n,) that each of a document's ids (n,), without marks, stands for."""
        silent = np.flatnonzero(~self.is_text)
        mark = self.opener if self.opener is not None else silent[0] if len(silent) else None
        if mark is None:  # where none could open a document, none depends on what is before it
            return self.sizes[ids]
        return self.targets(np.concatenate(([mark], ids)))


def of_bytes(
    kind: str,
    pieces: list[bytes],
    printed: list[str],
    *,
    encode: Callable[[bytes], np.ndarray],
    opener: int | None,
    alone: list[str] | None = None,
    first_blank: bool = True,
) -> Vocabulary:
    """Where every id stands for the same bytes wherever it is.

    first_blank  a blank that opens a document is in the text; not where the library puts one before
                 each document
    """
    sizes = np.array([len(piece) for piece in pieces], dtype=np.int64)
    silent = sizes == 0
    left_out = np.array([not first_blank and piece[:1] == b" " for piece in pieces])

    def targets(tokens: np.ndarray) -> np.ndarray:
        before, now = tokens[:-1], tokens[1:]
        return sizes[now] - (left_out[now] & silent[before])

    def join(ids: np.ndarray) -> bytes:
        text = b"".join(pieces[token] for token in ids.tolist())
        return text[1:] if len(ids) and left_out[ids[0]] else text

    return Vocabulary(
        kind=kind,
        pieces=pieces,
        printed=printed,
        alone=alone or [piece.decode("utf-8", "replace") for piece in pieces],
        encode=encode,
        targets=targets,
        join=join,
        opener=opener,
    )
