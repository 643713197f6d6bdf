"""Tensors and a few numbers in one file that knows when it is damaged: safetensors and a hash.

No pickle, so reading runs no code. The sha256 over names, types, shapes and bytes stands in the
header, so one flipped bit is refused and never becomes a weight.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fairway.runtime.files import replacing
from fairway.runtime.limits import one_line
from fairway.runtime.strict_json import Json

HEADER = "fairway"
T = TypeVar("T")
MOST_HEADER = 1 << 22  # bytes: a line for each tensor, and the facts


class TensorFile(NamedTuple):
    tensors: dict[str, Tensor]
    facts: dict[str, Any]  # JSON, as it was written


def write_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Json]) -> None:
    """Write the file in one move: whoever finds it finds all of it.

    tensors  contiguous, on the CPU, none sharing memory with another
    facts    anything that JSON returns unchanged

    Raises OSError (a full disk, say) with the old file untouched and the partial one removed.
    """
    told = json.dumps({"facts": dict(facts), "sha256": _digest(tensors, facts)}, sort_keys=True)
    with replacing(path) as partial:
        try:
            save_file(dict(tensors), partial, metadata={HEADER: told})
        except SafetensorError as error:
            raise OSError(f"{path} could not be written ({error}); is the disk full?") from error
        with partial.open("rb") as file:
            os.fsync(file.fileno())


def read_tensors(path: Path, kind: str) -> TensorFile:
    """Inverse of `write_tensors`.

    kind  what the file should be, for the message: "a checkpoint of training"

    Raises ValueError for any file but the whole, unchanged one.
    """
    if not path.is_file():
        raise ValueError(f"no file at {path}")
    try:
        _check_header(path)
        with safe_open(path, framework="pt") as file:
            told = json.loads((file.metadata() or {}).get(HEADER, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if not isinstance(told, dict) or not isinstance(facts := told.get("facts"), dict):
            raise ValueError("it holds no facts of ours")
        if told.get("sha256") != _digest(tensors, facts):
            raise ValueError("its checksum is wrong")
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is not {kind}, or is damaged ({one_line(error)}); delete it to start anew"
        ) from error
    return TensorFile(tensors, facts)


def under(prefix: str, tensors: Mapping[str, T]) -> dict[str, T]:
    """Those whose names begin with `prefix`, without it.

    >>> under("model.", {"model.embed": 1, "optimizer.embed": 2})
    {'embed': 1}
    """
    size = len(prefix)
    return {name[size:]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _check_header(path: Path) -> None:
    """The reader's library takes headers of 100 MB, which become gigabytes of objects."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > MOST_HEADER:
        raise ValueError(f"its header has {length:,} bytes, and may have {MOST_HEADER:,}")


def _digest(tensors: Mapping[str, Tensor], facts: Mapping[str, Json]) -> str:
    digest = hashlib.sha256(json.dumps(dict(facts), sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().contiguous()
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
