"""Numbers within bounds, and errors of libraries on one line."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.runtime.limits import one_line, require_within


@dataclass
class Config:
    rows: float | None = 1


@pytest.mark.parametrize("rows", [1, 2.5, 8, None])
def test_what_lies_within_passes(rows: float | None) -> None:
    require_within(Config(rows), rows=(1, 8))


@pytest.mark.parametrize("rows", [0, 9, float("nan"), float("inf"), 10**400])
def test_what_lies_outside_is_named_with_its_bounds(rows: float) -> None:
    with pytest.raises(ValueError, match=r"Config.rows=.* must lie within 1 and 8") as said:
        require_within(Config(rows), rows=(1, 8))
    assert len(str(said.value)) < 120


@given(st.text(), st.integers(1, 300))
def test_any_error_fits_one_line(text: str, most: int) -> None:
    said = one_line(text, most)
    assert said.isprintable()
    assert len(said) <= 10 * most  # the longest escape has ten letters
