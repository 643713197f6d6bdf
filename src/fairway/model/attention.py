"""Causal self-attention with every refinement of the lineage, each one optional.

Grouped queries, normalized queries and keys with a learned gain, partial rotary positions,
exclusive self-attention, head gates, value embeddings, attention within documents, cached keys.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairway.model.adapters import Adapters, add_delta
from fairway.model.cache import Cache
from fairway.model.depth import MOST_LAYERS
from fairway.model.linear import Linear
from fairway.model.segments import attend_to_neighbours
from fairway.runtime.device import send
from fairway.runtime.kernels import (
    attend,
    exclude_self,
    linear_together,
    one_product_pays,
    rotary_heads,
)
from fairway.runtime.limits import require_within


@dataclass(frozen=True, kw_only=True)
class GateConfig:
    """A sigmoid gate per head, driven by the first `window` channels (#1787)."""

    window: int = 12  # number of channels that the gate reads
    scale: float = 1.0  # multiplies what enters the sigmoid

    def __post_init__(self) -> None:
        require_within(self, window=(1, 1 << 16), scale=(-1e3, 1e3))


@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """Shape of one causal self-attention layer."""

    num_heads: int  # number of query heads; must divide model_dim
    num_kv_heads: int  # number of key and value heads; fewer is grouped-query attention
    # number of channels of each head with rotary positions, the first ones (#315); None: all
    rope_dims: int | None = None
    rope_base: float = 10_000.0  # base of the rotary frequencies; larger means longer waves
    # whether angles of inputs longer than the training context are stretched; #1855 does not
    rope_stretch: bool = True
    qk_gain: float = 1.5  # initial multiplier of each head's queries
    exclusive_layers: int = 0  # so many last layers drop each output's part along its own value
    gate: GateConfig | None = None
    # attention does not reach back across a document's BOS
    within_documents: bool = False

    def __post_init__(self) -> None:
        require_within(
            self,
            num_heads=(1, 1 << 10),
            num_kv_heads=(1, 1 << 10),
            rope_dims=(2, 1 << 16),
            rope_base=(1.0, 1e12),
            qk_gain=(-1e3, 1e3),
            exclusive_layers=(0, MOST_LAYERS),
        )
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads={self.num_heads} is not a multiple of num_kv_heads="
                f"{self.num_kv_heads}; every KV head must serve the same number of query heads"
            )
        if self.rope_dims is not None and self.rope_dims % 2:
            raise ValueError(f"rope_dims={self.rope_dims} is odd; channels rotate in pairs")


