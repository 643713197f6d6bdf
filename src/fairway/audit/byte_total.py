"""Is the denominator the bytes of the original text, token by token?

Bytes are counted here once more, by the field's rule and from the tokenizer's pieces alone, so that
a fault in the counting everybody else shares cannot vouch for itself. The known wrong rules stand
beside the right one: where one of them gives exactly what the scorer states, it has a name. Nothing
is called here; the counts came with the prices.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fairway.audit.findings import Finding, ProbeResult
from fairway.audit.scorer import Answer

MARK = "\u2581"  # stands for a space in front of a word
MARK_AS_BYTES = ("<0xE2>", "<0x96>", "<0x81>")  # what a lone space decays to without its own piece


@dataclass(frozen=True)
class Pieces:
    """What each token id of a SentencePiece vocabulary stands for; arrays are (V,).

    text       the piece as printed
    marked     it begins with the word-boundary mark
    fallback   it is one raw byte, printed <0xNN>
    boundary   it stands for no text: control, unknown or unused
    operator   it is made of private-use characters, as reversible text transforms use them
    """

    text: tuple[str, ...]
    marked: np.ndarray
    fallback: np.ndarray
    boundary: np.ndarray
    operator: np.ndarray

    @property
    def stripped_bytes(self) -> np.ndarray:
        """(V,) UTF-8 bytes without the mark; 1 for a raw byte, 0 for a piece without text."""
        sizes = np.array([len(p.removeprefix(MARK).encode()) for p in self.text], dtype=np.int64)
        return np.where(self.boundary, 0, np.where(self.fallback, 1, sizes))

    @property
    def printed_bytes(self) -> np.ndarray:
        """(V,) UTF-8 bytes of the pieces as printed, mark included."""
        return np.array([len(p.encode()) for p in self.text], dtype=np.int64)


def read_pieces(tokenizer: Any) -> Pieces:
    """A `.model` file, or a loaded `SentencePieceProcessor`."""
    if isinstance(tokenizer, str | Path):
        import sentencepiece  # only who names a tokenizer file needs it

        if not Path(tokenizer).is_file():
            raise ValueError(f"{tokenizer} does not exist; --tokenizer takes a .model file")
        tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer))
    ids = range(tokenizer.vocab_size())
    text = tuple(tokenizer.id_to_piece(i) for i in ids)
    return Pieces(
        text,
        np.array([piece.startswith(MARK) for piece in text]),
        np.array([tokenizer.is_byte(i) for i in ids]),
        np.array(
            [
                tokenizer.is_control(i) or tokenizer.is_unknown(i) or tokenizer.is_unused(i)
                for i in ids
            ]
        ),
        np.array([bool(p) and all("\ue000" <= c <= "\uf8ff" for c in p) for p in text]),
    )


def count_bytes(tokens: np.ndarray, pieces: Pieces) -> np.ndarray:
    """Bytes (n - 1,) of the targets tokens[1:].

    Text without its mark, one more for the mark unless no text precedes it (a document's first
    word has no space in front), one for a raw byte, none for a piece without text.
    """
    before, now = tokens[:-1], tokens[1:]
    return pieces.stripped_bytes[now] + (pieces.marked[now] & ~pieces.boundary[before])


WrongRule = Callable[[np.ndarray, Pieces], np.ndarray]

# What scorers were caught counting. Each is the right count and what is added to it.
WRONG_RULES: tuple[tuple[str, tuple[str, ...], WrongRule], ...] = (
    (
        "the space in front of a word is counted twice, in the table and again behind it",
        ("E2",),
        lambda tokens, p: p.marked[tokens[1:]],
    ),
    (
        "the first word of a document is given a space that is not there",
        ("E2",),
        lambda tokens, p: p.marked[tokens[1:]] & p.boundary[tokens[:-1]],
    ),
    (
        "the space is counted twice, and once more in front of a document's first word",
        ("E2",),
        lambda tokens, p: p.marked[tokens[1:]] * (1 + p.boundary[tokens[:-1]].astype(int)),
    ),
    (
        "each space is counted as the three bytes of the mark that stands for it",
        ("E3", "E2"),
        lambda tokens, p: (
            3 * p.marked[tokens[1:]].astype(int) - (p.marked[tokens[1:]] & ~p.boundary[tokens[:-1]])
        ),
    ),
    (
        "byte-fallback tokens are counted as three bytes each",
        ("E1",),
        lambda tokens, p: 2 * p.fallback[tokens[1:]],
    ),
    (
        "byte-fallback tokens are counted by their printed name, six characters",
        ("E5",),
        lambda tokens, p: 5 * p.fallback[tokens[1:]],
    ),
    (
        "pieces without text (control, unknown, unused) are counted by their name",
        ("E5",),
        lambda tokens, p: np.where(p.boundary, p.printed_bytes, 0)[tokens[1:]],
    ),
    (
        "every piece is counted by its printed name",
        ("E5", "E2"),
        lambda tokens, p: p.printed_bytes[tokens[1:]] - count_bytes(tokens, p),
    ),
)


def probe_bytes(
    answer: Answer,
    tokens: np.ndarray,
    *,
    num_bytes: int | None,
    text: bytes | None,
    tokenizer: Any,
) -> ProbeResult:
    """Compare the counts that came with the prices with the tokenizer's and with the original.

    num_bytes, text  the original bytes that tokens[1:] stand for, or their number
    """
    pieces = None if tokenizer is None else read_pieces(tokenizer)
    if pieces is not None and int(tokens.max()) >= len(pieces.text):
        raise ValueError(
            f"token {int(tokens.max())} is not in the tokenizer, which has {len(pieces.text):,} "
            "pieces; give the tokenizer these tokens were made with"
        )
    expected = None if pieces is None else count_bytes(tokens, pieces)
    original = num_bytes if text is None else len(text)
    if text is not None and pieces is not None:  # the first token is text too, but no target
        original = len(text) - int(pieces.stripped_bytes[tokens[0]])
    counts = answer.num_bytes
    if counts is None:
        return _without_counts(answer, original)

    findings: list[Finding] = []
    if counts.size not in (1, len(tokens) - 1):
        said = f"{counts.size:,} byte counts for {len(tokens) - 1:,} targets"
        findings.append(Finding(said, ("E8",) if counts.size >= len(tokens) else ("E6",)))
    wrong = ~np.isfinite(counts) | (counts < 0) | (counts != np.round(counts))
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        findings.append(
            Finding(f"count {at} is {counts[at]:.6g}; bytes are whole and never negative")
        )
    total = float(counts.sum())
    transformed = pieces is not None and bool(pieces.operator[tokens[1:]].any())
    if pieces is not None and expected is not None and not findings:
        if not transformed:
            findings += _against_table(counts, tokens, pieces, expected)
        findings += _decayed_spaces(tokens, pieces)
    notes: list[str] = []
    if original is not None and total != original and not findings:
        by_rule = expected is not None and total == expected.sum()
        if by_rule and not transformed:
            notes.append(
                f"the tokenizer's text has {int(total):,} bytes, the original {original:,}: the "
                "tokenizer normalizes, and the bytes counted are those of its own text"
            )
        else:
            findings.append(_against_original(total, original, transformed))
    if original is None and (expected is None or transformed):
        notes.append("nothing to compare the counts with; pass --num-bytes or a tokenizer")
    summary = f"{total:,.0f} bytes stated"
    if original is not None:
        summary += f", {original:,} in the original"
    if expected is not None:
        summary += f", {int(expected.sum()):,} by the tokenizer's pieces"
    details = {"stated": _number(total), "original": original, "bits_per_byte": _bpb(answer, total)}
    return ProbeResult("bytes", not findings, summary, tuple(findings), tuple(notes), details)


def _without_counts(answer: Answer, original: int | None) -> ProbeResult:
    summary = "the scorer states no byte counts"
    bits = None if not original else _bpb(answer, original)
    if bits is not None:
        summary += f"; over the {original:,} bytes given its score is {bits:.6g} bits per byte"
    gap = ("the denominator: return (nats, bytes) to have it checked",)
    return ProbeResult("bytes", True, summary, (), gap, {"stated": None, "bits_per_byte": bits})


def _against_table(
    counts: np.ndarray, tokens: np.ndarray, pieces: Pieces, expected: np.ndarray
) -> list[Finding]:
    """Token by token where the scorer states each count, by the total where it states one."""

    def same(wanted: np.ndarray) -> bool:
        return np.array_equal(counts, wanted) if counts.size > 1 else counts[0] == wanted.sum()

    if same(expected):
        return []
    excess = counts.sum() / max(1, expected.sum()) - 1
    size = f"{counts.sum():,.0f} bytes stated, {expected.sum():,} by the pieces ({excess:+.2%})"
    for said, kinds, extra in WRONG_RULES:
        added = extra(tokens, pieces)
        if np.any(added) and same(expected + added):
            return [Finding(f"{size}: {said}", kinds)]
    if counts.size == 1:
        return [Finding(size, ("E9",))]
    off = np.flatnonzero(counts != expected)
    examples = {int(t): i for i, t in reversed(list(zip(off, tokens[1:][off], strict=True)))}
    shown = "; ".join(
        f"{pieces.text[token]!r} {counts[i]:g} instead of {expected[i]}"
        for token, i in list(examples.items())[:4]
    )
    return [Finding(f"{size}; {off.size:,} tokens are miscounted: {shown}", ("E5", "E1"))]


def _decayed_spaces(tokens: np.ndarray, pieces: Pieces) -> list[Finding]:
    """Lone spaces spelled as the mark's three raw bytes, for want of a piece of their own."""
    if MARK in pieces.text or not all(name in pieces.text for name in MARK_AS_BYTES):
        return []
    a, b, c = (pieces.text.index(name) for name in MARK_AS_BYTES)
    spelled = (tokens[1:-2] == a) & (tokens[2:-1] == b) & (tokens[3:] == c)
    times = int(np.count_nonzero(spelled))
    if not times:
        return []
    said = (
        f"{times:,} lone spaces are spelled <0xE2><0x96><0x81>, three bytes for one, because the "
        "vocabulary has no piece for the word-boundary mark alone"
    )
    return [Finding(said, ("E3",))]


def _against_original(total: float, original: int, transformed: bool) -> Finding:
    excess = total / max(1, original) - 1
    said = f"{total:,.0f} bytes stated, the original text has {original:,} ({excess:+.2%})"
    if transformed:
        said += (
            "; the tokens hold operators of a text transform, so the counts must come from the "
            "side file written with the shards, which is missing or not used"
        )
        return Finding(said, ("E4",))
    if not math.isfinite(excess) or excess <= 0:
        return Finding(said, ("E6", "E7", "E9"))
    # Typical sizes on English web text, see the catalogue.
    likely = "E2" if excess > 0.12 else "E4" if excess > 0.06 else "E1" if excess > 0.02 else "E5"
    others = tuple(kind for kind in ("E2", "E4", "E1", "E5", "E9") if kind != likely)
    return Finding(said, (likely, *others))


def _bpb(answer: Answer, total: float) -> float | None:
    if answer.nats is None or not total > 0:
        return None
    return _number(float(answer.nats.sum()) / math.log(2) / total)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
