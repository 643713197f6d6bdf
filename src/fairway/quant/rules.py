"""Which tensor is rounded how: ordered rules, the first whose pattern matches wins.

What a scheme does is in `schemes.py` and `gptq.py`, the correction of what rounding lost in
`lowrank.py`; rounding during training, which reads the same rules, in `qat.py`.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Literal, TypeGuard, get_args

import torch
from torch import Tensor
from typing_extensions import Doc

from fairway.quant.awq import AwqLiteConfig, choose_groups
from fairway.quant.gptq import Gptq
from fairway.quant.hessian import Hessian
from fairway.quant.lowrank import LowRankConfig, correct
from fairway.quant.quantized import QuantizedTensor
from fairway.quant.schemes import (
    KeepFloat,
    KeepHalf,
    LargestRows,
    PercentileRows,
    RoundRows,
    Scheme,
    SearchRows,
)

Rule = tuple[
    Annotated[str, Doc("pattern of the names of tensors; the first rule that matches counts")],
    Gptq | RoundRows | SearchRows | PercentileRows | LargestRows | KeepHalf | KeepFloat | Scheme,
]
Clip = Literal["fitted", "exact"]


@dataclass(frozen=True, kw_only=True)
class QuantConfig:
    """How trained weights become integers."""

    rules: tuple[Rule, ...]  # (pattern of the tensor's name, what to do with it)
    min_elements: int = 65_537  # tensors of fewer entries, and all vectors, stay float16
    calibration_batches: int = 16  # number of training batches that Hessians are from
    # seconds of the training time kept for the Hessians; unused where no rule needs any
    reserve_seconds: float = 12.0
    low_rank: LowRankConfig | None = None
    awq: AwqLiteConfig | None = None  # columns that are rounded more finely; None: none are
    # fitted: every clip_sigmas is scaled by one factor until the file lands under its cap; exact:
    # as the rules say, and a file that is too large is an error
    clip: Clip = "fitted"

    def __post_init__(self) -> None:
        if not self.rules:
            raise ValueError("QuantConfig.rules is empty; the last is usually ('*', KeepHalf())")
        if self.clip not in get_args(Clip):
            raise ValueError(f"clip={self.clip!r}; choose one of {', '.join(get_args(Clip))}")
        if self.calibration_batches < 1 and self.needs_hessians:
            raise ValueError(
                f"calibration_batches={self.calibration_batches}, but a rule needs Hessians, "
                f"so at least 1"
            )

        if self.awq is not None and not any(has_groups(s, self.awq) for _, s in self.rules):
            raise ValueError(
                f"awq.bits={self.awq.bits}, but no rule is Gptq with fewer bits, so no column can "
                f"be rounded more finely; set quant.awq=None"
            )

    @property
    def needs_hessians(self) -> bool:
        whitened = self.low_rank is not None and self.low_rank.whiten
        return whitened or any(scheme.needs_hessian for _, scheme in self.rules)


def has_groups(scheme: object, config: AwqLiteConfig) -> TypeGuard[Gptq]:
    """Whether columns of a tensor of this scheme may be rounded more finely."""
    return isinstance(scheme, Gptq) and scheme.bits < config.bits


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
    input_rms: Mapping[str, Tensor] | None = None,
) -> dict[str, QuantizedTensor | Tensor]:
    """Every tensor as its rule wants it, in the order of `state_dict`.

    hessians     from `collect_calibration`, or already factored by `factor_hessians`
    input_rms    from `collect_calibration`; read where `config.awq` is set
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
    done |= _with_groups(state_dict, alike, hessians, config, clip_factor, input_rms or {})
    for (shape, device, scheme), names in alike.items():
        names = [name for name in names if name not in done]
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


def _with_groups(
    state_dict: Mapping[str, Tensor],
    alike: Mapping[tuple[torch.Size, torch.device, Scheme], Sequence[str]],
    hessians: Mapping[str, Hessian],
    config: QuantConfig,
    clip_factor: float,
    input_rms: Mapping[str, Tensor],
) -> dict[str, QuantizedTensor]:
    """The tensors of which some columns are rounded more finely; none without `config.awq`."""
    if config.awq is None:
        return {}
    schemes = {
        name: scheme
        for (_, _, scheme), names in alike.items()
        if has_groups(scheme, config.awq)
        for name in names
    }
    weights = {name: state_dict[name] for name in state_dict if name in schemes}
    return {
        name: schemes[name].quantize_with_groups(
            weights[name], hessians[name].to(weights[name].device), groups, clip_factor
        )
        for name, groups in choose_groups(weights, input_rms, config.awq).items()
    }
