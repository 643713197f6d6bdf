"""How much is written, and how: settings only, no PyTorch."""

import sys
from dataclasses import dataclass
from numbers import Integral

from fairway.runtime.limits import require_within

LEAST = sys.float_info.min  # a share that leaves the likeliest token alone
MOST_CONTEXT = 1 << 16


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """How much is written, and how each next token is drawn.

    Attributes:
        num_tokens: largest number of tokens to add
        temperature: divides the logits: below 1 is safer, above 1 is wilder, and 0 always takes
            the likeliest token
        top_k: number of likeliest tokens to choose from; None chooses from all
        top_p: choose from the likeliest tokens that together have this probability (Holtzman et
            al. 2020); None chooses from all
        min_p: choose from tokens at least this share as likely as the likeliest (Nguyen et al.
            2024); None chooses from all
        repetition_penalty: logits of tokens that are there already are divided by it where
            positive, else multiplied (Keskar et al. 2019); 1 leaves them
        stop: texts before the first of which the writing ends
        seed: decides which tokens are drawn; the same seed writes the same text
        context: tokens the model reads at once; None reads as many as in training
    """

    num_tokens: int = 256
    temperature: float = 0.8
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int = 0
    context: int | None = None

    def __post_init__(self) -> None:
        for name in ("num_tokens", "top_k", "seed", "context"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, Integral):
                raise ValueError(f"{name}={value!r} must be an integer")
        if isinstance(self.stop, str) or not all(isinstance(text, str) for text in self.stop):
            raise ValueError(f"stop={self.stop!r} must be several texts, as in stop=('end',)")
        if "" in self.stop:
            raise ValueError("an empty stop text would end the writing before it begins")
        require_within(
            self,
            num_tokens=(0, 1 << 62),
            temperature=(0, 1e300),
            top_k=(1, 1 << 62),
            top_p=(LEAST, 1),
            min_p=(LEAST, 1),
            repetition_penalty=(1e-3, 1e3),
            seed=(-(1 << 63), (1 << 63) - 1),
            context=(2, MOST_CONTEXT),
        )
