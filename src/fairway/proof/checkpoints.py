"""Sums over the decoded tokens, every so often: a decoder learns early that it has lost its way.

Two machines may round a matrix product differently; one flipped slice of the coder's interval and
everything after it is noise. The checkpoints turn that noise into a refusal.
"""

import zlib
from collections.abc import Sequence

from torch import Tensor


class CannotRetrace(ValueError):
    """This machine computes other probabilities than the one that encoded."""


class Checkpoints:
    """A running crc32 over tokens in coding order, noted whenever `every` more have come.

    expected  what the encoder noted; None while encoding
    """

    def __init__(self, every: int, expected: Sequence[int] | None = None) -> None:
        self.every, self.expected = every, expected
        self.num_tokens, self.crc = 0, 0
        self.noted: list[int] = []
        self.due = every

    def add(self, tokens: Tensor) -> None:
        """The next tokens, (n,) int64; all rows of one step come together."""
        self.crc = zlib.crc32(tokens.numpy().astype("<u4").tobytes(), self.crc)
        self.num_tokens += len(tokens)
        if self.num_tokens >= self.due:
            self.due = self.num_tokens + self.every
            self._note()

    def finish(self) -> tuple[int, ...]:
        """One more at the end; returns all of them."""
        self._note()
        if self.expected is not None and len(self.expected) != len(self.noted):
            raise CannotRetrace(
                f"{len(self.noted)} checkpoints passed, but the file holds {len(self.expected)}: "
                "its plan is not the one it was coded with"
            )
        return tuple(self.noted)

    def _note(self) -> None:
        number = len(self.noted)
        self.noted.append(self.crc)
        if self.expected is None:
            return
        if number >= len(self.expected) or self.expected[number] != self.crc:
            raise CannotRetrace(
                f"checkpoint {number + 1} of {len(self.expected)}, after {self.num_tokens:,} "
                "tokens, does not match: this machine computes other probabilities than the one "
                "that encoded"
            )
