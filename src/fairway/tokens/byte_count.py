"""How many bytes of the original text each target token stands for: the one place that counts.

The rules are the field's (its notes call it the denominator; most wrong scores were wrong here):
control, unknown and unused pieces count 0 and are boundaries; byte pieces count 1; any other piece
counts its UTF-8 length after one leading blank mark is removed, and that blank counts 1 more unless
the token before is a boundary.
"""

from dataclasses import dataclass, replace

import numpy as np

from fairway.tokens.tokenizer import (
    BOUNDARY,
    ByteTokenizer,
    CaseTokenizer,
    SentencePieceTokenizer,
    Tokenizer,
)


@dataclass(frozen=True)
class ByteTable:
    """Per-id tables, each (V,): bytes without the blank, has one, is a boundary."""

    base_bytes: np.ndarray
    has_leading_space: np.ndarray
    is_boundary: np.ndarray
    operator_ids: tuple[int, ...] = ()  # of CaseOps, the last one the escape

    def target_bytes(self, tokens: np.ndarray) -> np.ndarray:
        """Bytes (n - 1,) int64 of tokens[1:], given the token before each. tokens (n,) ids.

        An operator of CaseOps stands for no bytes, unless an escape says that the text holds it.
        """
        before, target = np.asarray(tokens[:-1], np.int64), np.asarray(tokens[1:], np.int64)
        space = self.has_leading_space[target] & ~self.is_boundary[before]
        counts = self.base_bytes[target].astype(np.int64) + space
        if self.operator_ids:
            operator = np.isin(target, self.operator_ids)
            counts[operator & ~self._escaped(tokens)] = 0
        return counts

    def _escaped(self, tokens: np.ndarray) -> np.ndarray:
        """(n - 1,) whether an escape stands before tokens[1:] that is not escaped itself."""
        escaped = np.zeros(len(tokens) + 1, bool)
        for place in np.flatnonzero(np.asarray(tokens) == self.operator_ids[-1]).tolist():
            escaped[place + 1] = not escaped[place]
        return escaped[1:-1]


def byte_table(tokenizer: Tokenizer) -> ByteTable:
    """The tables of any of our tokenizers.

    A lossless tokenizer's ids stand for fixed bytes, blanks included, so its counts add up to each
    document's exact length. A published SentencePiece model follows the rules above.
    """
    if isinstance(tokenizer, CaseTokenizer):
        return replace(byte_table(tokenizer.inner), operator_ids=tokenizer.operator_ids)
    size = tokenizer.vocab_size
    base = np.zeros(size, np.int16)
    leading, boundary = np.zeros(size, bool), np.zeros(size, bool)
    for token in range(size):
        raw = tokenizer.decode([token])
        if isinstance(tokenizer, ByteTokenizer) or tokenizer.lossless:
            base[token], boundary[token] = len(raw), not raw
            continue
        assert isinstance(tokenizer, SentencePieceTokenizer)
        processor = tokenizer.processor
        boundary[token] = not raw
        if processor.is_byte(token):
            base[token] = 1
        elif raw:
            leading[token] = processor.id_to_piece(token).startswith(BOUNDARY)
            base[token] = len(raw) - int(leading[token])
    return ByteTable(base, leading, boundary)
