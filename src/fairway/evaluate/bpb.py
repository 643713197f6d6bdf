"""The score: exact sums of nats and bytes, divided once at the end."""

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass
class Score:
    """Running totals of a compression score. Exact to the nat: sums are float64, never means."""

    nats: float = 0.0
    num_tokens: int = 0
    num_bytes: int = 0  # bytes of the ORIGINAL text, whatever the tokenizer did to it

    def add(self, nats: Tensor, num_bytes: int) -> None:
        """`nats` is (T,): minus the log-probability of each token that was scored."""
        self.nats += nats.double().sum().item()
        self.num_tokens += nats.numel()
        self.num_bytes += num_bytes

    @property
    def bits_per_byte(self) -> float:
        """Bits the predictor needs for one byte of text."""
        if not self.num_bytes:
            raise ValueError("no byte was scored: the validation text is empty")
        return self.nats / math.log(2) / self.num_bytes

    @property
    def nats_per_token(self) -> float:
        return self.nats / self.num_tokens
