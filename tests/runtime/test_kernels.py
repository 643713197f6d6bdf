"""Each fast form against its plain twin: values and derivatives."""

from collections.abc import Callable
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fairway.runtime import kernels


def both(fast: Callable[..., Tensor], plain: Callable[..., Tensor], *inputs: Tensor) -> list[list]:
    """Output and gradients of either form, under the same random derivative of the output."""
    results = []
    for form in (fast, plain):
        leaves = [x.detach().clone().requires_grad_() for x in inputs]
        y = form(*leaves)
        grad = torch.cos(torch.arange(y.numel(), dtype=torch.float32)).view_as(y).to(y.dtype)
        results.append([y.detach(), *torch.autograd.grad(y, leaves, grad)])
    return results


def assert_twins(
    fast: Callable[..., Tensor], plain: Callable[..., Tensor], *inputs: Tensor, atol: float = 1e-5
) -> None:
    for mine, theirs in zip(*both(fast, plain, *inputs), strict=True):
        assert mine.dtype == theirs.dtype
        assert torch.allclose(mine, theirs, atol=atol, rtol=atol)


@given(st.integers(1, 5), st.integers(1, 65))
@settings(max_examples=15, deadline=None)
def test_rms_norm_is_its_plain_twin(rows: int, width: int) -> None:
    assert_twins(kernels.rms_norm, kernels.rms_norm_plain, torch.randn(2, rows, width))


def test_rms_norm_of_zeros_is_zero_and_differentiable() -> None:
    """The first position of exclusive attention is a row of zeros; NaN there was #819."""
    x = torch.zeros(2, 8, requires_grad=True)
    y = kernels.rms_norm(x)
    y.sum().backward()
    assert not y.any()
    assert x.grad is not None
    assert bool(torch.isfinite(x.grad).all())


@pytest.mark.parametrize("slope", [0.0, 0.5, 1.0])
def test_leaky_relu_squared_is_its_plain_twin(slope: float) -> None:
    x = torch.linspace(-3, 3, 101)
    assert_twins(
        lambda x: kernels.leaky_relu_squared(x, slope),
        lambda x: kernels.leaky_relu_squared_plain(x, slope),
        x,
    )
    assert torch.equal(kernels.leaky_relu_squared(x, 0.0), x.clamp_min(0).square())


@pytest.mark.parametrize("softcap", [None, 3.0, 30.0])
@pytest.mark.parametrize(("rows", "vocab"), [(1, 7), (37, 61), (300, 1024)])
def test_cross_entropy_is_its_plain_twin(rows: int, vocab: int, softcap: float | None) -> None:
    targets = torch.randint(vocab, (rows,))
    assert_twins(
        lambda x: kernels.softcapped_cross_entropy(x, targets, softcap),
        lambda x: kernels.softcapped_cross_entropy_plain(x, targets, softcap),
        4 * torch.randn(rows, vocab),
        atol=1e-5,
    )


def test_cross_entropy_adds_up_in_blocks_as_in_one() -> None:
    logits, targets = torch.randn(600, 2048), torch.randint(2048, (600,))  # several blocks of rows
    assert_twins(
        lambda x: kernels.softcapped_cross_entropy(x, targets, 30.0),
        lambda x: kernels.softcapped_cross_entropy_plain(x, targets, 30.0),
        logits,
        atol=1e-6,
    )


def test_kernels_keep_bfloat16_close_to_their_plain_twins() -> None:
    x, targets = torch.randn(40, 64).bfloat16(), torch.randint(64, (40,))
    assert_twins(kernels.rms_norm, kernels.rms_norm_plain, x, atol=0.05)
    assert_twins(
        lambda x: kernels.softcapped_cross_entropy(x, targets, 30.0),
        lambda x: kernels.softcapped_cross_entropy_plain(x, targets, 30.0),
        x,
        atol=0.02,
    )


@given(st.integers(1, 33), st.sampled_from([(2, 2), (4, 2), (6, 1)]), st.integers(1, 4))
@settings(max_examples=15, deadline=None)
def test_attention_in_blocks_is_its_plain_twin(
    length: int, heads: tuple[int, int], num_blocks: int
) -> None:
    q = torch.randn(2, heads[0], length, 8)
    k, v = torch.randn(2, 2, heads[1], length, 8).unbind(0)

    def in_blocks(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return kernels.attend_in_blocks(q, k, v, num_blocks)

    assert_twins(in_blocks, kernels.attend_plain, q, k, v)
    with patch("torch.compiler.is_compiling", return_value=True):  # as the compiler sees it
        assert_twins(in_blocks, kernels.attend_plain, q, k, v)


def test_attention_of_the_last_positions_is_the_end_of_the_whole() -> None:
    q, k, v = torch.randn(2, 4, 9, 8), torch.randn(2, 2, 9, 8), torch.randn(2, 2, 9, 8)
    whole = kernels.attend(q, k, v)
    for count in (1, 4, 8):
        assert torch.allclose(
            kernels.attend(q[:, :, -count:], k, v), whole[:, :, -count:], atol=1e-6
        )


def test_a_mask_says_where_a_query_may_look() -> None:
    q, k, v = torch.randn(2, 4, 6, 8), torch.randn(2, 2, 6, 8), torch.randn(2, 2, 6, 8)
    causal = kernels.causal_mask(6, 6).expand(2, 6, 6)
    assert torch.allclose(kernels.attend(q, k, v, causal), kernels.attend(q, k, v), atol=1e-6)
    only_self = torch.eye(6, dtype=torch.bool).expand(2, 6, 6)
    expected = v.repeat_interleave(2, dim=1)
    assert torch.allclose(kernels.attend(q, k, v, only_self), expected, atol=1e-6)


def test_causal_mask_ends_at_the_newest_position() -> None:
    assert kernels.causal_mask(2, 4).tolist() == [[True, True, True, False], [True] * 4]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_every_kernel_on_cuda_is_its_plain_twin_on_the_cpu() -> None:
    x, targets = torch.randn(64, 128), torch.randint(128, (64,))
    q, k, v = torch.randn(2, 4, 16, 8), torch.randn(2, 2, 16, 8), torch.randn(2, 2, 16, 8)
    pairs: list[tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = [
        (kernels.rms_norm, (x,)),
        (lambda x: kernels.leaky_relu_squared(x, 0.5), (x,)),
        (lambda x: kernels.softcapped_cross_entropy(x, targets.to(x.device), 30.0), (x,)),
        (kernels.attend, (q, k, v)),
    ]
    for kernel, inputs in pairs:
        on_cuda = kernel(*(one.cuda() for one in inputs)).cpu()
        assert torch.allclose(on_cuda, kernel(*inputs), atol=1e-3)
