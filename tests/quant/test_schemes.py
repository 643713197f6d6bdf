"""A scheme from the user's own package rounds, trains and predicts; its artifact is a plain one."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fairway.artifact.budget import predict_bytes
from fairway.artifact.config_json import config_from_json, config_to_json, plugins_of
from fairway.artifact.container import pack, unpack
from fairway.quant.gptq import Gptq
from fairway.quant.lowrank import LowRankConfig
from fairway.quant.qat import attach, detach
from fairway.quant.quantized import QuantizedTensor, dequantize, dequantize_rows
from fairway.quant.rules import KeepHalf, QuantConfig, RoundRows, quantize
from fairway.quant.schemes import LargestRows, Scheme, SearchRows
from fairway.runtime import plugins
from fairway.runtime.plugins import load_plugin

SOURCE = '''
from dataclasses import dataclass

import torch

from fairway.quant.quantized import top_code
from fairway.quant.schemes import RowScheme, Scheme


@dataclass(frozen=True)
class LargestRows(RowScheme):
    """Grids that end at the largest entry of their row."""

    bits: int = 4

    def scale(self, rows, clip_factor):
        return (clip_factor * rows.abs().amax(dim=1) / top_code(self.bits)).half()


@dataclass(frozen=True)
class LoudOnly(Scheme):
    """float16 of the input channels that were loud, zero for all others."""

    share: float = 0.5
    needs_hessian = True
    rounds = True
    sweep_elements = 1000

    def quantize(self, tensors, hessians, clip_factor):
        self.seen.append(len(tensors))
        loud = [h.diagonal() if isinstance(h, torch.Tensor) else h.upper[0] for h in hessians]
        kept = [d >= d.quantile(1 - self.share) for d in loud]
        return [(tensor * k).half() for tensor, k in zip(tensors, kept, strict=True)]

    def predict_bytes(self, tensor, clip_factor):
        return 2 * tensor.numel()


LoudOnly.seen = []
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module of the user's, importable but not loaded as a plug-in."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(plugins, "_loaded", {})
    (tmp_path / "my_rounding.py").write_text(SOURCE)
    yield "my_rounding"
    sys.modules.pop("my_rounding", None)


def weights() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"embed": (300, 160), "up.0": (24, 20), "up.1": (24, 20), "up.2": (24, 20), "s": (9,)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def hessians() -> dict[str, Tensor]:
    return {f"up.{n}": torch.diag(torch.arange(1.0, 21.0)) for n in range(3)}


def config(package: str, **changes: Any) -> QuantConfig:
    rules: tuple[tuple[str, Scheme], ...] = (
        ("embed", load_plugin(f"{package}:LargestRows")(bits=5)),
        ("up.*", load_plugin(f"{package}:LoudOnly")()),
        ("*", KeepHalf()),
    )
    return QuantConfig(rules=rules, min_elements=100, **changes)


def test_it_rounds_beside_the_built_in_ones(package: str) -> None:
    rules = config(package)
    assert rules.needs_hessians
    done = quantize(weights(), hessians(), rules)
    embed = done["embed"]
    assert isinstance(embed, QuantizedTensor)
    assert (embed.codes.abs().amax(dim=1) == 15).all()
    assert sorted(rules.rules[1][1].seen) == [1, 2]  # type: ignore[attr-defined]
    for name in hessians():
        assert (dequantize(done)[name][:, :10] == 0).all()
        assert (dequantize(done)[name][:, 10:] != 0).all()
    wider = quantize(weights(), hessians(), rules, 2.0)["embed"]
    assert isinstance(wider, QuantizedTensor)
    torch.testing.assert_close(wider.scale, 2 * embed.scale, rtol=2e-3, atol=0)


def test_its_artifact_is_read_without_it(package: str) -> None:
    rules = config(package, low_rank=LowRankConfig(num_tensors=1))
    done = quantize(weights(), hessians(), rules)
    data = pack({}, b"", done)
    plugins._loaded.clear()
    del sys.modules[package]
    read = unpack(data).state_dict()
    assert package not in sys.modules
    assert all(torch.equal(read[name], tensor) for name, tensor in dequantize(done).items())


def test_its_bytes_are_predicted(package: str) -> None:
    embed, rules = {"embed": weights()["embed"]}, config(package)
    actual = len(pack({}, b"", quantize(embed, {}, rules))) - len(pack({}, b"", {}))
    assert predict_bytes(embed, rules) == pytest.approx(actual, rel=0.05)
    assert predict_bytes({"up.1": weights()["up.1"]}, rules) == 2 * 24 * 20


def test_training_sees_it(package: str) -> None:
    model = nn.Linear(160, 30, bias=False)
    held, x = model.weight, torch.randn(5, 160)
    rules = QuantConfig(rules=(("*", load_plugin(f"{package}:LargestRows")()),), min_elements=1)
    shipped = dequantize(quantize(model.state_dict(), {}, rules))["weight"]
    assert attach(model, rules) == ["weight"]
    torch.testing.assert_close(model(x), x @ shipped.T)
    model(x).sum().backward()
    assert held.grad is not None
    detach(model)
    assert model.weight is held


def test_it_is_written_by_its_full_name_and_read_once_it_is_loaded(package: str) -> None:
    rules = config(package)
    data = config_to_json(rules)
    assert data["rules"][0] == ["embed", {"type": "my_rounding:LargestRows", "bits": 5}]
    assert data["rules"][2] == ["*", {"type": "KeepHalf"}]
    assert config_from_json(QuantConfig, data) == rules
    assert [p.name for p in plugins_of(rules)] == [f"{package}:LargestRows", f"{package}:LoudOnly"]
    plugins._loaded.clear()
    with pytest.raises(ValueError, match=r"rules\[0\]\[1\]: .*--plugin my_rounding:LargestRows"):
        config_from_json(QuantConfig, data)


def test_what_it_lacks_or_cannot_do_is_said_with_the_tensor(package: str) -> None:
    with pytest.raises(ValueError, match=r"no Hessian for 'up\.0', which LoudOnly.share=0\.5"):
        quantize(weights(), {}, config(package))
    infinite = {"embed": torch.full((20, 20), torch.inf)}
    with pytest.raises(ValueError, match=r"^embed: a row's step of inf"):
        quantize(infinite, {}, QuantConfig(rules=(("*", RoundRows()),), min_elements=1))
    incomplete = type("Incomplete", (Scheme,), {})
    with pytest.raises(TypeError, match="abstract"):
        incomplete()


def test_gptq_refuses_what_is_no_matrix() -> None:
    bank = {"bank": torch.randn(3, 20, 20)}
    rules = QuantConfig(rules=(("*", Gptq()),), min_elements=1)
    with pytest.raises(ValueError, match=r"bank: shape \(3, 20, 20\); Gptq rounds matrices only"):
        quantize(bank, {"bank": torch.eye(20)}, rules)


@pytest.mark.parametrize("width", [0.02, 3.0])
def test_one_percentile_for_a_matrix_is_chosen_as_414_chooses_it(width: float) -> None:
    """Least mean squared error over the whole matrix, on steps no narrower than 1 / 31."""
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(32, 600, 4, generator=generator)
    rows = width * normal[..., 0] / normal[..., 1:].square().mean(dim=2).sqrt()  # Student's t
    rows = rows * torch.rand(32, 1, generator=generator)
    expected, least = torch.empty(0), float("inf")
    for percentile in (0.999, 0.9995, 0.9999, 0.99999, 1.0):
        clip = torch.quantile(rows.abs(), percentile, dim=1)
        scale = (clip / 31).clamp_min(1 / 31).half()
        codes = (rows / scale.float()[:, None]).round().clamp(-31, 31)
        error = (rows - codes * scale.float()[:, None]).square().mean().item()
        if error < least:
            expected, least = scale, error
    _, scale = SearchRows(bits=6, min_scale=1 / 31, per="matrix").round_rows(rows)
    assert torch.equal(scale, expected)


def test_a_search_per_matrix_takes_one_percentile_and_rows_do_no_worse() -> None:
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(16, 4000, generator=generator) * torch.linspace(0.5, 4, 16)[:, None]
    rows[::2, 0] *= 30
    errors = {}
    for per in ("row", "matrix"):
        codes, scale = SearchRows(bits=4, per=per).round_rows(rows)
        errors[per] = (rows - dequantize_rows(codes, scale)).square().sum(dim=1)
    assert bool((errors["row"] <= errors["matrix"]).all())
    assert errors["row"].sum() < errors["matrix"].sum()
    with pytest.raises(ValueError, match="per='tensor'"):
        SearchRows(per="tensor")  # type: ignore[arg-type]


def test_the_largest_entry_ends_the_grid_of_tensors_of_any_size() -> None:
    gate = torch.tensor([[0.5, -1.27], [0.0, 0.0]])
    config = QuantConfig(rules=(("*", LargestRows(bits=8)),))
    (found,) = quantize({"gate": gate}, {}, config).values()
    assert isinstance(found, QuantizedTensor)
    assert found.codes.tolist() == [[50, -127], [0, 0]]
    torch.testing.assert_close(found.dequantize(), gate, rtol=0, atol=0.006)
