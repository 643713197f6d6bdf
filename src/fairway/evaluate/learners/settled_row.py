"""A row of the settled mixture: the model's slices and n-grams to slices, token after token."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fairway.coding.settled import ONE
from fairway.evaluate.learners.gates import NUM_SURPRISES
from fairway.evaluate.learners.mixture import MixtureRow

# exp(-0.5), exp(-2), exp(-4): where one class of surprise ends and the next begins, as probability.
SURPRISING = np.array([0.6065306597126334, 0.1353352832366127, 0.01831563888873418])


class SettledRow(MixtureRow):
    """A row whose model, and whose mixture, are slices."""

    def look(self, given: Tensor) -> NDArray[np.int64]:
        """Where the mixture's slices end (V,), given where the model's do (V,)."""
        return self.settle(given.numpy())

    def settle(self, model: NDArray[np.int64]) -> NDArray[np.int64]:
        """`look` at an array."""
        self.model = np.diff(model, prepend=0) / model[-1]
        kinds, pointed = self.memory.suggestions()
        surprise = (self.model[pointed, None] < SURPRISING).sum(1)
        self.chosen = kinds * NUM_SURPRISES + np.where(pointed < 0, 0, surprise)
        mixed = self.memory.join(self.gates.kept(self.chosen), self.model)
        mixed *= ONE
        units = mixed.astype(np.int64)
        units += 1  # nothing is impossible
        return np.cumsum(units)

    def read(self, model: NDArray[np.int64], tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        """The slices (3, n) of known tokens (n,) (`Slices`), given where the model's end (n, V)."""
        slices = np.empty((3, len(tokens)), dtype=np.int64)
        for place, token in enumerate(tokens.tolist()):
            ends = self.settle(model[place])
            start = ends[token - 1] if token else 0
            slices[:, place] = start, ends[token] - start, ends[-1]
            self.learn(token)
        return slices
