"""Several groups in one picture: each seed is a dot, each group a line."""

from xml.etree import ElementTree

from fairway.report.overlays import overlay_svgs, running_figure, scores_figure
from fairway.report.style import readable_values, style

from .run_results import full_result, scored_result
from .test_compare import group


def test_each_group_has_a_row_and_a_line() -> None:
    old = group(full_result(1.50, seed=1), full_result(1.52, seed=2))
    groups = [old, group(full_result(1.4, recipe="new"))]
    svgs = overlay_svgs(groups)
    assert list(svgs) == ["scores", "running"]
    for svg in svgs.values():
        ElementTree.fromstring(svg)
    assert "1.5100 ± 0.0141" in svgs["scores"]
    with style():
        figure = running_figure(groups)
        assert figure is not None
        figure.canvas.draw()
        (panel,) = readable_values(figure)
    assert [line["name"] for line in panel["lines"]] == ["looped", "new"]


def test_nothing_scored_is_no_picture() -> None:
    assert overlay_svgs([]) == {}
    assert scores_figure([]) is None
    assert running_figure([group(scored_result())]) is None
