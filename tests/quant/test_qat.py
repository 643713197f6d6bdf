"""Rounding during training: it must be on, and must come off again."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairway.quant.qat import attach, detach, plain_name
from fairway.quant.rules import KeepHalf, QuantConfig, RoundRows, SearchRows, quantize

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
