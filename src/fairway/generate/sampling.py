"""How the next token is drawn from logits: the settings people know, each a pure function."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fairway.generate.config import GenerateConfig

NEVER = float("-inf")


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
    logits = (logits.double() - logits.max()) / config.temperature  # finite, however cold
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
    return logits.masked_fill(logits < logits.topk(int(k)).values[-1], NEVER)


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
