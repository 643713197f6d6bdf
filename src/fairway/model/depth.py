"""The order in which blocks run. Index arithmetic only."""

from dataclasses import dataclass

from fairway.runtime.limits import require_within

MOST_LAYERS = 512  # that run, each pass of a looped one counted


@dataclass(frozen=True, kw_only=True)
class Loop:
    """Layers first..last run `extra_passes` times more, with shared weights (#1204, #1394)."""

    first: int  # number of the first layer that repeats, counted from 0
    last: int  # number of the last one
    extra_passes: int = 2  # how often they run again

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.last or self.extra_passes < 1:
            raise ValueError(
                f"Loop({self.first}..{self.last}, {self.extra_passes} extra): needs "
                "0 <= first <= last and at least one extra pass; no loop at all is None"
            )
        require_within(self, last=(0, MOST_LAYERS), extra_passes=(1, MOST_LAYERS))


@dataclass(frozen=True)
class DepthPlan:
    """Which layer runs at each slot, and how the slots halve for U-Net skips."""

    layers: tuple[int, ...]

    @property
    def num_encoder(self) -> int:
        return len(self.layers) // 2

    @property
    def num_skips(self) -> int:
        return min(self.num_encoder, len(self.layers) - self.num_encoder)


def depth_plan(num_layers: int, loop: Loop | None) -> DepthPlan:
    """Looped layers share weights, so depth costs no bytes.

    >>> depth_plan(6, Loop(first=2, last=3, extra_passes=1)).layers
    (0, 1, 2, 3, 2, 3, 4, 5)
    """
    once = tuple(range(num_layers))
    if loop is None:
        return DepthPlan(once)
    looped = once[loop.first : loop.last + 1] * (1 + loop.extra_passes)
    return DepthPlan(once[: loop.first] + looped + once[loop.last + 1 :])
