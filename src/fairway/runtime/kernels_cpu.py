"""Training's operations on a CPU in C++ (`native/training.cpp`), one pass over memory each way.

Their plain twins, and when which of the two runs, are in `kernels.py`. All take float32, bfloat16
or float64 and give back the type they were given; sums and intermediate values are float32, or
float64 where that was given. Products in float64 are in `kernels_matrices.py`.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fairway.runtime import kernels, kernels_matrices
from fairway.runtime.native import library

NAME = "training"
TYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float64: "float64"}

_active = False


@contextmanager
def in_use() -> Iterator[None]:
    """These kernels, where they can be had, for what trains on a CPU meanwhile."""
    global _active
    before, _active = _active, library(NAME, tuned=True) is not None
    try:
        yield
    finally:
        _active = before


def take(x: Tensor) -> bool:
    """Whether these kernels run an operation on `x`."""
    return (
        _active
        and x.device.type == "cpu"
        and x.dtype in TYPES
        and torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
    )


def take_products(x: Tensor) -> bool:
    """Whether products of `x` are ours, too."""
    return take(x) and kernels_matrices.take(x)


linear, attend = kernels_matrices.linear, kernels_matrices.attend


def _wide(x: Tensor) -> torch.dtype:
    """In which sums of what `x` holds are taken."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _call(name: str, dtype: torch.dtype, *arguments: Tensor | int | float | None) -> None:
    functions = library(NAME, tuned=True)
    assert functions is not None
    getattr(functions, f"{name}_{TYPES[dtype]}")(*map(_argument, arguments))


def _argument(value: Tensor | int | float | None) -> Any:
    if isinstance(value, Tensor):
        return ctypes.c_void_p(value.data_ptr())
    if value is None:
        return ctypes.c_void_p(None)
    return ctypes.c_double(value) if isinstance(value, float) else ctypes.c_int64(value)


def _rows(x: Tensor) -> tuple[int, int]:
    return x.numel() // x.size(-1), x.size(-1)


def _stride(x: Tensor) -> int | None:
    """Between the rows (B, T) of heads (B, T, H, K) that lie together; None: they do not."""
    batch, length, _, width = x.shape
    row = x.stride(1)
    dense = x.stride(3) == 1 and x.stride(2) == width
    return row if dense and (batch == 1 or x.stride(0) == length * row) else None


def _with_stride(x: Tensor) -> tuple[Tensor, int]:
    stride = _stride(x)
    if stride is not None:
        return x, stride
    x = x.contiguous()
    return x, x.size(2) * x.size(3)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, softcap: float | None) -> Tensor:
        logits, targets = logits.contiguous(), targets.contiguous()
        if not len(logits) or int(targets.min()) < 0 or int(targets.max()) >= logits.size(1):
            raise ValueError(f"targets must be ids below {logits.size(1)}, and at least one")
        d_logits = torch.empty_like(logits)
        nats = torch.empty(len(logits), dtype=torch.float64)
        shape = (float(softcap or 0.0), *logits.shape)
        _call("cross_entropy", logits.dtype, logits, targets, *shape, d_logits, nats)
        ctx.save_for_backward(d_logits)
        return nats.mean().to(_wide(logits))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (d_logits,) = ctx.saved_tensors
        if float(grad) == 1.0:  # one micro-batch a step: a pass over memory saved
            return d_logits, None, None
        return d_logits * grad.to(d_logits.dtype), None, None


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        x = x.contiguous()
        y, inverse = torch.empty_like(x), torch.empty(_rows(x)[0], dtype=_wide(x))
        _call("rms_norm", x.dtype, x, *_rows(x), scale, y, inverse)
        ctx.save_for_backward(x, inverse)
        ctx.scale = scale
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        x, inverse = ctx.saved_tensors
        grad, d_x = grad.contiguous(), torch.empty_like(x)
        _call("rms_norm_backward", x.dtype, grad, x, inverse, *_rows(x), ctx.scale, d_x)
        return d_x, None


class _MixNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, other: Tensor, mix: Tensor | None, scale: float
    ) -> tuple[Tensor, Tensor]:
        x, other = x.contiguous(), other.contiguous()
        mixed, y = torch.empty_like(x), torch.empty_like(x)
        inverse = torch.empty(_rows(x)[0], dtype=_wide(x))
        _call("mix_norm", x.dtype, x, other, mix, *_rows(x), scale, mixed, y, inverse)
        kept = () if mix is None else (x, other, mix)
        ctx.save_for_backward(mixed, inverse, *kept)
        ctx.scale = scale
        return mixed, y

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, d_mixed: Tensor, d_y: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None, None]:
        mixed, inverse, *kept = ctx.saved_tensors
        x, other, mix = kept or (None, None, None)
        d_mixed, d_y, d_x = d_mixed.contiguous(), d_y.contiguous(), torch.empty_like(mixed)
        d_other = d_x if mix is None else torch.empty_like(mixed)
        d_mix = None if mix is None else torch.empty_like(mix)
        given = (d_mixed, d_y, x, other, mixed, inverse, mix, *_rows(mixed), ctx.scale)
        _call("mix_norm_backward", mixed.dtype, *given, d_x, d_other, d_mix)
        return d_x, d_other, d_mix, None


