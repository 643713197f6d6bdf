"""The pictures of a run: one function per picture.

Every picture labels its marks directly, so none needs a legend, and uses colours that people with
any colour vision tell apart (Okabe and Ito 2008). A picture of something that was not run is None.
Which numbers there are is decided in `table.py`; where pictures stand on the page in
`page.py`, how they look in `style.py`.
"""

import statistics
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from fairway.report.checks import Result, section
from fairway.report.run_folder import RunFolder, TrainingCurve
from fairway.report.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PALE,
    QUIET,
    WIDTH,
    bar_figure,
    bar_label,
    end_label,
    inline,
    spread,
    style,
    title,
)
from fairway.report.table import BASELINES, STAGES, artifact_parts

WARM_UP_SHARE = 0.03  # of the text, in which a running mean says nothing yet


def loss_figure(curve: TrainingCurve, result: Result) -> Figure | None:
    """Training loss over steps, and beneath it the schedule of the learning rate."""
    if len(curve.steps) < 2:
        return None
    scheduled = bool(curve.lr_scale)
    figure = Figure(figsize=(WIDTH, 3.8 if scheduled else 3.2))
    if scheduled:
        axes, strip = figure.subplots(2, 1, sharex=True, height_ratios=(5, 1))
    else:
        axes, strip = figure.subplots(), None
    smooth = running_mean(curve.losses)
    axes.plot(curve.steps, curve.losses, color=PALE, linewidth=1.0)
    axes.plot(curve.steps, smooth, color=BLUE)
    # The first steps fall from ln(vocabulary) and would flatten everything that follows.
    late = curve.losses[len(curve.losses) // 20 :]
    margin = 0.08 * (max(late) - min(late) or 1.0)
    axes.set_ylim(min(late) - margin, max(late) + margin)
    title(figure, "Training loss, nats per token")
    axes.grid(axis="y")
    end_label(axes, curve.steps[-1], smooth[-1], f"{smooth[-1]:.3f}", BLUE)
    bottom = axes if strip is None else strip
    if strip is not None:
        strip.fill_between(curve.steps, curve.lr_scale, color=ORANGE, alpha=0.25, linewidth=0)
        strip.plot(curve.steps, curve.lr_scale, color=ORANGE, linewidth=1.3)
        strip.set_ylim(0, 1.08)
        strip.set_yticks([0, 1])
        strip.set_title("learning rate, share of its peak", size=11, weight="normal", color=QUIET)
    seconds = section(result, "train").get("seconds")
    bottom.set_xlabel("steps" if seconds is None else f"steps in {seconds:,.0f} seconds")
    bottom.set_xlim(0, curve.steps[-1])
    bottom.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    bottom.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    return figure


def stages_figure(result: Result) -> Figure | None:
    """Bits per byte of each stage that was run, above the general compressors."""
    stages, found = section(result, "stages"), section(result, "baselines")
    bars: list[tuple[str, float, float | None]] = []  # label, value, value without priming
    for key, label in STAGES.items():
        bits = section(stages, key).get("bits_per_byte")
        if bits is not None:
            bars.append((label, bits, None))
    num_stages = len(bars)
    for key in [*BASELINES, *(name for name in found if name not in BASELINES)]:
        figures = section(found, key)
        if figures.get("primed") is not None:
            bars.append((BASELINES.get(key, key), figures["primed"], figures.get("alone")))
    if not bars:
        return None
    figure, axes = bar_figure(len(bars), "Bits per byte, lower is better")
    longest = max(max(value, alone or 0.0) for _, value, alone in bars)
    for row, (_, value, alone) in enumerate(bars):
        ours = row < num_stages
        text = f"{value:.4f}"
        if alone is not None:
            axes.barh(row, alone, color=PALE, height=0.62)
            text = f"{value:.3f} primed, {alone:.3f} alone"
        colour = (BLUE if row < num_stages - 1 else GREEN) if ours else GREY
        axes.barh(row, value, color=colour, height=0.62)
        bar_label(axes, max(value, alone or 0.0), row, text)
    axes.set_yticks(range(len(bars)), [label for label, _, _ in bars])
    axes.set_xlim(0, longest)
    axes.set_xticks([])
    return figure


def running_figure(result: Result) -> Figure | None:
    """Bits per byte of the text so far, frozen against learning.

    `curves` of the result: name to pairs (bytes so far, bits per byte so far).
    """
    curves = {
        name: [(float(x), float(y)) for x, y in points]
        for name, points in section(result, "curves").items()
        if len(points) > 1
    }
    if not curves:
        return None
    figure = Figure(figsize=(WIDTH, 3.2))
    axes = figure.subplots()
    colours = {"frozen": GREY, "learning": GREEN}
    spare = iter((BLUE, ORANGE, INK))
    ends: list[tuple[float, str, str]] = []
    seen: list[float] = []
    last = max(points[-1][0] for points in curves.values())
    for name, points in curves.items():
        colour = colours.get(name) or next(spare, INK)
        settled = [(x, y) for x, y in points if x >= WARM_UP_SHARE * last] or points
        seen += [y for _, y in settled]
        axes.plot([x / 1e6 for x, _ in settled], [y for _, y in settled], color=colour)
        ends.append((settled[-1][1], f"{name} {settled[-1][1]:.4f}", colour))
    margin = 0.1 * (max(seen) - min(seen) or 0.1)
    axes.set_ylim(min(seen) - margin, max(seen) + margin)
    gap = 0.075 * (max(seen) - min(seen) + 2 * margin)
    for y, (_, text, colour) in zip(
        spread([y for y, _, _ in sorted(ends)], gap), sorted(ends), strict=True
    ):
        end_label(axes, last / 1e6, y, text, colour)
    title(figure, "Bits per byte of the text so far")
    axes.set_xlabel("megabytes of validation text")
    axes.set_xlim(0, last / 1e6)
    axes.grid(axis="y")
    return figure


def chunks_figure(result: Result) -> Figure | None:
    """What learning gained in each chunk, and the seconds each took.

    `chunks` of the result, as `evaluate.curves.curve_data` gives it.
    """
    chunks = section(result, "chunks")
    gain, tokens = chunks.get("gain_bits_per_byte"), chunks.get("tokens") or []
    if not gain or len(tokens) < 2:
        return None
    figure = Figure(figsize=(WIDTH, 3.6))
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    thousands = [count / 1e3 for count in tokens]
    known = [(x, y) for x, y in zip(thousands, gain, strict=True) if y is not None]
    top.axhline(0.0, color=GREY, linewidth=1.0)
    top.plot([x for x, _ in known], [y for _, y in known], color=PALE, linewidth=1.0)
    smooth = running_mean([y for _, y in known], share=0.1)
    top.plot([x for x, _ in known], smooth, color=GREEN)
    end_label(top, known[-1][0], smooth[-1], f"{smooth[-1]:.3f}", GREEN)
    top.grid(axis="y")
    title(figure, "Gain by learning, and seconds, chunk by chunk")
    ends = []
    for key, colour in {"score_seconds": BLUE, "learn_seconds": ORANGE}.items():
        seconds = chunks.get(key) or []
        if any(seconds):
            bottom.plot(thousands, seconds, color=colour, linewidth=1.3)
            ends.append((statistics.median(seconds), key.removesuffix("_seconds"), colour))
    bottom.set_ylim(bottom=0)
    gap = 0.2 * bottom.get_ylim()[1]
    for y, (_, text, colour) in zip(
        spread([y for y, _, _ in sorted(ends)], gap), sorted(ends), strict=True
    ):
        end_label(bottom, thousands[-1], y, text, colour)
    bottom.set_xlabel("thousand tokens priced")
    bottom.set_xlim(0, thousands[-1])
    return figure


def artifact_figure(result: Result) -> Figure | None:
    """The bytes of the artifact part by part, each starting where the last one ended."""
    artifact, (parts, _) = section(result, "artifact"), artifact_parts(result)
    if not parts:
        return None
    total, cap = artifact["bytes_total"], artifact.get("cap_bytes")
    unit, name = (1e6, "million bytes") if total >= 1e6 else (1e3, "thousand bytes")
    figure, axes = bar_figure(len(parts) + 1, f"Artifact, {name}")
    start = 0
    for row, size in enumerate(parts.values()):
        axes.barh(row, size / unit, left=start / unit, color=BLUE, height=0.62)
        bar_label(axes, (start + size) / unit, row, f"{size / unit:.3f}")
        start += size
    over = cap is not None and total > cap
    axes.barh(len(parts), total / unit, color=ORANGE if over else GREEN, height=0.62)
    axes.set_yticks(range(len(parts) + 1), [*parts, "total"])
    longest = max(total, cap or 0) / unit
    axes.set_xlim(0, longest)
    axes.set_xticks([])
    text = f"{total / unit:.3f}"
    if cap is not None:
        row = len(parts)
        axes.plot([cap / unit] * 2, [row - 0.45, row + 0.45], color=INK, clip_on=False)
        text += f" of {cap / unit:g}"
    bar_label(axes, longest, len(parts), text)
    return figure


def seconds_figure(result: Result) -> Figure | None:
    """Seconds of training and evaluation against their budgets, then of each scored stage."""
    bars: list[tuple[str, float, float | None]] = []
    for key, label in {"train": "training", "evaluate": "evaluation"}.items():
        part = section(result, key)
        if part.get("seconds") is not None:
            bars.append((label, part["seconds"], part.get("budget_seconds")))
    num_budgeted = len(bars)
    for key, label in STAGES.items():
        spent = section(section(result, "stages"), key).get("seconds")
        if spent is not None:
            bars.append((f"scoring: {label}", spent, None))
    if not bars:
        return None
    figure, axes = bar_figure(len(bars), "Seconds, and their budgets")
    for row, (_, seconds, budget) in enumerate(bars):
        over = budget is not None and seconds > budget
        colour = ORANGE if over else (BLUE if row < num_budgeted else GREY)
        axes.barh(row, seconds, color=colour, height=0.62)
        text, end = f"{seconds:,.1f}", seconds
        if budget is not None:
            outline = axes.barh(
                row, budget, color="none", edgecolor=GREY, linewidth=1.2, height=0.62
            )
            outline[0].set_clip_on(False)
            text, end = f"{seconds:,.1f} of {budget:,.0f}", max(seconds, budget)
        bar_label(axes, end, row, text)
    axes.set_yticks(range(len(bars)), [label for label, _, _ in bars])
    axes.set_xlim(0, max(max(seconds, budget or 0.0) for _, seconds, budget in bars))
    axes.set_xticks([])
    return figure


PICTURES: dict[str, tuple[str, Callable[[RunFolder], Figure | None]]] = {  # name: what it shows
    "stages": ("Bits per byte of each stage and compressor", lambda r: stages_figure(r.result)),
    "running": ("Bits per byte along the text", lambda r: running_figure(r.result)),
    "chunks": ("Gain and seconds of each chunk", lambda r: chunks_figure(r.result)),
    "loss": ("Training loss and learning rate", lambda r: loss_figure(r.curve, r.result)),
    "artifact": ("Bytes of the artifact and its cap", lambda r: artifact_figure(r.result)),
    "seconds": ("Seconds and their budgets", lambda r: seconds_figure(r.result)),
}


def inline_svgs(run: RunFolder, prefix: str) -> dict[str, str]:
    """Every picture of a run as an <svg> element that follows the page's colours.

    prefix  makes the ids of the pictures different from those of any other run on the page
    """
    with style():
        drawn = {name: draw(run) for name, (_, draw) in PICTURES.items()}
        return {
            name: inline(figure, f"{prefix}-{name}", PICTURES[name][0])
            for name, figure in drawn.items()
            if figure is not None
        }


def save_pictures(run: RunFolder, out: Path, suffix: str = ".png") -> list[Path]:
    """Every picture of a run as a file in `out`, .png or .svg, on a white ground."""
    if suffix not in (".png", ".svg"):
        raise ValueError(f"suffix={suffix!r}; pictures are saved as .png or .svg")
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    with style():
        for name, (_, draw) in PICTURES.items():
            figure = draw(run)
            if figure is not None:
                path = out / f"{name}{suffix}"
                metadata = {"Date": None} if suffix == ".svg" else None
                figure.savefig(path, dpi=200, facecolor="white", metadata=metadata)
                paths.append(path)
    return paths


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
