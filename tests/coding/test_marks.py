"""Marks come back, and nothing else is taken for marks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.coding.marks import pack_marks, unpack_marks

MOST = 1 << 40


@given(st.dictionaries(st.integers(0, MOST - 1), st.booleans(), max_size=50))
def test_marks_come_back(marks: dict[int, bool]) -> None:
    assert unpack_marks(pack_marks(marks), MOST) == marks


@given(st.binary(max_size=12))
def test_foreign_bytes_are_refused_or_stay_within_bounds(data: bytes) -> None:
    try:
        marks = unpack_marks(data, 1000)
    except ValueError:
        return
    assert all(0 <= place < 1000 for place in marks)


def test_a_place_out_of_bounds_is_refused() -> None:
    with pytest.raises(ValueError, match="mark"):
        unpack_marks(pack_marks({1000: True}), 1000)
