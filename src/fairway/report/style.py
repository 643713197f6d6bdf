"""How every picture looks, and how it gets onto a page: colours, bars, lines, SVG.

Which pictures there are is in `plots.py`.
"""

import io
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# On the page each colour becomes a variable of this name, so that dark mode can change it.
INK, QUIET, FAINT, PAPER = "#1f2328", "#656d76", "#d5d9de", "#fffffe"
BLUE, ORANGE, GREEN, GREY, PALE = "#0072b2", "#d55e00", "#00865f", "#8c959f", "#c3c9d0"
VARIABLES = {
    INK: "--ink", QUIET: "--quiet", FAINT: "--line", PAPER: "--card", BLUE: "--blue",
    ORANGE: "--orange", GREEN: "--green", GREY: "--grey", PALE: "--pale",
}  # fmt: skip

READABLE = "values of "  # begins the id of a line whose values the page tells
TOLD = "told: "  # begins the label of a row's mark, of which the page tells the rest
WIDTH = 5.6  # inches of 72 points: little more than a phone shows, so text stays legible
ROW = 0.34  # inches per bar
BAR = 0.62  # of a row
RIM = 0.8  # inches for title and axis together
WARM_UP = 0.03  # share of the text in which a running mean says nothing yet


@contextmanager
def style() -> Iterator[None]:
    """The look of every picture; figures must be drawn and saved inside."""
    with matplotlib.rc_context(
        {
            "figure.constrained_layout.use": True,
            "figure.facecolor": "none",
            "savefig.facecolor": "none",
            "axes.facecolor": "none",
            "axes.edgecolor": FAINT,
            "axes.labelcolor": QUIET,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.spines.left": False,
            "axes.titlelocation": "left",
            "figure.titlesize": 13,
            "figure.titleweight": "bold",
            "axes.axisbelow": True,
            "axes.labelsize": 11,
            "font.size": 11.5,
            "text.color": INK,
            "text.parse_math": False,  # a name with two dollar signs is a name
            "grid.color": FAINT,
            "grid.linewidth": 0.7,
            "lines.linewidth": 1.9,
            "lines.solid_capstyle": "round",
            "xtick.color": FAINT,
            "ytick.color": FAINT,
            "xtick.labelcolor": QUIET,
            "ytick.labelcolor": INK,
            "xtick.labelsize": 11,
            "ytick.labelsize": 11.5,
            "ytick.major.size": 0,
            "svg.fonttype": "none",  # text stays text: small, selectable, in the reader's own font
            "svg.hashsalt": "fairway",  # the same run gives the same page, byte for byte
        }
    ):
        yield


@dataclass(frozen=True)
class Bar:
    """One row of a bar chart, its text behind its end.

    start    where it begins
    pale     how far a paler bar reaches behind it
    outline  how far an empty frame around it reaches
    tick     where a line crosses it
    """

    label: str
    length: float
    text: str
    colour: str
    start: float = 0.0
    pale: float = 0.0
    outline: float = 0.0
    tick: float = 0.0

    @property
    def end(self) -> float:
        return max(self.start + self.length, self.pale, self.outline, self.tick)


def bar_chart(heading: str, bars: Sequence[Bar]) -> Figure | None:
    """Horizontal bars, the first on top; None where there are none."""
    if not bars:
        return None
    figure = _titled(heading, RIM + ROW * len(bars))
    axes = figure.subplots()
    axes.spines["bottom"].set_visible(False)
    for row, bar in enumerate(bars):
        if bar.pale:
            axes.barh(row, bar.pale, color=PALE, height=BAR)
        axes.barh(row, bar.length, left=bar.start, color=bar.colour, height=BAR)
        if bar.outline:
            frame = axes.barh(
                row, bar.outline, color="none", edgecolor=GREY, linewidth=1.2, height=BAR
            )
            frame[0].set_clip_on(False)
        if bar.tick:
            axes.plot([bar.tick] * 2, [row - 0.45, row + 0.45], color=INK, clip_on=False)
        _label(axes, bar.end, row, bar.text)
    axes.set_yticks(range(len(bars)), [bar.label for bar in bars])
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.set_xlim(0, max(bar.end for bar in bars))
    axes.set_xticks([])
    return figure


