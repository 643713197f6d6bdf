"""What may become of a tensor, one class each: rounded row by row, or kept as floats.

A scheme is the config and the behaviour at once. Rounding that needs more than the rows themselves
has a file of its own (`gptq.py`); so does a scheme of yours, here or in your own package. Which
tensor gets which scheme is decided in `rules.py`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from fairway.quant.grid import coded_bytes, percentile_scale, round_to_grid, sigma_scale
from fairway.quant.hessian import Hessian
from fairway.quant.quantized import QuantizedTensor, dequantize_rows, top_code
from fairway.runtime.plugins import Pluggable


class Scheme(Pluggable, ABC):
    """Base of all schemes: frozen dataclasses, hashable, one instance for many tensors.

    What `quantize` returns is what an artifact can hold: a `QuantizedTensor`, or a float16 or
    float32 tensor. So reading the artifact needs no scheme, and no plug-in.
    """

    needs_hessian: ClassVar[bool] = False  # of the layer whose weight is rounded
    rounds: ClassVar[bool] = False  # False: values stay floats, so training sees no rounding
    for_small: ClassVar[bool] = False  # also for vectors and tensors below `min_elements`
    sweep_elements: ClassVar[int] = 0  # equal shapes come together, up to so many weights; 0: alone

    @abstractmethod
    def quantize(
        self, tensors: Sequence[Tensor], hessians: Sequence[Hessian], clip_factor: float
    ) -> Sequence[QuantizedTensor | Tensor]:
        """Each of several tensors of one shape as it is stored, in order.

        hessians     (C, C) of each, on the tensors' device; empty unless `needs_hessian`
        clip_factor  multiplies the width of every grid that can be widened, to land under a cap
        """

    @abstractmethod
    def predict_bytes(self, tensor: Tensor, clip_factor: float) -> int:
        """Bytes that the tensor will take in the artifact, nearly."""

    def fake_round(self, rows: Tensor) -> Tensor:
        """Rows (R, C) as they would be read back, float32: what training sees where `rounds`."""
        return rows


class RowScheme(Scheme):
    """Codes on one grid per row. A subclass says in `scale` where each row's grid ends."""

    rounds = True
    bits: int

    def __post_init__(self) -> None:
        top_code(self.bits)  # refuses a width that it does not know

    @abstractmethod
    def scale(self, rows: Tensor, clip_factor: float) -> Tensor:
        """Step widths (R,) float16 of rows (R, C) float."""

    def training_scale(self, rows: Tensor) -> Tensor:
        """The same while training."""
        return self.scale(rows, 1.0)

    def round_rows(self, rows: Tensor, clip_factor: float = 1.0) -> tuple[Tensor, Tensor]:
        """Codes (R, C) int8 and scale (R,) float16, with rows ~= codes * scale[:, None]."""
        scale = self.scale(rows, clip_factor)
        return round_to_grid(rows, scale, self.bits), scale

    def quantize(
        self, tensors: Sequence[Tensor], hessians: Sequence[Hessian], clip_factor: float
    ) -> list[QuantizedTensor]:
        return [
            quantized(*self.round_rows(as_rows(tensor), clip_factor), self.bits, tensor)
            for tensor in tensors
        ]

    def predict_bytes(self, tensor: Tensor, clip_factor: float) -> int:
        rows = as_rows(tensor)
        return coded_bytes(rows, self.scale(rows, clip_factor), self.bits)

    def fake_round(self, rows: Tensor) -> Tensor:
        scale = self.training_scale(rows)
        return dequantize_rows(round_to_grid(rows, scale, self.bits), scale)


@dataclass(frozen=True)
class RoundRows(RowScheme):
    """Plain rounding on grids that end `clip_sigmas` deviations out (SDClip, #1394)."""

    bits: int = 6  # bits of a code
    clip_sigmas: float = 12.85  # standard deviations of its row at which a grid ends

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clip_sigmas <= 0:
            raise ValueError(f"{self}: clip_sigmas must be above 0, 12.85 is usual at 6 bits")

    def scale(self, rows: Tensor, clip_factor: float) -> Tensor:
        return sigma_scale(rows, self.bits, self.clip_sigmas * clip_factor)


