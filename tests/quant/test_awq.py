"""AWQ-lite against the published quantizer's own groups, codes and scales."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fairway.quant.awq import AwqLiteConfig, choose_groups, group_scores
from fairway.quant.gptq import FineGroups, Gptq, gptq_many
from fairway.quant.lowrank import LowRankConfig
from fairway.quant.quantized import QuantizedTensor, fine_mask
from fairway.quant.rules import KeepHalf, LargestRows, QuantConfig, quantize

RULES = QuantConfig(
    rules=(
        ("*.mlp.*.weight", Gptq(bits=6, clip_sigmas=11.5)),
        ("tok_emb.weight", Gptq(bits=7, clip_sigmas=14.0)),
        ("*.attn_gate_w", LargestRows(bits=8)),
        ("*", KeepHalf()),
    ),
    awq=AwqLiteConfig(),
    low_rank=LowRankConfig(form="published"),
)
CASES = {
    "record": RULES,
    "groups3": replace(RULES, awq=AwqLiteConfig(num_groups=3)),
    "groups3_nolqer": replace(RULES, awq=AwqLiteConfig(num_groups=3), low_rank=None),
    "off": replace(RULES, awq=None),
}


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, Any]:
    return torch.load(shared / "vectors" / "awq_lite.pt", weights_only=True)


@pytest.fixture(scope="module")
def weights(golden: dict[str, Any]) -> dict[str, Tensor]:
    """The published tensors that are rounded, under the published names."""
    state = golden["state_dict"]
    found = {name: state[name] for name in state if "attn_gate_w" in name or "tok_emb" in name}
    for i in range(2):
        found[f"blocks.{i}.mlp.fc.weight"] = state["mlp_up_bank"][i]
        found[f"blocks.{i}.mlp.proj.weight"] = state["mlp_down_bank"][i]
    return found


def same_up_to_sign(ours: QuantizedTensor, theirs: dict[str, Tensor], name: str) -> None:
    """Each component of the correction as published, or turned around: the SVD picks the sign.

    Codes reach one further down than up, so what lies at the ends changes when it is turned.
    """
    low_rank = ours.low_rank
    assert low_rank is not None
    assert torch.equal(low_rank.a_scale, theirs[f"{name}.lqAs_a"].repeat(4))
    assert torch.equal(low_rank.b_scale.flatten(), theirs[f"{name}.lqBs_a"])
    published = theirs[f"{name}.lqA_a"], theirs[f"{name}.lqB_a"]
    for k in range(4):
        sides = (low_rank.a_codes[:, k], published[0][:, k], -2), (
            low_rank.b_codes[k], published[1][k], -8
        )  # fmt: skip
        as_is = all(torch.equal(mine, their) for mine, their, _ in sides)
        assert as_is or all(is_turned(*side) for side in sides)


def is_turned(mine: Tensor, theirs: Tensor, lowest: int) -> bool:
    at_end = (theirs == -lowest - 1) & (mine == lowest)
    return bool(((mine == (-theirs).clamp(max=-lowest - 1)) | at_end).all())


@pytest.mark.parametrize("case", sorted(CASES))
def test_a_model_is_rounded_as_published(
    golden: dict[str, Any], weights: dict[str, Tensor], case: str
) -> None:
    theirs = golden["results"][case]["quantized"]
    ours = quantize(weights, golden["hessians"], CASES[case], 1.0, golden["act_rms"])
    for name, found in ours.items():
        assert isinstance(found, QuantizedTensor)
        gate = "attn_gate_w" in name
        assert torch.equal(found.codes, theirs[f"{name}.{'gq' if gate else 'q'}"]), name
        assert torch.equal(found.scale, theirs[f"{name}.{'gs' if gate else 'scale'}"]), name
        assert (found.fine is not None) == (f"{name}.awqg_start" in theirs)
        if found.fine is not None:
            assert list(found.fine.starts) == theirs[f"{name}.awqg_start"].tolist()
            assert found.fine.size == int(theirs[f"{name}.awqg_size"])
            assert torch.equal(found.fine.scale, theirs[f"{name}.awqg_s_hi"])
        assert (found.low_rank is not None) == (f"{name}.lqA_a" in theirs)
        if found.low_rank is not None:
            same_up_to_sign(found, theirs, name)
    for name, expected in golden["results"][case].get("dequantized", {}).items():
        found = ours[name]
        assert isinstance(found, QuantizedTensor)
        if found.low_rank is None:
            torch.testing.assert_close(found.dequantize(), expected, rtol=1e-6, atol=1e-7)
        else:
            assert (found.dequantize() - expected).norm() < 0.01 * expected.norm()


def test_groups_are_ranked_as_published(golden: dict[str, Any], weights: dict[str, Tensor]) -> None:
    large = {name: weight for name, weight in weights.items() if "attn_gate_w" not in name}
    ranked = group_scores(large, golden["act_rms"], 64)
    expected = [tuple(line) for line in golden["group_scores"]]
    assert [tuple(line) for line in ranked[: len(expected)]] == expected


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_one_matrix_with_given_groups_is_rounded_as_published(
    golden: dict[str, Any], name: str
) -> None:
    case = golden["matrices"][name]
    starts = tuple(start for start, _ in case["groups"])
    groups = FineGroups(starts, case["group_size"], case["bits_hi"])
    scheme = Gptq(bits=case["bits"], clip_sigmas=case["clip_sigmas"])
    found = scheme.quantize_with_groups(case["weight"], case["hessian"], groups, 1.0)
    assert found.fine is not None
    assert torch.equal(found.codes, case["q"])
    assert torch.equal(found.scale, case["scale"])
    assert torch.equal(found.fine.scale, case["scale_hi"])
    assert list(found.fine.starts) == case["starts"].tolist()
    torch.testing.assert_close(found.dequantize(), case["dequantized"], rtol=1e-6, atol=1e-7)
    plain = gptq_many([case["weight"]], [case["hessian"]], case["bits"], case["clip_sigmas"])
    assert torch.equal(plain[0][0], case["q_plain"])
    assert torch.equal(plain[0][1], case["scale_plain"])
    scores = [
        score.score for score in group_scores({"w": case["weight"]}, {"w": case["act_rms"]}, 64)
    ]
    assert scores == sorted(case["group_scores"], reverse=True)


def test_outputs_suffer_less_where_some_columns_are_finer() -> None:
    """Errors of all columns are mended in those still to come, on whichever grid they are."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(32, 96, generator=generator)
    inputs = torch.randn(500, 96, generator=generator) @ torch.randn(96, 96, generator=generator)
    groups = FineGroups((16, 64), 16, 8)
    plain = Gptq(5, 4.0).quantize([weight], [inputs.T @ inputs], 1.0)[0]
    finer = Gptq(5, 4.0).quantize_with_groups(weight, inputs.T @ inputs, groups, 1.0)
    errors = [((weight - q.dequantize()) @ inputs.T).square().sum() for q in (plain, finer)]
    assert errors[1] < 0.8 * errors[0]
    mask = fine_mask(groups.starts, groups.size, 96)
    assert int(finer.codes[:, mask].abs().max()) > 15 >= int(finer.codes[:, ~mask].abs().max())
    assert not torch.equal(plain.codes[:, ~mask], finer.codes[:, ~mask])


def test_an_incomplete_last_group_is_never_chosen() -> None:
    weight, rms = torch.ones(4, 100), torch.ones(100)
    weight[:, 64:] = 100.0
    assert choose_groups({"w": weight}, {"w": rms}, AwqLiteConfig(num_groups=9)) == {
        "w": FineGroups((0,), 64, 8)
    }


def test_what_cannot_be_compared_or_rounded_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'w' reads is not known"):
        choose_groups({"w": torch.ones(4, 64)}, {}, AwqLiteConfig())
    with pytest.raises(ValueError, match=r"no rule is Gptq with fewer bits"):
        QuantConfig(rules=(("*", KeepHalf()),), awq=AwqLiteConfig())
    with pytest.raises(ValueError, match=r"num_groups=0"):
        AwqLiteConfig(num_groups=0)
