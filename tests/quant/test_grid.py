"""Rounding rows to integer grids."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairway.quant.grid import (
    gaussian_bits,
    percentile_scale,
    round_to_grid,
)
from fairway.quant.quantized import dequantize_rows, top_code
from fairway.quant.schemes import PercentileRows, RoundRows, RowScheme, SearchRows


def matrix(rows: int = 24, columns: int = 48, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@given(
    bits=st.integers(2, 8),
    clip_sigmas=st.floats(0.5, 30),
    magnitude=st.floats(1e-4, 1e3),
    seed=st.integers(0, 100),
)
def test_inside_the_clip_no_weight_moves_by_more_than_half_a_step(
    bits: int, clip_sigmas: float, magnitude: float, seed: int
) -> None:
    weight = matrix(seed=seed) * magnitude
    codes, scale = RoundRows(bits, clip_sigmas).round_rows(weight)
    step = scale.float()[:, None]
    assert codes.dtype == torch.int8
    assert codes.abs().max() <= top_code(bits)
    inside = weight.abs() <= top_code(bits) * step
    error = (weight - dequantize_rows(codes, scale)).abs()
    assert (error <= 0.5001 * step)[inside].all()


def test_the_grid_ends_the_given_number_of_deviations_out() -> None:
    weight = matrix(8, 512)
    _, scale = RoundRows(6, 12.85).round_rows(weight)
    torch.testing.assert_close(scale.float() * 31, 12.85 * weight.std(dim=1), rtol=1e-3, atol=0)


@pytest.mark.parametrize("scheme", [RoundRows(), PercentileRows(bits=6), SearchRows()])
def test_a_row_of_zeros_stays_zero(scheme: RowScheme) -> None:
    weight = matrix()
    weight[3] = 0
    restored = dequantize_rows(*scheme.round_rows(weight))
    assert restored.isfinite().all()
    assert (restored[3] == 0).all()


def test_dequantized_weights_round_to_the_same_codes() -> None:
    codes, scale = RoundRows(6, 4.0).round_rows(matrix())
    assert torch.equal(round_to_grid(dequantize_rows(codes, scale), scale, 6), codes)


def test_the_search_is_never_worse_than_any_of_its_percentiles() -> None:
    weight = matrix(16, 1024) ** 3  # heavy tails, where clipping pays
    searched = (weight - dequantize_rows(*SearchRows().round_rows(weight))).square().sum(1)
    for percentile in (0.999, 0.9995, 0.9999, 0.99999, 1.0):
        scale = percentile_scale(weight, 6, percentile)
        fixed = dequantize_rows(round_to_grid(weight, scale, 6), scale)
        assert (searched <= (weight - fixed).square().sum(1) + 1e-6).all()


def test_percentiles_agree_with_torch() -> None:
    weight = matrix(8, 700)
    scale = percentile_scale(weight, 8, 0.99)
    expected = torch.quantile(weight.abs(), 0.99, dim=1) / 127
    torch.testing.assert_close(scale.float(), expected, rtol=1e-3, atol=0)


def test_a_least_step_is_kept() -> None:
    scale = PercentileRows(min_scale=1 / 127).scale(matrix() * 1e-3, 1.0)
    assert (scale == torch.tensor(1 / 127).half()).all()


def test_weights_that_are_not_finite_are_refused() -> None:
    weight = matrix()
    weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN, infinity"):
        RoundRows(6, 12.85).round_rows(weight)


def test_a_width_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="2 to 8 bits"):
        RoundRows(9, 12.85).round_rows(matrix())


def test_one_bit_is_saved_per_doubling_of_the_step() -> None:
    width = torch.tensor([16.0, 8.0])
    wide, narrow = gaussian_bits(width, 8).tolist()
    assert wide - narrow == pytest.approx(1, abs=0.01)
    assert wide == pytest.approx(math.log2(16 * math.sqrt(2 * math.pi * math.e)), abs=0.01)
    assert gaussian_bits(torch.tensor([0.0]), 6).item() == pytest.approx(0, abs=1e-6)
