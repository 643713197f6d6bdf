"""What each document of the validation text cost in a run, in a file beside its result.

A result names the file's hash, so that the figures of another run, or changed ones, are refused.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from fairway.result import RunResult
from fairway.runtime.files import file_sha256
from fairway.runtime.tensor_file import read_tensors, write_tensors

DOCUMENTS = "documents.safetensors"
_COLUMNS = ("frozen", "learning", "tokens", "bytes")


class Documents(NamedTuple):
    """One entry for each document, in the order of the text.

    frozen, learning  (D,) float64 nats: of the model as it is, and as it was scored
    tokens, bytes     (D,) int64: targets, and bytes of the original text
    """

    frozen: np.ndarray
    learning: np.ndarray
    tokens: np.ndarray
    bytes: np.ndarray


@dataclass(frozen=True)
class NotThere:
    """Why a run's documents cannot be read."""

    reason: str


def write_documents(folder: Path, documents: Documents) -> str:
    """Write the file; returns its sha256, which the result keeps."""
    tensors = {name: torch.from_numpy(column) for name, column in documents._asdict().items()}
    write_tensors(folder / DOCUMENTS, tensors, {})
    return file_sha256(folder / DOCUMENTS)


def read_documents(folder: Path, result: RunResult) -> Documents | NotThere:
    """Those of `result`; ValueError where the file is damaged, or of another run."""
    path = folder / DOCUMENTS
    if result.documents is None:
        return NotThere(f"{folder} was scored by a version that kept no nats of documents")
    if not path.is_file():
        return NotThere(f"{path} is gone")
    if file_sha256(path) != result.documents:
        raise ValueError(
            f"{path} is not the file that the result of this run names: it is another run's, or "
            f"was changed"
        )
    tensors = read_tensors(path, "nats of documents").tensors
    found = Documents(*(tensors[name].numpy() for name in _COLUMNS))
    if result.score is None or not math.isclose(found.learning.sum(), result.score.nats):
        raise ValueError(f"{path}: its documents do not add up to the score of the result beside")
    return found
