"""Products of lessons in float64 on a CPU in C++ (`native/matrices.cpp`), where that pays.

Libraries multiply float64 at half the speed of such a processor, or less; ours are used where it
has registers of 64 bytes. Plain twins are in `kernels.py` and `train/muon.py`.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from fairway.runtime.native import library

NAME = "matrices"


def take(x: Tensor) -> bool:
    """Whether these multiply what is like `x`."""
    return x.dtype == torch.float64 and x.device.type == "cpu" and _functions() is not None


def _functions() -> ctypes.CDLL | None:
    functions = library(NAME, tuned=True)
    return functions if functions is not None and functions.matrices_pay() else None


def _call(name: str, *arguments: Tensor | int | None) -> None:
    functions = _functions()
    assert functions is not None
    getattr(functions, name)(*map(_argument, arguments))


def _argument(value: Tensor | int | None) -> Any:
    if isinstance(value, int):
        return ctypes.c_int64(value)
    return ctypes.c_void_p(None if value is None else value.data_ptr())


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        x, weight = x.contiguous(), weight.contiguous()
        y = x.new_empty(*x.shape[:-1], len(weight))
        _call("linear", x, weight, x.numel() // x.size(-1), x.size(-1), len(weight), y)
        ctx.save_for_backward(x, weight)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        of_x, of_weight = ctx.needs_input_grad
        d_x = torch.empty_like(x) if of_x else None
        d_weight = torch.empty_like(weight) if of_weight else None
        shape = (x.numel() // x.size(-1), x.size(-1), len(weight))
        _call("linear_backward", grad.contiguous(), x, weight, *shape, d_x, d_weight)
        return d_x, d_weight


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        (batch, heads, length, width), kv_heads = q.shape, k.size(1)
        y, shares = torch.empty_like(q), q.new_empty(batch, heads, length, length)
        _call("attend", q, k, v, batch, heads, kv_heads, length, width, y, shares)
        ctx.save_for_backward(q, k, v, shares)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, shares = ctx.saved_tensors
        (batch, heads, length, width), kv_heads = q.shape, k.size(1)
        d_q, d_k, d_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        given = (grad.contiguous(), q, k, v, shares, batch, heads, kv_heads, length, width)
        _call("attend_backward", *given, d_q, d_k, d_v)
        return d_q, d_k, d_v


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """`F.linear` of x (..., C) and a weight (R, C)."""
    return _Linear.apply(x, weight) if x.numel() else F.linear(x, weight)  # type: ignore[return-value]


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention: q (B, H, T, K), k and v (B, Hkv, T, K) -> (B, H, T, K)."""
    return _Attend.apply(q, k, v)  # type: ignore[return-value]


def orthogonalize(x: Tensor, coefficients: Sequence[tuple[float, float, float]]) -> Tensor:
    """x (N, R, C), R <= C, after steps X <- a X + (b A + c A A) X, where A = X X^T; uses x up."""
    x, triples = x.contiguous(), torch.tensor(coefficients, dtype=torch.float64)
    _call("orthogonalize", x, *x.shape, triples, len(triples))
    return x
