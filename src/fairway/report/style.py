"""How every picture looks, and how it gets onto a page: colours, labels, SVG.

Which pictures there are is in `plots.py`.
"""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# On the page each colour becomes a variable of this name, so that dark mode can change it.
INK, QUIET, FAINT, PAPER = "#1f2328", "#656d76", "#d5d9de", "#fffffe"
BLUE, ORANGE, GREEN, GREY, PALE = "#0072b2", "#d55e00", "#00865f", "#8c959f", "#c3c9d0"
VARIABLES = {
    INK: "--ink", QUIET: "--quiet", FAINT: "--line", PAPER: "--card", BLUE: "--blue",
    ORANGE: "--orange", GREEN: "--green", GREY: "--grey", PALE: "--pale",
}  # fmt: skip

WIDTH = 5.6  # inches of 72 points: little more than a phone shows, so text stays legible
ROW = 0.34  # inches per bar
RIM = 0.8  # inches for title and axis together


@contextmanager
def style() -> Iterator[None]:
    """The look of every picture; figures must be drawn and saved inside."""
    settings: dict[Any, Any] = {
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
    with matplotlib.rc_context(settings):
        yield


def bar_figure(rows: int, heading: str) -> tuple[Figure, Axes]:
    """Room for so many horizontal bars, the first on top."""
    figure = Figure(figsize=(WIDTH, RIM + ROW * rows))
    axes = figure.subplots()
    axes.set_ylim(rows - 0.4, -0.6)  # first row on top
    axes.spines["bottom"].set_visible(False)
    title(figure, heading)
    return figure, axes


def title(figure: Figure, text: str) -> None:
    """Above the picture, at its left edge."""
    figure.suptitle(text, x=0.008, ha="left")


def bar_label(axes: Axes, x: float, row: int, text: str) -> None:
    """Behind the end of a bar."""
    axes.annotate(text, (x, row), xytext=(6, 0), textcoords="offset points", va="center")


def end_label(axes: Axes, x: float, y: float, text: str, colour: str) -> None:
    """Behind the end of a line, in its colour."""
    axes.annotate(
        text,
        (x, y),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        color=QUIET if colour == GREY else colour,  # grey that does for a line is faint as text
        weight="bold",
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
    """An <svg> element in the page's own colours, with ids that begin with `key`."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].strip()
    # What stands in <metadata> is of no use here, and a <style> would reach the whole page.
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.S)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", text, count=1)
    return _own_ids(_page_colours(text), key, label)


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
