"""Several runs in one picture: a colour for each group, its seeds' mean and how far they spread.

How pictures look is in `style.py`; what belongs to one group is decided in `runs/groups.py`.
"""

from collections.abc import Sequence
from itertools import cycle

import numpy as np
from matplotlib.figure import Figure

from fairway.report.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    WARM_UP,
    Line,
    draw_lines,
    inline,
    line_figure,
    spans_chart,
    style,
)
from fairway.runs.groups import Group

COLOURS = (BLUE, ORANGE, GREEN, INK, GREY)
LABEL = 34  # characters of a group's name in a picture


def overlay_svgs(groups: Sequence[Group]) -> dict[str, str]:
    """Pictures of several groups as <svg> elements, by name, as far as there are any."""
    drawn = {
        "scores": (scores_figure, "Bits per byte of each group, with the seeds' deviation"),
        "running": (running_figure, "Bits per byte of the text so far, group by group"),
    }
    with style():
        figures = {name: (draw(groups), words) for name, (draw, words) in drawn.items()}
        return {
            name: inline(figure, f"all-{name}", words)
            for name, (figure, words) in figures.items()
            if figure is not None
        }


def scores_figure(groups: Sequence[Group]) -> Figure | None:
    """A dot for each seed, the mean, and one standard deviation to either side of it."""
    if not groups:
        return None
    rows = []
    for group, colour in zip(groups, cycle(COLOURS), strict=False):
        deviation = group.deviation
        spread = "" if deviation is None else f" ± {deviation:.4f}"
        text = f"{group.mean:.4f}{spread}"
        rows.append((_short(group.name), group.bits_per_byte, deviation, text, colour))
    return spans_chart("Bits per byte, mean and deviation", rows)


def running_figure(groups: Sequence[Group]) -> Figure | None:
    """Bits per byte of the text so far: the seeds' mean, and beneath it from lowest to highest."""
    lines, bands = [], []
    for group, colour in zip(groups, cycle(COLOURS), strict=False):
        curves = [r.result.curves.get("learning", ()) for r in group.records]
        curves = [np.asarray(curve, float) for curve in curves if len(curve) > 1]
        if not curves:
            continue
        x = curves[0][:, 0]
        x = x[x >= WARM_UP * x[-1]]
        y = np.stack([np.interp(x, curve[:, 0], curve[:, 1]) for curve in curves])
        mean = y.mean(0)
        name = _short(group.name)
        lines.append(Line((x / 1e6).tolist(), mean.tolist(), f"{mean[-1]:.4f}", colour, name=name))
        bands.append((x / 1e6, y.min(0), y.max(0), colour))
    if not lines:
        return None
    figure, (axes,) = line_figure("Bits per byte of the text so far", 3.4)
    for x, low, high, colour in bands:
        axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    draw_lines(axes, lines)
    axes.set_xlabel("megabytes of validation text")
    axes.set_xlim(0, max(line.x[-1] for line in lines))
    axes.grid(axis="y")
    return figure


def _short(name: str) -> str:
    return name if len(name) <= LABEL else f"{name[: LABEL - 3]}..."
