"""Which implementation of attention trains the model: chosen once, said aloud, never swapped.

A missing FlashAttention has cost runs of the field 12 to 30 per cent of their steps, because the
script went on without a word. So the choice is a value with a reason to print, a backend that was
asked for and is missing is an error, and while a backend is active PyTorch may use no other. What
is computed is the same for all; the model itself is in `model/`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import attention
from torch.nn.attention import SDPBackend, sdpa_kernel

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

HALVES = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class AttentionBackend:
    name: str
    reason: str  # why this one, to be printed

    @contextmanager
    def active(self) -> Iterator[None]:
        """Within, `scaled_dot_product_attention` uses this backend or raises.

        For training, where attention is causal and square. Flash kernels know no masks and no
        float32; scoring with either belongs outside.
        """
        kernel = _KERNELS.get(self.name)
        if kernel is None:  # plain leaves the choice to PyTorch; flex is not reached through it
            yield
            return
        if self.name == "flash3":
            attention.activate_flash_attention_impl("FA3")
        try:
            with sdpa_kernel(kernel):
                yield
        finally:
            if self.name == "flash3":
                attention.restore_flash_attention_impl()

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Causal attention by this backend: q (B, H, T, K), k and v (B, Hkv, T, K) -> as q."""
        grouped = q.size(1) != k.size(1)
        if self.name == "flex":
            mask = _causal_blocks(q.size(2), q.device)
            return _compiled_flex()(q, k, v, block_mask=mask, enable_gqa=grouped)
        with self.active():
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)


def choose_attention_backend(
    device: torch.device, dtype: torch.dtype, requested: str | None = None
) -> AttentionBackend:
    """The requested backend, or the first of `flash3`, `flash`, `cudnn` that can run, or `plain`.

    `flex` is taken only on request: without compilation of the whole model it is slower.
    """
    if requested is not None:
        if requested not in BACKENDS:
            raise ValueError(
                f"unknown attention backend {requested!r}; choose one of {', '.join(BACKENDS)}"
            )
        obstacle = BACKENDS[requested](device, dtype)
        if obstacle is not None:
            raise ValueError(
                f"attention backend {requested!r} cannot run: {obstacle}. Mend that, or ask for "
                f"another of {', '.join(BACKENDS)} (none asked for: the fastest that can run)"
            )
        return AttentionBackend(requested, "requested")
    passed_over = []
    for name in ("flash3", "flash", "cudnn"):
        obstacle = BACKENDS[name](device, dtype)
        if obstacle is None:
            return AttentionBackend(name, "; ".join(passed_over) or "the fastest there is")
        passed_over.append(f"no {name}: {obstacle}")
    if device.type != "cuda":
        return AttentionBackend("plain", f"the device is {device.type}")
    return AttentionBackend("plain", "; ".join(passed_over))


def _obstacle_plain(device: torch.device, dtype: torch.dtype) -> str | None:
    return None


def _obstacle_flash(device: torch.device, dtype: torch.dtype) -> str | None:
    if device.type != "cuda":
        return f"it needs a GPU and the device is {device.type}"
    if dtype not in HALVES:
        return f"it needs bfloat16 and the computation is in {dtype}"
    major, minor = torch.cuda.get_device_capability(device)
    if major < 8:
        return f"it needs compute capability 8.0 and the GPU has {major}.{minor}"
    if not torch.backends.cuda.is_flash_attention_available():
        return "this PyTorch was built without it"
    return None


def _obstacle_flash3(device: torch.device, dtype: torch.dtype) -> str | None:
    if device.type != "cuda":
        return f"it needs a GPU and the device is {device.type}"
    if dtype not in HALVES:
        return f"it needs bfloat16 and the computation is in {dtype}"
    major, minor = torch.cuda.get_device_capability(device)
    if major != 9:
        return f"it needs a Hopper GPU (capability 9.0) and this one has {major}.{minor}"
    listing = getattr(attention, "list_flash_attention_impls", list)
    if "FA3" not in listing():
        return f"PyTorch {torch.__version__} cannot take it in; a later one can"
    if find_spec("flash_attn_interface") is None:
        return "the package flash_attn_interface is not installed"
    return None


def _obstacle_cudnn(device: torch.device, dtype: torch.dtype) -> str | None:
    if device.type != "cuda":
        return f"it needs a GPU and the device is {device.type}"
    if dtype not in HALVES:
        return f"it needs bfloat16 and the computation is in {dtype}"
    if not torch.backends.cudnn.is_available():
        return "this PyTorch was built without cuDNN"
    return None


def _obstacle_flex(device: torch.device, dtype: torch.dtype) -> str | None:
    if device.type != "cuda":
        return f"it needs a GPU and the device is {device.type}"
    if find_spec("triton") is None:
        return "the package triton is not installed"
    return None


# What stands in the way of each backend on a device; None is nothing.
BACKENDS: dict[str, Callable[[torch.device, torch.dtype], str | None]] = {
    "flash3": _obstacle_flash3,
    "flash": _obstacle_flash,
    "cudnn": _obstacle_cudnn,
    "flex": _obstacle_flex,
    "plain": _obstacle_plain,
}

# FlashAttention 3 takes the place of the built-in flash kernel while it is activated.
_KERNELS = {
    "flash3": SDPBackend.FLASH_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}


@lru_cache(maxsize=8)
def _causal_blocks(length: int, device: torch.device) -> "BlockMask":
    from torch.nn.attention.flex_attention import create_block_mask

    return create_block_mask(
        lambda b, h, query, key: query >= key, None, None, length, length, device=device
    )


@lru_cache(maxsize=1)
def _compiled_flex() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)
