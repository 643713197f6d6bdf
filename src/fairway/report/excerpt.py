"""The part of a scored text that a page can show, and what each of its tokens cost.

A short text is shown whole. Of a long one: its beginning, and the surroundings of the passages that
were dearest, cheapest, and helped most by learning, each of another document.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fairway.result import RunResult
from fairway.runtime.tensor_file import read_tensors, write_tensors
from fairway.tokens.tokenizer import Tokenizer
from fairway.tokens.val_text import ValText

EXCERPT = "excerpt.safetensors"
MOST_TOKENS = 100_000  # on one page: about half a megabyte
PASSAGE = 48  # tokens
PIECE = 170 * PASSAGE  # tokens at most that are shown of one document at once
MOST_PASSAGES = 6  # of each kind
KINDS = ("dearest", "cheapest", "most helped by learning")


class Passage(NamedTuple):
    """kind  of KINDS; piece and tokens [first, stop) within it"""

    kind: str
    piece: int
    first: int
    stop: int


@dataclass(frozen=True, eq=False)
class Piece:
    """Consecutive tokens of one document.

    document      its number in the text, from 0
    first_byte    where in the document the piece begins
    data          the bytes of the tokens
    token_bytes   (n,) int64, at least 1 each: what has no bytes is counted with what follows it
    frozen, bits  (n,) float64: bits that each token cost without learning, and as it was scored
    """

    document: int
    first_byte: int
    data: bytes
    token_bytes: NDArray[np.int64]
    frozen: NDArray[np.float64]
    bits: NDArray[np.float64]

    @property
    def bits_per_byte(self) -> float:
        return float(self.bits.sum()) / len(self.data)

    @property
    def frozen_bits_per_byte(self) -> float:
        return float(self.frozen.sum()) / len(self.data)

    @property
    def ends(self) -> NDArray[np.int64]:
        """Where each token ends among the bytes."""
        return np.cumsum(self.token_bytes)


@dataclass(frozen=True, eq=False)
class Excerpt:
    """pieces in the order of the text; num_documents and num_bytes of all of the text"""

    pieces: tuple[Piece, ...]
    passages: tuple[Passage, ...]
    num_documents: int
    num_bytes: int

    @property
    def is_whole(self) -> bool:
        return sum(len(piece.data) for piece in self.pieces) == self.num_bytes

    def cut(self, most_tokens: int) -> "Excerpt":
        """Of fewer tokens: the passages' own pieces stay, of the others the first that fit."""
        wanted = {passage.piece for passage in self.passages}
        left = most_tokens - sum(len(self.pieces[i].bits) for i in wanted)
        kept = []
        for i, piece in enumerate(self.pieces):
            if i not in wanted:
                if left < len(piece.bits):
                    continue
                left -= len(piece.bits)
            kept.append(i)
        place = {i: place for place, i in enumerate(kept)}
        return Excerpt(
            tuple(self.pieces[i] for i in kept),
            tuple(p._replace(piece=place[p.piece]) for p in self.passages),
            self.num_documents,
            self.num_bytes,
        )


def make_excerpt(
    text: ValText,
    tokenizer: Tokenizer,
    frozen_nats: NDArray[np.float64],
    nats: NDArray[np.float64],
    most_tokens: int = MOST_TOKENS,
) -> Excerpt:
    """What to show of `text`.

    frozen_nats, nats  (num_targets,) of each target, without learning and as it was scored

    Documents whose tokens do not decode to whole bytes of their own are left out.
    """
    frozen, bits = frozen_nats / np.log(2), nats / np.log(2)
    edges = [*sorted({0, *text.document_starts}), len(text.tokens)]
    marked = _passages(text, frozen, bits)
    spans = _spans(edges, [begin for _, begin, _ in marked], most_tokens)
    pieces: list[Piece] = []
    passages: dict[tuple[str, int, int], Passage] = {}
    documents: dict[int, tuple[bytes, NDArray[np.int64]] | None] = {}
    for document, begin, end in spans:
        if document not in documents:
            documents[document] = _bytes_of(text, tokenizer, edges[document], edges[document + 1])
        held = documents[document]
        if held is None:
            continue
        made, places = _piece(document, held, begin, end, edges[document], frozen, bits)
        if made is None:
            continue
        for kind, first, stop in marked:
            if begin <= first and stop <= end:
                at = (int(places[first - begin]), int(places[stop - 1 - begin]) + 1)
                passages[kind, first, stop] = Passage(kind, len(pieces), *at)
        pieces.append(made)
    ranked = tuple(passages[mark] for mark in marked if mark in passages)
    return Excerpt(tuple(pieces), ranked, len(edges) - 1, int(text.target_bytes.sum()))


