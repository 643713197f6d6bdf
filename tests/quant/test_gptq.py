"""GPTQ against published codes and against plain rounding."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from fairway.quant.gptq import gptq_many
from fairway.quant.hessian import factor_hessian
from fairway.quant.quantized import dequantize_rows
from fairway.quant.schemes import RoundRows


def gptq(weight: Tensor, hessian: Tensor, bits: int, clip_sigmas: float) -> tuple[Tensor, Tensor]:
    """One matrix alone."""
    return gptq_many([weight], [hessian], bits, clip_sigmas)[0]


def layer(rows: int = 48, columns: int = 160, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A weight, and inputs whose channels are correlated and of different loudness."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator) * 0.05
    mixing = torch.randn(columns, columns, generator=generator) / columns**0.5
    inputs = torch.randn(1000, columns, generator=generator) @ (mixing + torch.eye(columns))
    return weight, inputs * torch.linspace(0.2, 3, columns)


@pytest.mark.parametrize("name", ["a", "b"])
def test_codes_and_scales_are_the_published_ones(shared: Path, name: str) -> None:
    golden = torch.load(shared / "vectors" / "gptq.pt", weights_only=True)[name]
    codes, scale = gptq(golden["weight"], golden["hessian"], golden["bits"], golden["clip_sigmas"])
    assert torch.equal(scale, golden["scale"])
    assert torch.equal(codes, golden["codes"])


@pytest.mark.parametrize("columns", [1, 15, 128, 160, 300])
def test_outputs_suffer_less_than_under_plain_rounding(columns: int) -> None:
    weight, inputs = layer(columns=columns)
    mended = dequantize_rows(*gptq(weight, inputs.T @ inputs, 4, 6.0))
    plain = dequantize_rows(*RoundRows(4, 6.0).round_rows(weight))
    error = ((weight - mended) @ inputs.T).square().sum()
    assert error <= ((weight - plain) @ inputs.T).square().sum() * (1.0 if columns == 1 else 0.8)


def test_uncorrelated_inputs_leave_plain_rounding() -> None:
    """With nothing to mend an error with, each weight goes to its nearest code."""
    weight, _ = layer()
    codes, scale = gptq(weight, torch.eye(160), 6, 12.85)
    plain, plain_scale = RoundRows(6, 12.85).round_rows(weight)
    assert torch.equal(codes, plain)
    assert torch.equal(scale, plain_scale)


def test_many_matrices_at_once_are_each_as_alone() -> None:
    layers = [layer(seed=seed) for seed in range(3)]
    weights, hessians = [w for w, _ in layers], [x.T @ x for _, x in layers]
    together = gptq_many(weights, [hessians[0], factor_hessian(hessians[1]), hessians[2]], 6, 8.0)
    for weight, hessian, (codes, scale) in zip(weights, hessians, together, strict=True):
        alone, alone_scale = gptq(weight, hessian, 6, 8.0)
        assert torch.equal(scale, alone_scale)
        assert (codes == alone).float().mean() > 0.999  # products of batches round differently


def test_the_unit_of_the_hessian_does_not_matter() -> None:
    weight, inputs = layer()
    hessian = inputs.T @ inputs
    assert torch.equal(gptq(weight, hessian, 6, 8.0)[0], gptq(weight, hessian / 1024, 6, 8.0)[0])


def test_channels_that_were_always_zero_get_zero_codes() -> None:
    weight, inputs = layer()
    inputs[:, 7] = 0
    codes, _ = gptq(weight, inputs.T @ inputs, 6, 8.0)
    assert (codes[:, 7] == 0).all()


def test_a_hessian_of_another_layer_is_refused() -> None:
    with pytest.raises(ValueError, match="160 columns meets a Hessian of width 12"):
        gptq(layer()[0], torch.eye(12), 6, 8.0)
