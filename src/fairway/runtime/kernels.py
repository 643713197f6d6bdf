"""Operations that are worth a faster form than autograd's, each beside its plain twin.

PyTorch's autograd composes these from many passes over memory; written with their derivatives they
need half as many. The plain forms are here, and those that PyTorch can express; C++ for training on
a CPU is in `kernels_cpu.py`, Triton for a GPU in `kernels_gpu.py`, and `kernel_choice.py` says when
they run. A test holds each to its twin.
Inside `torch.compile` the plain forms alone are seen: the compiler fuses them by itself, and in a
third of the time that derivatives written by hand take it.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

EPS = torch.finfo(torch.float32).eps  # what F.rms_norm uses for float32 when no eps is given


def widened(x: Tensor) -> Tensor:
    """In float32, or as it is where it is float64: what sums of many terms are taken in."""
    return x if x.dtype == torch.float64 else x.float()


class Absent:
    """In place of kernels that nobody has loaded: they take nothing."""

    @staticmethod
    def take(x: Tensor) -> bool:
        return False

    take_loss = take_products = take
    in_use = nullcontext  # likewise: nothing to switch on


# `kernels_cpu` and `kernels_gpu` put themselves here: who only reads a model needs neither.
on_cpu: Any = Absent
on_gpu: Any = Absent


def kernels_in_use() -> AbstractContextManager[None]:
    """Our kernels for learning on a CPU at test time, where somebody loaded them."""
    return on_cpu.in_use()


class _Kept(Protocol):
    """What autograd carries from a forward pass to its derivative."""

    saved_tensors: tuple[Tensor, ...]

    def save_for_backward(self, *tensors: Tensor) -> None: ...


class _Bent(_Kept, Protocol):
    slope: float


def _is_plain(x: Tensor) -> bool:
    """Whether autograd, the compiler or the GPU's library does best with the plain form."""
    return x.device.type != "cpu" or not x.requires_grad or torch.compiler.is_compiling()


def rms_norm_plain(x: Tensor) -> Tensor:
    """x / rms(x) over the last dimension, without parameters; any shape and float type."""
    # One model, one function: float64 takes float32's epsilon, not its own.
    return F.rms_norm(x, (x.size(-1),), eps=EPS if x.dtype == torch.float64 else None)


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _Kept, x: Tensor) -> Tensor:
        width = x.size(-1)
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide)
        inverse = norm.square_().div_(width).add_(EPS).rsqrt_().to(x.dtype)
        y = x * inverse
        ctx.save_for_backward(y, inverse)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: _Kept, grad: Tensor) -> Tensor:
        y, inverse = ctx.saved_tensors
        along = torch.linalg.vecdot(grad, y).unsqueeze(-1).div_(-y.size(-1))
        return torch.addcmul(grad, y, along).mul_(inverse)


def rms_norm(x: Tensor, scale: float = 1.0) -> Tensor:
    """`rms_norm_plain` times a scale, with a derivative in three passes."""
    if on_cpu.take(x):
        return on_cpu.rms_norm(x, scale)
    y: Tensor = rms_norm_plain(x) if _is_plain(x) else _RmsNorm.apply(x)  # type: ignore[assignment]
    return y if scale == 1.0 else y * scale


def mix_norm(
    x: Tensor, other: Tensor, mix: Tensor | None = None, scale: float = 1.0
) -> tuple[Tensor, Tensor]:
    """`mix[0] * x + mix[1] * other` or, without a mix, their sum; and `rms_norm` of that.

    x and other (..., D); mix (2, D) float32
    """
    if on_cpu.take(x):
        return on_cpu.mix_norm(x, other, mix, scale)
    if on_gpu.take(x):
        return on_gpu.MixNorm.apply(x, other, mix, scale)  # type: ignore[return-value]
    if mix is None:
        mixed = x + other
    else:
        mix = mix.to(x.dtype)
        mixed = torch.addcmul(mix[1] * other, mix[0], x)
    return mixed, rms_norm(mixed, scale)


def leaky_relu_squared_plain(x: Tensor, slope: float) -> Tensor:
    """leaky_relu(x, slope)**2, elementwise (#185, #493)."""
    return F.leaky_relu(x, slope).square()


