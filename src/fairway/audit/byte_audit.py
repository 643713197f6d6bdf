"""The usual ways of counting a token's bytes against what the tokens decode to.

Bits per byte are bits divided by bytes, so a count that is wrong by a share moves every score by
that share, whatever the model: `fairway bytes` says by how much, on a text, before any model is
asked.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fairway.audit.token_pieces import Vocabulary

MOST_EXAMPLES = 8


def _sizes(texts: Iterable[str], vocabulary: Vocabulary) -> np.ndarray:
    """UTF-8 bytes of a text for each id that stands for any; 0 for all others."""
    found = np.array([len(text.encode("utf-8", "replace")) for text in texts], dtype=np.int64)
    return np.where(vocabulary.is_text, found, 0)


def _named(vocabulary: Vocabulary) -> np.ndarray:
    names = np.array([len(name.encode("utf-8", "replace")) for name in vocabulary.printed])
    return np.where(vocabulary.is_text, vocabulary.sizes, names)


def _without_blank(vocabulary: Vocabulary) -> np.ndarray:
    blanks = [piece[:1] == b" " and len(piece) > 1 for piece in vocabulary.pieces]
    return vocabulary.sizes - np.array(blanks)


def _blank_twice(vocabulary: Vocabulary) -> np.ndarray:
    return vocabulary.sizes + np.array([piece[:1] == b" " for piece in vocabulary.pieces])


# How people count, by what they do: (V,) bytes that each id is said to have.
WAYS: dict[str, Callable[[Vocabulary], np.ndarray]] = {
    "len(decode([id]).encode())": lambda v: _sizes(v.alone, v),
    "len(decode([id])), characters": lambda v: np.where(
        v.is_text, [len(text) for text in v.alone], 0
    ),
    "len(printed token).encode()": lambda v: _sizes(v.printed, v),
    "len(printed token), characters": lambda v: np.where(
        v.is_text, [len(text) for text in v.printed], 0
    ),
    "right, but special tokens by their name": _named,
    "right, but no blank in front of words": _without_blank,
    "right, but that blank twice": _blank_twice,
    "the bytes of each id, wherever it stands": lambda v: v.sizes,
}


@dataclass(frozen=True, kw_only=True)
class TextCheck:
    """Whether a text's tokens give it back, and how many bytes they stand for.

    text_bytes    of the documents
    joined_bytes  that the tokens give back, joined; the truth that counts are held against
    counted       the bytes of all tokens, each counted by itself, add up to the joined ones
    exact         the documents came back as they were
    difference    where the first one that did not first differs, in words; empty where all did
    marks         of documents: ids that open one, and stand for none of its bytes
    """

    documents: int
    tokens: int
    marks: int
    text_bytes: int
    joined_bytes: int
    counted: bool
    exact: bool
    difference: str

    def lines(self) -> list[str]:
        size = f"{self.documents:,} documents, {self.tokens:,} tokens, {self.text_bytes:,} bytes"
        if not self.counted:
            return [f"{size}: bytes of single tokens do not add up to those of all, joined"]
        if self.exact:
            return [f"{size}: joined, the tokens give back every byte"]
        return [
            f"{size}: joined, the tokens give back {self.joined_bytes:,} others",
            f"  {self.difference}",
        ]


@dataclass(frozen=True, kw_only=True)
class WayCheck:
    """One way of counting.

    wrong      number of ids whose bytes it does not know
    examples   [id, piece as bytes are printed, its bytes, the bytes said], the worst on the text
               first
    counted    bytes that it counts on the text; None without a text
    moves      by which share every score on this text is wrong: -0.01 makes it 1 % too good
    """

    way: str
    wrong: int
    examples: list[tuple[int, str, int, int]]
    counted: int | None = None
    moves: float | None = None

    @property
    def is_right(self) -> bool:
        return not self.wrong and not self.moves


@dataclass(frozen=True, kw_only=True)
class ByteAudit:
    """What was found of a vocabulary.

    partial  ids that are no whole characters by themselves
    special  ids that stand for no text, unused ones included
    claimed  the check of a table that somebody made; None where none was given
    """

    kind: str
    size: int
    partial: int
    special: int
    text: TextCheck | None
    ways: tuple[WayCheck, ...]
    claimed: WayCheck | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """The same for people."""
        said = [
            f"{self.kind}: {self.size:,} ids, {self.partial:,} of them parts of characters, "
            f"{self.special:,} without text"
        ]
        if self.text is not None:
            said += self.text.lines()
        said.append(f"  {'counted as':<42}{'wrong ids':>10}{'bytes':>15}{'scores move':>13}")
        for check in self.ways + ((self.claimed,) if self.claimed else ()):
            moves = "" if check.moves is None else f"{check.moves:+.3%}"
            counted = "" if check.counted is None else f"{check.counted:,}"
            said.append(f"  {check.way:<42}{check.wrong:>10,}{counted:>15}{moves:>13}")
        if self.claimed is not None and self.claimed.wrong:
            said += [
                f"  id {token} {piece!s:.40}: {size} bytes, the table says {told}"
                for token, piece, size, told in self.claimed.examples
            ]
        return said


def audit_bytes(
    vocabulary: Vocabulary,
    documents: Iterable[bytes] | None = None,
    claimed: np.ndarray | None = None,
) -> ByteAudit:
    """Hold the usual ways of counting bytes, and perhaps a table (V,) of counts, against the truth.

    documents  a text to say by how much scores move; None only compares ids
    claimed    integers; entries beyond the vocabulary must be 0

    Raises ValueError for a table that cannot be one of this vocabulary.
    """
    usage = None if documents is None else _use(vocabulary, documents)
    ways = tuple(_check(vocabulary, usage, way, count(vocabulary)) for way, count in WAYS.items())
    table = None
    if claimed is not None:
        table = _check(vocabulary, usage, "the table", _fitted(claimed, vocabulary))
    return ByteAudit(
        kind=vocabulary.kind,
        size=vocabulary.size,
        partial=sum(map(_is_partial, vocabulary.pieces)),
        special=int((~vocabulary.is_text).sum()),
        text=None if usage is None else usage.check,
        ways=ways,
        claimed=table,
    )


def _is_partial(piece: bytes) -> bool:
    try:
        piece.decode()
    except UnicodeDecodeError:
        return True
    return False


@dataclass(frozen=True, eq=False)
class _Usage:
    """times  (V,) how often a text has each id, marks included"""

    times: np.ndarray
    check: TextCheck


def _use(vocabulary: Vocabulary, documents: Iterable[bytes]) -> _Usage:
    times = np.zeros(vocabulary.size, np.int64)
    number = tokens = text_bytes = joined_bytes = counted = 0
    difference = ""
    for number, document in enumerate(documents, start=1):
        ids = vocabulary.encode(document)
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < vocabulary.size:
            raise ValueError(f"the vocabulary has no id {int(ids.max())}, and yet its text does")
        back = vocabulary.join(ids)
        times += np.bincount(ids, minlength=vocabulary.size)
        tokens += len(ids)
        text_bytes, joined_bytes = text_bytes + len(document), joined_bytes + len(back)
        counted += int(vocabulary.count(ids).sum())
        if back != document and not difference:
            difference = _difference(number, document, back)
    if not number:
        raise ValueError("there is no document in this text")
    marks = 0 if vocabulary.opener is None else number
    if vocabulary.opener is not None:
        times[vocabulary.opener] += number
    check = TextCheck(
        documents=number,
        tokens=tokens,
        marks=marks,
        text_bytes=text_bytes,
        joined_bytes=joined_bytes,
        counted=counted == joined_bytes,
        exact=not difference,
        difference=difference,
    )
    return _Usage(times, check)


def _difference(number: int, document: bytes, back: bytes) -> str:
    place = next(
        (i for i, (a, b) in enumerate(zip(document, back, strict=False)) if a != b),
        min(len(document), len(back)),
    )
    window = slice(max(0, place - 8), place + 8)
    return (
        f"document {number}, byte {place}: {document[window]!r} came back as {back[window]!r}; "
        "the vocabulary changes text before it cuts it"
    )


def _check(vocabulary: Vocabulary, usage: _Usage | None, way: str, counts: np.ndarray) -> WayCheck:
    off = counts - vocabulary.sizes
    wrong = np.flatnonzero(off)
    weight = np.abs(off[wrong]) * (1 if usage is None else 1 + usage.times[wrong])
    worst = wrong[np.argsort(-weight, kind="stable")][:MOST_EXAMPLES].tolist()
    examples = [
        (token, _shown(vocabulary, token), len(vocabulary.pieces[token]), int(counts[token]))
        for token in worst
    ]
    counted = moves = None
    if usage is not None:
        counted = int(counts @ usage.times)
        moves = usage.check.joined_bytes / counted - 1 if counted > 0 else float("inf")
    return WayCheck(way=way, wrong=len(wrong), examples=examples, counted=counted, moves=moves)


def _shown(vocabulary: Vocabulary, token: int) -> str:
    piece = vocabulary.pieces[token]
    return repr(piece)[2:-1] if piece else vocabulary.printed[token]


def _fitted(claimed: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    table = np.asarray(claimed)
    if table.ndim != 1 or table.dtype.kind not in "iuf" or (table != np.round(table)).any():
        raise ValueError(f"the table has shape {table.shape} and {table.dtype}; counts are whole")
    size = vocabulary.size
    if len(table) < size:
        raise ValueError(f"the table has {len(table):,} counts, the vocabulary {size:,} ids")
    if table[size:].any():
        raise ValueError(
            f"the table has {len(table):,} counts, the vocabulary {size:,} ids, and what is beyond "
            "them is not 0: the two do not belong together"
        )
    return table[:size].astype(np.int64)
