"""Token ids from a .npy file that nobody vouches for."""

import math
from pathlib import Path
from typing import IO

import numpy as np

from fairway.runtime.limits import one_line

MOST_HEADER = 10_000  # bytes; that of a plain array has about a hundred


def read_token_file(path: Path) -> np.ndarray:
    """The integers (n,) in a .npy file; no pickle, and no memory before the sizes agree.

    Raises ValueError for anything else, in one line.
    """
    if not path.is_file():
        what = "is no file" if path.exists() else "does not exist"
        raise ValueError(f"{path} {what}; --tokens takes a .npy file of token ids")
    with path.open("rb") as file:
        try:
            shape, dtype = _header(file)
        except Exception as error:  # NumPy reads the header as Python text, which fails in any way
            said = one_line(error, 100) or type(error).__name__
            raise ValueError(f"{path} is no .npy file of token ids ({said})") from error
        begin, size = file.tell(), path.stat().st_size
        if dtype.kind not in "iu" or len(shape) != 1 or shape[0] < 0:
            raise ValueError(f"{path} holds {dtype} of shape {shape}; needs a row of integers")
        if size != begin + math.prod(shape) * dtype.itemsize:
            raise ValueError(
                f"{path} has {size:,} bytes, and its header promises {shape[0]:,} numbers of "
                f"{dtype.itemsize}; it was cut off or damaged"
            )
        return np.fromfile(file, dtype, shape[0])


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file, max_header_size=MOST_HEADER)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(file, max_header_size=MOST_HEADER)
    else:
        raise ValueError(f"version {version} is for records, not for plain arrays")
    return shape, dtype
