"""A run's numbers as small tables, for a terminal, for a pipe and for the page.

A `Grid` is text already: which stages there are and how a number is rounded is decided once, here.
What the numbers promise is in `checks.py`.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

from fairway.report.checks import NOT_RUN, checks, count, diagnostics, fixed
from fairway.result import ArtifactResult, CompressorResult, RunResult, TensorResult

STAGES = {  # key in result.json: what it is called
    "float": "float weights",
    "quantized": "quantized",
    "sliding": "sliding window",
    "ttt": "test-time training",
}
COMPRESSORS = {
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


def stage_grid(result: RunResult) -> Grid:
    """Bits per byte after each stage. A stage that was not run says so."""
    score = result.score
    rows: list[tuple[str, ...]] = []
    strong, before = None, None
    for key, label in STAGES.items():
        stage = result.stages.get(key)
        if stage is None:
            rows.append((label, NOT_RUN, "", NOT_RUN, NOT_RUN))
            continue
        bits = stage.bits_per_byte
        if score is not None and abs(bits - score.nats_bits_per_byte) < 1e-9:
            strong = len(rows)  # the last such stage: it is what was reported
        change = "" if before is None else fixed(bits - before, 5, sign=True)
        nats, seconds = fixed(stage.nats_per_token, 5), fixed(stage.seconds, 1)
        rows.append((label, fixed(bits, 5), change, nats, seconds))
        before = bits
    notes = []
    if score is not None:
        notes.append(
            f"score: {fixed(score.bits_per_byte, 5)} bits per byte over {count(score.bytes)} bytes "
            f"({count(score.tokens)} tokens)"
        )
        if score.scope is not None:
            notes.append(f"scored: {score.scope}")
        if score.code_bytes is not None:
            notes.append(
                f"the score is the length of the text's code, {count(score.code_bytes)} bytes; its "
                f"nats come to {fixed(score.nats_bits_per_byte, 7)} bits per byte"
            )
        if strong is None:
            notes.append("the score is not that of any stage above")
    columns = ("stage", "bits per byte", "change", "nats per token", "seconds")
    return Grid("Stages", columns, tuple(rows), tuple(notes), strong)


def compressor_grid(result: RunResult) -> Grid:
    """General compressors on the same text, and the score beneath them."""
    found = compressors_by_label(result)
    rows, notes = [], ["primed: after reading the training text, as the model has"]
    for label, figures in found.items():
        alone, primed = (figures.alone, figures.primed) if figures else (None, None)
        rows.append((label, fixed(alone, 4), fixed(primed, 4)))
        notes += [note for note in _partial_notes(figures) if note not in notes]
    rows.append(("this run", "", fixed(result.score.bits_per_byte if result.score else None, 4)))
    columns = ("bits per byte", "alone", "primed")
    return Grid("Against general compressors", columns, tuple(rows), tuple(notes), len(rows) - 1)


def compressors_by_label(result: RunResult) -> dict[str, CompressorResult | None]:
    """The compressors we know, None where one was not run, and any others of the result."""
    return {COMPRESSORS.get(k, k): result.baselines.get(k) for k in COMPRESSORS | result.baselines}


def _partial_notes(figures: CompressorResult | None) -> list[str]:
    """What to say of a figure that stands on a part of the text."""
    if figures is None:
        return []
    notes = []
    prime, train = figures.prime_bytes, figures.train_bytes
    if prime is not None and train is not None and prime < train:
        notes.append(f"primed with the last {count(prime)} of {count(train)} bytes only")
    scored, val = figures.scored_bytes, figures.val_bytes
    if scored is not None and val is not None and scored < val:
        notes.append(f"compressors: on the first {count(scored)} of {count(val)} bytes only")
    return notes


def artifact_grid(artifact: ArtifactResult | None) -> Grid:
    """Where the bytes of the artifact go."""
    title, columns = "Artifact", ("part", "bytes", "share")
    if artifact is None:
        return Grid(title, columns, (("total", NOT_RUN, ""),), strong=0)
    total = artifact.bytes_total
    parts, notes = artifact_parts(artifact)
    shares = {**parts, "total": total}
    rows = [
        (name, count(size), f"{size / total:.1%}" if total else "") for name, size in shares.items()
    ]
    if artifact.cap_bytes is not None:
        rows.append(("cap", count(artifact.cap_bytes), ""))
    notes.append(f"sha256 {artifact.sha256}")
    return Grid(title, columns, tuple(rows), tuple(notes), len(parts))


def artifact_parts(artifact: ArtifactResult) -> tuple[dict[str, int], list[str]]:
    """Bytes by part, adding up to the total, and notes on what is not counted.

    With `groups` (bytes by section of the file) the model is shown by its groups.
    """
    total, model = artifact.bytes_total, artifact.bytes_model
    held = {name: size for name, size in artifact.groups.items() if size}
    parts = {name: size for name, size in held.items() if name != "tokenizer"}  # has its own row
    grouped = sum(parts.values())
    if not parts or grouped > model:
        parts = {"model": model}
    elif grouped < model:
        parts["container"] = model - grouped
    if artifact.bytes_code:
        parts["code"] = artifact.bytes_code
    tokenizer, notes = artifact.bytes_tokenizer, []
    if tokenizer and sum(parts.values()) + tokenizer <= total:
        parts["tokenizer"] = tokenizer
    elif tokenizer:
        notes.append(f"the tokenizer's {count(tokenizer)} bytes are not counted")
    if sum(parts.values()) < total:
        parts["other"] = total - sum(parts.values())
    return parts, notes


def tensor_groups(result: RunResult) -> dict[str, list[TensorResult]]:
    """The tensors of the file, by block and by what stands outside the blocks."""
    groups: dict[str, list[TensorResult]] = {}
    for name, tensor in (result.artifact.tensors if result.artifact else {}).items():
        first, *rest = name.split(".")
        group = f"block {rest[0]}" if first == "blocks" and rest else first
        if tensor.weights:
            groups.setdefault(group, []).append(tensor)
    return groups


def diagnostic_lines(result: RunResult) -> list[str]:
    """Numbers that are not scores, each with the words it must be shown with."""
    return [f"{name}: {fixed(value, 5)} ({words})" for name, value, words in diagnostics(result)]


def grids(result: RunResult) -> list[Grid]:
    return [stage_grid(result), compressor_grid(result), artifact_grid(result.artifact)]


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


def print_result(result: RunResult, file: TextIO | None = None) -> None:
    """Tables and promises of one run: with rich on a terminal, as plain lines anywhere else."""
    screen = sys.stdout if file is None else file
    if screen.isatty():
        _print_rich(result, screen)
        return
    promises = [f"  {c.name}: {c.state}. {c.sentence}" for c in checks(result)]
    blocks = [run_title(result), *map(as_plain, grids(result)), "\n".join(["Checks", *promises])]
    others = [f"  {line}" for line in diagnostic_lines(result)]
    if others:
        blocks.append("\n".join(["Not scores", *others]))
    print("\n\n".join(blocks), file=screen)


def run_title(result: RunResult) -> str:
    """What was run, where: `naive_baseline, seed 1, 17,059,912 parameters, cpu`."""
    return f"{result.recipe}, {circumstances(result)}"


def circumstances(result: RunResult) -> str:
    """The title without the recipe."""
    return f"seed {result.seed}, {result.params:,} parameters, {result.device}"


def _print_rich(result: RunResult, file: TextIO) -> None:
    # Imported here: it takes a tenth of a second, which a pipe should not pay.
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=file, highlight=False)
    console.print(Text(run_title(result), style="bold"))
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
