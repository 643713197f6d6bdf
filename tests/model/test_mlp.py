"""Up, bend, down, at each position by itself."""

import pytest
import torch
import torch.nn.functional as F

from fairway.model.mlp import MLP, MlpConfig


def test_the_default_is_the_squared_relu_of_the_launch_baseline() -> None:
    mlp, x, scale = MLP(4, MlpConfig(ratio=2.0)), torch.randn(2, 3, 4), torch.tensor([1.0, 2, 3, 4])
    expected = F.relu(x @ mlp.up.weight.T).square() @ mlp.down.weight.T * scale
    assert torch.allclose(mlp(x, scale), expected, atol=1e-6)


def test_swiglu_has_a_gate_of_its_own() -> None:
    mlp, x = MLP(4, MlpConfig(activation="swiglu")), torch.randn(2, 3, 4)
    assert mlp.gate is not None
    hidden = (x @ mlp.up.weight.T) * F.silu(x @ mlp.gate.weight.T)
    assert torch.allclose(mlp(x, torch.ones(4)), hidden @ mlp.down.weight.T, atol=1e-6)


@pytest.mark.parametrize("activation", ["leaky_relu_squared", "swiglu"])
def test_no_position_sees_another(activation) -> None:
    mlp, x = MLP(4, MlpConfig(activation=activation, slope=0.5)), torch.randn(1, 5, 4)
    alone = torch.cat([mlp(x[:, i : i + 1], torch.ones(4)) for i in range(5)], dim=1)
    assert torch.allclose(mlp(x, torch.ones(4)), alone, atol=1e-6)
