"""A ledger of effects as tables, as CSV and as a page with a picture."""

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fairway.report.checks import fixed
from fairway.report.style import BLUE, FAINT, GREY, PALE, ROW, TOLD, inline, line_figure, style
from fairway.report.table import STAGES, Grid
from fairway.report.templates import template
from fairway.runs.compare import shown_p
from fairway.runs.effects import SCORE, Effect, Equal, Ledger, StageEffect
from fairway.runs.groups import short
from fairway.runtime.files import atomic_write

EQUAL: dict[Equal, str] = {
    "steps": "at equal steps",
    "seconds": "at equal seconds",
    "neither": "at another length",
}
SHOWN = ("float", "quantized", "sliding", SCORE)
COLUMNS = (
    "change", "seeds", *(STAGES.get(stage, stage) for stage in SHOWN), "±", "p (Holm)",
    "step time", "bytes",
)  # fmt: skip
FAR = 3.0  # times as far as nine of ten changes reach: drawn at the edge, with its number
MOST_ROWS = 40  # of one picture


def effects_grids(ledger: Ledger) -> list[Grid]:
    """One table for each recipe and what its pairs of runs shared, the best change first."""
    grids = []
    for recipe, equal in _families(ledger):
        effects = _of(ledger, recipe, equal)
        rows = tuple(_row(effect) for effect in effects)
        notes = _notes(ledger, equal) if (recipe, equal) == _families(ledger)[-1] else []
        luck = ledger.luck.get(equal)
        if luck is not None:
            notes.insert(
                0,
                f"the best of {len(effects)} changes without any effect would seem "
                f"{luck:.5f} bits per byte better",
            )
        grids.append(Grid(f"{recipe}, {EQUAL[equal]}", COLUMNS, rows, tuple(notes)))
    return grids


def _families(ledger: Ledger) -> list[tuple[str, Equal]]:
    return list(dict.fromkeys((effect.recipe, effect.equal) for effect in ledger.effects))


def _of(ledger: Ledger, recipe: str, equal: Equal) -> list[Effect]:
    return [e for e in ledger.effects if (e.recipe, e.equal) == (recipe, equal)]


def _row(effect: Effect) -> tuple[str, ...]:
    score = effect.stages[SCORE]
    more = f" on {effect.backgrounds} backgrounds" if effect.backgrounds > 1 else ""
    return (
        effect.name,
        f"{len(effect.seeds)}{more}",
        *(_difference(effect.stages.get(stage)) for stage in SHOWN),
        fixed(score.standard_error, 5) if score.standard_error is not None else "",
        shown_p(score.p_holm) if score.p_holm is not None else "",
        f"{effect.step_time - 1:+.0%}",
        "" if effect.num_bytes is None else f"{effect.num_bytes:+,.0f}",
    )


def _difference(stage: StageEffect | None) -> str:
    return "" if stage is None else fixed(stage.mean, 5, sign=True)


def _notes(ledger: Ledger, equal: Equal) -> list[str]:
    notes = [f"{ledger.tried} changes were tried in {ledger.num_runs} runs with a score"]
    if ledger.unmatched:
        named = "; ".join(ledger.unmatched[:3])
        more = len(ledger.unmatched) - 3
        notes.append(
            f"in no row, since no other run of the same seed differs in one setting alone: {named}"
            + (f", and {more} more" if more > 0 else "")
        )
    return notes


def effects_csv(ledger: Ledger) -> str:
    """A line for each change and stage; differences in bits per byte."""
    out = io.StringIO()
    lines = csv.writer(out, lineterminator="\n")
    lines.writerow(
        ("recipe", "setting", "old", "new", "equal", "stage", "seeds", "backgrounds",
         "bits_per_byte", "standard_error", "margin", "p", "p_holm",
         "step_time", "num_bytes", "tried")
    )  # fmt: skip
    for effect in ledger.effects:
        for name, stage in effect.stages.items():
            lines.writerow(
                (effect.recipe, effect.path, _cell(effect.old), _cell(effect.new), effect.equal,
                 name, " ".join(map(str, effect.seeds)), effect.backgrounds, stage.mean,
                 _cell(stage.standard_error), _cell(stage.margin), _cell(stage.p),
                 _cell(stage.p_holm), effect.step_time, _cell(effect.num_bytes), ledger.tried)
            )  # fmt: skip
    return out.getvalue()


