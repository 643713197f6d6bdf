"""Weights stay in float32; the input decides the arithmetic."""

import pytest
import torch

from fairway.model.linear import Linear


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_output_has_the_type_of_the_input(dtype: torch.dtype) -> None:
    layer = Linear(4, 3)
    assert layer(torch.randn(2, 5, 4, dtype=dtype)).dtype == dtype
    assert layer.weight.dtype == torch.float32


def test_scaled_rows_are_scaled_outputs() -> None:
    layer, x, scale = Linear(4, 3), torch.randn(2, 4), torch.tensor([0.5, 2.0, -1.0])
    assert torch.allclose(layer(x, scale), layer(x) * scale, atol=1e-6)
