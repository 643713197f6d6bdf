"""The bytes of a model file by tensor, though its streams hold all tensors together."""

import numpy as np

from fairway.artifact.container import STREAMS, Artifact, store_tensor
from fairway.coding.weights import encode_and_measure


def tensor_bytes(artifact: Artifact) -> dict[str, float]:
    """Bytes by tensor; together they are the sections of `STREAMS`.

    Codes are counted where they stand in their stream, after what the coder had learned by then;
    scales and unrounded tensors have a share of their section as large as their share of numbers.
    """
    matrices: list[tuple[np.ndarray, int]] = []
    owners: list[str] = []
    shares: dict[str, dict[str, int]] = {stream: {} for stream in STREAMS}
    for name, tensor in artifact.tensors.items():
        streams: dict[str, list[np.ndarray]] = {stream: [] for stream in STREAMS[1:]}
        store_tensor(name, tensor, matrices, streams)
        owners += [name] * (len(matrices) - len(owners))
        for stream, arrays in streams.items():
            shares[stream][name] = sum(array.size for array in arrays)
    for name, bits in zip(owners, encode_and_measure(matrices)[1], strict=True):
        shares["codes"][name] = shares["codes"].get(name, 0) + bits
    found = dict.fromkeys(artifact.tensors, 0.0)
    for stream, share in shares.items():
        total = sum(share.values())
        for name, part in share.items():
            if part:
                found[name] += artifact.sizes[stream] * part / total
    return found
