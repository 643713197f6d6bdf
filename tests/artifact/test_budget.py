"""Landing under a cap."""

import pytest
import torch

from fairway.artifact.budget import (
    OverBudget,
    fit_to_cap,
    predict_bytes,
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


def rules(clip_sigmas: float = 12.85, bits: int = 6) -> QuantConfig:
    pairs = (("embed", RoundRows(8, 20.0)), ("*", Gptq(bits, clip_sigmas)))
    return QuantConfig(rules=(("scale", KeepHalf()), *pairs), min_elements=1000)


def hessians() -> dict[str, torch.Tensor]:
    return {"up": torch.eye(192), "down": torch.eye(384)}


@pytest.mark.parametrize("clip_sigmas", [4.0, 12.85, 30.0])
@pytest.mark.parametrize("bits", [4, 6])
def test_predicted_bytes_are_within_three_percent(clip_sigmas: float, bits: int) -> None:
    config = rules(clip_sigmas, bits)
    actual = len(pack({}, b"", quantize(weights(), hessians(), config))) - 400  # header, checksums
    assert predict_bytes(weights(), config) == pytest.approx(actual, rel=0.03)


def test_the_clip_factor_counts_as_a_wider_clip() -> None:
    assert predict_bytes(weights(), rules(), 1.0) > predict_bytes(weights(), rules(), 2.0)
    assert predict_bytes({"scale": weights()["scale"]}, rules()) == 1024


def test_the_artifact_lands_just_under_the_cap() -> None:
    cap, calls = 100_000, []

    def make(factor: float) -> bytes:
        calls.append(factor)
        return pack({}, b"", quantize(weights(), hessians(), rules(), factor))

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
