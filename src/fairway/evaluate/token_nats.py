"""What each token cost, in a file: filled as chunks are booked, whole when the walk is."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fairway.evaluate.chunks import Chunk
from fairway.runtime.files import replacing


class TokenNats:
    """Nats (num_targets,) float32 of a text's targets, each at its own place of a `.npy` file.

    A walk that goes on after an interruption fills what is left: a place that is written twice is
    written with the same value. What was never booked is NaN.

    Raises ValueError where the file is there and belongs to a text of another length, and OSError
    where the disk has no room for it.
    """

    def __init__(self, path: Path, num_targets: int) -> None:
        self.path = path
        if not path.is_file():
            # Written and not only mapped, for a full disk ends whoever writes into a mapped hole.
            unknown, form = np.full(num_targets, np.nan, np.float32), np.lib.format
            with replacing(path) as partial, partial.open("wb") as file:
                form.write_array_header_1_0(file, form.header_data_from_array_1_0(unknown))
                file.write(unknown.data)
        self._nats = np.load(path, mmap_mode="r+", allow_pickle=False)
        if self._nats.shape != (num_targets,) or self._nats.dtype != np.float32:
            raise ValueError(
                f"{path} holds {self._nats.dtype} {self._nats.shape} and not the nats of "
                f"{num_targets:,} tokens; delete it"
            )

    def book(self, chunk: Chunk, nats: Tensor) -> None:
        """The nats (num_targets,) of a chunk, window after window."""
        values = nats.to("cpu").numpy()
        offsets = chunk.plan.offsets
        for window, begin, end in zip(chunk.plan.windows, offsets, offsets[1:], strict=False):
            self._nats[window.score_from - 1 : window.stop - 1] = values[begin:end]

    def read(self) -> NDArray[np.float64]:
        """(num_targets,); NaN where nothing was booked."""
        return np.asarray(self._nats, np.float64)
