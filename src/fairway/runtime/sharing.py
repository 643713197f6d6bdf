"""What the first process read, on every process: nodes need no disk in common.

An error of the first is everybody's error, so that no peer waits for what will never come.
"""

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairway.runtime.distributed import Ranks
from fairway.runtime.strict_json import Json
from fairway.runtime.tensor_file import TensorFile


def share(ranks: Ranks, read: Callable[[], Json]) -> Json:
    """What `read` returned to rank 0, which alone calls it; its ValueError or OSError likewise."""
    if ranks.world_size == 1:
        return read()
    told: dict[str, Json] = {}
    if ranks.is_main:
        try:
            told["value"] = read()
        except (ValueError, OSError) as error:
            told["error"] = str(error)
    told = json.loads(_share_bytes(ranks, json.dumps(told).encode()))
    if "error" in told:
        raise ValueError(told["error"])
    return told["value"]


def share_tensors(ranks: Ranks, read: Callable[[], TensorFile | None]) -> TensorFile | None:
    """The same for tensors, on the CPU, with their facts."""
    if ranks.world_size == 1:
        return read()
    read_here: list[TensorFile] = []

    def listed() -> Json:
        found = read()
        if found is None:
            return None
        read_here.append(found)
        shapes = [[n, str(t.dtype)[6:], list(t.shape)] for n, t in found.tensors.items()]
        return {"facts": found.facts, "shapes": shapes}

    told: Any = share(ranks, listed)
    if told is None:
        return None
    tensors: dict[str, Tensor] = {}
    for name, dtype, shape in told["shapes"]:
        if read_here:
            tensors[name] = read_here[0].tensors[name].contiguous()
        else:
            tensors[name] = torch.empty(shape, dtype=getattr(torch, dtype))
        ranks.broadcast(tensors[name].reshape(-1).view(torch.uint8))
    return TensorFile(tensors, told["facts"])


@contextmanager
def shared_file(ranks: Ranks, path: Path) -> Iterator[Path]:
    """A file of rank 0 that every rank can read, at this place, until the end of the block."""
    if ranks.world_size == 1:
        yield path
        return
    data = _share_bytes(ranks, path.read_bytes() if ranks.is_main else b"")
    if ranks.is_main:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        copy.write_bytes(data)
        yield copy


def _share_bytes(ranks: Ranks, data: bytes) -> bytes:
    size = ranks.broadcast(torch.tensor(len(data)))
    buffer = torch.zeros(int(size), dtype=torch.uint8)
    if ranks.is_main:
        buffer = torch.from_numpy(np.frombuffer(data, np.uint8).copy())
    return ranks.broadcast(buffer).numpy().tobytes()
