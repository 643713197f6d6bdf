"""Landing under a byte cap: what is spare, what a plan will cost, and the clip that fits.

Caps are decimal: 16 megabytes are 16,000,000 bytes. Sizes are predicted from the weights alone, by
the entropy of Gaussian codes, which is about bits - log2(clip_sigmas) + 1.05 per weight (#1394).
How the bytes come about is in `container.py`.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from fairway.quant.grid import (
    quantize_rows_percentile,
    quantize_rows_searched,
    sigma_scale,
    top_code,
    usable_step,
)
from fairway.quant.rules import (
    Gptq,
    KeepFloat,
    KeepHalf,
    PercentileRows,
    QuantConfig,
    RoundRows,
    SearchRows,
    scheme_for,
)

CAP_BYTES = 16_000_000  # of the challenge; decimal megabytes, code included


class OverBudget(ValueError):
    """The artifact does not fit."""


def spare_bytes(code_bytes: int, groups: Mapping[str, int], cap_bytes: int = CAP_BYTES) -> int:
    """Bytes left under the cap; raises `OverBudget` with the cheapest mend when none are.

    code_bytes  of the shipped program
    groups      bytes of each part of the artifact, which together are the file
    """
    total = code_bytes + sum(groups.values())
    if total <= cap_bytes:
        return cap_bytes - total
    name, size = max({"code": code_bytes, **groups}.items(), key=lambda item: item[1])
    raise OverBudget(
        f"artifact and code are {total:,} bytes, {total - cap_bytes:,} over the cap of "
        f"{cap_bytes:,}. The largest group is {name!r} with {size:,} bytes: lower its bits or "
        f"raise its clip_sigmas in the recipe's quant rules, then run `fairway pack` again."
    )


def predict_tensor_bytes(
    state_dict: Mapping[str, Tensor], config: QuantConfig, clip_factor: float = 1.0
) -> dict[str, int]:
    """Bytes that each tensor will take in the artifact, without rounding or coding any.

    Codes are priced as Gaussian, with the width that each column will have. Embeddings whose rows
    repeat each other come out smaller than this.
    """
    sizes = {}
    for name, tensor in state_dict.items():
        scheme = scheme_for(name, tensor, config)
        match scheme:
            case KeepHalf():
                sizes[name] = 2 * tensor.numel()
                continue
            case KeepFloat():
                sizes[name] = 4 * tensor.numel()
                continue
        rows = tensor.detach().float().reshape(-1, tensor.size(-1))
        match scheme:
            case Gptq(bits, clip_sigmas) | RoundRows(bits, clip_sigmas):
                scale = sigma_scale(rows, bits, clip_sigmas * clip_factor)
            case SearchRows(bits, min_scale):
                scale = quantize_rows_searched(rows, bits, min_scale)[1]
            case PercentileRows(bits, min_scale):
                scale = quantize_rows_percentile(rows, bits, min_scale=min_scale)[1]
        width = (rows / usable_step(scale)[:, None]).square().mean(dim=0).sqrt()  # (C,)
        num_rows, num_columns = rows.shape
        code_bits = num_rows * gaussian_bits(width, bits).sum().item()
        learning_bits = num_columns * (1 + 0.5 * math.log2(num_rows))  # of each column's width
        scale_bits = 12 * num_rows  # sign and exponent of a float16 hardly vary
        sizes[name] = math.ceil((code_bits + learning_bits + scale_bits) / 8)
    return sizes


def predict_bytes(
    state_dict: Mapping[str, Tensor], config: QuantConfig, clip_factor: float = 1.0
) -> int:
    """Bytes of all tensors in the artifact; tokenizer, config and extras come on top."""
    return sum(predict_tensor_bytes(state_dict, config, clip_factor).values())


def gaussian_bits(width: Tensor, bits: int) -> Tensor:
    """Entropy in bits (n,) of Gaussian codes of the given standard deviations (n,), in steps."""
    edges = torch.arange(-top_code(bits), top_code(bits) + 2, device=width.device) - 0.5
    edges = edges.double()
    edges[0], edges[-1] = -torch.inf, torch.inf  # clipped codes fall on the outermost
    mass = torch.special.ndtr(edges / width.double().clamp_min(1e-6)[:, None]).diff(dim=1)
    return -torch.special.xlogy(mass, mass).sum(dim=1) / math.log(2)


def fit_to_cap(
    make: Callable[[float], bytes],
    cap_bytes: int,
    low: float = 0.5,
    high: float = 2.0,
    *,
    tolerance: float = 0.0005,
    max_calls: int = 12,
) -> tuple[float, bytes]:
    """The smallest clip factor found whose file fits, and the file.

    make       the file when every clip_sigmas is multiplied by this factor; larger is smaller
    cap_bytes  for the file alone: subtract the code, and a margin, first
    low, high  factors between which to look
    tolerance  stop when less than this share of the cap stays empty
    max_calls  of `make` at most

    Sizes fall almost linearly in the logarithm of the factor, so the search interpolates; four or
    five calls are usual. Raises `OverBudget` when even `high` does not fit.
    """
    if not 0 < low < high:
        raise ValueError(f"low={low}, high={high}; factors must be above 0 and in that order")
    data = make(low)
    if len(data) <= cap_bytes:
        return low, data
    sizes = {low: len(data)}
    over, fits, data = low, high, make(high)
    sizes[high] = len(data)
    if len(data) > cap_bytes:
        raise OverBudget(
            f"even at {high} times every clip_sigmas the artifact is {len(data):,} bytes, "
            f"{len(data) - cap_bytes:,} over the {cap_bytes:,} it may have ({sizes[low]:,} at "
            f"{low}): lower bits or model_dim in the recipe, or search with a larger `high`"
        )
    aim = cap_bytes * (1 - tolerance / 2)
    while len(data) < cap_bytes * (1 - tolerance):
        if len(sizes) >= max_calls or fits / over < 1 + 1e-4:
            break
        # A line through the two sizes nearest the aim, within what is known; else the middle.
        near, far = sorted(sizes, key=lambda factor: abs(sizes[factor] - aim))[:2]
        share = (sizes[near] - aim) / ((sizes[near] - sizes[far]) or math.inf)
        factor = near * (far / near) ** share
        if not over < factor < fits:
            factor = math.sqrt(over * fits)
        attempt = make(factor)
        sizes[factor] = len(attempt)
        if len(attempt) <= cap_bytes:
            fits, data = factor, attempt
        else:
            over = factor
    return fits, data
