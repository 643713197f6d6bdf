"""What enters the first block: token embeddings, hashed n-gram tables, smearing, value embeddings.

Everything here looks at most a few tokens back, never across the edge of what the caller shows.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairway.model.linear import Linear
from fairway.runtime.kernels import shift_right, smear
from fairway.runtime.limits import require_within

# Odd multipliers of the published bigram hash (#162); the third serves trigrams.
HASH_MULTIPLIERS = (36313, 27191, 48271)
MOST_TABLES = 16


@dataclass(frozen=True, kw_only=True)
class NgramTableConfig:
    """A learned table indexed by a hash of the last `order` tokens (#162, #180)."""

    order: int = 2  # number of tokens that are hashed together, 2 or 3
    buckets: int = 2048  # number of rows of the table
    dim: int = 128  # width of a row; it is projected up to the model's
    # which of the two begins at zero: the table, as published, or the projection
    starts_at_zero: Literal["table", "projection"] = "table"

    def __post_init__(self) -> None:
        if not 2 <= self.order <= len(HASH_MULTIPLIERS):
            raise ValueError(f"order={self.order}; n-gram tables exist for orders 2 and 3")
        if self.buckets < 2:
            raise ValueError(f"buckets={self.buckets}; a hash table needs at least 2")
        require_within(self, buckets=(2, 1 << 24), dim=(1, 1 << 16))


@dataclass(frozen=True, kw_only=True)
class ValueEmbeddingConfig:
    """A second token table, added to the values of some layers (#374, #414)."""

    dim: int = 128  # width of a row; it is projected to the values'
    layers: tuple[int, ...] = (9, 10)  # their numbers, counted from 0

    def __post_init__(self) -> None:
        require_within(self, dim=(1, 1 << 16))
        if len(set(self.layers)) < len(self.layers):
            raise ValueError(f"layers={self.layers!s:.80} names a layer twice")


@dataclass(frozen=True, kw_only=True)
class EmbeddingConfig:
    # width of a token's vector; None: the model's own, anything narrower is projected up
    dim: int | None = None
    # standard deviation of the initial embedding where it is the head as well; else that is 1
    init_std: float = 0.005
    ngrams: tuple[NgramTableConfig, ...] = ()
    # v1 mixes by a gate per channel after the first norm (#65), v2 by one gate driven by the
    # token, before it, and not across a BOS (#1667, #1797, mended in #1851).
    smear: Literal["v1", "v2"] | None = None
    smear_window: int = 12  # number of channels that the gate of v2 reads
    # v2 as it was before #1851: the last token of a document is smeared into the next one's BOS
    smear_across_documents: bool = False
    value: ValueEmbeddingConfig | None = None

    def __post_init__(self) -> None:
        require_within(self, dim=(1, 1 << 16), init_std=(0, 1e3), smear_window=(1, 1 << 16))
        if len(self.ngrams) > MOST_TABLES:
            raise ValueError(f"{len(self.ngrams):,} n-gram tables; at most {MOST_TABLES}")


def ngram_hash(tokens: Tensor, order: int, buckets: int) -> Tensor:
    """Bucket of the last `order` tokens at each position: (B, T) int64 -> (B, T) int64.

    The hash is the published one (#162): products modulo 2**32 (as signed numbers), combined by
    exclusive or. Positions with fewer tokens before them share the last bucket.
    """
    # Multiplying in int64 and wrapping keeps the published int32 arithmetic on every device.
    mixed = tokens * HASH_MULTIPLIERS[0]
    for back in range(1, order):
        shifted = F.pad(tokens, (back, 0))[:, : tokens.size(1)]
        mixed = mixed ^ (shifted * HASH_MULTIPLIERS[back])
    wrapped = (mixed + 2**31) % 2**32 - 2**31
    bucket = wrapped % (buckets - 1)
    few = torch.arange(tokens.size(1), device=tokens.device) < order - 1
    return bucket.masked_fill(few, buckets - 1)


class NgramTable(nn.Module):
    def __init__(self, config: NgramTableConfig, out_dim: int) -> None:
        super().__init__()
        self.order, self.buckets = config.order, config.buckets
        self.table = nn.Embedding(config.buckets, config.dim)
        nn.init.zeros_(self.table.weight)
        self.project = Linear(config.dim, out_dim) if config.dim != out_dim else None
        self.scale = nn.Parameter(torch.tensor(0.05))

    def forward(self, tokens: Tensor, new: int, dtype: torch.dtype) -> Tensor:
        """(B, T) ids -> (B, new, D) for the last `new` positions."""
        bucket = ngram_hash(tokens, self.order, self.buckets)[:, tokens.size(1) - new :]
        x = self.table(bucket).to(dtype)
        if self.project is not None:
            x = self.project(x)
        return x * self.scale.to(dtype)


class ValueEmbedding(nn.Module):
    def __init__(self, config: ValueEmbeddingConfig, vocab_size: int, kv_dim: int) -> None:
        super().__init__()
        self.layers = config.layers
        self.table = nn.Embedding(vocab_size, config.dim)
        nn.init.normal_(self.table.weight, std=0.01)
        self.project = Linear(config.dim, kv_dim) if config.dim != kv_dim else None
        self.scale = nn.Parameter(torch.tensor(0.1))
        self.layer_scales = nn.Parameter(torch.ones(len(config.layers)))

    def forward(self, tokens: Tensor, dtype: torch.dtype) -> dict[int, Tensor]:
        """(B, T) ids -> for each layer that has one, the (B, T, Hkv * K) addition to its values."""
        x = self.table(tokens).to(dtype)
        if self.project is not None:
            x = self.project(x)
        x = x * self.scale.to(dtype)
        scales = self.layer_scales.to(dtype)
        return {layer: x * scales[i] for i, layer in enumerate(self.layers)}


class SmearV1(nn.Module):
    def __init__(self, model_dim: int) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(model_dim))

    def forward(self, x: Tensor, before: Tensor | None) -> Tensor:
        return torch.lerp(x, shift_right(x, before), torch.sigmoid(self.gate.to(x.dtype)))


class SmearV2(nn.Module):
    def __init__(self, window: int) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(window))
        self.strength = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, before: Tensor | None, same_document: Tensor) -> Tensor:
        """`same_document` (B, T) is False at a BOS: what stands before it is another text, which
        a reader starting at this BOS has never seen."""
        return smear(x, self.gate, self.strength, same_document, before)
