"""Charts and labels, whatever is drawn."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.report.style import (
    BLUE,
    TOLD,
    WIDTH,
    Line,
    bar_chart,
    draw_lines,
    inline,
    line_figure,
    readable_values,
    spread,
    style,
)


def test_nothing_to_draw_is_no_chart() -> None:
    assert bar_chart("Empty", []) is None


@given(st.lists(st.floats(0, 1), min_size=1, max_size=4).map(sorted))
def test_labels_end_up_apart_and_in_order(heights: list[float]) -> None:
    placed = spread(heights, 0.1)
    assert all(b - a > 0.099 for a, b in pairwise(placed))


def test_what_a_picture_tells_are_the_values_of_its_lines() -> None:
    with style():
        figure, (axes,) = line_figure("Loss", 3.0)
        draw_lines(axes, [Line([0.0, 1.0, 2.0], [3.0, 2.0, 1.0], "1.0", BLUE, name="nats")])
        axes.set_xlabel("steps")
        svg = inline(figure, "k", "Loss")
        (panel,) = readable_values(figure)
    assert (panel["x"], panel["rows"]) == ("steps", [])
    (line,) = panel["lines"]
    assert (line["name"], line["x"], line["y"]) == ("nats", [0, 1, 2], [3, 2, 1])
    assert line["at"] == sorted(line["at"])
    assert 0 < line["at"][0] < line["at"][-1] < 72 * WIDTH
    assert "data-values=" in svg


def test_a_row_s_mark_is_told_where_it_stands() -> None:
    with style():
        figure, (axes,) = line_figure("Rows", 3.0)
        for row, name in enumerate(("up", "down")):
            axes.plot([0.5], [row], "o", label=f"{TOLD}{name}")
        axes.set_ylim(1.5, -0.5)
        inline(figure, "k", "Rows")
        (panel,) = readable_values(figure)
    up, down = panel["rows"]
    assert (up["said"], down["said"], panel["lines"]) == ("up", "down", [])
    quarter = panel["height"] / 4
    assert up["at"] == pytest.approx(panel["top"] + quarter, abs=0.2)
    assert down["at"] == pytest.approx(panel["top"] + 3 * quarter, abs=0.2)
    assert 0 <= panel["left"] < panel["left"] + panel["width"] <= 72 * WIDTH
