"""Which tensor is rounded how."""

import pytest
import torch

from fairway.quant.hessian import HessianFactor, factor_hessians
from fairway.quant.lowrank import LowRankConfig
from fairway.quant.quantized import QuantizedTensor, dequantize
from fairway.quant.rules import (
    Gptq,
    KeepFloat,
    KeepHalf,
    PercentileRows,
    QuantConfig,
    RoundRows,
    SearchRows,
    quantize,
    scheme_for,
)

RULES = (
    ("embed.weight", RoundRows(bits=7, clip_sigmas=14.0)),
    ("*.gate", KeepFloat()),
    ("blocks.*.up.weight", Gptq(bits=6, clip_sigmas=11.5)),
    ("blocks.*.down.weight", SearchRows(bits=6)),
    ("head.weight", PercentileRows(bits=8)),
    ("*", KeepHalf()),
)
CONFIG = QuantConfig(rules=RULES, min_elements=100)


def weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "embed.weight": (32, 16),
        "blocks.0.gate": (20, 20),
        "blocks.0.up.weight": (24, 16),
        "blocks.1.up.weight": (24, 16),
        "blocks.0.down.weight": (16, 24),
        "blocks.0.scale": (500,),
        "blocks.9.up.weight": (3, 16),
        "head.weight": (32, 16),
    }
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def hessians() -> dict[str, torch.Tensor]:
    return {f"blocks.{n}.up.weight": torch.eye(16) * (n + 1) for n in (0, 1)}


def test_every_tensor_follows_its_first_rule_and_small_ones_stay_half() -> None:
    quantized = quantize(weights(), hessians(), CONFIG)
    kinds = {
        name: t.bits if isinstance(t, QuantizedTensor) else str(t.dtype)
        for name, t in quantized.items()
    }
    assert kinds == {
        "embed.weight": 7,
        "blocks.0.gate": "torch.float32",
        "blocks.0.up.weight": 6,
        "blocks.1.up.weight": 6,
        "blocks.0.down.weight": 6,
        "blocks.0.scale": "torch.float16",
        "blocks.9.up.weight": "torch.float16",
        "head.weight": 8,
    }
    assert list(quantized) == list(weights())


def test_dequantized_weights_have_the_shapes_and_nearly_the_values() -> None:
    before, after = weights(), dequantize(quantize(weights(), hessians(), CONFIG))
    for name, weight in before.items():
        assert after[name].dtype == torch.float32
        assert after[name].shape == weight.shape
        assert (after[name] - weight).abs().max() < 0.5
    assert torch.equal(after["blocks.0.gate"], before["blocks.0.gate"])


def test_a_larger_clip_factor_widens_every_step_by_as_much() -> None:
    one, two = (quantize(weights(), hessians(), CONFIG, factor) for factor in (1.0, 2.0))
    for name in ("embed.weight", "blocks.0.up.weight"):
        narrow, wide = one[name], two[name]
        assert isinstance(narrow, QuantizedTensor)
        assert isinstance(wide, QuantizedTensor)
        torch.testing.assert_close(wide.scale.float(), 2 * narrow.scale.float(), rtol=2e-3, atol=0)


def test_factored_hessians_give_the_same_codes_and_twins_share_a_factor() -> None:
    same = {"a": torch.eye(4), "b": torch.eye(4), "c": 2 * torch.eye(4)}
    factors = factor_hessians(same)
    assert factors["a"] is factors["b"]
    assert factors["a"] is not factors["c"]
    assert isinstance(factors["c"], HessianFactor)
    plain = quantize(weights(), hessians(), CONFIG)
    ready = quantize(weights(), factor_hessians(hessians()), CONFIG)
    for name, tensor in plain.items():
        other = ready[name]
        if isinstance(tensor, QuantizedTensor) and isinstance(other, QuantizedTensor):
            assert torch.equal(tensor.codes, other.codes)


def test_a_stack_of_matrices_is_rounded_row_by_row() -> None:
    stack = torch.randn(3, 8, 16)
    quantized = quantize(
        {"bank": stack}, {}, QuantConfig(rules=(("*", RoundRows()),), min_elements=1)
    )
    bank = quantized["bank"]
    assert isinstance(bank, QuantizedTensor)
    assert bank.codes.shape == (24, 16)
    assert bank.dequantize().shape == stack.shape


def test_the_correction_is_part_of_the_plan() -> None:
    config = QuantConfig(rules=RULES, min_elements=100, low_rank=LowRankConfig(num_tensors=1))
    quantized = quantize(weights(), hessians(), config)
    corrected = [t for t in quantized.values() if isinstance(t, QuantizedTensor) and t.low_rank]
    assert len(corrected) == 1


def test_a_missing_hessian_is_named() -> None:
    with pytest.raises(ValueError, match=r"no Hessian for 'blocks\.1\.up\.weight'.*RoundRows"):
        quantize(weights(), {"blocks.0.up.weight": torch.eye(16)}, CONFIG)


def test_a_tensor_that_no_rule_matches_is_named() -> None:
    with pytest.raises(ValueError, match=r"no rule matches 'x\.y'.*KeepHalf"):
        scheme_for("x.y", torch.zeros(2, 2), QuantConfig(rules=(("embed.*", RoundRows()),)))


def test_values_beyond_float16_are_named() -> None:
    with pytest.raises(ValueError, match=r"big: a value of 1e\+06 does not fit.*KeepFloat"):
        quantize({"big": torch.tensor([1e6])}, {}, CONFIG)


def test_impossible_configs_cannot_exist() -> None:
    with pytest.raises(ValueError, match="2 to 8 bits"):
        Gptq(bits=1)
    with pytest.raises(ValueError, match="above 0"):
        RoundRows(clip_sigmas=0)
    with pytest.raises(ValueError, match="at least 1"):
        QuantConfig(rules=RULES, calibration_batches=0)
