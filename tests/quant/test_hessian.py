"""Hessians against their meaning: the products of what each layer read."""

import pytest
import torch
from torch import Tensor, nn

from fairway.quant.hessian import collect_hessians


class Tied(nn.Module):
    """A looped layer under a tied head, as `GPT` has them."""

    def __init__(self, head: nn.Module | None = None) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.first, self.second = nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False)
        self.unused = nn.Linear(6, 6, bias=False)
        self.final_norm = nn.Identity()
        self.head = head

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        x = self.first(x) + self.second(x)
        x = self.final_norm(self.first(x))
        return x @ self.embed.weight.T if self.head is None else self.head(x)


def test_hessians_are_the_products_of_the_inputs() -> None:
    model = Tied()
    batches = [torch.randint(11, (2, 5)) for _ in range(3)]
    hessians = collect_hessians(model, batches)
    assert hessians.keys() == {"first.weight", "second.weight", "embed.weight"}
    expected = dict.fromkeys(hessians, torch.zeros(6, 6))
    for tokens in batches:
        x = model.embed(tokens).flatten(0, 1)
        y = model.first(x) + model.second(x)
        z = model.first(y)
        for name, inputs in (("first", [x, y]), ("second", [x]), ("embed", [z])):
            total = sum(i.T @ i for i in inputs) / len(batches)
            expected[f"{name}.weight"] = expected[f"{name}.weight"] + total
    for name, hessian in hessians.items():
        torch.testing.assert_close(hessian, expected[name])


def test_collecting_leaves_the_model_as_it_was() -> None:
    model = Tied().train()
    collect_hessians(model, [torch.zeros(1, 4, dtype=torch.long)])
    assert model.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_head_of_its_own_is_a_layer_like_others() -> None:
    model = Tied(head=nn.Linear(6, 11, bias=False))
    hessians = collect_hessians(model, [torch.zeros(1, 4, dtype=torch.long)])
    assert "head.weight" in hessians
    assert "embed.weight" not in hessians


def test_hessians_are_averaged_over_all_ranks() -> None:
    class Twice:
        def sum(self, value: Tensor) -> Tensor:
            return 2 * value

    model, batch = Tied(), torch.arange(10)[None]
    alone, together = (
        collect_hessians(model, [batch]),
        collect_hessians(model, [batch], None, Twice()),
    )
    torch.testing.assert_close(alone, together)


def test_no_batch_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="no calibration batch"):
        collect_hessians(Tied(), [])