class _LeakyReluSquared(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _Bent, x: Tensor, slope: float) -> Tensor:
        bent = F.leaky_relu(x, slope)
        ctx.save_for_backward(bent)
        ctx.slope = slope
        return bent.square()

    @staticmethod
    @once_differentiable
    def backward(ctx: _Bent, grad: Tensor) -> tuple[Tensor, None]:
        (bent,) = ctx.saved_tensors
        # d/dx bent**2 = 2 bent * (1 or slope); bent has the sign of x, so bending it once more
        # applies the slope where x was negative.
        return F.leaky_relu(bent, ctx.slope).mul_(grad).mul_(2.0), None


def leaky_relu_squared(x: Tensor, slope: float) -> Tensor:
    """`leaky_relu_squared_plain` that keeps one tensor for its derivative instead of two."""
    if on_cpu.take(x):
        return on_cpu.leaky_relu_squared(x, slope)
    if on_gpu.take(x):
        return on_gpu.LeakyReluSquared.apply(x, slope)  # type: ignore[return-value]
    if _is_plain(x):
        return leaky_relu_squared_plain(x, slope)
    return _LeakyReluSquared.apply(x, slope)  # type: ignore[return-value]


def softcapped_cross_entropy_plain(
    logits: Tensor, targets: Tensor, softcap: float | None
) -> Tensor:
    """Mean cross entropy in nats of cap * tanh(logits / cap).

    logits (N, V) any float, before the cap; targets (N,) int64; softcap None: no cap.
    """
    logits = widened(logits)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    return F.cross_entropy(logits, targets)


