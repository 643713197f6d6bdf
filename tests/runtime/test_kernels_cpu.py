"""Each C++ kernel against its plain twin, in values and derivatives; and a whole training step."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fairway.model.gpt import GPT
from fairway.runtime import kernels, kernels_cpu
from fairway.runtime.native import explain, library, switched_off

from ..model.variants import VARIANTS

pytestmark = pytest.mark.skipif(
    library("training", tuned=True) is None, reason=explain("training", tuned=True)
)
CLOSE = {torch.float32: 2e-5, torch.bfloat16: 1e-2, torch.float64: 1e-13}
TYPES = list(CLOSE)


@pytest.fixture(autouse=True, scope="module")
def _in_use() -> Iterator[None]:
    with kernels_cpu.in_use():
        yield


def of_weights(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Weights beside what is of a type: float32, unless that is float64."""
    return x.double() if dtype == torch.float64 else x


def assert_twins(
    fast: Callable[..., Tensor | tuple],
    plain: Callable[..., Tensor | tuple],
    *inputs: Tensor,
) -> None:
    """Values and derivatives, against the plain form in float64 of the very same numbers."""
    found = []
    for form, wide in ((fast, False), (plain, True)):
        leaves = [x.detach().clone() for x in inputs]
        leaves = [(x.double() if wide else x).requires_grad_() for x in leaves]
        outputs = form(*leaves)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        grads = [torch.cos(torch.arange(y.numel())).view_as(y).to(y.dtype) for y in outputs]
        found.append([*outputs, *torch.autograd.grad(outputs, leaves, grads)])
    close = max(CLOSE[x.dtype] for x in (*inputs, *found[0]))
    for mine, exact in zip(*found, strict=True):
        largest = exact.detach().abs().max().item() + 1e-6
        assert (mine.detach().double() - exact.detach()).abs().max().item() <= close * largest


@pytest.mark.parametrize("dtype", TYPES)
@given(st.integers(1, 5), st.integers(4, 70), st.sampled_from([1.0, 0.5]))
@settings(max_examples=10, deadline=None)
def test_rms_norm(dtype: torch.dtype, rows: int, width: int, scale: float) -> None:
    def plain(x: Tensor) -> Tensor:
        return scale * x * (x.square().mean(-1, keepdim=True) + kernels.EPS).rsqrt()

    x = torch.randn(2, rows, width).to(dtype)
    assert_twins(lambda x: kernels.rms_norm(x, scale), plain, x)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("mixes", [False, True])
def test_mix_norm(dtype: torch.dtype, mixes: bool) -> None:
    def plain(x: Tensor, other: Tensor, *mix: Tensor) -> tuple[Tensor, Tensor]:
        mixed = mix[0][0] * x + mix[0][1] * other if mix else x + other
        rms = (mixed.square().mean(-1, keepdim=True) + kernels.EPS).sqrt()
        return mixed, 0.5 * mixed / rms

    def fast(x: Tensor, other: Tensor, *mix: Tensor) -> tuple[Tensor, Tensor]:
        return kernels.mix_norm(x, other, mix[0] if mix else None, 0.5)

    x, other = torch.randn(2, 7, 40).to(dtype), torch.randn(2, 7, 40).to(dtype)
    assert_twins(fast, plain, x, other, *([of_weights(torch.randn(2, 40), dtype)] if mixes else []))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("slope", [0.0, 0.5])
def test_leaky_relu_squared(dtype: torch.dtype, slope: float) -> None:
    def plain(x: Tensor) -> Tensor:
        return F.leaky_relu(x, slope).square()

    x = torch.linspace(-3, 3, 101).to(dtype)
    assert_twins(lambda x: kernels.leaky_relu_squared(x, slope), plain, x)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("softcap", [None, 30.0])
def test_softcapped_cross_entropy(dtype: torch.dtype, softcap: float | None) -> None:
    targets = torch.randint(50, (33,))

    def plain(logits: Tensor) -> Tensor:
        if softcap is not None:
            logits = softcap * torch.tanh(logits / softcap)
        return F.cross_entropy(logits, targets)

    logits = (20 * torch.randn(33, 50)).to(dtype)
    assert_twins(lambda x: kernels.softcapped_cross_entropy(x, targets, softcap), plain, logits)


