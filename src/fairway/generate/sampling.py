"""How the next token is drawn from logits: the settings people know, each a pure function."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

NEVER = float("-inf")


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
        if not self.temperature >= 0 or (self.top_k is not None and self.top_k < 1):
            raise ValueError(
                f"temperature={self.temperature}, top_k={self.top_k}: the temperature must not "
                "be negative, and at least one token must be left to draw"
            )
        for name, share in {"top_p": self.top_p, "min_p": self.min_p}.items():
            if share is not None and not 0 < share <= 1:
                raise ValueError(f"{name}={share} is a share: above 0 and at most 1")
        if not 0 < self.repetition_penalty < float("inf"):
            raise ValueError(
                f"repetition_penalty={self.repetition_penalty} must be positive; 1 is none"
            )
        if "" in self.stop:
            raise ValueError("an empty stop text would end the writing before it begins")
        if self.num_tokens < 0 or (self.context is not None and self.context < 2):
            raise ValueError(
                f"num_tokens={self.num_tokens}, context={self.context}: needs 0 tokens or more, "
                "and a context of at least 2"
            )


def draw(
    logits: Tensor, config: GenerateConfig, source: torch.Generator, seen: Sequence[int] = ()
) -> int:
    """An id, given logits (V,).

    seen  ids that are there already, which a repetition penalty makes less likely
    """
    if config.repetition_penalty != 1 and seen:
        logits = penalized(logits, seen, config.repetition_penalty)
    if config.temperature == 0:
        return int(logits.argmax())
    if config.top_k is not None:
        logits = top_k(logits, config.top_k)
    logits = logits.double() / config.temperature
    if config.top_p is not None:
        logits = top_p(logits, config.top_p)
    if config.min_p is not None:
        logits = min_p(logits, config.min_p)
    return int(torch.multinomial(torch.softmax(logits, dim=-1), 1, generator=source))


def penalized(logits: Tensor, seen: Sequence[int], penalty: float) -> Tensor:
    """Logits (V,) with those of `seen` made smaller."""
    ids = torch.tensor(sorted(set(seen)), device=logits.device)
    found, logits = logits[ids], logits.clone()
    logits[ids] = torch.where(found > 0, found / penalty, found * penalty)
    return logits


def top_k(logits: Tensor, k: int) -> Tensor:
    """Logits (V,) with all but the k largest impossible; equals of the k-th stay."""
    if k >= len(logits):
        return logits
    return logits.masked_fill(logits < logits.topk(k).values[-1], NEVER)


def top_p(logits: Tensor, share: float) -> Tensor:
    """Logits (V,) with all impossible but the likeliest that together reach `share`."""
    likeliest = logits.argsort(descending=True, stable=True)  # of equals the first, as argmax
    probabilities = torch.softmax(logits[likeliest], dim=-1)
    before = probabilities.cumsum(-1) - probabilities
    return logits.index_fill(0, likeliest[before >= share], NEVER)  # the first one stays


def min_p(logits: Tensor, share: float) -> Tensor:
    """Logits (V,) with all impossible that are less than `share` as likely as the likeliest."""
    probabilities = torch.softmax(logits, dim=-1)
    return logits.masked_fill(probabilities < share * probabilities.max(), NEVER)
