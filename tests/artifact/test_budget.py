"""Landing under a cap."""

import math

import pytest
import torch

from fairway.artifact.budget import (
    OverBudget,
    fit_to_cap,
    gaussian_bits,
    predict_bytes,
    predict_tensor_bytes,
    spare_bytes,
)
from fairway.artifact.container import pack
from fairway.quant.rules import Gptq, KeepHalf, QuantConfig, RoundRows, quantize


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    """Matrices whose columns are as loud as their input channels."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, rows, columns in (("embed", 512, 192), ("up", 384, 192), ("down", 192, 384)):
        loudness = (0.4 * torch.randn(columns, generator=generator)).exp()
        tensors[name] = torch.randn(rows, columns, generator=generator) * loudness * 0.03
    return tensors | {"scale": torch.randn(512, generator=generator)}


def plan(clip_sigmas: float = 12.85, bits: int = 6) -> QuantConfig:
    rules = (("embed", RoundRows(8, 20.0)), ("*", Gptq(bits, clip_sigmas)))
    return QuantConfig(rules=(("scale", KeepHalf()), *rules), min_elements=1000)


def hessians() -> dict[str, torch.Tensor]:
    return {"up": torch.eye(192), "down": torch.eye(384)}


@pytest.mark.parametrize("clip_sigmas", [4.0, 12.85, 30.0])
@pytest.mark.parametrize("bits", [4, 6])
def test_predicted_bytes_are_within_three_percent(clip_sigmas: float, bits: int) -> None:
    config = plan(clip_sigmas, bits)
    actual = len(pack({}, b"", quantize(weights(), hessians(), config))) - 400  # header, checksums
    assert predict_bytes(weights(), config) == pytest.approx(actual, rel=0.03)


def test_the_clip_factor_is_priced_as_a_wider_clip() -> None:
    assert predict_bytes(weights(), plan(), 1.0) > predict_bytes(weights(), plan(), 2.0)
    sizes = predict_tensor_bytes(weights(), plan())
    assert sizes.keys() == weights().keys()
    assert sizes["scale"] == 1024


def test_one_bit_is_saved_per_doubling_of_the_step() -> None:
    width = torch.tensor([16.0, 8.0])
    wide, narrow = gaussian_bits(width, 8).tolist()
    assert wide - narrow == pytest.approx(1, abs=0.01)
    assert wide == pytest.approx(math.log2(16 * math.sqrt(2 * math.pi * math.e)), abs=0.01)
    assert gaussian_bits(torch.tensor([0.0]), 6).item() == pytest.approx(0, abs=1e-6)


def test_the_artifact_lands_just_under_the_cap() -> None:
    cap, calls = 100_000, []

    def make(factor: float) -> bytes:
        calls.append(factor)
        return pack({}, b"", quantize(weights(), hessians(), plan(), factor))

    factor, data = fit_to_cap(make, cap, tolerance=0.002)
    assert 0.998 * cap <= len(data) <= cap
    assert data == make(factor)
    assert len(calls) <= 8


@pytest.mark.parametrize(
    "curve", [lambda f: 1000 / f, lambda f: 1000 - 300 * f, lambda f: 900 / f**3]
)
def test_any_falling_curve_is_followed(curve) -> None:
    factor, data = fit_to_cap(lambda f: bytes(int(curve(f))), 700, max_calls=20, tolerance=0.01)
    assert 690 <= len(data) <= 700
    assert 0.5 < factor < 2


def test_a_step_in_the_curve_still_gives_a_file_that_fits() -> None:
    factor, data = fit_to_cap(lambda f: bytes(1000 if f < 1.1 else 300), 700)
    assert len(data) == 300
    assert 1.1 <= factor < 1.2


def test_what_fits_at_the_finest_grid_is_left_there() -> None:
    assert fit_to_cap(lambda f: bytes(10), 100, low=0.25) == (0.25, bytes(10))


def test_what_cannot_fit_says_by_how_much() -> None:
    with pytest.raises(OverBudget, match=r"even at 2\.0 times.*1,500 bytes, 500 over the 1,000"):
        fit_to_cap(lambda f: bytes(int(3000 / f)), 1000)


def test_spare_bytes_are_what_is_left() -> None:
    assert spare_bytes(500, {"mlp": 9_000}, cap_bytes=10_000) == 500


def test_the_error_names_the_group_to_shrink() -> None:
    with pytest.raises(OverBudget, match=r"1,000 over .* 'mlp' with 9,000 bytes.*lower its bits"):
        spare_bytes(500, {"mlp": 9_000, "embed": 1_500}, cap_bytes=10_000)
