"""What each document of a scored text cost: the sample that a paired test is made on."""

from collections.abc import Sequence
from itertools import chain

import numpy as np
from torch import Tensor

from fairway.evaluate.chunks import ChunkPlan
from fairway.tokens.val_text import ValText


class DocumentNats:
    """Sums over the targets of each document, float64, whatever the order of scoring.

    The BOS that opens a document is the last target of the one before it (`windows.py`), so every
    target belongs to one document, and the sums add up to the score.

    nats  (D,) float64; a text that does not begin with a BOS has one document more
    """

    def __init__(self, starts: Sequence[int]) -> None:
        self.starts = np.unique(np.array([0, *starts], dtype=np.int64))
        self.nats = np.zeros(len(self.starts))

    def add(self, plan: ChunkPlan, nats: Tensor) -> None:
        """`nats` is (num_targets,), window after window."""
        if not plan.num_targets:
            return
        values = nats.detach().double().cpu().numpy()
        np.add.at(self.nats, self._documents(_predecessors(plan)), values)

    def sizes(self, text: ValText) -> tuple[np.ndarray, np.ndarray]:
        """Targets and bytes of each document, both (D,) int64."""
        documents = self._documents(np.arange(text.num_targets))
        tokens = np.bincount(documents, minlength=len(self.starts))
        num_bytes = np.zeros_like(tokens)
        np.add.at(num_bytes, documents, text.target_bytes.numpy())
        return tokens, num_bytes

    def _documents(self, places: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.starts, places, side="right") - 1


def _predecessors(plan: ChunkPlan) -> np.ndarray:
    """(num_targets,) int64: the position before each target, in the order of its nats."""
    bounds = np.fromiter(
        chain.from_iterable((w.score_from - 1, w.num_targets) for w in plan.windows), np.int64
    ).reshape(-1, 2)
    begins, lengths = bounds[:, 0], bounds[:, 1]
    offsets = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) + np.repeat(begins - offsets, lengths)
