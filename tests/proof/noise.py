"""A machine that computes worse than any: what it decodes with is off by so many margins.

Shared with `benchmarks/travel.py`, whose worker loads it by its path.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from unittest.mock import patch

import torch
from torch import Tensor

from fairway.evaluate.learners.documents import DocumentPredictor
from fairway.evaluate.learners.sgd import Batch, WeightLearner
from fairway.evaluate.ledger import Ledger

EVERYTHING = ("logits", "gradients", "state")


def noise(like: Tensor, most: float) -> Tensor:
    return (2 * torch.rand(like.shape, dtype=like.dtype) - 1) * most


def noise_of_size(like: Tensor, share: float) -> Tensor:
    """Up to such a share of the power of two that spans a tensor; zeros stay zeros."""
    largest = float(like.abs().max())
    return noise(like, share * 2.0 ** math.frexp(0.75 * largest)[1] if largest else 0.0)


@contextmanager
def shaken(times: float, where: str) -> Iterator[None]:
    """Logits, gradients or what was learned (state) are off by up to `times` a margin.

    Of the state, weights and momenta alone: what is next to zero may be much less than a margin,
    and what was a mean of squares must not become negative.
    """
    ends, settle = Ledger.ends, Ledger.settle
    step, gradients_of = WeightLearner._set_gradients, DocumentPredictor._gradients

    def other_ends(self: Ledger, logits: Tensor, positions: Tensor) -> Tensor:
        return ends(self, logits + noise(logits, times * self.margins.logit), positions)

    def other_settle(self: Ledger, state: Mapping[str, Tensor]) -> None:
        for name, values in state.items():
            parts = set(name.split("/"))
            if values.dtype == torch.float64 and parts & {"weights", "bank", "momentum_buffer"}:
                values += noise_of_size(values, times * self.margins.state)
        settle(self, state)

    def other_step(self: WeightLearner, batch: Batch) -> None:
        step(self, batch)
        margin = self.config.margins().gradient or 0.0
        for weight in self.trained.values():
            assert weight.grad is not None
            weight.grad += noise_of_size(weight.grad, times * margin)

    def other_gradients(self: DocumentPredictor, *args: object) -> dict[str, Tensor]:
        found = gradients_of(self, *args)  # type: ignore[arg-type]
        margin = self.config.margins().gradient or 0.0
        return {n: g + noise_of_size(g, times * margin) for n, g in found.items()}

    patches = {
        "logits": [patch.object(Ledger, "ends", other_ends)],
        "state": [patch.object(Ledger, "settle", other_settle)],
        "gradients": [
            patch.object(WeightLearner, "_set_gradients", other_step),
            patch.object(DocumentPredictor, "_gradients", other_gradients),
        ],
    }
    for one in patches[where]:
        one.start()
    try:
        yield
    finally:
        for one in patches[where]:
            one.stop()
