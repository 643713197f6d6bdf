"""Products in float64 against their plain twins, in values and derivatives, to 1e-13."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fairway.runtime import kernels, kernels_matrices
from fairway.runtime.native import explain, switched_off
from fairway.train.muon import COEFFICIENTS, orthogonalize

pytestmark = pytest.mark.skipif(
    not kernels_matrices.take(torch.zeros(1, dtype=torch.float64)),
    reason=f"{explain('matrices', tuned=True)}, or registers are too short for it to pay",
)
CLOSE = 1e-13


def random(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def assert_twins(
    fast: Callable[..., Tensor], plain: Callable[..., Tensor], *inputs: Tensor
) -> None:
    found = []
    for form in (fast, plain):
        leaves = [x.clone().requires_grad_() for x in inputs]
        y = form(*leaves)
        grad = torch.cos(torch.arange(y.numel(), dtype=y.dtype)).view_as(y)
        found.append([y.detach(), *torch.autograd.grad(y, leaves, grad)])
    for mine, exact in zip(*found, strict=True):
        assert (mine - exact).abs().max() <= CLOSE * max(1.0, float(exact.abs().max()))


@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 70))
@settings(max_examples=30, deadline=None)
def test_a_linear_layer_of_any_size(rows: int, width: int, out: int) -> None:
    assert_twins(kernels_matrices.linear, F.linear, random(2, rows, width), random(out, width))


def test_sums_longer_than_a_tile_holds_at_once() -> None:
    x, weight = random(1030, 520), random(33, 520)
    assert_twins(kernels_matrices.linear, F.linear, x, weight)


def test_a_layer_that_does_not_learn_hands_its_gradient_on() -> None:
    x, weight = random(5, 8).requires_grad_(), random(3, 8)
    kernels_matrices.linear(x, weight).sum().backward()
    assert x.grad is not None
    assert torch.allclose(x.grad, weight.sum(0).expand(5, 8))


@pytest.mark.parametrize("length", [1, 63, 64, 130])
@pytest.mark.parametrize(("heads", "kv_heads"), [(2, 2), (4, 2), (3, 1)])
def test_causal_attention(length: int, heads: int, kv_heads: int) -> None:
    q, k = random(2, heads, length, 12), random(2, kv_heads, length, 12)
    assert_twins(
        kernels_matrices.attend, kernels.attend_plain, q, k, random(2, kv_heads, length, 12)
    )


@pytest.mark.parametrize("shape", [(3, 24, 24), (2, 24, 30), (2, 16, 64), (2, 64, 16), (1, 1, 5)])
@pytest.mark.parametrize("polynomial", COEFFICIENTS)
def test_updates_are_orthogonalized_alike(shape: tuple[int, ...], polynomial: str) -> None:
    triples = COEFFICIENTS[polynomial]  # type: ignore[index]
    for small in (1.0, 1e-3, 1e-6, 0.0):  # of the last singular values
        u, sizes, v = torch.linalg.svd(random(*shape), full_matrices=False)
        sizes[:, sizes.size(1) // 2 :] *= small
        matrices = u @ torch.diag_embed(sizes) @ v
        found = orthogonalize(matrices, triples, torch.float64)
        with switched_off():
            plain = orthogonalize(matrices, triples, torch.float64)
        assert (found - plain).abs().max() <= 1e-11


def test_a_matrix_of_zeros_stays_zero() -> None:
    zeros = torch.zeros(1, 8, 32, dtype=torch.float64)
    assert torch.equal(orthogonalize(zeros, COEFFICIENTS["jordan"], torch.float64), zeros)
