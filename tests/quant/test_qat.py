"""Rounding during training: it must be on, and must come off again."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairway.model.gpt import GPT
from fairway.quant.qat import LinearRounding, attach, detach, plain_name
from fairway.quant.rules import KeepHalf, QuantConfig, RoundRows, SearchRows, quantize
from fairway.recipes.registry import recipe, smoke

CONFIG = QuantConfig(
    rules=(("layers.*.weight", RoundRows(bits=3, clip_sigmas=3.0)), ("*", KeepHalf())),
    min_elements=50,
)


class Net(nn.Module):
    layers: Any  # a ModuleList, whose items are Linear

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(16, 8)
        self.layers = nn.ModuleList(nn.Linear(8, 8, bias=False) for _ in range(2))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return F.linear(x, self.embed.weight)


TOKENS = torch.arange(12)[None]


def test_the_model_computes_with_the_weights_it_will_ship() -> None:
    model, shipped = Net(), Net()
    before = model(TOKENS)
    attach(model, CONFIG)
    after = model(TOKENS)
    assert not torch.equal(before, after)
    codes = quantize(shipped.state_dict(), {}, CONFIG)
    for i in range(2):
        shipped.layers[i].weight.data = codes[f"layers.{i}.weight"].dequantize()
    torch.testing.assert_close(after, shipped(TOKENS), rtol=1e-5, atol=1e-6)


def test_gradients_reach_the_unrounded_weights_as_if_nothing_were_rounded() -> None:
    model = Net()
    attach(model, CONFIG)
    weight = model.layers[0].weight
    probe = torch.randn(8, 8)
    (weight * probe).sum().backward()
    torch.testing.assert_close(model.layers[0].parametrizations.weight.original.grad, probe)


def test_an_optimizer_made_before_keeps_training_the_same_parameters() -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    held = model.layers[0].weight
    attach(model, CONFIG)
    model(TOKENS).square().mean().backward()
    before = held.detach().clone()
    optimizer.step()
    assert not torch.equal(before, held)
    detach(model)
    assert model.layers[0].weight is held


def test_detaching_restores_names_and_outputs() -> None:
    model = Net()
    before, names = model(TOKENS), list(model.state_dict())
    attached = attach(model, CONFIG)
    assert attached == ["layers.0.weight", "layers.1.weight"]
    assert sorted(plain_name(name) for name in model.state_dict()) == sorted(names)
    detach(model)
    assert list(model.state_dict()) == names
    assert torch.equal(model(TOKENS), before)


def test_searched_grids_train_on_the_widest() -> None:
    model = Net()
    attach(model, QuantConfig(rules=(("*", SearchRows(bits=3)),), min_elements=50))
    rows = model.layers[0].weight.abs().amax(dim=1)
    held = model.layers[0].parametrizations.weight.original.abs().amax(dim=1)
    torch.testing.assert_close(rows, held, rtol=2e-3, atol=0)


def test_rules_that_round_nothing_are_an_error() -> None:
    with pytest.raises(ValueError, match="no parameter is rounded"):
        attach(Net(), QuantConfig(rules=(("*", KeepHalf()),)))


def test_attaching_twice_is_an_error() -> None:
    model = Net()
    attach(model, CONFIG)
    with pytest.raises(ValueError, match=r"'layers\.0\.weight' is rounded already"):
        attach(model, CONFIG)


@pytest.mark.slow
def test_a_compiled_model_notices_that_rounding_was_attached() -> None:
    """Late QAT of #315 was folded away by the compiler; nobody saw it for weeks."""
    model = Net()
    compiled = torch.compile(model, fullgraph=True)
    before = compiled(TOKENS)
    attach(model, CONFIG)
    after = compiled(TOKENS)
    # The compiler may leave steps in float32 that are rounded to float16 otherwise.
    assert (after - model(TOKENS)).norm() < 0.02 * (after - before).norm()
    detach(model)
    torch.testing.assert_close(compiled(TOKENS), before)


def test_the_late_rounding_of_414_is_the_published_one(shared: Path) -> None:
    """Every linear layer whatever its size, no embedding, and the gradient of the identity."""
    golden = torch.load(shared / "vectors" / "qat_pr414.pt", weights_only=True)["matrices"]
    modules = {}
    for kind, case in golden.items():
        rows, columns = case["weight"].shape
        embedding = case["name"].endswith("embed.weight") or kind == "embedding"
        module = nn.Embedding(rows, columns) if embedding else nn.Linear(columns, rows, bias=False)
        module.weight.data = case["weight"].clone()
        modules[kind] = module
    model = nn.ModuleDict(modules)
    attached = attach(model, LinearRounding())
    assert set(attached) == {f"{kind}.weight" for kind, case in golden.items() if case["touched"]}
    for kind, case in golden.items():
        weight = modules[kind].weight
        assert torch.equal(weight, case["rounded"]), kind
        (weight * case["weight"]).sum().backward()
        if case["touched"]:
            gradient = modules[kind].parametrizations.weight.original.grad
            assert torch.equal(gradient, case["weight"])
    detach(model)
    assert all(torch.equal(modules[kind].weight, case["weight"]) for kind, case in golden.items())


def test_late_rounding_touches_each_linear_layer_of_a_model_and_nothing_else() -> None:
    """Small ones too, which packing would leave as they are."""
    chosen = smoke(recipe("pr414"))
    model = GPT(replace(chosen.model, tied=False, extra_heads=1))
    linear = {f"{n}.weight" for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    assert chosen.round_as is not None
    assert set(attach(model, chosen.round_as)) == linear
    assert {"ngrams.0.project.weight", "head.weight", "extra_heads.0.weight"} <= linear
    with pytest.raises(ValueError, match="rounded already"):
        attach(model, chosen.round_as)
