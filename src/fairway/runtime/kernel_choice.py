"""Which kernels of ours train on a device: chosen once, compared with their twins, said aloud."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec

import torch
from torch import Tensor

from fairway.runtime import kernels, kernels_cpu, kernels_gpu
from fairway.runtime.native import explain, library

Switch = Callable[[], AbstractContextManager[None]]


def choose_kernels(device: torch.device) -> tuple[Switch, str]:
    """What switches the kernels on, and in words what they are; nothing, where they cannot be had.

    On a GPU they are compared with their twins first: one that a new Triton or a new GPU gets wrong
    is not used.
    """
    if device.type == "cpu":
        found = library(kernels_cpu.NAME, tuned=True) is not None
        return kernels_cpu.in_use if found else nullcontext, explain(kernels_cpu.NAME, tuned=True)
    if device.type != "cuda" or find_spec("triton") is None:
        return nullcontext, "PyTorch's own (there is no Triton)"
    try:
        with kernels_gpu.in_use():
            wrong = differing(device)
    except Exception as error:  # whatever Triton and its compilers raise
        wrong = f"Triton fails: {type(error).__name__}: {str(error).splitlines()[:1]}"
    if wrong:
        return nullcontext, f"PyTorch's own ({wrong})"
    return kernels_gpu.in_use, "Triton's, equal to their plain forms here"


def differing(device: torch.device) -> str:
    """The first kernel whose value or derivative is not its twin's on this device; "" for none."""
    source = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=source).to(device).requires_grad_()

    x, other, values = random(2, 33, 4, 64), random(2, 33, 4, 64), random(2, 33, 2, 64)
    wide, mix, gate, strength = random(2, 33, 256), random(2, 256), random(12), random(1)
    targets = torch.randint(300, (66,), generator=source).to(device)
    same = torch.rand(2, 33, generator=source).to(device) > 0.2
    logits = random(66, 300)

    def mixed_norm(a: Tensor, b: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
        both = m[0] * a + m[1] * b
        return both, 0.5 * kernels.rms_norm_plain(both)

    def smear(a: Tensor, g: Tensor, s: Tensor) -> Tensor:
        opened = torch.sigmoid(a[..., :12] @ g)
        return a + (s * opened * same).unsqueeze(-1) * kernels.shift_right(a, None)

    cases: dict[str, tuple[Callable, Callable, tuple[Tensor, ...]]] = {
        "the loss": (
            lambda z: kernels.softcapped_cross_entropy(10 * z, targets, 30.0),
            lambda z: kernels.softcapped_cross_entropy_plain(10 * z, targets, 30.0),
            (logits,),
        ),
        "the squared leaky ReLU": (
            lambda a: kernels.leaky_relu_squared(a, 0.5),
            lambda a: kernels.leaky_relu_squared_plain(a, 0.5),
            (x,),
        ),
        "the mixed norm": (
            lambda a, b, m: kernels.mix_norm(a, b, m, 0.5),
            mixed_norm,
            (wide, random(2, 33, 256), mix),
        ),
        "exclusive attention": (
            kernels.exclude_self,
            kernels.exclude_self_plain,
            (other, values),
        ),
        "the smear": (
            lambda a, g, s: kernels.smear(a, g, s, same),
            smear,
            (wide, gate, strength),
        ),
    }
    for name, (fast, plain, leaves) in cases.items():
        if not _alike(fast(*leaves), plain(*leaves), leaves):
            return f"{name} is not what it should be"
    return ""


def _alike(
    fast: Tensor | tuple[Tensor, ...],
    plain: Tensor | tuple[Tensor, ...],
    leaves: tuple[Tensor, ...],
) -> bool:
    found = []
    for form in (fast, plain):
        outputs = (form,) if isinstance(form, Tensor) else form
        grads = [
            torch.cos(torch.arange(y.numel(), device=y.device, dtype=y.dtype)).view_as(y)
            for y in outputs
        ]
        found.append([*outputs, *torch.autograd.grad(outputs, leaves, grads)])
    return all(
        bool((mine - exact).abs().max() <= 1e-3 * exact.abs().max())
        for mine, exact in zip(*found, strict=True)
    )
