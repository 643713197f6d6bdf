"""Which tensor is rounded how: ordered rules, the first whose pattern matches wins.

What a scheme does is in `schemes.py` and `gptq.py`, the correction of what rounding lost in
`lowrank.py`; rounding during training, which reads the same rules, in `qat.py`.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from fairway.quant.gptq import Gptq
from fairway.quant.hessian import Hessian
from fairway.quant.lowrank import LowRankConfig, correct
from fairway.quant.quantized import QuantizedTensor
from fairway.quant.schemes import (
    KeepFloat,
    KeepHalf,
    PercentileRows,
    RoundRows,
    Scheme,
    SearchRows,
)

Rule = tuple[str, Gptq | RoundRows | SearchRows | PercentileRows | KeepHalf | KeepFloat | Scheme]


@dataclass(frozen=True, kw_only=True)
class QuantConfig:
    """How trained weights become integers."""

    rules: tuple[Rule, ...]  # (pattern of the tensor's name, what to do with it)
    min_elements: int = 65_537  # tensors of fewer entries, and all vectors, stay float16
    calibration_batches: int = 16  # number of training batches that Hessians are from
    # seconds of the training time kept for the Hessians; unused where no rule needs any
    reserve_seconds: float = 12.0
    low_rank: LowRankConfig | None = None

    def __post_init__(self) -> None:
        if not self.rules:
            raise ValueError("QuantConfig.rules is empty; the last is usually ('*', KeepHalf())")
        if self.calibration_batches < 1 and self.needs_hessians:
            raise ValueError(
                f"calibration_batches={self.calibration_batches}, but a rule needs Hessians, "
                f"so at least 1"
            )

    @property
    def needs_hessians(self) -> bool:
        whitened = self.low_rank is not None and self.low_rank.whiten
        return whitened or any(scheme.needs_hessian for _, scheme in self.rules)


def scheme_for(name: str, tensor: Tensor, config: QuantConfig) -> Scheme:
    """What happens to one tensor: its first matching rule, or float16 where it is too small."""
    for pattern, scheme in config.rules:
        if fnmatchcase(name, pattern):
            small = tensor.ndim < 2 or tensor.numel() < config.min_elements
            return KeepHalf() if small and not scheme.for_small else scheme
    raise ValueError(
        f"no rule matches {name!r}; end QuantConfig.rules with ('*', KeepHalf()) to keep the rest "
        f"in float16"
    )


@torch.no_grad()
def quantize(
    state_dict: Mapping[str, Tensor],
    hessians: Mapping[str, Hessian],
    config: QuantConfig,
    clip_factor: float = 1.0,
) -> dict[str, QuantizedTensor | Tensor]:
    """Every tensor as its rule wants it, in the order of `state_dict`.

    hessians     from `collect_hessians`, or already factored by `factor_hessians`
    clip_factor  multiplies every clip_sigmas, for landing under a cap (see artifact/budget.py)

    Raises ValueError naming the tensor when its scheme needs a Hessian and finds none.
    """
    done: dict[str, QuantizedTensor | Tensor] = {}
    alike: dict[tuple[torch.Size, torch.device, Scheme], list[str]] = defaultdict(list)
    for name, tensor in state_dict.items():
        scheme = scheme_for(name, tensor, config)
        if scheme.needs_hessian and name not in hessians:
            raise ValueError(
                f"no Hessian for {name!r}, which {scheme} needs; was its layer run on the "
                f"calibration batches? Otherwise give it RoundRows or KeepHalf in QuantConfig.rules"
            )
        alike[tensor.shape, tensor.device, scheme].append(name)
    for (shape, device, scheme), names in alike.items():
        at_once = max(1, scheme.sweep_elements // max(1, shape.numel()))
        for start in range(0, len(names), at_once):
            sweep = names[start : start + at_once]
            factors = [hessians[name].to(device) for name in sweep] if scheme.needs_hessian else []
            try:
                found = scheme.quantize([state_dict[name] for name in sweep], factors, clip_factor)
            except ValueError as error:
                raise ValueError(f"{', '.join(sweep)}: {error}") from error
            done.update(zip(sweep, found, strict=True))
    if config.low_rank is not None:
        rounded = {n: q for n, q in done.items() if isinstance(q, QuantizedTensor)}
        done |= correct(state_dict, rounded, config.low_rank, hessians)
    return {name: done[name] for name in state_dict}
