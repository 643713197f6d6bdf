"""How many bytes of the original text each target token stands for: the one place that counts.

The rules are the field's (its notes call it the denominator; most wrong scores were wrong here):
control, unknown and unused pieces count 0 and are boundaries; byte pieces count 1; any other piece
counts its UTF-8 length after one leading blank mark is removed, and that blank counts 1 more unless
the token before is a boundary.
"""

from dataclasses import dataclass

import numpy as np

from fairway.tokens.tokenizer import BOUNDARY, ByteTokenizer, SentencePieceTokenizer, Tokenizer


@dataclass(frozen=True)
class ByteTable:
    """Per-id tables, each (V,): bytes without the blank, has one, is a boundary."""

    base_bytes: np.ndarray
    has_leading_space: np.ndarray
    is_boundary: np.ndarray

    def target_bytes(self, tokens: np.ndarray) -> np.ndarray:
        """Bytes (n - 1,) int64 of tokens[1:], given the token before each. tokens (n,) ids."""
        before, target = np.asarray(tokens[:-1], np.int64), np.asarray(tokens[1:], np.int64)
        space = self.has_leading_space[target] & ~self.is_boundary[before]
        return self.base_bytes[target].astype(np.int64) + space


def byte_table(tokenizer: Tokenizer) -> ByteTable:
    """The tables of any of our tokenizers.

    A lossless tokenizer's ids stand for fixed bytes, blanks included, so its counts add up to each
    document's exact length. A published SentencePiece model follows the rules above.
    """
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
