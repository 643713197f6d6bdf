"""A run's numbers as small tables, for a terminal, for a pipe, for a README and for the page.

A `Grid` is text already: which stages there are and how a number is rounded is decided once, here.
What the numbers promise is in `checks.py`.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from fairway.report.checks import (
    NOT_RUN,
    Result,
    checks,
    count,
    diagnostics,
    fixed,
    section,
)

STAGES = {  # key in result.json: what it is called
    "float": "float weights",
    "quantized": "quantized",
    "sliding": "sliding window",
    "ttt": "test-time training",
}
BASELINES = {
    "xz": "xz -9e",
    "zstd": "zstd --ultra -22",
    "ppmd": "PPMd, order 16",
}


@dataclass(frozen=True)
class Grid:
    """A table of text. The first column holds words, the others numbers.

    strong  index of the row that counts, if one does
    notes   what has to be known to read it
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    strong: int | None = None


def stage_grid(result: Result) -> Grid:
    """Bits per byte after each stage. A stage that was not run says so."""
    stages, score = section(result, "stages"), section(result, "score").get("bits_per_byte")
    rows: list[tuple[str, ...]] = []
    strong, before = None, None
    for key, label in STAGES.items():
        stage = stages.get(key)
        if not stage:
            rows.append((label, NOT_RUN, "", NOT_RUN, NOT_RUN))
            continue
        bits = stage.get("bits_per_byte")
        change = None if before is None or bits is None else bits - before
        if bits is not None and score is not None and abs(bits - score) < 1e-9:
            strong = len(rows)  # the last such stage: it is what was reported
        rows.append(
            (
                label,
                fixed(bits, 5),
                "" if change is None else fixed(change, 5, sign=True),
                fixed(stage.get("nats_per_token"), 5),
                fixed(stage.get("seconds"), 1),
            )
        )
        before = bits if bits is not None else before
    notes = []
    if score is not None:
        total = section(result, "score")
        notes.append(
            f"score: {fixed(score, 5)} bits per byte over {count(total.get('bytes'))} bytes "
            f"({count(total.get('tokens'))} tokens)"
        )
        if strong is None:
            notes.append("the score is not that of any stage above")
    columns = ("stage", "bits per byte", "change", "nats per token", "seconds")
    return Grid("Stages", columns, tuple(rows), tuple(notes), strong)


def baseline_grid(result: Result) -> Grid:
    """General compressors on the same text, and the score beneath them."""
    found = section(result, "baselines")
    rows, notes = [], []
    for key in [*BASELINES, *(name for name in found if name not in BASELINES)]:
        figures = section(found, key)
        alone, primed = figures.get("alone"), figures.get("primed")
        rows.append((BASELINES.get(key, key), fixed(alone, 4), fixed(primed, 4)))
        notes += [note for note in _baseline_notes(figures) if note not in notes]
    score = section(result, "score").get("bits_per_byte")
    rows.append(("this run", "", fixed(score, 4)))
    notes.insert(0, "primed: after reading the training text, as the model has")
    columns = ("bits per byte", "alone", "primed")
    return Grid("Against general compressors", columns, tuple(rows), tuple(notes), len(rows) - 1)


def _baseline_notes(figures: Mapping[str, Any]) -> list[str]:
    notes = []
    prime, train = figures.get("prime_bytes"), figures.get("train_bytes")
    if prime is not None and train is not None and prime < train:
        notes.append(f"primed with the last {count(prime)} of {count(train)} bytes only")
    priced, val = figures.get("priced_bytes"), figures.get("val_bytes")
    if priced is not None and val is not None and priced < val:
        notes.append(f"compressors: on the first {count(priced)} of {count(val)} bytes only")
    return notes


def artifact_grid(result: Result) -> Grid:
    """Where the bytes of the artifact go."""
    artifact = section(result, "artifact")
    total, cap = artifact.get("bytes_total"), artifact.get("cap_bytes")
    parts, notes = artifact_parts(result)
    rows = [(name, count(size), _share(size, total)) for name, size in parts.items()]
    rows.append(("total", count(total), _share(total, total)))
    if cap is not None:
        rows.append(("cap", count(cap), ""))
    strong = len(parts)
    if artifact.get("sha256"):
        notes.append(f"sha256 {artifact['sha256']}")
    return Grid("Artifact", ("part", "bytes", "share"), tuple(rows), tuple(notes), strong)


