"""Training's operations on a GPU in Triton, each in one pass over memory each way.

Their plain twins, and when which of the two runs, are in `kernels.py`. Programs alone are here;
`kernels_gpu.py` launches them. No GPU has run them so far: they are compared with their twins
through Triton's interpreter, and compiled ahead of time for sm_80, sm_90 and sm_100.
"""

# Triton's own language: its names, and arithmetic on pointers, mean nothing to a type checker.
# pyright: basic, reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportOperatorIssue=false, reportGeneralTypeIssues=false, reportMissingImports=false
# pyright: reportAttributeAccessIssue=false

import triton
import triton.language as tl

EPS = tl.constexpr(1.1920929e-07)  # what the library adds to a mean square


@triton.jit
def _bend(x, cap):
    """tanh(x / cap), from the side where the exponential cannot overflow."""
    e = tl.exp(-2.0 * tl.abs(x) / cap)
    t = (1.0 - e) / (1.0 + e)
    return tl.where(x < 0, -t, t)


@triton.jit
def cross_entropy_forward(
    logits, targets, nats, lse, vocab, cap, CAPPED: tl.constexpr, BLOCK: tl.constexpr
):
    """One program per row: its nats and the logarithm of its sum, block by block of the vocabulary.

    logits (N, V), targets (N,) int64, nats and lse (N,) float32
    """
    row = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, BLOCK)
    most = tl.full((BLOCK,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    for begin in range(0, vocab, BLOCK):
        inside = begin + place < vocab
        x = tl.load(logits + row * vocab + begin + place, inside, float("-inf")).to(tl.float32)
        if CAPPED:
            x = tl.where(inside, cap * _bend(x, cap), float("-inf"))
        higher = tl.maximum(most, x)
        # A lane that has seen nothing yet keeps the sum zero, and never meets infinity - infinity.
        shift = tl.where(higher == float("-inf"), 0.0, higher)
        total = total * tl.exp(most - shift) + tl.exp(x - shift)
        most = higher
    top = tl.max(most, 0)
    logarithm = top + tl.log(tl.sum(total * tl.exp(most - top), 0))
    right = tl.load(logits + row * vocab + tl.load(targets + row)).to(tl.float32)
    if CAPPED:
        right = cap * _bend(right, cap)
    tl.store(lse + row, logarithm)
    tl.store(nats + row, logarithm - right)


@triton.jit
def cross_entropy_backward(
    logits, targets, lse, grad, d_logits, vocab, cap, CAPPED: tl.constexpr, BLOCK: tl.constexpr
):
    """One program per row and block: (softmax - one at the target) times the row's grad.

    grad  (N,) float32
    """
    row = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = place < vocab
    x = tl.load(logits + row * vocab + place, inside, 0.0).to(tl.float32)
    slope = tl.full((BLOCK,), 1.0, tl.float32)
    if CAPPED:
        bent = _bend(x, cap)
        x = cap * bent
        slope = 1.0 - bent * bent
    p = tl.exp(x - tl.load(lse + row))
    p = tl.where(place == tl.load(targets + row), p - 1.0, p)
    d = p * slope * tl.load(grad + row)
    tl.store(d_logits + row * vocab + place, d.to(d_logits.dtype.element_ty), inside)


@triton.jit
def leaky_relu_squared_forward(x, y, size, slope, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < size
    one = tl.load(x + place, inside, 0.0).to(tl.float32)
    bent = tl.where(one > 0, one, slope * one)
    tl.store(y + place, (bent * bent).to(y.dtype.element_ty), inside)


@triton.jit
def leaky_relu_squared_backward(grad, x, d_x, size, slope, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < size
    one = tl.load(x + place, inside, 0.0).to(tl.float32)
    twice = 2.0 * tl.load(grad + place, inside, 0.0).to(tl.float32) * one
    d = tl.where(one > 0, twice, slope * slope * twice)
    tl.store(d_x + place, d.to(d_x.dtype.element_ty), inside)


@triton.jit
def mix_norm_forward(
    x, other, mix, mixed, y, inverse, width, scale, MIXES: tl.constexpr, BLOCK: tl.constexpr
):
    """One program per row: mixed = mix[0] * x + mix[1] * other, or x + other; y its norm, scaled.

    x, other, mixed, y (N, D); mix (2, D) float32; inverse (N,) float32 of the root mean square
    """
    row = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, BLOCK)
    inside = place < width
    a = tl.load(x + row * width + place, inside, 0.0).to(tl.float32)
    b = tl.load(other + row * width + place, inside, 0.0).to(tl.float32)
    if MIXES:
        a = a * tl.load(mix + place, inside, 0.0)
        b = b * tl.load(mix + width + place, inside, 0.0)
    m = (a + b).to(mixed.dtype.element_ty)
    tl.store(mixed + row * width + place, m, inside)
    m = m.to(tl.float32)
    by = 1.0 / tl.sqrt(tl.sum(m * m, 0) / width + EPS)
    tl.store(inverse + row, by)
    tl.store(y + row * width + place, (m * by * scale).to(y.dtype.element_ty), inside)


@triton.jit
def mix_norm_backward(
    d_mixed,
    d_y,
    x,
    other,
    mixed,
    inverse,
    mix,
    d_x,
    d_other,
    d_mix,
    rows,
    width,
    scale,
    MIXES: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program per ROWS rows; d_mix (programs, 2, D) float32 holds each program's own sum."""
    place = tl.arange(0, BLOCK)
    inside = place < width
    begin = tl.program_id(0).to(tl.int64) * ROWS
    of_x = tl.zeros((BLOCK,), tl.float32)
    of_other = tl.zeros((BLOCK,), tl.float32)
    for row in range(begin, tl.minimum(begin + ROWS, rows)):
        at = row * width + place
        m = tl.load(mixed + at, inside, 0.0).to(tl.float32)
        g = tl.load(d_y + at, inside, 0.0).to(tl.float32)
        by = tl.load(inverse + row)
        along = tl.sum(g * m, 0) * by * by / width
        d = tl.load(d_mixed + at, inside, 0.0).to(tl.float32) + scale * by * (g - along * m)
        if MIXES:
            of_x += d * tl.load(x + at, inside, 0.0).to(tl.float32)
            of_other += d * tl.load(other + at, inside, 0.0).to(tl.float32)
            to_other = d * tl.load(mix + width + place, inside, 0.0)
            tl.store(d_other + at, to_other.to(d_other.dtype.element_ty), inside)
            d = d * tl.load(mix + place, inside, 0.0)
        tl.store(d_x + at, d.to(d_x.dtype.element_ty), inside)
    if MIXES:
        to = d_mix + tl.program_id(0).to(tl.int64) * 2 * width + place
        tl.store(to, of_x, inside)
        tl.store(to + width, of_other, inside)


@triton.jit
def exclude_self_forward(y, values, out, heads, kv_heads, width, BLOCK: tl.constexpr):
    """One program per position and head: y less its part along the position's own value.

    y, out (N, H, K), values (N, Hkv, K)
    """
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    place = tl.arange(0, BLOCK)
    inside = place < width
    of_kv = (row * kv_heads + head // (heads // kv_heads)) * width + place
    v = tl.load(values + of_kv, inside, 0.0).to(tl.float32)
    at = (row * heads + head) * width + place
    one = tl.load(y + at, inside, 0.0).to(tl.float32)
    norm = tl.maximum(tl.sqrt(tl.sum(v * v, 0)), 1e-12)
    along = tl.sum(one * v, 0) / norm / norm
    tl.store(out + at, (one - along * v).to(out.dtype.element_ty), inside)


@triton.jit
def exclude_self_backward(
    grad, y, values, d_y, d_values, heads, kv_heads, width, BLOCK: tl.constexpr
):
    """One program per position and KV head, over the heads that share it."""
    row = tl.program_id(0).to(tl.int64)
    kv = tl.program_id(1)
    group = heads // kv_heads
    place = tl.arange(0, BLOCK)
    inside = place < width
    of_kv = (row * kv_heads + kv) * width + place
    v = tl.load(values + of_kv, inside, 0.0).to(tl.float32)
    inverse = 1.0 / tl.maximum(tl.sqrt(tl.sum(v * v, 0)), 1e-12)
    direction = v * inverse
    d = tl.zeros((BLOCK,), tl.float32)
    for head in range(kv * group, (kv + 1) * group):
        at = (row * heads + head) * width + place
        one = tl.load(y + at, inside, 0.0).to(tl.float32)
        g = tl.load(grad + at, inside, 0.0).to(tl.float32)
        along, part = tl.sum(g * direction, 0), tl.sum(one * direction, 0)
        tl.store(d_y + at, (g - along * direction).to(d_y.dtype.element_ty), inside)
        d -= along * one + part * g
    d = inverse * (d - tl.sum(d * direction, 0) * direction)
    tl.store(d_values + of_kv, d.to(d_values.dtype.element_ty), inside)


@triton.jit
def smear_forward(x, gate, strength, same, y, length, width, window, BLOCK: tl.constexpr):
    """One program per position: x plus a gated share of the position before it (#1667).

    x, y (B, T, D); gate (window,) and strength (1,) float32; same (B, T) bool, False at a BOS
    """
    row = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, BLOCK)
    inside = place < width
    seat = row % length
    one = tl.load(x + row * width + place, inside, 0.0).to(tl.float32)
    before = tl.load(x + (row - 1) * width + place, place < tl.where(seat > 0, width, 0), 0.0).to(
        tl.float32
    )
    weights = tl.load(gate + place, place < window, 0.0)
    opened = 1.0 / (1.0 + tl.exp(-tl.sum(one * weights, 0)))
    share = tl.load(strength) * opened * tl.load(same + row).to(tl.float32)
    tl.store(y + row * width + place, (one + share * before).to(y.dtype.element_ty), inside)


@triton.jit
def smear_backward(
    grad,
    x,
    gate,
    strength,
    same,
    d_x,
    d_gate,
    d_strength,
    rows,
    length,
    width,
    window,
    BLOCK: tl.constexpr,
):
    """One program per position, its own part in d_gate (N, window) and d_strength (N,), float32."""
    row = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, BLOCK)
    inside = place < width
    seat = row % length
    weights = tl.load(gate + place, place < window, 0.0)
    power = tl.load(strength)
    at = row * width + place
    one = tl.load(x + at, inside, 0.0).to(tl.float32)
    before = tl.load(x + at - width, place < tl.where(seat > 0, width, 0), 0.0).to(tl.float32)
    g = tl.load(grad + at, inside, 0.0).to(tl.float32)
    opened = 1.0 / (1.0 + tl.exp(-tl.sum(one * weights, 0)))
    flag = tl.load(same + row).to(tl.float32)
    along = tl.sum(g * before, 0) * flag
    d_inner = along * power * opened * (1.0 - opened)
    d = g + d_inner * weights
    # What the position after this one took of it.
    there = place < tl.where(seat + 1 < length, width, 0)
    after = tl.load(x + at + width, there, 0.0).to(tl.float32)
    g_after = tl.load(grad + at + width, there, 0.0).to(tl.float32)
    opened_after = 1.0 / (1.0 + tl.exp(-tl.sum(after * weights, 0)))
    step = tl.where(seat + 1 < length, 1, 0)
    flag_after = tl.load(same + row + step).to(tl.float32) * step
    d += power * opened_after * flag_after * g_after
    tl.store(d_x + at, d.to(d_x.dtype.element_ty), inside)
    tl.store(d_gate + row * window + place, d_inner * one, place < window)
    tl.store(d_strength + row, along * opened)
