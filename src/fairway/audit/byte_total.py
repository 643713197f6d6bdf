"""Is the denominator the bytes of the original text, token by token?

Bytes are counted here once more, from the vocabulary alone (`vocabulary.py`), so that a fault in
the counting everybody else shares cannot vouch for itself. The known wrong rules stand beside the
right one: where one of them gives exactly what the scorer states, it has a name. Nothing is called
here; the counts came with the nats.
"""

import math

import numpy as np

from fairway.audit.byte_audit import WAYS
from fairway.audit.case import Case
from fairway.audit.findings import Finding, ProbeResult, found
from fairway.audit.scorer import Answer
from fairway.audit.token_pieces import Vocabulary
from fairway.tokens.tokenizer import BOUNDARY

MARK_AS_BYTES = ("<0xE2>", "<0x96>", "<0x81>")  # what a lone space decays to without its own piece

# What scorers were caught counting, by the symptom's name in `findings.LOOKS_LIKE`: bytes added to
# the right count for each marked piece, for each that opens a document, for each raw byte, and
# whether the printed names of pieces without text are added.
WRONG_RULES: dict[str, tuple[int, int, int, int]] = {
    "the space in front of a word is counted twice, in the table and again behind it": (1, 0, 0, 0),
    "the first word of a document is given a space that is not there": (0, 1, 0, 0),
    "the space is counted twice, and once more in front of a document's first word": (1, 1, 0, 0),
    "each space is counted as the three bytes of the mark that stands for it": (2, 1, 0, 0),
    "byte-fallback tokens are counted as three bytes each": (0, 0, 2, 0),
    "byte-fallback tokens are counted by their printed name, six characters": (0, 0, 5, 0),
    "pieces without text (control, unknown, unused) are counted by their name": (0, 0, 0, 1),
    "every piece is counted by its printed name": (2, 1, 5, 1),
}
SIZES = (  # typical ones on English web text, see the catalogue
    (0.12, "more than 12 % too many bytes"),
    (0.06, "6 to 12 % too many bytes"),
    (0.02, "2 to 6 % too many bytes"),
    (0.0, "a few bytes too many"),
)


def probe_bytes(case: Case) -> ProbeResult:
    """Compare the counts that came with the nats with the tokenizer's and with the original."""
    answer, tokens, original = case.answer, case.stream, case.num_bytes
    vocabulary = case.tokenizer
    if vocabulary is not None and int(tokens.max()) >= vocabulary.size:
        raise ValueError(
            f"token {int(tokens.max())} is not in the tokenizer, which has {vocabulary.size:,} "
            "pieces; give the tokenizer these tokens were made with"
        )
    if case.original is not None:  # its first token is text too, but no target
        first = 0 if vocabulary is None else int(vocabulary.count(tokens[:1])[0])
        original = len(case.original) - first
    counts = answer.num_bytes
    if counts is None:
        return _without_counts(answer, original)
    expected = None if vocabulary is None else vocabulary.targets(tokens)
    total = float(counts.sum())
    transformed = vocabulary is not None and bool(_operators(vocabulary)[tokens[1:]].any())
    findings = _improper_counts(counts, len(tokens) - 1)
    if vocabulary is not None and expected is not None and not findings:
        if not transformed:
            findings += _against_pieces(counts, tokens, vocabulary, expected)
        findings += _decayed_spaces(tokens, vocabulary)
    gaps = []
    if original is not None and total != original and not findings:
        if expected is not None and total == expected.sum() and not transformed:
            gaps.append(
                f"the tokenizer's text has {int(total):,} bytes, the original {original:,}: the "
                "tokenizer normalizes, and the bytes counted are those of its own text"
            )
        else:
            findings.append(_against_original(total, original, transformed))
    if original is None and (expected is None or transformed):
        gaps.append("nothing to compare the counts with; pass --num-bytes or a tokenizer")
    summary = f"{total:,.0f} bytes stated"
    summary += "" if original is None else f", {original:,} in the original"
    summary += "" if expected is None else f", {int(expected.sum()):,} by the tokenizer's pieces"
    stated = total if math.isfinite(total) else None
    bits = _bits_per_byte(answer, total)
    return found(
        "bytes", summary, findings, gaps, stated=stated, original=original, bits_per_byte=bits
    )


def _without_counts(answer: Answer, original: int | None) -> ProbeResult:
    summary = "the scorer states no byte counts"
    bits = None if not original else _bits_per_byte(answer, original)
    if bits is not None:
        summary += f"; over the {original:,} bytes given its score is {bits:.6g} bits per byte"
    gap = "the denominator: return (nats, bytes) to have it checked"
    return found("bytes", summary, (), [gap], stated=None, bits_per_byte=bits)