def test_the_loss_of_what_is_not_finite_is_not_finite() -> None:
    for bad in (float("nan"), float("inf")):
        logits = torch.zeros(3, 20, requires_grad=True)
        with torch.no_grad():
            logits[1, 4] = bad
        loss = kernels.softcapped_cross_entropy(logits, torch.zeros(3, dtype=torch.long), None)
        assert not bool(loss.isfinite())


def test_targets_that_are_no_ids_are_refused() -> None:
    logits = torch.zeros(3, 20, requires_grad=True)
    for bad in (-1, 20):
        with pytest.raises(ValueError, match="ids below 20"):
            kernels.softcapped_cross_entropy(logits, torch.full((3,), bad), 30.0)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("half", [2, 8])
def test_rotary_heads(dtype: torch.dtype, half: int) -> None:
    angle = torch.rand(5, half)
    cos, sin = angle.cos().to(dtype), angle.sin().to(dtype)

    def plain(joint: Tensor, gain: Tensor) -> Tensor:
        x = joint[..., 16:].unflatten(-1, (3, 16))
        x = x * (x.square().mean(-1, keepdim=True) + kernels.EPS).rsqrt()
        return kernels.rotate(x, cos.double(), sin.double()) * gain[:, None]

    def fast(joint: Tensor, gain: Tensor) -> Tensor:
        return kernels.rotary_heads(joint[..., 16:].unflatten(-1, (3, 16)), cos, sin, gain)

    gain = of_weights(torch.rand(3) + 0.5, dtype)
    assert_twins(fast, plain, torch.randn(2, 5, 64).to(dtype), gain)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_exclude_self(dtype: torch.dtype, kv_heads: int) -> None:
    y, values = torch.randn(2, 5, 4, 16).to(dtype), torch.randn(2, 5, kv_heads, 16).to(dtype)
    assert_twins(kernels.exclude_self, kernels.exclude_self_plain, y, values)


def test_values_of_zero_leave_no_trace() -> None:
    y, values = torch.ones(1, 1, 2, 4), torch.zeros(1, 1, 1, 4)
    y.requires_grad_()
    values.requires_grad_()
    out = kernels.exclude_self(y, values)
    out.sum().backward()
    assert torch.equal(out, y)
    assert all(x.grad is not None and bool(x.grad.isfinite().all()) for x in (y, values))


@pytest.mark.parametrize("scaled", [False, True])
def test_scaled_cast(scaled: bool) -> None:
    like = torch.zeros(1, dtype=torch.bfloat16)

    def plain(weight: Tensor, *scale: Tensor) -> Tensor:
        return weight * scale[0][:, None] if scale else weight * 1.0

    def fast(weight: Tensor, *scale: Tensor) -> Tensor:
        return kernels.scaled_cast(weight, scale[0] if scale else None, like)

    assert_twins(fast, plain, torch.randn(6, 40), *([torch.randn(6)] if scaled else []))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", list(VARIANTS))
def test_a_training_step_is_the_plain_one(name: str, dtype: torch.dtype) -> None:
    """Loss and every gradient of a whole model, to the rounding of its type."""
    torch.manual_seed(0)
    model = GPT(VARIANTS[name])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    model = model.to(dtype)
    model.compute_dtype = dtype
    tokens = torch.randint(2, VARIANTS[name].vocab_size, (2, 13))
    found = []
    for choice in (nullcontext, switched_off):
        model.zero_grad()
        with choice(), kernels_cpu.in_use():
            loss = model.loss(tokens[:, :-1], tokens[:, 1:])
            loss.backward()
        grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        found.append((loss.item(), grads))
    (loss, grads), (expected, plain) = found
    close = 1e-5 if dtype == torch.float32 else 1e-13
    assert loss == pytest.approx(expected, abs=close)
    assert grads.keys() == plain.keys()
    for parameter, grad in grads.items():
        assert torch.allclose(grad, plain[parameter], atol=2 * close, rtol=100 * close), parameter
