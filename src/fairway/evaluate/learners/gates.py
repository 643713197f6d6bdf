"""How far n-gram experts are believed: one gate for each kind of expert, learned online.

The model stands at the bottom of a chain. Each expert in turn, from the least to the most specific
context, is mixed in:  p <- gate * p + (1 - gate) * expert.  Every step joins two distributions
with a weight fixed before the token is known, so what comes out is a distribution, for every token
of the vocabulary and not just the one that came.
"""

import ctypes
from array import array
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fairway.evaluate.learners.ngram import Says
from fairway.runtime.native import library

# How likely the model held what an expert points at, as a class of nats: an expert the model
# agrees with says little, and one it finds absurd is right more often than the model thinks.
SURPRISES = (0.5, 2.0, 4.0)
NUM_SURPRISES = len(SURPRISES) + 1
FLOOR = 0.01  # evidence for either side that is never forgotten, so that no gate shuts for good


class Gates:
    """How much each kind of expert leaves to what lies below it, learned from what came.

    orders  for each kind of expert the length of its contexts
    memory  of a gate's evidence, what is left when the next comes
    open    what a long context's gate leaves to the model before it has learned
    """

    def __init__(self, orders: Sequence[int], *, memory: float, open: float) -> None:
        self.memory = memory
        # Short contexts are trusted less at first: what follows them, the model knows well.
        trust = [(1.0 - open) * min(1.0, (order + 0.5) / 4.0) for order in orders]
        self.above = array("d", [share for share in trust for _ in range(NUM_SURPRISES)])
        self.below = array("d", [1.0 - share for share in self.above])

    def copy(self) -> "Gates":
        twin = object.__new__(Gates)
        twin.memory, twin.below, twin.above = self.memory, self.below[:], self.above[:]
        return twin

    def merge(self, others: Sequence["Gates"]) -> None:
        """Take over what each of `others`, all begun as copies of this, has learned.

        Where several have learned of one gate, their evidence is averaged.
        """
        mine = self.state()
        theirs = torch.stack([other.state() for other in others])
        learned = (theirs != mine).any(1, keepdim=True)
        number = learned.sum(0)
        mean = (theirs * learned).sum(0) / number.clamp_min(1)
        self.load_state(torch.where(number > 0, mean, mine))

    def state(self) -> Tensor:
        """(2, gates) float64: evidence for below and for above."""
        return torch.tensor([list(self.below), list(self.above)], dtype=torch.float64)

    def load_state(self, state: Tensor) -> None:
        self.below, self.above = (array("d", side) for side in state.tolist())

    def __getitem__(self, gate: int) -> float:
        below, above = self.below[gate] + FLOOR, self.above[gate] + FLOOR
        return below / (below + above)

    def chain(
        self, gates: Sequence[int], experts: Sequence[float], p: float
    ) -> tuple[float, list[float]]:
        """The mixed probability of one token, and for each step the share that came from below.

        gates    index of each expert's gate, the least specific first
        experts  the probability each of them gives the token
        p        what the model gives it
        """
        shares = []
        for gate, expert in zip(gates, experts, strict=True):
            kept = self[gate] * p
            p = kept + (1.0 - self[gate]) * expert
            shares.append(kept / p)
        return p, shares

    def learn(self, gates: Sequence[int], shares: Sequence[float]) -> None:
        """The token came: credit both sides of each gate by the probability that it was theirs."""
        reached = 1.0  # probability that no more specific expert produced the token
        for gate, share in zip(reversed(gates), reversed(shares), strict=True):
            self.below[gate] = self.below[gate] * self.memory + reached * share
            self.above[gate] = self.above[gate] * self.memory + reached * (1.0 - share)
            reached *= share

    def kept(self, gates: np.ndarray) -> np.ndarray:
        """What each of these gates leaves to what lies below it."""
        return np.array([self[gate] for gate in gates.tolist()], np.float64)

    def mix(self, says: Says, gates: np.ndarray, model: np.ndarray) -> np.ndarray:
        """The mixed probability of target after target; learns from each before the next.

        gates  (n,) int64, of each expert of `says`
        model  (targets,) float64, what the model gives each
        """
        functions = library("ngram")
        if functions is not None:
            return self._mix_compiled(functions, says, gates, model)
        mixed, begin, ahead = [], 0, says.ahead.tolist()
        chosen = gates.tolist()
        for number, p in zip(says.numbers.tolist(), model.tolist(), strict=True):
            here = slice(begin, begin + number)
            p, shares = self.chain(chosen[here], ahead[here], p)
            self.learn(chosen[here], shares)
            mixed.append(p)
            begin += number
        return np.array(mixed, np.float64)

    def _mix_compiled(
        self, functions: ctypes.CDLL, says: Says, gates: np.ndarray, model: np.ndarray
    ) -> np.ndarray:
        mixed = np.empty(len(model), np.float64)
        sides = (np.frombuffer(side, np.float64) for side in (self.below, self.above))
        below, above = (side.ctypes.data for side in sides)
        taken = [np.ascontiguousarray(one) for one in (gates, says.ahead, says.numbers, model)]
        functions.gates_mix.restype = None
        functions.gates_mix(
            ctypes.c_void_p(below),
            ctypes.c_void_p(above),
            ctypes.c_double(self.memory),
            ctypes.c_double(FLOOR),
            *(ctypes.c_void_p(one.ctypes.data) for one in taken),
            ctypes.c_int64(len(model)),
            ctypes.c_void_p(mixed.ctypes.data),
        )
        return mixed


def surprise_class(nats: Tensor) -> Tensor:
    """Class of a model's nats for each token, 0 .. NUM_SURPRISES - 1, any shape."""
    return torch.bucketize(nats, torch.tensor(SURPRISES, dtype=nats.dtype))
