"""Codes and scales that belong together, and no others."""

import pytest
import torch

from fairway.quant.quantized import QuantizedTensor
from fairway.quant.schemes import RoundRows


def test_shapes_that_cannot_be_are_refused() -> None:
    codes, scale = RoundRows(6, 12.85).round_rows(torch.randn(24, 48))
    with pytest.raises(ValueError, match="cannot fill shape"):
        QuantizedTensor(codes=codes, scale=scale, bits=6, shape=(24, 47))
    with pytest.raises(ValueError, match=r"expected \(R, C\) with \(R,\)"):
        QuantizedTensor(codes=codes, scale=scale[1:], bits=6, shape=(24, 48))
    with pytest.raises(ValueError, match="int8 codes and float16 scales"):
        QuantizedTensor(codes=codes, scale=scale.float(), bits=6, shape=(24, 48))


def test_codes_that_their_bits_cannot_hold_are_refused() -> None:
    """Whoever rounds, the coder counts on it."""
    codes, scale = RoundRows(6, 3.0).round_rows(torch.randn(24, 48))
    codes[5, 7] = -128
    with pytest.raises(ValueError, match=r"codes from -128 to \d+ do not fit 6 bits"):
        QuantizedTensor(codes=codes, scale=scale, bits=6, shape=(24, 48))
    with pytest.raises(ValueError, match="2 to 8 bits"):
        QuantizedTensor(codes=codes, scale=scale, bits=9, shape=(24, 48))