def _passages(
    text: ValText, frozen: NDArray[np.float64], bits: NDArray[np.float64]
) -> list[tuple[str, int, int]]:
    """(kind, begin, end) in targets, begin and end such as `bits[begin:end]` are the passage's."""
    count = len(bits) // PASSAGE
    if not count:
        return []
    shape, size = (count, PASSAGE), count * PASSAGE
    num_bytes = text.target_bytes.numpy()[:size].reshape(shape)
    starts = np.asarray(text.document_starts, np.int64)
    opens = np.zeros(len(bits) + 1, bool)
    opens[starts] = True
    inside = ~opens[1 : size + 1].reshape(shape).any(1) & (num_bytes.sum(1) >= PASSAGE)
    price = bits[:size].reshape(shape).sum(1) / np.maximum(num_bytes.sum(1), 1)
    before = frozen[:size].reshape(shape).sum(1) / np.maximum(num_bytes.sum(1), 1)
    candidates = np.flatnonzero(inside)
    document = np.searchsorted(starts, candidates * PASSAGE, side="right") - 1
    ranked = (-price, price, price - before)
    found, taken = [], set()
    for kind, order in zip(KINDS, ranked, strict=True):
        number = 0
        for at in np.argsort(order[candidates], kind="stable"):
            if number == MOST_PASSAGES or (kind == KINDS[2] and order[candidates[at]] >= 0):
                break
            if document[at] in taken and len(starts) > 3 * MOST_PASSAGES:
                continue
            taken.add(document[at])
            begin = int(candidates[at]) * PASSAGE
            found.append((kind, begin, begin + PASSAGE))
            number += 1
    return found


def _spans(
    edges: Sequence[int], wanted: Sequence[int], most_tokens: int
) -> list[tuple[int, int, int]]:
    """(document, begin, end) of the pieces to show, in targets and in order."""
    cut = list(_cut(edges))
    begins = np.array([begin for _, begin, _ in cut], np.int64)
    needed = {int(np.searchsorted(begins, at, side="right")) - 1 for at in wanted}
    left = most_tokens - sum(cut[i][2] - cut[i][1] for i in needed)
    for i, (_, begin, end) in enumerate(cut):
        if i not in needed and left >= end - begin:
            needed.add(i)
            left -= end - begin
        if left < PASSAGE:
            break
    return [cut[i] for i in sorted(needed)]


