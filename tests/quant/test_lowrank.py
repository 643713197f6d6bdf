"""Low-rank correction of rounding errors."""

import pytest
import torch
from torch import Tensor

from fairway.quant.lowrank import LowRankConfig, correct, fit_low_rank, hessian_root
from fairway.quant.quantized import QuantizedTensor
from fairway.quant.schemes import RoundRows


def rounded(seed: int, rows: int = 64, columns: int = 160) -> tuple[Tensor, QuantizedTensor]:
    """A weight whose rounding error has a strong direction, and the weight rounded."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator)
    codes, scale = RoundRows(4, 4.0).round_rows(weight)
    strong = torch.randn(rows, 2, generator=generator) @ torch.randn(
        2, columns, generator=generator
    )
    weight = weight + 0.2 * strong  # what training went on to do after this rounding, say
    return weight, QuantizedTensor(codes=codes, scale=scale, bits=4, shape=tuple(weight.shape))


def test_fine_factors_take_away_exactly_a_low_rank_error() -> None:
    generator = torch.Generator().manual_seed(0)
    error = torch.randn(40, 3, generator=generator) @ torch.randn(3, 96, generator=generator)
    fitted = fit_low_rank(error, LowRankConfig(rank=3, a_bits=8, b_bits=8))
    assert (error - fitted.correction()).norm() < 0.02 * error.norm()


@pytest.mark.parametrize("columns", [160, 130])  # also where groups do not divide the row
def test_coarse_factors_still_take_most_of_a_strong_direction(columns: int) -> None:
    weight, quantized = rounded(0, columns=columns)
    error = weight - quantized.dequantize()
    fitted = fit_low_rank(error, LowRankConfig())
    assert (error - fitted.correction()).norm() < 0.8 * error.norm()
    bits = 2 * fitted.a_codes.numel() + 4 * fitted.b_codes.numel()
    scales = fitted.a_scale.numel() + fitted.b_scale.numel()
    assert bits / 8 + 2 * scales < 0.1 * 4 * error.numel() / 8 + 400


def test_whitening_serves_the_outputs_better_and_the_weights_worse() -> None:
    weight, quantized = rounded(1)
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(500, 160, generator=generator) * torch.linspace(0.01, 4, 160)
    error, config = weight - quantized.dequantize(), LowRankConfig(a_bits=8, b_bits=8)
    plain = error - fit_low_rank(error, config).correction()
    white = error - fit_low_rank(error, config, hessian_root(inputs.T @ inputs)).correction()
    assert (inputs @ white.T).norm() < (inputs @ plain.T).norm()
    assert white.norm() > plain.norm()


def test_the_root_squares_to_the_damped_hessian() -> None:
    inputs = torch.randn(300, 24, generator=torch.Generator().manual_seed(0))
    inputs[:, 5] = 0
    hessian = inputs.T @ inputs
    root = hessian_root(hessian)
    used = hessian.diagonal() > 0
    damped = hessian + 0.01 * (hessian.trace() + 1) / 24 * torch.diag(used.float())
    torch.testing.assert_close((root @ root.T)[used][:, used], damped[used][:, used])
    assert (root[5] == 0).all()


def test_only_the_tensors_that_lost_most_are_corrected() -> None:
    weights, quantized = {}, {}
    for seed, name in enumerate("abc"):
        weights[name], quantized[name] = rounded(seed)
    weights["b"] = weights["b"] + torch.ones(64, 1) @ torch.linspace(-1, 1, 160)[None]
    corrected = correct(weights, quantized, LowRankConfig(num_tensors=1))
    assert [name for name, q in corrected.items() if q.low_rank is not None] == ["b"]
    before = (weights["b"] - quantized["b"].dequantize()).norm()
    assert (weights["b"] - corrected["b"].dequantize()).norm() < before


def test_whitening_needs_the_hessian_of_what_it_corrects() -> None:
    weight, quantized = rounded(0)
    config = LowRankConfig(num_tensors=1, whiten=True)
    corrected = correct({"a": weight}, {"a": quantized}, config, {"a": torch.eye(160)})
    assert corrected["a"].low_rank is not None
    with pytest.raises(ValueError, match="no Hessian to whiten the error of 'a'"):
        correct({"a": weight}, {"a": quantized}, config)


def test_the_published_form_corrects_too_but_less() -> None:
    weight, quantized = rounded(5)
    error = weight - quantized.dequantize()
    left = {
        form: (error - fit_low_rank(error, LowRankConfig(form=form)).correction()).norm()
        for form in ("fitted", "published")
    }
    assert left["fitted"] < left["published"] < error.norm()
    nothing = fit_low_rank(torch.zeros(8, 12), LowRankConfig(form="published"))
    assert torch.equal(nothing.correction(), torch.zeros(8, 12))
    with pytest.raises(ValueError, match=r"form='published' with whiten=True"):
        LowRankConfig(form="published", whiten=True)
    with pytest.raises(ValueError, match=r"form='lqer'"):
        LowRankConfig(form="lqer")  # type: ignore[arg-type]
