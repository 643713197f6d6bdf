"""Rounding in C++ gives the numbers of its plain form, to the last bit."""

import pytest
import torch
from torch import Tensor

from fairway.evaluate import rounding
from fairway.evaluate.rounding import Grid, Rounding, round_ends, round_values
from fairway.runtime.native import explain, library, switched_off

pytestmark = pytest.mark.skipif(
    library("settling", tuned=True) is None, reason=explain("settling", tuned=True)
)


def random(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(9)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("size", [1, 1000, 3 * rounding.PERIOD + 17])
@pytest.mark.parametrize("grid", [Grid(), Grid(dither=1.0), Grid(significant=5, least=-2)])
def test_values(size: int, grid: Grid) -> None:
    how = Rounding(grid, 2.0**14, 60_001, 2.0**-11)
    mine, plain = random(size) ** 3, random(size) ** 3
    mine[::7] = plain[::7] = 0.0
    near = round_values(mine, how)
    with switched_off():
        assert round_values(plain, how) == near
    assert torch.equal(mine, plain)
    assert near or size <= 1000


def test_slices() -> None:
    logits = 9 * random(40, 300)
    logits[3, 5:] = float("-inf")
    logits[4] -= 1e6  # a step is coarser there, but so is what lies below it
    logits[4, 0] = 4.0
    found, near = round_ends(logits, 1e-6)
    with switched_off():
        plain, same = round_ends(logits, 1e-6)
    assert torch.equal(found, plain)
    assert set(same) <= set(near)
    assert same


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e9])
def test_logits_that_no_grid_takes_are_named(bad: float) -> None:
    logits = random(3, 10)
    logits[1, 2] = bad
    with pytest.raises(ValueError, match="not finite, or beyond 65,536"):
        round_ends(logits, 1e-11)
