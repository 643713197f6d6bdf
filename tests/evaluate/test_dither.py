"""Offsets of rounding are even, alike everywhere, and leave points of the grid alone."""

import torch

from fairway.evaluate.dither import PERIOD, first_offset, offsets

TABLE = offsets(torch.device("cpu"))


def test_offsets_never_change() -> None:
    """Golden numbers: what was written with other offsets decodes no more."""
    assert (TABLE[:3] * 2**30).tolist() == [410_772_971, -73_378_067, -507_495_051]
    assert [first_offset(number) for number in (0, 1, 2**40)] == [52_655, 26_100, 37_746]


def test_offsets_are_even_and_keep_away_from_halves() -> None:
    assert len(TABLE) == 2 * PERIOD
    assert torch.equal(TABLE[:PERIOD], TABLE[PERIOD:])
    assert float(TABLE.abs().max()) <= 0.5 - 2.0**-10
    assert abs(float(TABLE.mean())) < 4 * (1 / 12 / PERIOD) ** 0.5
    counts = TABLE[:PERIOD].histc(16, -0.5, 0.5)
    assert float((counts / PERIOD - 1 / 16).abs().max()) < 0.004


def test_neighbours_have_nothing_in_common() -> None:
    for apart in (1, 2, 192, 2048):
        both = torch.stack((TABLE[:PERIOD], TABLE[:PERIOD].roll(apart)))
        assert abs(float(torch.corrcoef(both)[0, 1])) < 0.02
