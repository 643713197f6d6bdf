"""A table of bytes for each id that somebody made: a `.npy`, `.json` or PyTorch file."""

import pickle
from pathlib import Path

import numpy as np

from fairway.runtime.files import read_file
from fairway.runtime.limits import one_line
from fairway.runtime.strict_json import parse_json

MOST_BYTES, MOST_IDS = 1 << 28, 1 << 24


def read_byte_table(path: Path) -> np.ndarray:
    """Counts (V,) of a table; ValueError where it is none. Nothing in the file is run.

    .json  a list of counts, or an object from ids to counts
    .pt    a tensor, as nanochat's token_bytes.pt
    """
    if not path.is_file():
        raise ValueError(f"no table at {path}")
    data = read_file(path, MOST_BYTES)
    try:
        if data.startswith(b"\x93NUMPY"):
            return np.asarray(np.load(path, allow_pickle=False))
        if data[:1] in (b"[", b"{"):
            return _listed(parse_json(data))
        return _tensor(path)
    except pickle.UnpicklingError as error:  # PyTorch's advice is to run what is inside
        raise ValueError(
            f"{path} is no table of bytes: neither .npy nor JSON, nor a tensor that can be read "
            "without running anything"
        ) from error
    except Exception as error:  # unpicklers raise whatever they stumble over
        raise ValueError(f"{path} is no table of bytes: {one_line(error, 200)}") from error


def _listed(found: object) -> np.ndarray:
    if isinstance(found, dict):
        ids = {int(name): count for name, count in found.items()}
        if not ids or min(ids) < 0 or max(ids) >= MOST_IDS:
            raise ValueError("its ids are no ids")
        found = [ids.get(token, 0) for token in range(max(ids) + 1)]
    if not isinstance(found, list) or any(type(count) is not int for count in found):
        raise ValueError("counts are integers, in a list or by id")
    return np.array(found, dtype=np.int64)


def _tensor(path: Path) -> np.ndarray:
    import torch

    found = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(found, torch.Tensor):
        raise ValueError(f"it holds {type(found).__name__}, and no tensor")
    return found.numpy()
