"""Which tensor is rounded how: ordered rules, the first whose pattern matches wins.

The rounding itself is in `grid.py`, `gptq.py` and `lowrank.py`; rounding during training, which
reads the same rules, in `qat.py`.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from fairway.quant.gptq import HessianFactor, factor_hessian, gptq_many
from fairway.quant.grid import (
    QuantizedTensor,
    quantize_rows,
    quantize_rows_percentile,
    quantize_rows_searched,
    top_code,
)
from fairway.quant.lowrank import LowRankConfig, correct

SWEEP_ELEMENTS = 2**23  # matrices rounded in one sweep hold at most this many weights together


@dataclass(frozen=True)
class Gptq:
    """GPTQ on grids that end `clip_sigmas` deviations out (#1394). Needs a Hessian."""

    bits: int = 6
    clip_sigmas: float = 12.85

    def __post_init__(self) -> None:
        _check_grid(self.bits, self.clip_sigmas)


@dataclass(frozen=True)
class RoundRows:
    """Plain rounding on grids that end `clip_sigmas` deviations out."""

    bits: int = 6
    clip_sigmas: float = 12.85

    def __post_init__(self) -> None:
        _check_grid(self.bits, self.clip_sigmas)


@dataclass(frozen=True)
class SearchRows:
    """The best of five percentile grids per row (GPTQ-lite, #414)."""

    bits: int = 6
    min_scale: float = 0.0  # the published scripts use 1 / top_code(bits)

    def __post_init__(self) -> None:
        top_code(self.bits)


@dataclass(frozen=True)
class PercentileRows:
    """One fixed percentile, practically the largest entry (launch baseline)."""

    bits: int = 8
    min_scale: float = 0.0  # the published scripts use 1 / top_code(bits)

    def __post_init__(self) -> None:
        top_code(self.bits)


@dataclass(frozen=True)
class KeepHalf:
    """float16: for small control tensors, where rounding saves little and costs score."""


@dataclass(frozen=True)
class KeepFloat:
    """float32, exactly as trained."""


Scheme = Gptq | RoundRows | SearchRows | PercentileRows | KeepHalf | KeepFloat
Hessians = Mapping[str, Tensor | HessianFactor]


@dataclass(frozen=True, kw_only=True)
class QuantConfig:
    """How trained weights become integers."""

    rules: tuple[tuple[str, Scheme], ...]  # (pattern of the tensor's name, what to do with it)
    min_elements: int = 65_537  # smaller tensors and all vectors stay float16 under any rule
    calibration_batches: int = 16
    reserve_seconds: float = 12.0  # kept free of training, for the Hessians
    low_rank: LowRankConfig | None = None

    def __post_init__(self) -> None:
        if not self.rules:
            raise ValueError("QuantConfig.rules is empty; the last is usually ('*', KeepHalf())")
        if self.calibration_batches < 1 and self.needs_hessians:
            raise ValueError(
                f"calibration_batches={self.calibration_batches}, but a rule asks for GPTQ, which "
                f"needs at least 1"
            )

    @property
    def needs_hessians(self) -> bool:
        whitened = self.low_rank is not None and self.low_rank.whiten
        return whitened or any(isinstance(scheme, Gptq) for _, scheme in self.rules)


def scheme_for(name: str, tensor: Tensor, config: QuantConfig) -> Scheme:
    """What happens to one tensor: its first matching rule, or float16 where it is too small."""
    for pattern, scheme in config.rules:
        if fnmatchcase(name, pattern):
            small = tensor.ndim < 2 or tensor.numel() < config.min_elements
            return KeepHalf() if small and not isinstance(scheme, KeepFloat) else scheme
    raise ValueError(
        f"no rule matches {name!r}; end QuantConfig.rules with ('*', KeepHalf()) to keep the rest "
        f"in float16"
    )


@torch.no_grad()
def quantize(
    state_dict: Mapping[str, Tensor],
    hessians: Hessians,
    config: QuantConfig,
    clip_factor: float = 1.0,
) -> dict[str, QuantizedTensor | Tensor]:
    """Every tensor as its rule wants it, in the order of `state_dict`.

    hessians     from `collect_hessians`, or already factored by `factor_hessians`
    clip_factor  multiplies every clip_sigmas, for landing under a cap (see artifact/budget.py)

    Raises ValueError naming the tensor when a GPTQ rule finds no Hessian for it.
    """
    done: dict[str, QuantizedTensor | Tensor] = {}
    sweeps: dict[tuple, list[str]] = defaultdict(list)
    for name, tensor in state_dict.items():
        scheme = scheme_for(name, tensor, config)
        match scheme:
            case KeepHalf():
                done[name] = _half(name, tensor)
            case KeepFloat():
                done[name] = tensor.detach().float().clone()
            case Gptq():
                _require_hessian(name, tensor, hessians)
                sweeps[tensor.shape, tensor.device, scheme].append(name)
            case _:
                done[name] = _round_plainly(name, tensor, scheme, clip_factor)
    for (shape, _, scheme), names in sweeps.items():
        at_once = max(1, SWEEP_ELEMENTS // shape.numel())
        for start in range(0, len(names), at_once):
            group = names[start : start + at_once]
            rounded = gptq_many(
                [state_dict[name] for name in group],
                [_to(hessians[name], state_dict[name].device) for name in group],
                scheme.bits,
                scheme.clip_sigmas * clip_factor,
            )
            for name, (codes, scale) in zip(group, rounded, strict=True):
                done[name] = QuantizedTensor(
                    codes=codes, scale=scale, bits=scheme.bits, shape=tuple(shape)
                )
    if config.low_rank is not None:
        rounded = {n: q for n, q in done.items() if isinstance(q, QuantizedTensor)}
        done |= correct(state_dict, rounded, config.low_rank, hessians)
    return {name: done[name] for name in state_dict}


def dequantize(tensors: Mapping[str, QuantizedTensor | Tensor]) -> dict[str, Tensor]:
    """The weights that quantized tensors stand for, float32."""
    return {
        name: t.dequantize() if isinstance(t, QuantizedTensor) else t.float()
        for name, t in tensors.items()
    }


def factor_hessians(hessians: Mapping[str, Tensor]) -> dict[str, Tensor | HessianFactor]:
    """Hessians made ready for many calls of `quantize`, as when a size is searched for.

    Layers that read the same input have equal Hessians; each is factored once.
    """
    factors: dict[str, Tensor | HessianFactor] = {}
    for name, hessian in hessians.items():
        twin = next((n for n in factors if torch.equal(hessians[n], hessian)), None)
        factors[name] = factor_hessian(hessian) if twin is None else factors[twin]
    return factors


def _round_plainly(
    name: str, tensor: Tensor, scheme: Scheme, clip_factor: float
) -> QuantizedTensor:
    rows = tensor.detach().float().reshape(-1, tensor.size(-1))
    try:
        match scheme:
            case RoundRows(bits, clip_sigmas):
                codes, scale = quantize_rows(rows, bits, clip_sigmas * clip_factor)
            case SearchRows(bits, min_scale):
                codes, scale = quantize_rows_searched(rows, bits, min_scale)
            case PercentileRows(bits, min_scale):
                codes, scale = quantize_rows_percentile(rows, bits, min_scale=min_scale)
            case _:
                raise AssertionError(f"{scheme} does not round rows")
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    return QuantizedTensor(codes=codes, scale=scale, bits=bits, shape=tuple(tensor.shape))


def _half(name: str, tensor: Tensor) -> Tensor:
    half = tensor.detach().half()
    if not bool(torch.isfinite(half).all()):
        raise ValueError(
            f"{name}: a value of {tensor.abs().max().item():g} does not fit float16; give this "
            f"tensor the rule KeepFloat(), or find out why training let it grow"
        )
    return half


def _require_hessian(name: str, tensor: Tensor, hessians: Hessians) -> None:
    if name not in hessians:
        raise ValueError(
            f"no Hessian for {name!r}, which a Gptq rule wants to round; was its layer run on the "
            f"calibration batches? Otherwise give it RoundRows or KeepHalf in QuantConfig.rules"
        )
    if tensor.ndim != 2:
        raise ValueError(
            f"{name!r} has shape {tuple(tensor.shape)}; Gptq rounds matrices only, so split it or "
            f"give it RoundRows"
        )


def _to(hessian: Tensor | HessianFactor, device: torch.device) -> Tensor | HessianFactor:
    if isinstance(hessian, Tensor):
        return hessian.to(device)
    return HessianFactor(*(field.to(device) for field in hessian))


def _check_grid(bits: int, clip_sigmas: float) -> None:
    top_code(bits)
    if clip_sigmas <= 0:
        raise ValueError(f"clip_sigmas={clip_sigmas}; it must be above 0, 12.85 is usual at 6 bits")