def spans_chart(
    heading: str, rows: Sequence[tuple[str, Sequence[float], float | None, str, str]]
) -> Figure:
    """One row for each (label, values, deviation or None, text, colour): dots and their mean."""
    figure = _titled(heading, RIM + 1.3 * ROW * len(rows))
    axes = figure.subplots()
    for row, (_, values, deviation, text, colour) in enumerate(rows):
        mean = float(np.mean(values))
        axes.plot(values, [row] * len(values), "o", color=colour, markersize=4.5, alpha=0.5)
        axes.errorbar(
            mean,
            row,
            xerr=deviation,
            fmt="|",
            color=colour,
            markersize=15,
            capsize=4,
            linewidth=1.6,
        )
        _label(axes, max([*values, mean + (deviation or 0.0)]), row, text)
    axes.set_yticks(range(len(rows)), [label for label, *_ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.margins(x=0.1)
    axes.grid(axis="x")
    return figure


@dataclass(frozen=True)
class Line:
    """Points joined, with `text` behind the last of them.

    end   the height of the text, where it is not that of the last point
    raw   the same points before they were smoothed, drawn paler beneath
    name  what its values are called where somebody points at them; the text where empty
    """

    x: Sequence[float]
    y: Sequence[float]
    text: str
    colour: str
    end: float | None = None
    raw: Sequence[float] = ()
    name: str = ""


def line_figure(
    heading: str, height: float, ratios: tuple[float, ...] = (1,)
) -> tuple[Figure, list[Axes]]:
    """Panels with one x axis, one above the other, as high as `ratios` say; `height` in inches."""
    figure = _titled(heading, height)
    panels = figure.subplots(len(ratios), 1, sharex=True, height_ratios=ratios, squeeze=False)
    return figure, list(panels[:, 0])


def draw_lines(
    axes: Axes,
    lines: Sequence[Line],
    *,
    low: float | None = None,
    high: float | None = None,
    gap: float = 0.075,
    width: float | None = None,
) -> None:
    """Lines with a text in their colour behind their ends.

    low, high  ends of the y axis; chosen from the lines where None
    gap        the least distance of two texts, as a share of the y axis
    width      of the lines, in points
    """
    for line in lines:
        if line.raw:
            axes.plot(line.x, line.raw, color=PALE, linewidth=1.0)
        (drawn,) = axes.plot(line.x, line.y, color=line.colour, linewidth=width)
        drawn.set_gid(f"{READABLE}{line.name or line.text}")
    axes.set_ylim(low, high)
    low, high = axes.get_ylim()
    ends = sorted((line.y[-1] if line.end is None else line.end, i) for i, line in enumerate(lines))
    heights = spread([y for y, _ in ends], gap * (high - low))
    for y, (_, i) in zip(heights, ends, strict=True):
        colour = lines[i].colour
        colour = QUIET if colour == GREY else colour  # grey that does for a line is faint as text
        x = max(line.x[-1] for line in lines)
        _label(axes, x, y, lines[i].text, colour, "bold")


def _titled(heading: str, height: float) -> Figure:
    figure = Figure(figsize=(WIDTH, height))
    figure.suptitle(heading, x=0.008, ha="left")
    return figure


def _label(
    axes: Axes, x: float, y: float, text: str, colour: str = INK, weight: str = "normal"
) -> None:
    """Text that begins a little to the right of a point."""
    axes.annotate(
        text,
        (x, y),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        color=colour,
        weight=weight,
        annotation_clip=False,
    )


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Rising heights moved apart until neighbours are at least `gap` from each other.

    >>> spread([1.0, 1.0, 5.0], 1.0)
    [0.5, 1.5, 5.0]
    """
    placed = list(heights)
    for _ in range(50):
        for i in range(len(placed) - 1):
            missing = gap - (placed[i + 1] - placed[i])
            if missing > 1e-9:
                placed[i] -= missing / 2
                placed[i + 1] += missing / 2
    return placed


def inline(figure: Figure, key: str, label: str) -> str:
    """An <svg> element in the page's own colours, with ids that begin with `key`.

    What `hover.js` says of its lines or rows stands in the attribute `data-values`.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    values = escape(json.dumps(readable_values(figure), separators=(",", ":")))
    text = buffer.getvalue()
    text = text[text.index("<svg") :].strip()
    # What stands in <metadata> is of no use here, and a <style> would reach the whole page.
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.S)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", text, count=1)
    text = text.replace("<svg", f'<svg data-values="{values}"', 1)
    return _own_ids(_page_colours(text), key, label)


def readable_values(figure: Figure, most: int = 120) -> list[dict[str, Any]]:
    """Of each panel with lines or rows that are told: what x is called, where it lies, for each
    line the values of up to `most` points, for each row its words.

    at  x of each point, or y of the row, in the units of the <svg>; the figure must have been drawn
    """
    panels, points = [], 72 / figure.dpi
    below = [axes.get_xlabel() for axes in figure.axes if axes.get_xlabel()]
    for axes in figure.axes:
        lines, rows = _read_lines(axes, most, points), _read_rows(axes, points)
        if not (lines or rows):
            continue
        box = axes.get_window_extent()
        place = {
            "left": box.x0,
            "top": figure.bbox.height - box.y1,
            "width": box.width,
            "height": box.height,
        }
        panels.append(
            {"x": axes.get_xlabel() or (below[0] if below else ""), "lines": lines, "rows": rows}
            | {name: round(pixels * points, 1) for name, pixels in place.items()}
        )
    return panels


def _read_lines(axes: Axes, most: int, scale: float) -> list[dict[str, Any]]:
    read = []
    for line in axes.lines:
        name = str(line.get_gid() or "")
        if not name.startswith(READABLE):
            continue
        points = np.asarray(line.get_xydata(), float)
        points = points[:: max(1, -(-len(points) // most))]
        at = axes.transData.transform(points)[:, 0] * scale
        read.append(
            {
                "name": name.removeprefix(READABLE),
                "at": [round(float(x), 1) for x in at],
                "x": [float(f"{x:.4g}") for x, _ in points],
                "y": [float(f"{y:.5g}") for _, y in points],
            }
        )
    return read


def _read_rows(axes: Axes, scale: float) -> list[dict[str, Any]]:
    height = axes.get_figure().bbox.height  # type: ignore[union-attr]
    read = []
    for mark in axes.lines:
        words = str(mark.get_label())
        if words.startswith(TOLD):
            _, y = axes.transData.transform(mark.get_xydata())[0]
            at = round(float(height - y) * scale, 1)
            read.append({"at": at, "said": words.removeprefix(TOLD)})
    return read


def _page_colours(svg: str) -> str:
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", svg)


def _own_ids(svg: str, key: str, label: str) -> str:
    """Ids and the references to them get the picture's name, so that no two pictures share one."""
    svg = re.sub(r'\bid="', f'id="{key}-', svg)
    svg = re.sub(r"url\(#", f"url(#{key}-", svg)
    svg = re.sub(r'href="#', f'href="#{key}-', svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