def _improper_counts(counts: np.ndarray, targets: int) -> list[Finding]:
    """One whole number per target, or one in all."""
    findings = []
    if counts.size not in (1, targets):
        symptom = "too many nats" if counts.size > targets else "a token is never scored"
        said = f"{counts.size:,} byte counts for {targets:,} targets"
        findings.append(Finding.of(symptom, said))
    wrong = np.flatnonzero(~np.isfinite(counts) | (counts < 0) | (counts != np.round(counts)))
    if wrong.size:
        said = f"count {wrong[0]} is {counts[wrong[0]]:.6g}; bytes are whole and never negative"
        findings.append(Finding(said))
    return findings


def _operators(vocabulary: Vocabulary) -> np.ndarray:
    """(V,) pieces of private-use characters alone, as reversible text transforms use them."""
    texts = [piece.decode("utf-8", "replace") for piece in vocabulary.pieces]
    return np.array([bool(t) and all("\ue000" <= c <= "\uf8ff" for c in t) for t in texts])


def _against_pieces(
    counts: np.ndarray, tokens: np.ndarray, vocabulary: Vocabulary, expected: np.ndarray
) -> list[Finding]:
    """Token by token where the scorer states each count, by the total where it states one."""

    def same(wanted: np.ndarray) -> bool:
        return np.array_equal(counts, wanted) if counts.size > 1 else counts[0] == wanted.sum()

    if same(expected):
        return []
    excess = counts.sum() / max(1, expected.sum()) - 1
    size = f"{counts.sum():,.0f} bytes stated, {expected.sum():,} by the pieces ({excess:+.2%})"
    terms = _terms(tokens, vocabulary, expected)
    for symptom, times in WRONG_RULES.items():
        added = np.array(times) @ terms
        if np.any(added) and same(expected + added):
            return [Finding.of(symptom, f"{size}: {symptom}")]
    for way, count in WAYS.items():
        told = count(vocabulary)[tokens[1:]]
        if not np.array_equal(told, expected) and same(told):
            return [Finding.of("counted in a usual, wrong way", f"{size}: counted as {way}")]
    if counts.size == 1:
        return [Finding.of("the total is another one", size)]
    off = np.flatnonzero(counts != expected)
    examples = {int(t): i for i, t in reversed(list(zip(off, tokens[1:][off], strict=True)))}
    shown = "; ".join(
        f"{vocabulary.printed[token]!r} {counts[i]:g} instead of {expected[i]}"
        for token, i in list(examples.items())[:4]
    )
    said = f"{size}; {off.size:,} tokens are miscounted: {shown}"
    return [Finding.of("some tokens are miscounted", said)]


def _terms(tokens: np.ndarray, vocabulary: Vocabulary, expected: np.ndarray) -> np.ndarray:
    """(4, n - 1) for the wrong rules: pieces with a blank in front, those whose blank is not
    counted, raw bytes, and bytes of the names of what has no text."""
    now = tokens[1:]
    blank = np.array([piece[:1] == b" " for piece in vocabulary.pieces])
    raw = np.array([name.startswith("<0x") and len(name) == 6 for name in vocabulary.printed])
    names = np.array([len(name.encode("utf-8", "replace")) for name in vocabulary.printed])
    names = np.where(vocabulary.is_text, 0, names)
    uncounted = vocabulary.sizes[now] - expected
    return np.stack([blank[now], uncounted, raw[now], names[now]]).astype(np.int64)


def _decayed_spaces(tokens: np.ndarray, vocabulary: Vocabulary) -> list[Finding]:
    """Lone spaces spelled as the mark's three raw bytes, for want of a piece of their own."""
    printed = list(vocabulary.printed)
    if BOUNDARY in printed or not all(name in printed for name in MARK_AS_BYTES):
        return []
    a, b, c = (printed.index(name) for name in MARK_AS_BYTES)
    spelled = (tokens[1:-2] == a) & (tokens[2:-1] == b) & (tokens[3:] == c)
    times = int(np.count_nonzero(spelled))
    if not times:
        return []
    said = (
        f"{times:,} lone spaces are spelled <0xE2><0x96><0x81>, three bytes for one, because the "
        "vocabulary has no piece for the word-boundary mark alone"
    )
    return [Finding.of("a lone space is spelled as three bytes", said)]


def _against_original(total: float, original: int, transformed: bool) -> Finding:
    excess = total / max(1, original) - 1
    said = f"{total:,.0f} bytes stated, the original text has {original:,} ({excess:+.2%})"
    if transformed:
        said += (
            "; the tokens hold operators of a text transform, so the counts must come from the "
            "side file written with the shards, which is missing or not used"
        )
        return Finding.of("operators of a text transform are counted", said)
    for above, symptom in SIZES:
        if excess > above:
            return Finding.of(symptom, said)
    return Finding.of("fewer bytes than the text has", said)


def _bits_per_byte(answer: Answer, total: float) -> float | None:
    if answer.nats is None or not total > 0:
        return None
    bits = float(answer.nats.sum()) / math.log(2) / total
    return bits if math.isfinite(bits) else None
