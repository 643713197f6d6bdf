"""A way to learn of one's own: after each chunk, one step of plain gradient descent on it.

    fairway run ... --set evaluate.ttt='{"type": "own_learner:OneStep", "lr": 0.02}'

`docs/extending.md` says what else a learner may be.
"""

import copy
from dataclasses import dataclass

import torch

from fairway.evaluate.frozen import Frozen
from fairway.evaluate.learner import Learner
from fairway.evaluate.learners.sgd import cut_pieces


@dataclass(frozen=True, kw_only=True)
class OneStep(Learner):
    lr: float = 0.01
    every: int = 1024  # targets between two lessons

    def predictor(self, model, windows, *, seed, ranks):
        return Stepping(copy.deepcopy(model), self, windows, ranks)

    def chunk_targets(self):
        return self.every


class Stepping(Frozen):
    """Scores with the model it holds, and changes that model after each chunk."""

    def __init__(self, model, config, windows, ranks):
        super().__init__(model, windows.rows, ranks, windows.cached)
        self.lr, self.context = config.lr, windows.known_context

    @torch.enable_grad()
    def learn(self, chunk):
        weights = list(self.model.parameters())
        for text in chunk.span_texts:  # all of it scored
            for piece in cut_pieces(text.to(self.device), self.context):
                loss = self.model.loss(piece[None, :-1], piece[None, 1:])
                for weight, slope in zip(weights, torch.autograd.grad(loss, weights), strict=True):
                    weight.data -= self.lr * slope

    def state_dict(self):
        return self.model.state_dict()

    def load_state_dict(self, state):
        self.model.load_state_dict(state)