@dataclass(frozen=True)
class PercentileRows(RowScheme):
    """One fixed percentile, practically the largest entry (launch baseline)."""

    bits: int = 8  # bits of a code
    # smallest step width of a row; the published scripts' 1 / top_code(bits) leaves small weights
    # few codes
    min_scale: float = 0.0

    def scale(self, rows: Tensor, clip_factor: float) -> Tensor:
        return percentile_scale(rows, self.bits, 0.9999984, self.min_scale)

    def training_scale(self, rows: Tensor) -> Tensor:
        return percentile_scale(rows, self.bits, 1.0, self.min_scale)


@dataclass(frozen=True)
class SearchRows(PercentileRows):
    """Of five percentile grids that with the least squared error (GPTQ-lite, #414).

    The published script takes one percentile for all rows of a matrix; choosing row by row costs no
    byte more. As there, the grid of the largest entry stands for the best one during training.
    """

    bits: int = 6  # bits of a code
    per: Literal["row", "matrix"] = "row"  # what a percentile is chosen for

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.per not in get_args(Literal["row", "matrix"]):
            raise ValueError(f"per={self.per!r}; a percentile is chosen per 'row' or 'matrix'")

    def scale(self, rows: Tensor, clip_factor: float) -> Tensor:
        best, least = rows.new_zeros(len(rows), dtype=torch.float16), torch.inf
        for percentile in (0.999, 0.9995, 0.9999, 0.99999, 1.0):
            scale = percentile_scale(rows, self.bits, percentile, self.min_scale)
            restored = dequantize_rows(round_to_grid(rows, scale, self.bits), scale)
            error = (rows - restored).square().sum(dim=1)
            if self.per == "matrix":
                error = error.sum()
            better = error < least
            best, least = torch.where(better, scale, best), torch.where(better, error, least)
        return best


@dataclass(frozen=True)
class LargestRows(RowScheme):
    """The grid of each row's largest entry, for tensors of any size (the gates of #1855)."""

    for_small = True
    bits: int = 8  # bits of a code

    def scale(self, rows: Tensor, clip_factor: float) -> Tensor:
        return percentile_scale(rows, self.bits, 1.0)


@dataclass(frozen=True)
class KeepHalf(Scheme):
    """float16: for small control tensors, where rounding saves little and costs score."""

    def quantize(
        self, tensors: Sequence[Tensor], hessians: Sequence[Hessian], clip_factor: float
    ) -> list[Tensor]:
        return [_half(tensor) for tensor in tensors]

    def predict_bytes(self, tensor: Tensor, clip_factor: float) -> int:
        return 2 * tensor.numel()


@dataclass(frozen=True)
class KeepFloat(Scheme):
    """float32, exactly as trained."""

    for_small = True

    def quantize(
        self, tensors: Sequence[Tensor], hessians: Sequence[Hessian], clip_factor: float
    ) -> list[Tensor]:
        return [tensor.detach().float().clone() for tensor in tensors]

    def predict_bytes(self, tensor: Tensor, clip_factor: float) -> int:
        return 4 * tensor.numel()


def as_rows(tensor: Tensor) -> Tensor:
    """(..., C) as rows (R, C) float32."""
    return tensor.detach().float().reshape(-1, tensor.size(-1))


def quantized(codes: Tensor, scale: Tensor, bits: int, tensor: Tensor) -> QuantizedTensor:
    """Codes (R, C) and scale (R,) in place of `tensor` (..., C)."""
    return QuantizedTensor(codes=codes, scale=scale, bits=bits, shape=tuple(tensor.shape))


def _half(tensor: Tensor) -> Tensor:
    half = tensor.detach().half()
    if not bool(torch.isfinite(half).all()):
        raise ValueError(
            f"a value of {tensor.abs().max().item():g} does not fit float16; give this tensor the "
            f"rule KeepFloat(), or find out why training let it grow"
        )
    return half
