"""What encoding makes: bits, the score that they are the length of, and the ties of the latter."""

from dataclasses import dataclass, field

from fairway.evaluate.bpb import Score
from fairway.evaluate.ledger import Margins, Ties
from fairway.proof.bitstream import Encoded
from fairway.proof.ties import tie_bytes


@dataclass(frozen=True, kw_only=True)
class Coded:
    """A text, or a part of one, as bits.

    claim    what scoring it says
    seconds  the coder's own walk in native arithmetic, scoring included in settled
    margins  of settled arithmetic, and `ties` within them; None: native
    """

    encoded: Encoded
    claim: Score
    seconds: float
    margins: Margins | None = None
    ties: Ties = field(default_factory=Ties, repr=False)

    @property
    def num_bytes(self) -> int:
        """Of the code: its bits, and the ties as they lie in a proof file."""
        return len(self.encoded.data) + tie_bytes(self.ties)

    @property
    def bits_per_byte(self) -> float:
        """Of the code, over the bytes that the score counts."""
        return 8 * self.num_bytes / self.claim.num_bytes

    @property
    def claimed_bits_per_byte(self) -> float:
        """What the score says: settled, it is the length of its code, and else a sum of nats."""
        return self.claim.bits_per_byte if self.margins is None else self.bits_per_byte