def _cut(edges: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Each document's targets without the BOS that opens it, in parts of PIECE."""
    for document, (opening, end) in enumerate(itertools.pairwise(edges)):
        # Target i is token i + 1; a piece ends where a passage may, too.
        begin, stop = opening, end - 1
        while begin < stop:
            until = min(stop, (begin // PASSAGE) * PASSAGE + PIECE)
            yield document, begin, until
            begin = until


def _bytes_of(
    text: ValText, tokenizer: Tokenizer, opening: int, end: int
) -> tuple[bytes, NDArray[np.int64]] | None:
    """A document's bytes, and how many each of its targets stands for."""
    tokens = text.tokens[opening + 1 : end].tolist()
    data = tokenizer.decode(tokens)
    counts = text.target_bytes[opening : end - 1].numpy()
    if int(counts.sum()) != len(data):  # a mark of its beginning, which is counted for nobody
        counts = np.array([len(tokenizer.decode([token])) for token in tokens], np.int64)
    return (data, counts) if int(counts.sum()) == len(data) else None


def _piece(
    document: int,
    held: tuple[bytes, NDArray[np.int64]],
    begin: int,
    end: int,
    opening: int,
    frozen: NDArray[np.float64],
    bits: NDArray[np.float64],
) -> tuple[Piece | None, NDArray[np.int64]]:
    """One piece, and for each of its targets the token of the piece that it became a part of."""
    data, counts = held
    offsets = np.concatenate(([0], np.cumsum(counts)))
    own = counts[begin - opening : end - opening]
    filled = np.flatnonzero(own)
    if not len(filled):
        return None, filled
    # What has no bytes goes with what follows it, and at the end with what came before.
    places = np.minimum(np.searchsorted(filled, np.arange(len(own))), len(filled) - 1)
    first, last = int(offsets[begin - opening]), int(offsets[end - opening])
    piece = Piece(
        document,
        first,
        data[first:last],
        own[filled],
        np.bincount(places, frozen[begin:end], len(filled)).astype(np.float64),
        np.bincount(places, bits[begin:end], len(filled)).astype(np.float64),
    )
    return piece, places


def write_excerpt(path: Path, excerpt: Excerpt, result: RunResult) -> None:
    """result  whose text it is: a page shows an excerpt with no other one"""
    pieces = excerpt.pieces
    tensors = {
        "data": torch.frombuffer(bytearray(b"".join(p.data for p in pieces)), dtype=torch.uint8),
        "token_bytes": _joined([p.token_bytes for p in pieces], torch.int32),
        "frozen": _joined([p.frozen for p in pieces], torch.float32),
        "bits": _joined([p.bits for p in pieces], torch.float32),
    }
    facts: dict[str, Any] = {
        "result": _identity(result),
        "pieces": [[p.document, p.first_byte, len(p.data), len(p.bits)] for p in pieces],
        "passages": [list(passage) for passage in excerpt.passages],
        "num_documents": excerpt.num_documents,
        "num_bytes": excerpt.num_bytes,
    }
    write_tensors(path, tensors, facts)


def read_excerpt(path: Path, result: RunResult) -> Excerpt:
    """Inverse of `write_excerpt`. Raises ValueError for a damaged file, or another run's."""
    held, facts = read_tensors(path, "an excerpt of a scored text")
    if facts.get("result") != _identity(result):
        raise ValueError(f"{path} belongs to another run than the result beside it; delete it")
    try:
        return _excerpt(held, facts)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is an excerpt of another version ({error!r}); delete it"
        ) from error


def _excerpt(held: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> Excerpt:
    data, at_byte, at_token, pieces = held["data"].numpy().tobytes(), 0, 0, []
    columns = [held[name].double().numpy() for name in ("frozen", "bits")]
    counts = held["token_bytes"].long().numpy()
    for document, first_byte, num_bytes, num_tokens in facts["pieces"]:
        tokens = slice(at_token, at_token + num_tokens)
        own = data[at_byte : at_byte + num_bytes]
        pieces.append(
            Piece(document, first_byte, own, counts[tokens], *(c[tokens] for c in columns))
        )
        at_byte, at_token = at_byte + num_bytes, at_token + num_tokens
    passages = tuple(Passage(*passage) for passage in facts["passages"])
    return Excerpt(tuple(pieces), passages, facts["num_documents"], facts["num_bytes"])


def _identity(result: RunResult) -> list[Any]:
    """Two runs that were made with the same may have had other clocks, and then another score."""
    return [result.made_with, result.score.nats if result.score else None]


def _joined(columns: Sequence[NDArray[Any]], dtype: torch.dtype) -> torch.Tensor:
    return torch.from_numpy(np.concatenate([np.zeros(0), *columns])).to(dtype)
