"""What each token cost, in a file: filled as chunks are booked, whole when the walk is."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fairway.evaluate.chunks import Chunk


class TokenNats:
    """Nats (num_targets,) float32 of a text's targets, each at its own place of a `.npy` file.

    A walk that goes on after an interruption fills what is left: a place that is written twice is
    written with the same value. What was never booked is NaN.

    Raises ValueError where the file is there and belongs to a text of another length.
    """

    def __init__(self, path: Path, num_targets: int) -> None:
        self.path = path
        if path.is_file():
            self._nats = np.load(path, mmap_mode="r+", allow_pickle=False)
            if self._nats.shape != (num_targets,) or self._nats.dtype != np.float32:
                raise ValueError(
                    f"{path} holds {self._nats.dtype} {self._nats.shape} and not the nats of "
                    f"{num_targets:,} tokens; delete it"
                )
            return
        self._nats = np.lib.format.open_memmap(
            path, mode="w+", dtype=np.float32, shape=(num_targets,)
        )
        self._nats[:] = np.nan

    def book(self, chunk: Chunk, nats: Tensor) -> None:
        """The nats (num_targets,) of a chunk, window after window."""
        values = nats.to("cpu").numpy()
        offsets = chunk.plan.offsets
        for window, begin, end in zip(chunk.plan.windows, offsets, offsets[1:], strict=False):
            self._nats[window.score_from - 1 : window.stop - 1] = values[begin:end]

    def read(self) -> NDArray[np.float64]:
        """(num_targets,); NaN where nothing was booked."""
        return np.asarray(self._nats, np.float64)
