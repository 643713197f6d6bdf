"""The Triton programs of `kernels_triton.py` as functions with derivatives, for training on a GPU.

They run while `in_use`, outside `torch.compile`, which fuses the plain forms by itself. The loss
alone is worth more than the compiler makes of it, for it never stores logits as float32.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fairway.runtime import kernels

LONGEST_BLOCK = 4096  # of the vocabulary, in one program
ROWS = 32  # of one program of the mixed norm's derivative

_active = False


@contextmanager
def in_use() -> Iterator[None]:
    """These kernels, for what trains on a GPU meanwhile."""
    global _active
    before, _active = _active, True
    try:
        yield
    finally:
        _active = before


def take(x: Tensor) -> bool:
    """Whether these kernels run an operation on `x`."""
    return take_loss(x) and not torch.compiler.is_compiling()


def take_loss(logits: Tensor) -> bool:
    """The same for the loss, which stays what it is inside `torch.compile`."""
    return _active and logits.is_cuda and logits.is_floating_point()


def _programs() -> Any:
    from fairway.runtime import kernels_triton  # Triton is not everywhere, and slow to import

    return kernels_triton


def block(size: int) -> int:
    """The least power of two that holds `size`."""
    return max(16, 1 << (size - 1).bit_length())


def warps(width: int) -> int:
    """Warps of a program over one row: about four channels a lane."""
    return min(16, max(1, block(width) // 128))


# An operator of its own, so that `torch.compile` takes it as it is.
@torch.library.custom_op("fairway::cross_entropy", mutates_args=())
def _cross_entropy(
    logits: Tensor, targets: Tensor, cap: float, capped: bool
) -> tuple[Tensor, Tensor]:
    """Nats (N,) and the logarithm of each row's sum (N,), float32."""
    rows, vocab = logits.shape
    nats = torch.empty(rows, dtype=torch.float32, device=logits.device)
    lse, size = torch.empty_like(nats), min(block(vocab), LONGEST_BLOCK)
    _programs().cross_entropy_forward[(rows,)](
        logits.contiguous(),
        targets.contiguous(),
        nats,
        lse,
        vocab,
        cap,
        capped,
        size,
        num_warps=warps(size),
    )
    return nats, lse


@_cross_entropy.register_fake
def _(logits: Tensor, targets: Tensor, cap: float, capped: bool) -> tuple[Tensor, Tensor]:
    nats = logits.new_empty(logits.size(0), dtype=torch.float32)
    return nats, torch.empty_like(nats)


@torch.library.custom_op("fairway::cross_entropy_backward", mutates_args=())
def _cross_entropy_backward(
    logits: Tensor, targets: Tensor, lse: Tensor, grad: Tensor, cap: float, capped: bool
) -> Tensor:
    """The derivative (N, V) in the type of the logits, for that of each row's nats (N,)."""
    logits, vocab = logits.contiguous(), logits.size(1)
    d_logits, size = torch.empty_like(logits), min(block(vocab), LONGEST_BLOCK)
    _programs().cross_entropy_backward[(len(logits), -(-vocab // size))](
        logits,
        targets.contiguous(),
        lse,
        grad.contiguous().float(),
        d_logits,
        vocab,
        cap,
        capped,
        size,
        num_warps=warps(size),
    )
    return d_logits


@_cross_entropy_backward.register_fake
def _(
    logits: Tensor, targets: Tensor, lse: Tensor, grad: Tensor, cap: float, capped: bool
) -> Tensor:
    return torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, float, bool], output: tuple) -> None:
    logits, targets, *ctx.given = inputs
    ctx.save_for_backward(logits, targets, output[1])


def _differentiate(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None, None, None]:
    return _cross_entropy_backward(*ctx.saved_tensors, grad, *ctx.given), None, None, None


_cross_entropy.register_autograd(_differentiate, setup_context=_keep)


def softcapped_cross_entropy(logits: Tensor, targets: Tensor, softcap: float | None) -> Tensor:
    nats, _ = _cross_entropy(logits, targets, softcap or 1.0, softcap is not None)
    return nats.mean()