class _SoftcappedCrossEntropy(torch.autograd.Function):
    """The gradient is made in the forward pass, a few rows at a time, while they are in cache."""

    @staticmethod
    def forward(ctx: _Kept, logits: Tensor, targets: Tensor, softcap: float | None) -> Tensor:
        rows = logits.size(0)
        d_logits = torch.empty_like(logits)
        total = torch.zeros((), dtype=torch.float64)
        step = max(1, (1 << 17) // logits.size(1))  # half a megabyte of float32
        for start in range(0, rows, step):
            target = targets[start : start + step, None]
            z = widened(logits[start : start + step])
            bend = None
            if softcap is not None:
                bend = (z / softcap).tanh_()
                z = bend * softcap
            lse = torch.logsumexp(z, dim=-1, keepdim=True)
            total += (lse - z.gather(1, target)).sum(dtype=torch.float64)
            p = torch.sub(z, lse).exp_()
            p.scatter_add_(1, target, torch.full_like(lse, -1.0))
            if bend is not None:
                p.addcmul_(p * bend, bend, value=-1.0)  # tanh' = 1 - tanh**2
            d_logits[start : start + step] = p.div_(rows)
        ctx.save_for_backward(d_logits)
        mean = total / rows
        return mean if logits.dtype == torch.float64 else mean.float()

    @staticmethod
    @once_differentiable
    def backward(ctx: _Kept, grad: Tensor) -> tuple[Tensor, None, None]:
        (d_logits,) = ctx.saved_tensors
        return d_logits * grad.to(d_logits.dtype), None, None


def softcapped_cross_entropy(logits: Tensor, targets: Tensor, softcap: float | None) -> Tensor:
    """`softcapped_cross_entropy_plain` that never keeps the (N, V) intermediate tensors."""
    if on_cpu.take(logits):
        return on_cpu.softcapped_cross_entropy(logits, targets, softcap)
    if on_gpu.take_loss(logits):
        return on_gpu.softcapped_cross_entropy(logits, targets, softcap)
    if _is_plain(logits):
        return softcapped_cross_entropy_plain(logits, targets, softcap)
    return _SoftcappedCrossEntropy.apply(logits, targets, softcap)  # type: ignore[return-value]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the leading 2 * cos.size(-1) channels of x (B, T, H, K) by cos, sin (T, dims / 2)."""
    half = cos.size(-1)
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    cos, sin = cos[:, None], sin[:, None]
    turned = (first * cos + second * sin, second * cos - first * sin)
    return torch.cat((*turned, rest) if rest.size(-1) else turned, dim=-1)


def rotary_heads(x: Tensor, cos: Tensor, sin: Tensor, gain: Tensor | None = None) -> Tensor:
    """Heads (B, T, H, K) normalized, rotated as by `rotate`, and each times its gain (H,)."""
    if on_cpu.take(x):
        return on_cpu.rotary_heads(x, cos, sin, gain)
    x = rotate(rms_norm(x), cos, sin)
    return x if gain is None else x * gain.to(x.dtype)[:, None]


def exclude_self_plain(y: Tensor, values: Tensor) -> Tensor:
    """Remove from each head's output its component along the token's own value (#265).

    y (B, T, H, K), values (B, T, Hkv, K) -> (B, T, H, K). At a document's first position attention
    sees only that value, so the output is zero there, not undefined.
    """
    grouped = y.unflatten(2, (values.size(2), -1))  # (B, T, Hkv, H / Hkv, K)
    direction = F.normalize(values, dim=-1).unsqueeze(3)
    along = (grouped * direction).sum(-1, keepdim=True)
    return (grouped - along * direction).flatten(2, 3)


def exclude_self(y: Tensor, values: Tensor) -> Tensor:
    """`exclude_self_plain` in one pass."""
    if on_cpu.take(y):
        return on_cpu.exclude_self(y, values)
    if on_gpu.take(y):
        return on_gpu.ExcludeSelf.apply(y, values)  # type: ignore[return-value]
    return exclude_self_plain(y, values)


def scaled_cast(weight: Tensor, scale: Tensor | None, like: Tensor) -> Tensor:
    """A float32 weight (R, C), its rows times a scale (R,), in the type of `like`."""
    if on_cpu.take(like) and (like.dtype != weight.dtype or scale is not None):
        return on_cpu.scaled_cast((weight,), scale, like.dtype)
    weight = weight if scale is None else weight * scale[:, None]
    return weight.to(like.dtype)


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x (..., C) times a weight (R, C) of its type -> (..., R)."""
    return on_cpu.linear(x, weight) if on_cpu.take_products(x) else F.linear(x, weight)


def one_product_pays(x: Tensor) -> bool:
    """Whether several matrices that multiply x are better put together with `linear_together`."""
    return on_cpu.take(x)


def linear_together(x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
    """x (..., C) times each of these float32 weights (R, C), as one product."""
    weight = on_cpu.scaled_cast(weights, None, x.dtype)
    return linear(x, weight).split([len(weight) for weight in weights], dim=-1)


def shift_right(x: Tensor, before: Tensor | None) -> Tensor:
    """x one position later: (B, T, D); the first place takes `before` (B, 1, D), or zeros."""
    if before is None:
        return F.pad(x, (0, 0, 1, 0))[:, : x.size(1)]
    return torch.cat((before, x[:, :-1]), dim=1)


def smear(
    x: Tensor, gate: Tensor, strength: Tensor, same_document: Tensor, before: Tensor | None = None
) -> Tensor:
    """x (B, T, D) plus a share of the position before, opened by its first channels (#1667).

    gate (window,), strength (1,); same_document (B, T) False where what stands before is another
    text; before (B, 1, D) what stands before the first, or None for nothing
    """
    if before is None and on_gpu.take(x):
        return on_gpu.Smear.apply(x, gate, strength, same_document)  # type: ignore[return-value]
    opened = torch.sigmoid(x[..., : gate.numel()] @ gate.to(x.dtype))
    weight = (strength.to(x.dtype) * opened * same_document).unsqueeze(-1)
    return x + weight * shift_right(x, before)


def causal_mask(num_queries: int, num_keys: int, device: torch.device | str = "cpu") -> Tensor:
    """(num_queries, num_keys) True where the last `num_queries` positions may look."""
    past = num_keys - num_queries
    return torch.ones(num_queries, num_keys, dtype=torch.bool, device=device).tril(past)


def attend_plain(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Causal attention of the last T positions among S: the library's scaled dot products.

    q (B, H, T, K), k and v (B, Hkv, S, K); mask (B, T, S) True where a query may look, None: all
    of its past -> (B, H, T, K).
    """
    gqa = q.size(1) != k.size(1)
    num_queries, num_keys = q.size(2), k.size(2)
    if mask is not None:
        return F.scaled_dot_product_attention(q, k, v, mask[:, None], enable_gqa=gqa)
    if num_queries == 1:  # the newest position sees everything
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=gqa)
    if num_queries == num_keys:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=gqa)
    allowed = causal_mask(num_queries, num_keys, q.device)
    return F.scaled_dot_product_attention(q, k, v, allowed, enable_gqa=gqa)


