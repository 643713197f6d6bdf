"""What a proof showed, as plain data, and whether that is enough."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

from fairway.artifact.config_json import config_from_json, config_to_json
from fairway.coding.settled import STEPS_PER_OCTAVE
from fairway.runtime.strict_json import parse_json

TOLERANCE_BITS_PER_BYTE = 1e-3  # one pass over a window rounds differently than token by token
CODER_BITS = 64  # what the arithmetic coder may need to say where it ends


@dataclass(frozen=True, kw_only=True)
class SettledFacts:
    """What settled arithmetic rested on.

    margin, state_margin, gradient_margin  within which values were announced: nats of a logit, and
                          shares of a tensor's magnitude of what was learned and of its gradients
    grid                  what logits are rounded to, in nats
    state_bits            what was learned is rounded to 2**-state_bits of that magnitude
    deviation, state_deviation, gradient_deviation  largest seen while encoding, in the same units:
                          batched here against token by token in another process; None: not looked
                          for, and of gradients 0 where none are rounded
    ties, tie_bytes       announced, and what telling them takes
    """

    margin: float
    state_margin: float
    gradient_margin: float | None = None
    grid: float = math.log(2) / STEPS_PER_OCTAVE
    state_bits: int
    deviation: float | None
    state_deviation: float | None
    gradient_deviation: float | None = None
    ties: int
    tie_bytes: int


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """A text was coded with a scored predictor, decoded again and compared.

    num_tokens             targets coded; the first token of the stream is given
    num_bytes              bytes of text these tokens stand for, as the score counts them
    decoded_tokens         targets that were decoded again, and `decoded_bytes` the bytes that the
                           score counts for them; None: all
    text_bytes             bytes of the text that decoding returned
    coded_bytes            length of the bitstream, the ties of settled arithmetic included
    side_bytes             the rest of the proof file: header, document lengths, checkpoints
    coded_bits_per_byte    8 * coded_bytes / num_bytes
    claimed_bits_per_byte  what scoring the same tokens in batches says; in settled arithmetic, how
                           long it says that the code is
    read_bits_per_byte     what the predictor charged token by token; the coder adds the rest
    decoded_equal          whether all that was decoded is as it was
    scope                  in words, which part of the text was scored; None: all of it
    """

    artifact_sha256: str
    text_sha256: str
    bitstream_sha256: str
    num_tokens: int
    num_bytes: int
    text_bytes: int
    coded_bytes: int
    side_bytes: int
    coded_bits_per_byte: float
    claimed_bits_per_byte: float
    read_bits_per_byte: float
    decoded_equal: bool
    encode_seconds: float
    decode_seconds: float
    threads: int
    circumstances: dict[str, str]
    settled: SettledFacts | None = None
    decoded_tokens: int | None = None
    decoded_bytes: int | None = None
    scope: str | None = None

    @property
    def gap(self) -> float:
        """Bits per byte that the code is longer than claimed; negative when shorter."""
        return self.coded_bits_per_byte - self.claimed_bits_per_byte

    @property
    def allowed_gap(self) -> float:
        if self.settled is not None:  # the claim is a length, not a sum of nats
            return 0.0
        return TOLERANCE_BITS_PER_BYTE + CODER_BITS / self.num_bytes

    @property
    def is_that_long(self) -> bool:
        """Whether the code is as long as claimed and, settled, as its distributions ask for."""
        if abs(self.gap) > self.allowed_gap:
            return False
        if self.settled is None:
            return True
        bits = 8 * (self.coded_bytes - self.settled.tie_bytes)
        return abs(bits - self.read_bits_per_byte * self.num_bytes) <= CODER_BITS

    @property
    def counted_bytes(self) -> int:
        """What the score counts for all that was decoded."""
        return self.num_bytes if self.decoded_bytes is None else self.decoded_bytes

    @property
    def holds(self) -> bool:
        counted_fairly = self.counted_bytes <= self.text_bytes
        return self.decoded_equal and counted_fairly and self.is_that_long

    @property
    def verdict(self) -> str:
        """One sentence for people."""
        if not self.decoded_equal:
            return "NO: decoding returned another text; the score is not a code length"
        if self.counted_bytes > self.text_bytes:
            return (
                f"NO: the score divides by {self.counted_bytes:,} bytes and the decoded text has "
                f"{self.text_bytes:,}; its bytes are counted too generously"
            )
        size = (
            f"{self.coded_bits_per_byte:.5f} bits per byte coded, "
            f"{self.claimed_bits_per_byte:.5f} claimed"
        )
        if not self.is_that_long:
            return (
                f"NO: {size}, {abs(self.gap):.5f} apart and {self.allowed_gap:.5f} allowed; "
                "the claimed nats are not those of a decoder: look for a predictor whose "
                "score() sees more than its reader()"
            )
        if self.decoded_tokens is not None:
            return (
                f"yes: {size}; all {self.num_tokens:,} tokens are coded, and decoding the first "
                f"{self.decoded_tokens:,} returned the text, byte for byte"
            )
        return f"yes: {size}; decoding returned the text, byte for byte"

    def to_json(self) -> str:
        derived = {"gap": self.gap, "allowed_gap": self.allowed_gap, "holds": self.holds}
        return json.dumps(config_to_json(self) | derived, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Certificate":
        """Raises ValueError when `text` is not a certificate."""
        data = parse_json(text)
        if not isinstance(data, dict):
            raise ValueError(f"this is not a certificate but a JSON {type(data).__name__}")
        for derived in ("gap", "allowed_gap", "holds"):
            data.pop(derived, None)
        return config_from_json(cls, data)

    @classmethod
    def load(cls, path: Path) -> "Certificate":
        return cls.from_json(path.read_text(encoding="utf-8"))
