"""Each byte of a file's streams belongs to one tensor."""

import pytest
import torch

from fairway.artifact.container import STREAMS, pack, unpack
from fairway.artifact.tensor_sizes import tensor_bytes
from fairway.quant.quantized import QuantizedTensor


def rounded(rows: int, columns: int, bits: int) -> QuantizedTensor:
    top = 2 ** (bits - 1) - 1
    codes = torch.randint(-top, top + 1, (rows, columns), dtype=torch.int8)
    scale = torch.ones(rows, dtype=torch.float16)
    return QuantizedTensor(codes=codes, scale=scale, bits=bits, shape=(rows, columns))


def test_the_bytes_of_tensors_are_those_of_the_streams() -> None:
    torch.manual_seed(0)
    tensors = {
        "embed.weight": rounded(256, 64, 7),
        "blocks.0.mlp.up.weight": rounded(64, 64, 4),
        "blocks.0.gain": torch.randn(64, dtype=torch.float16),
        "skip": torch.randn(8),
    }
    artifact = unpack(pack({}, b"tokens", tensors))
    found = tensor_bytes(artifact)
    assert set(found) == set(tensors)
    assert sum(found.values()) == pytest.approx(sum(artifact.sizes[s] for s in STREAMS))
    assert 8 * found["embed.weight"] / (256 * 64) == pytest.approx(7, rel=0.08)
    assert 8 * found["blocks.0.mlp.up.weight"] / (64 * 64) == pytest.approx(4, rel=0.15)
