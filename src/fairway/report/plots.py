"""The pictures of a run: one function per picture.

Every picture labels its marks directly, so none needs a legend, and uses colours that people with
any colour vision tell apart (Okabe and Ito 2008). A picture of something that was not run is None.
Which numbers there are is decided in `table.py`; where pictures stand on the page in
`page.py`, how they look in `style.py`.
"""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from fairway.report.run_folder import RunFolder
from fairway.report.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    QUIET,
    WARM_UP,
    Bar,
    Line,
    bar_chart,
    draw_lines,
    inline,
    line_figure,
    style,
)
from fairway.report.table import (
    STAGES,
    artifact_parts,
    compressors_by_label,
    tensor_groups,
)
from fairway.result import RunResult


def loss_figure(run: RunFolder) -> Figure | None:
    """Training loss over steps, and beneath it the schedule of the learning rate."""
    curve = run.curve
    if len(curve.steps) < 2:
        return None
    heading = "Training loss, nats per token"
    if curve.lr_scale:
        figure, (axes, bottom) = line_figure(heading, 3.8, (5, 1))
        bottom.fill_between(curve.steps, curve.lr_scale, color=ORANGE, alpha=0.25, linewidth=0)
        bottom.plot(curve.steps, curve.lr_scale, color=ORANGE, linewidth=1.3)
        bottom.set_ylim(0, 1.08)
        bottom.set_yticks([0, 1])
        bottom.set_title("learning rate, share of its peak", size=11, weight="normal", color=QUIET)
    else:
        figure, (axes,) = line_figure(heading, 3.2)
        bottom = axes
    smooth = running_mean(curve.losses)
    last = f"{smooth[-1]:.3f}"
    line = Line(curve.steps, smooth, last, BLUE, raw=curve.losses, name="nats per token")
    # The first steps fall from ln(vocabulary) and would flatten everything that follows.
    low, high = _y_range(curve.losses[len(curve.losses) // 20 :], 0.08, 1.0)
    draw_lines(axes, [line], low=low, high=high)
    axes.grid(axis="y")
    bottom.set_xlabel(f"steps ({run.result.train.seconds:,.0f} s in all)")
    bottom.set_xlim(0, curve.steps[-1])
    bottom.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    bottom.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    return figure


def stages_figure(result: RunResult) -> Figure | None:
    """Bits per byte of each stage that was run, above the general compressors."""
    bits = {STAGES[key]: result.stages[key].bits_per_byte for key in STAGES if key in result.stages}
    bars = [Bar(k, v, f"{v:.4f}", BLUE) for k, v in bits.items()]
    if bars:
        bars[-1] = replace(bars[-1], colour=GREEN)
    bars += [
        Bar(
            label,
            found.primed,
            f"{found.primed:.3f} primed, {found.alone:.3f} alone",
            GREY,
            pale=found.alone,
        )
        for label, found in compressors_by_label(result).items()
        if found is not None
    ]
    return bar_chart("Bits per byte, lower is better", bars)


def running_figure(result: RunResult) -> Figure | None:
    """Bits per byte of the text so far, frozen against learning."""
    curves = {name: points for name, points in result.curves.items() if len(points) > 1}
    if not curves:
        return None
    colours, spare = {"frozen": GREY, "learning": GREEN}, iter((BLUE, ORANGE, INK))
    last = max(points[-1][0] for points in curves.values())
    lines = []
    for name, points in curves.items():
        shown = [(x, y) for x, y in points if x >= WARM_UP * last] or points
        x, y = [x / 1e6 for x, _ in shown], [y for _, y in shown]
        colour = colours.get(name) or next(spare, INK)
        lines.append(Line(x, y, f"{name} {y[-1]:.4f}", colour, name=name))
    figure, (axes,) = line_figure("Bits per byte of the text so far", 3.2)
    low, high = _y_range([y for line in lines for y in line.y], 0.1, 0.1)
    draw_lines(axes, lines, low=low, high=high)
    axes.set_xlabel("megabytes of validation text")
    axes.set_xlim(0, last / 1e6)
    axes.grid(axis="y")
    return figure


def chunks_figure(result: RunResult) -> Figure | None:
    """What learning gained in each chunk, and the seconds each took."""
    thousands = [tokens / 1e3 for tokens in _column(result, "tokens")]
    gains = result.chunks.get("gain_bits_per_byte", ())
    known = [(x, y) for x, y in zip(thousands, gains, strict=bool(gains)) if y is not None]
    if not known or len(thousands) < 2:
        return None
    x, raw = [x for x, _ in known], [y for _, y in known]
    smooth = running_mean(raw, share=0.1)
    lines = []
    for name, colour in {"score": BLUE, "learn": ORANGE}.items():
        seconds = _column(result, f"{name}_seconds")
        if any(seconds):
            middle, said = statistics.median(seconds), f"seconds to {name}"
            lines.append(Line(thousands, seconds, name, colour, end=middle, name=said))
    figure, (top, bottom) = line_figure(
        "Gain by learning, and seconds, chunk by chunk", 3.6, (3, 2)
    )
    top.axhline(0.0, color=GREY, linewidth=1.0)
    gain = Line(x, smooth, f"{smooth[-1]:.3f}", GREEN, raw=raw, name="gain in bits per byte")
    draw_lines(top, [gain])
    top.grid(axis="y")
    draw_lines(bottom, lines, low=0, gap=0.2, width=1.3)
    bottom.set_xlabel("thousand tokens scored")
    bottom.set_xlim(0, thousands[-1])
    return figure


def artifact_figure(result: RunResult) -> Figure | None:
    """The bytes of the artifact part by part, each starting where the last one ended."""
    artifact = result.artifact
    if artifact is None:
        return None
    (parts, _), total, cap = artifact_parts(artifact), artifact.bytes_total, artifact.cap_bytes
    unit, name = (1e6, "million bytes") if total >= 1e6 else (1e3, "thousand bytes")
    bars, start = [], 0
    for part, size in parts.items():
        text = f"{size / unit:.3f}"
        bars.append(Bar(part, size / unit, text, BLUE, start=start / unit))
        start += size
    bars.append(
        Bar(
            "total",
            total / unit,
            f"{total / unit:.3f}" + ("" if cap is None else f" of {cap / unit:g}"),
            ORANGE if artifact.over_cap else GREEN,
            tick=(cap or 0) / unit,
        )
    )
    return bar_chart(f"Artifact, {name}", bars)


def bits_figure(result: RunResult) -> Figure | None:
    """Bits of the file for each weight, group by group."""
    bars = []
    for group, tensors in tensor_groups(result).items():
        weights = sum(tensor.weights for tensor in tensors)
        bits = 8 * sum(tensor.bytes for tensor in tensors) / weights
        bars.append(Bar(group, bits, f"{bits:.2f} x {weights:,}", BLUE))
    return bar_chart("Bits per weight, and how many weights", bars)


def rounding_figure(result: RunResult) -> Figure | None:
    """How far rounding moved the weights of each group, as a share of their size."""
    bars = []
    for group, tensors in tensor_groups(result).items():
        known = [(t.weights, t.rounding_error) for t in tensors if t.rounding_error is not None]
        if known:
            weights = sum(count for count, _ in known)
            error = math.sqrt(sum(count * error**2 for count, error in known) / weights)
            bars.append(Bar(group, 100 * error, f"{100 * error:.2f} %", BLUE))
    return bar_chart("Rounding error, per cent of the weights' size", bars)


def seconds_figure(result: RunResult) -> Figure | None:
    """Seconds of training and evaluation against their budgets, then of each scored stage."""
    bars = []
    for label, part in {"training": result.train, "evaluation": result.evaluate}.items():
        if part is None:
            continue
        text, budget = f"{part.seconds:,.1f}", part.budget_seconds
        bars.append(
            Bar(
                label,
                part.seconds,
                text if budget is None else f"{text} of {budget:,.0f}",
                ORANGE if part.over_time else BLUE,
                outline=budget or 0.0,
            )
        )
    for key, label in STAGES.items():
        if key in result.stages:
            spent = result.stages[key].seconds
            bars.append(Bar(f"scoring: {label}", spent, f"{spent:,.1f}", GREY))
    return bar_chart("Seconds, and their budgets", bars)


PICTURES: dict[str, tuple[str, Callable[[RunFolder], Figure | None]]] = {  # name: what it shows
    "stages": ("Bits per byte of each stage and compressor", lambda r: stages_figure(r.result)),
    "running": ("Bits per byte along the text", lambda r: running_figure(r.result)),
    "chunks": ("Gain and seconds of each chunk", lambda r: chunks_figure(r.result)),
    "loss": ("Training loss and learning rate", loss_figure),
    "artifact": ("Bytes of the artifact and its cap", lambda r: artifact_figure(r.result)),
    "bits": ("Bits per weight by group of tensors", lambda r: bits_figure(r.result)),
    "rounding": ("Rounding error by group of tensors", lambda r: rounding_figure(r.result)),
    "seconds": ("Seconds and their budgets", lambda r: seconds_figure(r.result)),
}


def inline_svgs(run: RunFolder, prefix: str) -> dict[str, str]:
    """Every picture of a run as an <svg> element that follows the page's colours.

    prefix  makes the ids of the pictures different from those of any other run on the page
    """
    return {
        name: inline(figure, f"{prefix}-{name}", PICTURES[name][0]) for name, figure in _drawn(run)
    }


def save_pictures(run: RunFolder, out: Path, suffix: str = ".png") -> list[Path]:
    """Every picture of a run as a file in `out`, .png or .svg, on a white ground."""
    if suffix not in (".png", ".svg"):
        raise ValueError(f"suffix={suffix!r}; pictures are saved as .png or .svg")
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in _drawn(run):
        paths.append(out / f"{name}{suffix}")
        metadata = {"Date": None} if suffix == ".svg" else None
        figure.savefig(paths[-1], dpi=200, facecolor="white", metadata=metadata)
    return paths


def _drawn(run: RunFolder) -> Iterator[tuple[str, Figure]]:
    """The pictures there are; they must be saved before the next one is asked for."""
    with style():
        for name, (_, draw) in PICTURES.items():
            figure = draw(run)
            if figure is not None:
                yield name, figure


def running_mean(values: Sequence[float], share: float = 0.03) -> list[float]:
    """Mean over about `share` of the values around each; towards the beginning over fewer.

    Symmetric there, so that a steep fall is not smeared into what follows it.

    >>> running_mean([9.0, 5.0, 4.0, 3.0], share=0.5)
    [9.0, 6.0, 4.0, 3.5]
    """
    radius = int(share * len(values) / 2)
    sums = [0.0, *accumulate(values)]
    means = []
    for i in range(len(values)):
        begin, end = max(0, i - radius), min(len(values), i + min(radius, i) + 1)
        means.append((sums[end] - sums[begin]) / (end - begin))
    return means


def _column(result: RunResult, name: str) -> list[float]:
    """A column of the chunks that has no gaps."""
    return [value for value in result.chunks.get(name, ()) if value is not None]


def _y_range(values: Sequence[float], share: float, flat: float) -> tuple[float, float]:
    """From below the lowest to above the highest value, by a share of what lies between them.

    flat  what counts as lying between values that are all the same
    """
    margin = share * (max(values) - min(values) or flat)
    return min(values) - margin, max(values) + margin
