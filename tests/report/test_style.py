"""Charts and labels, whatever is drawn."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from fairway.report.style import bar_chart, spread


def test_nothing_to_draw_is_no_chart() -> None:
    assert bar_chart("Empty", []) is None


@given(st.lists(st.floats(0, 1), min_size=1, max_size=4).map(sorted))
def test_labels_end_up_apart_and_in_order(heights: list[float]) -> None:
    placed = spread(heights, 0.1)
    assert all(b - a > 0.099 for a, b in pairwise(placed))