def _cell(value: object) -> object:
    """A number as it is, nothing for None in a column of numbers, else JSON."""
    if value is None or isinstance(value, int | float):
        return "" if value is None else value
    try:
        return json.dumps(value)
    except TypeError:  # a setting that is not there
        return "absent"


def write_effects_page(ledger: Ledger, out: Path) -> Path:
    """One self-contained page."""
    pictures = []
    with style():
        for number, (recipe, equal) in enumerate(_families(ledger)):
            effects, label = _of(ledger, recipe, equal), f"{recipe}, {EQUAL[equal]}"
            figure = effects_figure(label, effects, ledger.luck.get(equal))
            pictures.append(Markup(inline(figure, f"effects{number}", str(escape(label)))))
    text = template("effects.html.j2").render(
        title="Effects",
        subtitle=f"{ledger.tried} changes, tried in {ledger.num_runs} runs.",
        pictures=pictures,
        tables=effects_grids(ledger),
    )
    atomic_write(out, text.encode())
    return out


def effects_figure(heading: str, effects: Sequence[Effect], luck: float | None) -> Figure:
    """Each change's effect on the score, with its error, beside the band of mere luck."""
    shown = list(effects)
    if len(shown) > MOST_ROWS:  # the best and the worst
        shown = [*shown[: MOST_ROWS // 2], *shown[-MOST_ROWS // 2 :]]
        heading += f" (best and worst {MOST_ROWS // 2} of {len(effects)})"
    figure, (axes,) = line_figure(heading, 1.2 + ROW * len(shown))
    if luck:
        axes.axvspan(-luck, luck, color=PALE, alpha=0.5, linewidth=0)
    axes.axvline(0.0, color=GREY, linewidth=1.0)
    reach = _reach([effect.stages[SCORE] for effect in shown])
    for row, effect in enumerate(shown):
        _draw(axes, row, effect, reach)
    if reach is not None:
        axes.set_xlim(-1.05 * reach, 1.05 * reach)
    axes.set_yticks(range(len(shown)), [_label(effect) for effect in shown])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.grid(axis="x", color=FAINT)
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel("bits per byte; filled: p < 0.05")
    return figure


def _draw(axes: Axes, row: int, effect: Effect, reach: float | None) -> None:
    """One change's mark, with its error, or at the edge with its number."""
    score = effect.stages[SCORE]
    clear = score.p_holm is not None and score.p_holm < 0.05
    x, shape = score.mean, "o"
    if reach is not None and abs(score.mean) > reach:
        x, shape = math.copysign(reach, score.mean), ">" if score.mean > 0 else "<"
        axes.annotate(
            fixed(score.mean, 3, sign=True),
            (x, row),
            xytext=(-8 if x > 0 else 8, 0),
            textcoords="offset points",
            va="center",
            ha="right" if x > 0 else "left",
        )
    else:
        margin = score.margin or 0.0
        axes.plot([x - margin, x + margin], [row, row], color=BLUE)
    fill = BLUE if clear else "none"
    axes.plot([x], [row], shape, color=BLUE, markerfacecolor=fill, label=f"{TOLD}{told(effect)}")


def told(effect: Effect) -> str:
    """What is known of one change, as a sentence."""
    found = dict(zip(COLUMNS, _row(effect), strict=True))
    score = fixed(effect.stages[SCORE].mean, 5, sign=True)
    off = f" ± {found['±']}" if found["±"] else ""
    named = (f"{name} {found[name]}" for name in ("p (Holm)", "step time", "bytes") if found[name])
    seeds = ", ".join(map(str, effect.seeds))
    return f"{effect.name}: {score}{off} bits per byte, {', '.join(named)}, seeds {seeds}"


def _reach(effects: Sequence[StageEffect]) -> float | None:
    """Where the picture ends on both sides; None where no change lies far beyond the others."""
    ends = sorted(abs(effect.mean) + (effect.margin or 0.0) for effect in effects)
    usual = 1.2 * ends[int(0.9 * (len(ends) - 1))]
    return usual if usual and ends[-1] > FAR * usual else None


def _label(effect: Effect) -> str:
    """What is new, short enough to stand beside a picture."""
    setting = ".".join(effect.path.split(".")[-2:])
    return f"{setting} {short(effect.new)[:18]}"
