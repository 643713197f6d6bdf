"""What a decoder keeps of the past: keys and values of each block that ran, and the last token.

All rows advance together, so one integer says how much of the fixed-size buffers is filled.
"""

import torch
from torch import Tensor


class Cache:
    """Keys and values for up to `context` positions of B rows.

    num_slots  number of blocks that run, counting every pass of a looped block
    """

    def __init__(
        self,
        *,
        num_slots: int,
        rows: int,
        context: int,
        num_kv_heads: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = (num_slots, rows, num_kv_heads, context, head_dim)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.tokens = torch.zeros((rows, context), dtype=torch.long, device=device)
        self.embedding: Tensor | None = None  # (B, 1, D): the last position's, which smearing reads
        self.length = 0
        self.step: object | None = None  # what `decode_step.py` prepared for this window

    @property
    def context(self) -> int:
        return self.tokens.size(1)

    def clear(self) -> None:
        """Forget everything; the buffers stay."""
        self.length, self.embedding, self.step = 0, None, None

    def extend(self, slot: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add (B, H, t, K) keys and values at the end; returns all so far, (B, H, length + t, K).

        `length` itself advances once per forward pass, through `advance`.
        """
        end = self.length + keys.size(2)
        self.keys[slot, :, :, self.length : end] = keys
        self.values[slot, :, :, self.length : end] = values
        return self.keys[slot, :, :, :end], self.values[slot, :, :, :end]

    def remember(self, tokens: Tensor) -> Tensor:
        """Store (B, t) token ids; returns all so far, (B, length + t)."""
        self.require_room(tokens.size(1))
        end = self.length + tokens.size(1)
        self.tokens[:, self.length : end] = tokens
        return self.tokens[:, :end]

    def require_room(self, new: int) -> None:
        """ValueError unless so many more positions fit."""
        if self.length + new > self.context:
            raise ValueError(
                f"{self.length + new} positions do not fit a cache of {self.context}; "
                "start a new window or make the cache with a larger context"
            )

    def advance(self, num_tokens: int) -> None:
        self.length += num_tokens