def rope_table(
    num_positions: int, dims: int, base: float, train_context: int | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """cos and sin, each (num_positions, dims / 2), for rotary positions (arXiv:2104.09864).

    train_context  None: angles are never stretched

    Past the training length the base grows (NTK scaling), so that the slowest channels turn no
    further than they did in training. The angles depend on num_positions then: encoder and decoder
    must ask for the same number.
    """
    if train_context is not None and num_positions > train_context and dims > 2:
        base = base * (num_positions / train_context) ** (dims / (dims - 2))
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    frequency = base ** -(torch.arange(0, dims, 2, dtype=wide) / dims)
    angle = torch.outer(torch.arange(num_positions, dtype=wide), frequency)
    return angle.cos().to(dtype), angle.sin().to(dtype)


class RopeTables:
    """`rope_table` for one model, each made once: (num_positions, x) -> cos and sin.

    x  tells the type and the device of the activations
    """

    def __init__(self, config: AttentionConfig, head_dim: int, train_context: int) -> None:
        self.dims, self.base = config.rope_dims or head_dim, config.rope_base
        self.train_context = train_context if config.rope_stretch else None
        self._made: dict[tuple[int, torch.dtype, torch.device], tuple[Tensor, Tensor]] = {}

    def __call__(self, num_positions: int, x: Tensor) -> tuple[Tensor, Tensor]:
        key = (num_positions, x.dtype, x.device)
        if key not in self._made:
            with torch.inference_mode(False):  # a table made while scoring must serve learning too
                cos, sin = rope_table(
                    num_positions, self.dims, self.base, self.train_context, x.dtype
                )
                self._made[key] = (send(cos, x.device), send(sin, x.device))
        return self._made[key]


def document_mask(starts: Tensor, new: int) -> Tensor:
    """(B, new, S) True where the last `new` positions may look: back to their document's start.

    starts  (B, S) True at the first token of each document
    """
    document = starts.cumsum(1)
    late = document[:, starts.size(1) - new :]
    same = late[:, :, None] == document[:, None, :]
    return same & torch.ones_like(same).tril(starts.size(1) - new)


class CausalSelfAttention(nn.Module):
    def __init__(self, model_dim: int, config: AttentionConfig, *, exclusive: bool) -> None:
        super().__init__()
        if model_dim % config.num_heads:
            raise ValueError(
                f"model_dim={model_dim} is not a multiple of num_heads={config.num_heads}"
            )
        self.num_heads, self.num_kv_heads = config.num_heads, config.num_kv_heads
        self.head_dim = model_dim // config.num_heads
        self.exclusive = exclusive
        kv_dim = self.num_kv_heads * self.head_dim
        self.query = Linear(model_dim, model_dim)
        self.key = Linear(model_dim, kv_dim)
        self.value = Linear(model_dim, kv_dim)
        self.output = Linear(model_dim, model_dim)
        self.gain = nn.Parameter(torch.full((self.num_heads,), config.qk_gain))
        self.gate = None
        if config.gate is not None:
            if config.gate.window > model_dim:
                raise ValueError(f"gate.window={config.gate.window} exceeds {model_dim=}")
            self.gate = nn.Parameter(torch.zeros(self.num_heads, config.gate.window))
            self.gate_scale = config.gate.scale

    def forward(
        self,
        x: Tensor,
        rope: tuple[Tensor, Tensor],
        *,
        start: int = 0,
        mask: Tensor | None = None,
        value_embedding: Tensor | None = None,
        output_scale: Tensor | None = None,
        cache: Cache | None = None,
        slot: int = 0,
        adapters: Adapters | None = None,
    ) -> Tensor:
        """Attention output (B, T - start, D) of the positions from `start` on, for x (B, T, D).

        rope             tables of at least (positions so far + T) rows
        mask             (B, T, S) True where a query may look, or None: all of its past; of one
                         row in blocks as `neighbour_mask` makes it
        value_embedding  (B, T, Hkv * K) added to the values
        output_scale     (D,) factor on each channel of the output, the adapter's addition included
        """
        past = 0 if cache is None else cache.length
        cos, sin = (table[past : past + x.size(1)] for table in rope)
        late = x[:, start:]

        if start == 0 and one_product_pays(x):
            q, k, v = linear_together(x, self.query.weight, self.key.weight, self.value.weight)
        else:
            q, k, v = self.query(late), self.key(x), self.value(x)
        q = add_delta(q, adapters, "query", slot, late)
        k = add_delta(k, adapters, "key", slot, x)
        v = add_delta(v, adapters, "value", slot, x)
        if value_embedding is not None:
            v = v + value_embedding
        q = q.unflatten(-1, (self.num_heads, -1))  # (B, T - start, H, K)
        k = k.unflatten(-1, (self.num_kv_heads, -1))  # (B, T, Hkv, K)
        v = v.unflatten(-1, (self.num_kv_heads, -1))
        q = rotary_heads(q, cos[start:], sin[start:], self.gain)
        k = rotary_heads(k, cos, sin)

        keys, values = k.transpose(1, 2), v.transpose(1, 2)  # (B, Hkv, T, K)
        if cache is not None:
            keys, values = cache.extend(slot, keys, values)
        # A mask with more rows than the input is one of blocks of its only row.
        if mask is not None and mask.size(0) > x.size(0):
            y = attend_to_neighbours(q.transpose(1, 2), keys, values, mask)
        else:
            y = attend(q.transpose(1, 2), keys, values, mask)
        y = y.transpose(1, 2)  # (B, T - start, H, K)
        if self.exclusive:
            y = exclude_self(y, v[:, start:])
        if self.gate is not None:
            gate_HW = self.gate.to(x.dtype)
            gate_BTH = F.linear(late[..., : gate_HW.size(1)], gate_HW)
            y = y * torch.sigmoid(self.gate_scale * gate_BTH)[..., None]
        y = self.output(y.flatten(2), output_scale)
        # "output" adapters bypass attention: they read the block's input (#1530).
        return add_delta(y, adapters, "output", slot, late, output_scale)
