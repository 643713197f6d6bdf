"""How a score came about, chunk by chunk: plain numbers for `result.json` and for pictures.

Nothing is drawn here; see `report/`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate


@dataclass
class Curve:
    """One entry per chunk, in the order of scoring."""

    tokens: list[int] = field(default_factory=list)
    num_bytes: list[int] = field(default_factory=list)
    nats: list[float] = field(default_factory=list)
    score_seconds: list[float] = field(default_factory=list)
    learn_seconds: list[float] = field(default_factory=list)

    def add(
        self,
        *,
        tokens: int,
        num_bytes: int,
        nats: float,
        score_seconds: float,
        learn_seconds: float = 0.0,
    ) -> None:
        self.tokens.append(tokens)
        self.num_bytes.append(num_bytes)
        self.nats.append(nats)
        self.score_seconds.append(score_seconds)
        self.learn_seconds.append(learn_seconds)

    def thinned(self, most: int) -> "Curve":
        """At most `most` entries, each the sum of equally many neighbours."""
        step = max(1, -(-len(self.tokens) // most))
        begins = range(0, len(self.tokens), step)
        return Curve(
            tokens=[sum(self.tokens[b : b + step]) for b in begins],
            num_bytes=[sum(self.num_bytes[b : b + step]) for b in begins],
            nats=[sum(self.nats[b : b + step]) for b in begins],
            score_seconds=[sum(self.score_seconds[b : b + step]) for b in begins],
            learn_seconds=[sum(self.learn_seconds[b : b + step]) for b in begins],
        )

    def running_bits_per_byte(self) -> list[float | None]:
        """Bits per byte of everything scored up to each chunk; None before the first byte."""
        totals = zip(accumulate(self.nats), accumulate(self.num_bytes), strict=True)
        return [_bits_per_byte(nats, num_bytes) for nats, num_bytes in totals]


def _bits_per_byte(nats: float, num_bytes: int) -> float | None:
    return nats / math.log(2) / num_bytes if num_bytes else None


def gains(frozen: Curve, learning: Curve) -> list[float | None]:
    """Bits per byte that learning saved in each chunk; None where a chunk has no bytes."""
    if frozen.tokens != learning.tokens:
        raise ValueError(
            f"{len(frozen.tokens)} chunks frozen and {len(learning.tokens)} learning do not score "
            "the same tokens: score both with the plans of one EvaluateConfig"
        )
    saved = [f - g for f, g in zip(frozen.nats, learning.nats, strict=True)]
    return [_bits_per_byte(n, b) for n, b in zip(saved, learning.num_bytes, strict=True)]


def curve_data(
    learning: Curve, frozen: Curve | None = None, most: int = 400
) -> dict[str, Sequence[float | None]]:
    """What `result.json` holds: running bits per byte against tokens scored, and seconds.

    frozen  the same chunks scored without learning, for the gain of each
    """
    shown = learning.thinned(most)
    data: dict[str, Sequence[float | None]] = {
        "tokens": list(accumulate(shown.tokens)),
        "bits_per_byte": shown.running_bits_per_byte(),
        "score_seconds": shown.score_seconds,
        "learn_seconds": shown.learn_seconds,
    }
    if frozen is not None:
        without = frozen.thinned(most)
        data["frozen_bits_per_byte"] = without.running_bits_per_byte()
        data["gain_bits_per_byte"] = gains(without, shown)
    return data