def attend_in_blocks(q: Tensor, k: Tensor, v: Tensor, num_blocks: int = 2) -> Tensor:
    """`attend_plain` over square causal scores as a few batched products, for training on a CPU.

    There, the library's flash backward runs at half the speed of these. Queries are taken in
    blocks so that most of the scores that lie wholly in the future are never computed.
    """
    rows, heads, length, width = q.shape
    kv_heads = k.size(1)
    # The query heads that share a KV head lie behind one another: (B * Hkv, group, T, K).
    q = q.reshape(rows * kv_heads, heads // kv_heads, length, width)
    k, v = k.reshape(rows * kv_heads, length, width), v.reshape(rows * kv_heads, length, width)
    step = -(-length // num_blocks)
    if torch.compiler.is_compiling():
        blocks = [_attend_block(q[:, :, i : i + step], k, v, i)[0] for i in range(0, length, step)]
        return torch.cat(blocks, dim=2).view(rows, heads, length, width)
    y: Tensor = _AttendInBlocks.apply(q, k, v, step)  # type: ignore[assignment]
    return y.view(rows, heads, length, width)


def _attend_block(q: Tensor, k: Tensor, v: Tensor, begin: int) -> tuple[Tensor, Tensor]:
    """Queries (N, group, t, K) from position `begin` over keys and values (N, T, K): their outputs,
    and the probabilities (N, group * t, begin + t) that weighed the values."""
    rows, group, num_queries, width = q.shape
    end = begin + num_queries
    nothing, keys = q.new_zeros(1, 1, 1), k[:, :end].transpose(1, 2)
    queries, scale = q.reshape(rows, -1, width), width**-0.5
    scores = torch.baddbmm(nothing, queries, keys, beta=0, alpha=scale)
    ahead = ~causal_mask(num_queries, num_queries)
    bias = scores.new_zeros(ahead.shape).masked_fill_(ahead, float("-inf"))
    scores.view(rows, group, num_queries, end)[..., begin:].add_(bias)
    weights = scores.softmax(-1)
    return torch.bmm(weights, v[:, :end]).view(q.shape), weights


class _Blocks(_Kept, Protocol):
    step: int


class _AttendInBlocks(torch.autograd.Function):
    """Its derivative adds what each block says of a key where that key lies, where autograd would
    make a tensor of all keys for each block."""

    @staticmethod
    def forward(ctx: _Blocks, q: Tensor, k: Tensor, v: Tensor, step: int) -> Tensor:
        y, kept = torch.empty_like(q), []
        for begin in range(0, q.size(2), step):
            block = slice(begin, begin + step)
            y[:, :, block], weights = _attend_block(q[:, :, block], k, v, begin)
            kept.append(weights)
        ctx.save_for_backward(q, k, v, *kept)
        ctx.step = step
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: _Blocks, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, *kept = ctx.saved_tensors
        rows, _, length, width = q.shape
        d_q, d_k, d_v = torch.empty_like(q), k[:0], v[:0]
        # From the last block, which sees every key, to the first.
        for begin, weights in zip(reversed(range(0, length, ctx.step)), kept[::-1], strict=True):
            block, end = slice(begin, begin + ctx.step), weights.size(2)
            d_y = grad[:, :, block].reshape(rows, -1, width)
            d_weights = torch.bmm(d_y, v[:, :end].transpose(1, 2))
            d_scores = torch.ops.aten._softmax_backward_data(d_weights, weights, -1, weights.dtype)
            queries = q[:, :, block].reshape(rows, -1, width)
            d_q[:, :, block] = torch.bmm(d_scores, k[:, :end]).view(rows, -1, end - begin, width)
            of_keys = torch.bmm(queries.transpose(1, 2), d_scores)  # (N, K, begin + t)
            of_values = torch.bmm(d_y.transpose(1, 2), weights)
            if end == length:
                d_k, d_v = of_keys, of_values
            else:
                d_k[..., :end] += of_keys
                d_v[..., :end] += of_values
        scale = width**-0.5
        return d_q.mul_(scale), d_k.mul_(scale).transpose(1, 2), d_v.transpose(1, 2), None


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """`attend_plain`, in the form that is fastest for these tensors."""
    training_on_cpu = q.device.type == "cpu" and q.requires_grad and mask is None
    if training_on_cpu and q.size(2) == k.size(2):
        if on_cpu.take_products(q):
            return on_cpu.attend(q, k, v)
        return attend_in_blocks(q, k, v, num_blocks=max(2, q.size(2) // 128))
    return attend_plain(q, k, v, mask)
