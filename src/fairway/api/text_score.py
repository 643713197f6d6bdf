"""What a model says of a text, token by token and byte by byte."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, eq=False)
class TextScore:
    """The price of a text under a model.

    tokens       (n,) int64: the ids that were scored; the first document's BOS is given, not scored
    token_bits   (n,) float64: bits that each of them costs
    token_bytes  (n,) int64: bytes of the original text that each stands for; 0 for a BOS
    learned      whether the model learned from what it had scored already
    """

    tokens: NDArray[np.int64]
    token_bits: NDArray[np.float64]
    token_bytes: NDArray[np.int64]
    learned: bool

    @property
    def bits(self) -> float:
        """Of the whole text."""
        return math.fsum(self.token_bits)

    @property
    def nats(self) -> float:
        return self.bits * math.log(2)

    @property
    def num_tokens(self) -> int:
        return len(self.tokens)

    @property
    def num_bytes(self) -> int:
        return int(self.token_bytes.sum())

    @property
    def bits_per_byte(self) -> float:
        """Bits that the model needs for one byte of the original text."""
        if not self.num_bytes:
            raise ValueError("a text of no bytes has no bits per byte; score some text")
        return self.bits / self.num_bytes

    @property
    def nats_per_token(self) -> float:
        return self.nats / self.num_tokens

    @property
    def byte_bits(self) -> NDArray[np.float64]:
        """(num_bytes,) float64: each token's bits, spread evenly over its bytes.

        What a BOS costs is in no byte, so with several documents the sum is less than `bits`.
        """
        spread = self.token_bits / np.maximum(self.token_bytes, 1)
        return np.repeat(spread, self.token_bytes)

    def __repr__(self) -> str:
        how = "learning" if self.learned else "frozen"
        size = f"{self.num_bytes:,} bytes, {self.num_tokens:,} tokens"
        worth = f"{self.bits_per_byte:.5f} bits per byte" if self.num_bytes else "nothing to say"
        return f"<TextScore: {worth} over {size}, {how}>"
