"""Landing under a byte cap: what the rules will cost, and the clip that fits.

Caps are decimal: 16 megabytes are 16,000,000 bytes. How the bytes come about is in `container.py`,
what each scheme predicts of its own in `quant/schemes.py`.
"""

import math
from collections.abc import Callable, Mapping

from torch import Tensor

from fairway.quant.rules import QuantConfig, has_groups, scheme_for


class OverBudget(ValueError):
    """The artifact does not fit."""


def predict_bytes(
    state_dict: Mapping[str, Tensor], config: QuantConfig, clip_factor: float = 1.0
) -> int:
    """Bytes of all tensors in the artifact, without rounding or coding any.

    As each scheme predicts; embeddings whose rows repeat each other come out smaller. Tokenizer,
    config and extras come on top.
    """
    schemes = {name: scheme_for(name, tensor, config) for name, tensor in state_dict.items()}
    plain = sum(s.predict_bytes(state_dict[name], clip_factor) for name, s in schemes.items())
    if config.awq is None:
        return plain
    # Which columns are rounded more finely is not known before calibration: the longest may be.
    finer = [
        config.awq.extra_bytes(state_dict[name].size(0), scheme.bits)
        for name, scheme in schemes.items()
        if has_groups(scheme, config.awq)
    ]
    return plain + max(finer, default=0)


def require_fit(data: bytes, cap_bytes: int) -> bytes:
    """`data`, where its rules are to be taken exactly. Raises `OverBudget` when it does not fit."""
    if len(data) > cap_bytes:
        raise OverBudget(
            f"with every clip_sigmas exactly as the rules say the artifact is {len(data):,} bytes, "
            f"{len(data) - cap_bytes:,} over the {cap_bytes:,} it may have: raise clip_sigmas or "
            f"lower bits in the recipe's quant.rules, or let quant.clip be 'fitted'"
        )
    return data


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
