"""A low-rank correction of what rounding lost: W - Wq ~= A @ B, with A and B in a few bits (LQER).

Zhang et al. 2024 (arXiv 2402.02446) as used in #1797: rank 4 for the few tensors that lost most,
A in two bits, B in four with a scale per group. Two things differ from the published form: levels
are half-integers, with B fitted to A as it was rounded, and the error can be weighted by the
Hessian, so that the directions the layer's inputs really take are mended first (compare QERA, arXiv
2410.06040). The published form is there too, for runs that are to be as published.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from fairway.quant.hessian import Hessian, HessianFactor, factor_hessian
from fairway.quant.quantized import LowRank, QuantizedTensor

TINY = 1e-10  # smallest step of the published form

Form = Literal["fitted", "published"]


@dataclass(frozen=True, kw_only=True)
class LowRankConfig:
    """How many tensors are corrected, by how much, and how finely."""

    rank: int = 4  # rank of each correction
    num_tensors: int = 3  # number of tensors corrected, those that rounding hurt most
    a_bits: int = 2  # bits of an entry of A
    b_bits: int = 4  # bits of an entry of B
    group: int = 64  # entries of a row of B that share a scale
    whiten: bool = False  # weight the error by the layer's Hessian
    # fitted: half-integer levels, B fitted to the rounded A; published: as #1797 rounds them, with
    # one scale for all of A, and signs that depend on the machine's SVD
    form: Form = "fitted"

    def __post_init__(self) -> None:
        if min(self.rank, self.num_tensors, self.group) < 1:
            raise ValueError(
                f"LowRankConfig(rank={self.rank}, num_tensors={self.num_tensors}, group="
                f"{self.group}); all must be at least 1; use low_rank=None for no correction"
            )
        if not (1 <= self.a_bits <= 8 and 1 <= self.b_bits <= 8):
            raise ValueError(f"a_bits={self.a_bits}, b_bits={self.b_bits}; both must be 1 to 8")
        if self.form not in get_args(Form):
            raise ValueError(f"form={self.form!r}; choose one of {', '.join(get_args(Form))}")
        if self.form == "published" and (self.whiten or min(self.a_bits, self.b_bits) < 2):
            raise ValueError(
                f"form='published' with whiten={self.whiten}, a_bits={self.a_bits}, b_bits="
                f"{self.b_bits}: it weighs all errors alike, and its levels have a zero, so it "
                f"needs 2 bits; use form='fitted'"
            )


def fit_low_rank(error: Tensor, config: LowRankConfig, root: Tensor | None = None) -> LowRank:
    """The correction of `error` (R, C) = weight - rounded weight.

    root  (C, C), with root @ root.T the Hessian: minimise the error of the layer's outputs on its
          calibration inputs, ||(error - A B) root||, instead of that of its weights
    """
    error = error.float()
    if config.form == "published":
        return _published(error, config)
    seen = error if root is None else error @ root  # (R, C): the error as the outputs feel it
    # Left singular vectors by way of the small side: C is a few hundred, R may be a vocabulary.
    _, directions = torch.linalg.eigh(seen.T @ seen)  # ascending
    a = seen @ directions[:, -config.rank :].flip(1)  # (R, K), strongest component first
    a_codes, a_scale = _round_groups(a.T.contiguous(), config.a_bits, a.size(0))
    a = ((a_codes.float() + 0.5) * a_scale.float()).T  # (R, K), as it will be read back
    # The best B for any A, whatever the Hessian: the projection of the error on A's columns.
    b = torch.linalg.lstsq(a, error).solution  # (K, C)
    b_codes, b_scale = _round_groups(b, config.b_bits, config.group)
    return LowRank(
        a_codes=a_codes.T.contiguous(),
        a_scale=a_scale[:, 0].contiguous(),
        b_codes=b_codes,
        b_scale=b_scale,
        a_bits=config.a_bits,
        b_bits=config.b_bits,
        group=config.group,
    )


def _published(error: Tensor, config: LowRankConfig) -> LowRank:
    """As #1797 has it: A holds the singular values, and each factor is rounded by itself.

    A row of B whose length is no multiple of the group has a shorter group at its end.
    """
    left, values, right = torch.linalg.svd(error, full_matrices=False)
    a, b = left[:, : config.rank] * values[: config.rank], right[: config.rank].contiguous()
    a_half, b_half = 2 ** (config.a_bits - 1), 2 ** (config.b_bits - 1)
    a_scale = (a.abs().amax().clamp_min(TINY) / (a_half - 0.5)).half()
    a_codes = (a / a_scale.float().clamp_min(TINY)).round().clamp(-a_half, a_half - 1)
    rank, columns = b.shape
    groups = F.pad(b, (0, -columns % config.group)).reshape(rank, -1, config.group)
    b_scale = (groups.abs().amax(dim=2).clamp_min(TINY) / (b_half - 0.5)).half()  # (K, G)
    step = b_scale.float().clamp_min(TINY)[..., None]
    b_codes = (groups / step).round().clamp(-b_half, b_half - 1).reshape(rank, -1)[:, :columns]
    return LowRank(
        a_codes=a_codes.to(torch.int8),
        a_scale=a_scale.repeat(rank),
        b_codes=b_codes.to(torch.int8).contiguous(),
        b_scale=b_scale,
        a_bits=config.a_bits,
        b_bits=config.b_bits,
        group=config.group,
        zeros=True,
    )


def correct(
    weights: Mapping[str, Tensor],
    quantized: Mapping[str, QuantizedTensor],
    config: LowRankConfig,
    hessians: Mapping[str, Hessian] | None = None,
) -> dict[str, QuantizedTensor]:
    """`quantized`, with a correction added to the `num_tensors` with the largest residual (#1797).

    That is often the embedding, which profits most. Choosing by gain in output error per byte was
    tried and is worse: output errors of different layers do not compare.

    Raises ValueError when whitening is asked for and a chosen tensor has no Hessian.
    """
    errors = {
        name: weights[name].float().reshape(q.codes.shape).to(q.codes.device)
        - q.dequantize().reshape(q.codes.shape)
        for name, q in quantized.items()
    }
    norms = {name: error.norm().item() for name, error in errors.items()}
    corrected = dict(quantized)
    for name in sorted(norms, key=lambda name: (-norms[name], name))[: config.num_tensors]:
        root = None
        if config.whiten:
            if name not in (hessians or {}):
                raise ValueError(
                    f"no Hessian to whiten the error of {name!r} with; was its layer run on the "
                    f"calibration batches? Otherwise use LowRankConfig(whiten=False)"
                )
            root = hessian_root((hessians or {})[name]).to(errors[name].device)
        low_rank = fit_low_rank(errors[name], config, root)
        corrected[name] = replace(quantized[name], low_rank=low_rank)
    return corrected


def hessian_root(hessian: Hessian) -> Tensor:
    """A square root (C, C) of the damped Hessian: root @ root.T = H. Unused channels have none."""
    factor = hessian if isinstance(hessian, HessianFactor) else factor_hessian(hessian)
    # The factor is of the inverse, H^-1 = U^T U, so that H = U^-1 U^-T.
    identity = torch.eye(factor.upper.size(0), device=factor.upper.device)
    root = torch.linalg.solve_triangular(factor.upper, identity, upper=True)
    root = root * factor.alive[:, None]
    return root[factor.order.argsort()]


def _round_groups(values: Tensor, bits: int, group: int) -> tuple[Tensor, Tensor]:
    """Codes (K, C) int8 and scales (K, ceil(C / group)) float16; c stands for (c + 1/2) * scale.

    Half-integer levels, because few levels without a zero serve a bell curve better than one level
    fewer with it. The step is the best of a few fractions of the largest entry.
    """
    rank, columns = values.shape
    half = 2 ** (bits - 1)
    groups = F.pad(values, (0, -columns % group)).reshape(rank, -1, group)
    largest = groups.abs().amax(dim=2)
    fractions = torch.tensor([1.0, 0.9, 0.8, 0.7, 0.6, 0.5], device=values.device)
    scale = (fractions[:, None, None] * largest / (half - 0.5)).half()  # (F, K, G)
    step = torch.where(scale > 0, scale.float(), 1.0)[..., None]
    codes = (groups / step - 0.5).round().clamp(-half, half - 1)  # (F, K, G, group)
    error = ((codes + 0.5) * scale.float()[..., None] - groups).square().sum(dim=-1)
    best = error.argmin(dim=0, keepdim=True)
    codes = codes.take_along_dim(best[..., None], 0).reshape(rank, -1)[:, :columns]
    return codes.to(torch.int8).contiguous(), scale.take_along_dim(best, 0)[0]
