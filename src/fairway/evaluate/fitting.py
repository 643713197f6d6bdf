"""How many of a text's documents an evaluation has time for, where not for all of them."""

import time
from collections.abc import Callable
from dataclasses import replace

import torch

from fairway.evaluate.config import EvaluateConfig, plan_text
from fairway.evaluate.planner import Estimate, Now, Rates, estimate, measure_rates
from fairway.evaluate.predictor import ALONE
from fairway.model.gpt import GPT
from fairway.runtime.distributed import Ranks
from fairway.tokens.val_text import ValText

RESERVE = 0.1  # of the budget is left free, as `largest_that_fits` does


def first_that_fit(
    model: GPT,
    config: EvaluateConfig,
    text: ValText,
    budget_seconds: float,
    *,
    ranks: Ranks = ALONE,
    now: Now = time.perf_counter,
) -> tuple[Estimate, ValText]:
    """The text, or its first documents, which this machine scores in so many seconds; and how long
    it will take.

    All ranks get the same answer. Raises ValueError where not even the first document fits.
    """
    config = config.resolved(model.config.train_context)
    rates = _agreed(
        measure_rates(model, config, plan_text(config, text), ranks=ranks, now=now), ranks
    )

    def needed(part: ValText) -> Estimate:
        return estimate(config, rates, plan_text(config, part))

    def fits(number: int) -> bool:
        seconds = needed(text.leading(number)).total_seconds
        return seconds <= budget_seconds * (1.0 - RESERVE)

    number = most(len(text.document_starts), fits)
    if not number:
        raise ValueError(
            f"not even the first document fits {budget_seconds:.0f} s; allow more, larger strides "
            f"or fewer epochs, or set ttt=None"
        )
    part = text.leading(number, f"all that fits {budget_seconds:.0f} s")
    return replace(needed(part), documents=number if part.scope else None), part


def most(limit: int, fits: Callable[[int], bool]) -> int:
    """The largest number up to `limit` that fits, where every smaller one does; 0: none.

    >>> most(100, lambda n: n * n <= 50)
    7
    """
    if fits(limit):
        return limit
    low, high = 0, limit  # low fits, high does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _agreed(rates: Rates, ranks: Ranks) -> Rates:
    """Rank 0's rates on every rank."""
    told = torch.tensor([rates.score, rates.learn, rates.phase], dtype=torch.float64)
    score, learn, phase = ranks.broadcast(told).tolist()
    return Rates(score=score, learn=learn, phase=phase)
