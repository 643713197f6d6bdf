"""Low-rank additions to the model's projections, one set per row of the batch.

They enter through the one forward pass: each projection asks for its addition by name, so nothing
a block does can be forgotten in a second copy of it. How they learn is `evaluate`'s business.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from fairway.runtime.limits import require_within

Target = Literal["query", "key", "value", "output", "mlp", "head"]
TARGETS: tuple[Target, ...] = get_args(Target)


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """LoRA (arXiv:2106.09685) as test-time training uses it (#77, #1530)."""

    rank: int = 8  # rank of each addition to a matrix
    alpha: float = 8.0  # the addition is scaled by alpha / rank
    targets: tuple[Target, ...] = ("query", "value", "head")  # what has one

    def __post_init__(self) -> None:
        unknown = sorted(set(self.targets) - set(TARGETS))
        if unknown:
            raise ValueError(
                f"no adapter can sit on {', '.join(unknown)}; targets are {', '.join(TARGETS)}"
            )
        if self.rank < 1:
            raise ValueError(f"rank={self.rank}: an adapter needs a rank of at least 1")
        require_within(self, rank=(1, 1 << 12), alpha=(-1e4, 1e4))
        if len(set(self.targets)) < len(self.targets):
            raise ValueError(f"targets {', '.join(self.targets)} name one twice")
        if not self.targets:
            raise ValueError(f"no targets: name at least one of {', '.join(TARGETS)}")


class Adapters(nn.Module):
    """delta(x) = (alpha / rank) * B A x for every (target, slot), with own A and B for each row.

    dims   input and output width of each target, as `GPT.adapter_dims` gives them
    slots  number of blocks that run (every pass of a looped block has its own adapters)
    """

    def __init__(
        self, config: AdapterConfig, dims: dict[Target, tuple[int, int]], slots: int, rows: int
    ) -> None:
        super().__init__()
        self.scale = config.alpha / config.rank
        self.down, self.up = nn.ParameterDict(), nn.ParameterDict()
        for target in config.targets:
            width_in, width_out = dims[target]
            for slot in range(1 if target == "head" else slots):
                key = f"{target}_{slot}"
                self.down[key] = nn.Parameter(torch.empty(rows, config.rank, width_in))
                self.up[key] = nn.Parameter(torch.zeros(rows, width_out, config.rank))
        self.reset(warm=False)

    @torch.no_grad()
    def reset(self, *, warm: bool, generator: torch.Generator | None = None) -> None:
        """Make every addition zero again; `warm` keeps A, as learned so far (#1530)."""
        for up in self.up.values():
            up.zero_()
        if not warm:
            for down in self.down.values():
                bound = 1 / math.sqrt(down.size(-1))
                down.uniform_(-bound, bound, generator=generator)

    def delta(
        self, target: Target, slot: int, x: Tensor, scale: Tensor | None = None
    ) -> Tensor | None:
        """(B, T, in) -> (B, T, out) addition, or None where this target has no adapter.

        scale  (out,) factor on each channel of the addition
        """
        key = f"{target}_{slot}"
        if key not in self.down:
            return None
        low = torch.bmm(x, self.down[key].to(x.dtype).transpose(1, 2))
        up = self.up[key].to(x.dtype).transpose(1, 2) * self.scale  # (B, rank, out)
        return torch.bmm(low, up if scale is None else up * scale.to(x.dtype))


def add_delta(
    y: Tensor,
    adapters: Adapters | None,
    target: Target,
    slot: int,
    x: Tensor,
    scale: Tensor | None = None,
) -> Tensor:
    """y plus what the adapter of (target, slot) makes of x; y itself when there is none.

    scale  (out,): what the projection's channels are multiplied by, and the addition with them
    """
    delta = None if adapters is None else adapters.delta(target, slot, x, scale)
    return y if delta is None else y + delta