class LeakyReluSquared(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float) -> Tensor:
        x = x.contiguous()
        y = torch.empty_like(x)
        grid = (-(-x.numel() // 1024),)
        _programs().leaky_relu_squared_forward[grid](x, y, x.numel(), slope, 1024)
        ctx.save_for_backward(x)
        ctx.slope = slope
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        grad, d_x = grad.contiguous(), torch.empty_like(x)
        grid = (-(-x.numel() // 1024),)
        _programs().leaky_relu_squared_backward[grid](grad, x, d_x, x.numel(), ctx.slope, 1024)
        return d_x, None


class MixNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, other: Tensor, mix: Tensor | None, scale: float
    ) -> tuple[Tensor, Tensor]:
        x, other = x.contiguous(), other.contiguous()
        width = x.size(-1)
        mixed, y = torch.empty_like(x), torch.empty_like(x)
        inverse = torch.empty(x.numel() // width, dtype=torch.float32, device=x.device)
        given = (width, scale, mix is not None, block(width))
        _programs().mix_norm_forward[(len(inverse),)](
            x, other, x if mix is None else mix, mixed, y, inverse, *given, num_warps=warps(width)
        )
        ctx.save_for_backward(x, other, mixed, inverse, *(() if mix is None else (mix,)))
        ctx.scale = scale
        return mixed, y

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, d_mixed: Tensor, d_y: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None, None]:
        x, other, mixed, inverse, *mixes = ctx.saved_tensors
        width, rows = x.size(-1), len(inverse)
        d_x = torch.empty_like(x)
        d_other = torch.empty_like(x) if mixes else d_x
        programs = -(-rows // ROWS)
        sums = torch.empty(programs, 2, width, dtype=torch.float32, device=x.device)
        _programs().mix_norm_backward[(programs,)](
            d_mixed.contiguous(),
            d_y.contiguous(),
            x,
            other,
            mixed,
            inverse,
            mixes[0] if mixes else x,
            d_x,
            d_other,
            sums,
            rows,
            width,
            ctx.scale,
            bool(mixes),
            ROWS,
            block(width),
            num_warps=warps(width),
        )
        return d_x, d_other, sums.sum(0) if mixes else None, None


class ExcludeSelf(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, values: Tensor) -> Tensor:
        y, values = y.contiguous(), values.contiguous()
        out, (heads, width) = torch.empty_like(y), y.shape[-2:]
        given = (heads, values.size(-2), width, block(width))
        grid = (y.numel() // (heads * width), heads)
        _programs().exclude_self_forward[grid](y, values, out, *given, num_warps=1)
        ctx.save_for_backward(y, values)
        ctx.given = given
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        y, values = ctx.saved_tensors
        d_y, d_values = torch.empty_like(y), torch.empty_like(values)
        heads, kv_heads, width, _ = ctx.given
        grid = (y.numel() // (heads * width), kv_heads)
        _programs().exclude_self_backward[grid](
            grad.contiguous(), y, values, d_y, d_values, *ctx.given, num_warps=1
        )
        return d_y, d_values


class Smear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gate: Tensor, strength: Tensor, same: Tensor) -> Tensor:
        x, same = x.contiguous(), same.contiguous()
        y, width = torch.empty_like(x), x.size(-1)
        given = (x.size(1), width, len(gate), block(width))
        grid = (x.size(0) * x.size(1),)
        _programs().smear_forward[grid](x, gate, strength, same, y, *given, num_warps=warps(width))
        ctx.save_for_backward(x, gate, strength, same)
        ctx.given = given
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, gate, strength, same = ctx.saved_tensors
        rows, d_x = x.size(0) * x.size(1), torch.empty_like(x)
        d_gate = torch.empty(rows, len(gate), dtype=torch.float32, device=x.device)
        d_strength = torch.empty(rows, dtype=torch.float32, device=x.device)
        _programs().smear_backward[(rows,)](
            grad.contiguous(),
            x,
            gate,
            strength,
            same,
            d_x,
            d_gate,
            d_strength,
            rows,
            *ctx.given,
            num_warps=warps(x.size(-1)),
        )
        return d_x, d_gate.sum(0), d_strength.sum().view_as(strength), None


kernels.on_gpu = sys.modules[__name__]
