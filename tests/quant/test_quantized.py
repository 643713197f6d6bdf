"""Codes and scales that belong together, and no others."""

import pytest
import torch

from fairway.quant.grid import quantize_rows
from fairway.quant.quantized import QuantizedTensor


def test_shapes_that_cannot_be_are_refused() -> None:
    codes, scale = quantize_rows(torch.randn(24, 48), 6, 12.85)
    with pytest.raises(ValueError, match="cannot fill shape"):
        QuantizedTensor(codes=codes, scale=scale, bits=6, shape=(24, 47))
    with pytest.raises(ValueError, match=r"expected \(R, C\) with \(R,\)"):
        QuantizedTensor(codes=codes, scale=scale[1:], bits=6, shape=(24, 48))
    with pytest.raises(ValueError, match="int8 codes and float16 scales"):
        QuantizedTensor(codes=codes, scale=scale.float(), bits=6, shape=(24, 48))