class _LeakyReluSquared(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float) -> Tensor:
        x = x.contiguous()
        y = torch.empty_like(x)
        _call("leaky_relu_squared", x.dtype, x, x.numel(), slope, y)
        ctx.save_for_backward(x)
        ctx.slope = slope
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        grad, d_x = grad.contiguous(), torch.empty_like(x)
        _call("leaky_relu_squared_backward", x.dtype, grad, x, x.numel(), ctx.slope, d_x)
        return d_x, None


class _RotaryHeads(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, gain: Tensor | None) -> Tensor:
        x, stride = _with_stride(x)
        cos, sin = cos.contiguous(), sin.contiguous()
        batch, length, heads, width = x.shape
        y = x.new_empty(batch, heads, length, width)
        inverse = torch.empty(batch, length, heads, dtype=_wide(x))
        shape = (batch, length, heads, width, cos.size(-1))
        _call("rotary_heads", x.dtype, x, stride, cos, sin, gain, *shape, y, inverse)
        ctx.save_for_backward(x, cos, sin, inverse, *(() if gain is None else (gain,)))
        return y.transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, Tensor | None]:
        x, cos, sin, inverse, *gains = ctx.saved_tensors
        gain = gains[0] if gains else None
        grad = grad.transpose(1, 2).contiguous()
        d_x = torch.empty(x.shape, dtype=x.dtype)
        d_gain = None if gain is None else torch.empty_like(gain)
        given = (grad, x, _stride(x), cos, sin, gain, inverse, *x.shape, cos.size(-1))
        _call("rotary_heads_backward", x.dtype, *given, d_x, d_gain)
        return d_x, None, None, d_gain


class _ExcludeSelf(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, values: Tensor) -> Tensor:
        y = y.transpose(1, 2).contiguous()  # as attention leaves it: (B, H, T, K)
        values, stride = _with_stride(values)
        batch, heads, length, width = y.shape
        out = y.new_empty(batch, length, heads, width)
        shape = (batch, length, heads, values.size(2), width)
        _call("exclude_self", y.dtype, y, values, stride, *shape, out)
        ctx.save_for_backward(y, values)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        y, values = ctx.saved_tensors
        grad, d_y = grad.contiguous(), torch.empty_like(y)
        d_values = torch.empty(values.shape, dtype=values.dtype)
        batch, heads, length, width = y.shape
        shape = (_stride(values), batch, length, heads, values.size(2), width)
        _call("exclude_self_backward", y.dtype, grad, y, values, *shape, d_y, d_values)
        return d_y.transpose(1, 2), d_values


class _ScaledCast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, scale: Tensor | None, *weights: Tensor) -> Tensor:
        weights = tuple(weight.contiguous() for weight in weights)
        width = weights[0].size(1)
        cast = torch.empty(sum(map(len, weights)), width, dtype=dtype)
        begin = 0
        for weight in weights:
            to = cast[begin : begin + len(weight)]
            _call("scaled_cast", dtype, weight, scale, len(weight), width, to)
            begin += len(weight)
        ctx.save_for_backward(*weights, *(() if scale is None else (scale,)))
        ctx.has_scale = scale is not None
        return cast

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved = list(ctx.saved_tensors)
        scale = saved.pop() if ctx.has_scale else None
        d_scale = None if scale is None else torch.empty_like(scale)
        grad, begin, d_weights = grad.contiguous(), 0, []
        for weight in saved:
            d_weight, part = torch.empty_like(weight), grad[begin : begin + len(weight)]
            given = (part, weight, scale, *weight.shape, d_weight, d_scale)
            _call("scaled_cast_backward", grad.dtype, *given)
            d_weights.append(d_weight)
            begin += len(weight)
        return None, d_scale, *d_weights


def softcapped_cross_entropy(logits: Tensor, targets: Tensor, softcap: float | None) -> Tensor:
    return _CrossEntropy.apply(logits, targets, softcap)  # type: ignore[return-value]


def rms_norm(x: Tensor, scale: float = 1.0) -> Tensor:
    return _RmsNorm.apply(x, float(scale))  # type: ignore[return-value]


def mix_norm(x: Tensor, other: Tensor, mix: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    return _MixNorm.apply(x, other, mix, float(scale))  # type: ignore[return-value]


def leaky_relu_squared(x: Tensor, slope: float) -> Tensor:
    return _LeakyReluSquared.apply(x, float(slope))  # type: ignore[return-value]


def rotary_heads(x: Tensor, cos: Tensor, sin: Tensor, gain: Tensor | None) -> Tensor:
    return _RotaryHeads.apply(x, cos, sin, gain)  # type: ignore[return-value]


def exclude_self(y: Tensor, values: Tensor) -> Tensor:
    return _ExcludeSelf.apply(y, values)  # type: ignore[return-value]


def scaled_cast(weights: tuple[Tensor, ...], scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Weights (R, C) float32 below one another in `dtype`; a scale (R,) goes with one weight."""
    return _ScaledCast.apply(dtype, scale, *weights)  # type: ignore[return-value]


kernels.on_cpu = sys.modules[__name__]
