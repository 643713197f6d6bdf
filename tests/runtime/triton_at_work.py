"""Every Triton kernel against its plain twin, in values and derivatives, on this processor.

Run by `test_kernels_triton.py` in a process of its own, for Triton decides when it is imported
whether it interprets (TRITON_INTERPRET=1). With `cuda` as an argument, on the GPU.
"""

import sys
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fairway.runtime import kernels_gpu as gpu
from fairway.runtime.kernels import (
    EPS,
    exclude_self_plain,
    leaky_relu_squared_plain,
    smear,
    softcapped_cross_entropy_plain,
)

DEVICE = sys.argv[1] if len(sys.argv) > 1 else "cpu"
Form = Callable[..., Tensor | tuple[Tensor, ...]]


def compare(name: str, fast: Form, plain: Form, *inputs: Tensor) -> None:
    for dtype, close in ((torch.float32, 2e-5), (torch.bfloat16, 2e-2)):
        found = []
        for form, as_type in ((fast, dtype), (plain, torch.float32)):
            leaves = [x.to(DEVICE, dtype if x.ndim > 2 else None) for x in inputs]
            leaves = [x.to(as_type if x.ndim > 2 else None).requires_grad_() for x in leaves]
            outputs = form(*leaves)
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            grads = [
                torch.cos(torch.arange(y.numel(), device=DEVICE)).view_as(y).to(y.dtype)
                for y in outputs
            ]
            found.append([*outputs, *torch.autograd.grad(outputs, leaves, grads)])
        for place, (mine, exact) in enumerate(zip(*found, strict=True)):
            gap = (mine.float() - exact).abs().max().item()
            largest = exact.abs().max().item()
            if not gap <= close * largest:
                raise SystemExit(f"{name}, {dtype}, output {place}: {gap} of {largest}")
    print(f"{name}: equal")


def mix_norm(x: Tensor, other: Tensor, *mix: Tensor) -> tuple[Tensor, Tensor]:
    mixed = mix[0][0] * x + mix[0][1] * other if mix else x + other
    return mixed, 0.5 * mixed * (mixed.square().mean(-1, keepdim=True) + EPS).rsqrt()


torch.manual_seed(0)
TARGETS = torch.randint(5000, (6,)).to(DEVICE)
SAME = (torch.rand(2, 7) > 0.3).to(DEVICE)


def through_the_compiler() -> None:
    """The loss stays one operator in a compiled graph, forwards and backwards."""
    logits = (20 * torch.randn(6, 50)).to(DEVICE).requires_grad_()
    forms = gpu.softcapped_cross_entropy, softcapped_cross_entropy_plain
    compiled = torch.compile(forms[0], fullgraph=True, backend="aot_eager")
    for found, plain in zip(
        torch.autograd.grad(compiled(logits, TARGETS % 50, 30.0), logits),
        torch.autograd.grad(forms[1](logits, TARGETS % 50, 30.0), logits),
        strict=True,
    ):
        assert torch.allclose(found, plain, atol=1e-6)


def main() -> None:
    for vocab in (50, 5000):  # one block, and more than one with the last in part
        targets = TARGETS % vocab
        for cap in (None, 30.0):
            compare(
                f"cross entropy of {vocab}, cap {cap}",
                lambda x, t=targets, c=cap: gpu.softcapped_cross_entropy(x.flatten(0, 1), t, c),
                lambda x, t=targets, c=cap: softcapped_cross_entropy_plain(x.flatten(0, 1), t, c),
                20 * torch.randn(2, 3, vocab),
            )
    compare(
        "squared leaky ReLU",
        lambda x: gpu.LeakyReluSquared.apply(x, 0.5),
        lambda x: leaky_relu_squared_plain(x, 0.5),
        torch.randn(2, 3, 700),
    )
    x, other, mix = torch.randn(2, 37, 40), torch.randn(2, 37, 40), torch.randn(2, 40)
    compare("sum and norm", lambda x, y: gpu.MixNorm.apply(x, y, None, 0.5), mix_norm, x, other)
    compare("mixed norm", lambda x, y, m: gpu.MixNorm.apply(x, y, m, 0.5), mix_norm, x, other, mix)
    for kv_heads in (1, 2, 4):
        y, values = torch.randn(2, 5, 4, 24), torch.randn(2, 5, kv_heads, 24)
        compare("exclusive attention", gpu.ExcludeSelf.apply, exclude_self_plain, y, values)
    compare(
        "smear",
        lambda x, gate, strength: gpu.Smear.apply(x, gate, strength, SAME),
        lambda x, gate, strength: smear(x, gate, strength, SAME),
        torch.randn(2, 7, 40),
        torch.randn(12),
        torch.randn(1),
    )
    through_the_compiler()
    zero = gpu.ExcludeSelf.apply(torch.ones(1, 1, 2, 16), torch.zeros(1, 1, 1, 16))
    assert bool(F.relu(zero).eq(1).all()), "values of zero leave no trace"


if __name__ == "__main__":
    main()