def artifact_parts(result: Result) -> tuple[dict[str, int], list[str]]:
    """Bytes by part, adding up to the total, and notes on what is not counted.

    With `artifact.groups` (name to bytes, by tensor) the model is shown by its groups.
    """
    artifact = section(result, "artifact")
    total = artifact.get("bytes_total")
    if total is None:
        return {}, []
    groups = {name: size for name, size in section(artifact, "groups").items() if size}
    model = artifact.get("bytes_model")
    parts: dict[str, int] = {}
    if groups and (model is None or sum(groups.values()) <= model):
        parts |= groups
        if model is not None and model > sum(groups.values()):
            parts["container"] = model - sum(groups.values())
    elif model is not None:
        parts["model"] = model
    if artifact.get("bytes_code"):
        parts["code"] = artifact["bytes_code"]
    tokenizer, notes = artifact.get("bytes_tokenizer"), []
    if tokenizer and sum(parts.values()) + tokenizer <= total:
        parts["tokenizer"] = tokenizer
    elif tokenizer:
        notes.append(f"the tokenizer's {count(tokenizer)} bytes are not counted")
    if sum(parts.values()) < total:
        parts["other"] = total - sum(parts.values())
    return parts, notes


def _share(size: int | None, total: int | None) -> str:
    return "" if size is None or not total else f"{size / total:.1%}"


def diagnostic_lines(result: Result) -> list[str]:
    """Numbers that are not scores, each with the words it must be shown with."""
    return [f"{name}: {fixed(value, 5)} ({words})" for name, value, words in diagnostics(result)]


def grids(result: Result) -> list[Grid]:
    return [stage_grid(result), baseline_grid(result), artifact_grid(result)]


def as_plain(grid: Grid) -> str:
    """Aligned columns, no colour: for pipes and logs."""
    lines = [grid.columns, *grid.rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(grid.columns))]

    def text(line: Sequence[str]) -> str:
        first, *others = line
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        return "  ".join(cells).rstrip()

    body = [text(line) for line in lines]
    return "\n".join([grid.title, *(f"  {line}" for line in [*body, *grid.notes])])


def as_markdown(grid: Grid) -> str:
    """A GitHub table with its notes beneath; the row that counts is bold."""

    def text(cells: Sequence[str], strong: bool = False) -> str:
        safe = [cell.replace("|", "\\|") for cell in cells]
        return f"| {' | '.join(f'**{c}**' if strong and c else c for c in safe)} |"

    rule = f"|---|{'---:|' * (len(grid.columns) - 1)}"
    rows = [text(row, i == grid.strong) for i, row in enumerate(grid.rows)]
    notes = ["", *(f"- {note}" for note in grid.notes)] if grid.notes else []
    return "\n".join([text(grid.columns), rule, *rows, *notes])


def print_result(result: Result, file: TextIO | None = None) -> None:
    """Tables and promises of one run: with rich on a terminal, as plain lines anywhere else."""
    screen = sys.stdout if file is None else file
    title = run_title(result)
    if screen.isatty():
        _print_rich(title, result, screen)
        return
    promises = [f"  {c.name}: {c.state}. {c.sentence}" for c in checks(result)]
    blocks = [title, *(as_plain(grid) for grid in grids(result)), "\n".join(["Checks", *promises])]
    others = [f"  {line}" for line in diagnostic_lines(result)]
    if others:
        blocks.append("\n".join(["Not scores", *others]))
    print("\n\n".join(blocks), file=screen)


def run_title(result: Result) -> str:
    """What was run, where; what the result does not say is left out.

    >>> run_title({"recipe": "naive_baseline", "seed": 1, "params": 17059912})
    'naive_baseline, seed 1, 17,059,912 parameters'
    """
    recipe, told = result.get("recipe"), circumstances(result)
    return ", ".join(str(part) for part in (recipe, told) if part)


def circumstances(result: Result) -> str:
    """The title without the recipe."""
    words = {"seed": "seed {}", "params": "{:,} parameters", "device": "{}"}
    said = [text.format(result[key]) for key, text in words.items() if result.get(key) is not None]
    return ", ".join(said)


def _print_rich(title: str, result: Result, file: TextIO) -> None:
    # Imported here: it takes a tenth of a second, which a pipe should not pay.
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=file, highlight=False)
    console.print(Text(title, style="bold"))
    for grid in grids(result):
        table = Table(title=grid.title, title_justify="left", box=box.SIMPLE_HEAD)
        for i, column in enumerate(grid.columns):
            table.add_column(column, justify="right" if i else "left", no_wrap=bool(i))
        for i, row in enumerate(grid.rows):
            cells = (Text(cell, style="dim" if cell == NOT_RUN else "") for cell in row)
            table.add_row(*cells, style="bold" if i == grid.strong else "")
        console.print(table)
        for note in grid.notes:
            console.print(Text(f"  {note}", style="dim"))
    console.print()
    marks = {"kept": ("✓", "green"), "broken": ("✗", "red")}
    for check in checks(result):
        mark, style = marks.get(check.state, ("-", "dim"))
        console.print(Text.assemble((f"{mark} {check.name}: ", style), check.sentence))
    for line in diagnostic_lines(result):
        console.print(Text(line, style="dim"))
