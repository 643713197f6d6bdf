"""AWQ-lite: the columns that matter most, rounded more finely than the rest (#1908).

A column matters as much as its input is large and its weights are: the root mean square of what the
layer reads there times the mean magnitude of the column (compare AWQ, arXiv 2306.00978). Scores of
all tensors are compared as they are, so tensors with large weights win: in every published run the
one group chosen was of the embedding. Rounding itself is in `gptq.py`.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from fairway.quant.gptq import FineGroups


@dataclass(frozen=True, kw_only=True)
class AwqLiteConfig:
    """How many columns are rounded how finely. Only tensors that GPTQ rounds have any."""

    bits: int = 8  # bits of a code of such a column
    group: int = 64  # number of neighbouring columns that are chosen together
    num_groups: int = 1  # number of groups, over all tensors

    def __post_init__(self) -> None:
        if not 3 <= self.bits <= 8 or min(self.group, self.num_groups) < 1:
            raise ValueError(
                f"{self}: bits must be 3 to 8, the others at least 1; for no such columns, set "
                f"quant.awq=None"
            )

    def extra_bytes(self, rows: int, bits: int) -> int:
        """Bytes that all groups cost in a tensor of so many rows and bits: finer codes, scales."""
        finer = self.num_groups * self.group * (self.bits - bits)
        return -(-rows * (finer + 12) // 8)


class GroupScore(NamedTuple):
    """Columns [start, stop) of a tensor, and how much they matter."""

    score: float
    name: str
    start: int
    stop: int


def group_scores(
    weights: Mapping[str, Tensor], input_rms: Mapping[str, Tensor], group: int
) -> list[GroupScore]:
    """All whole groups of `group` neighbouring columns, the one that matters most first.

    weights    (R, C) by name
    input_rms  (C,) by name: root mean square of each input of the layer
    """
    found = []
    for name, weight in weights.items():
        rms = input_rms[name]
        salience = rms * weight.float().abs().mean(dim=0).to(rms.device)  # (C,)
        for start in range(0, weight.size(1) - group + 1, group):
            score = salience[start : start + group].sum().item()
            found.append(GroupScore(score, name, start, start + group))
    return sorted(found, key=lambda found: -found.score)


def choose_groups(
    weights: Mapping[str, Tensor], input_rms: Mapping[str, Tensor], config: AwqLiteConfig
) -> dict[str, FineGroups]:
    """The columns that are rounded more finely, by tensor; those that have none are left out.

    weights  of the tensors that may have some; errors name the one whose inputs are not known
    """
    if missing := sorted(weights.keys() - input_rms.keys()):
        raise ValueError(
            f"what the layer of {missing[0]!r} reads is not known, so its columns cannot be "
            f"compared; was it run on the calibration batches? Otherwise set quant.awq=None"
        )
    starts: dict[str, list[int]] = defaultdict(list)
    for chosen in group_scores(weights, input_rms, config.group)[: config.num_groups]:
        starts[chosen.name].append(chosen.start)
    return {
        name: FineGroups(tuple(sorted(own)), config.group, config.bits)
        for name, own in starts.items()
    }
