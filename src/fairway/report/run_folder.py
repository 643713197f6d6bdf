"""Reading a run folder for a report: what is there, and what its log says of the training.

Nothing is computed and nothing is written here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from fairway.proof.certificate import Certificate
from fairway.report.excerpt import EXCERPT, Excerpt, read_excerpt
from fairway.result import RunResult
from fairway.runs.description import MOST_DESCRIPTION, RECIPE
from fairway.runs.record import RunRecord
from fairway.runtime.files import read_file
from fairway.runtime.identity import unsealed
from fairway.runtime.limits import one_line
from fairway.runtime.setup import LOG
from fairway.runtime.strict_json import parse_json

MOST_LOG = 1 << 30  # bytes
MOST_NUMBER = 1e300  # in a log

RecipeData = Mapping[str, Any]  # a recipe as recipe.json has it


@dataclass(frozen=True)
class TrainingCurve:
    """What the log has of the training, one entry per logged step.

    lr_scale  multiplier on the learning rates; empty where the log has none
    """

    steps: tuple[float, ...] = ()
    losses: tuple[float, ...] = ()  # nats per token
    lr_scale: tuple[float, ...] = ()


@dataclass(frozen=True)
class RunFolder:
    """One run. Only `result.json` must be there; what else is missing is None or empty.

    recipe  as `recipe.json` has it: another version may have written it
    """

    record: RunRecord
    recipe: RecipeData | None
    certificate: Certificate | None
    curve: TrainingCurve
    excerpt: Excerpt | None = None

    @property
    def result(self) -> RunResult:
        return self.record.result

    @property
    def name(self) -> str:
        return self.record.folder.name


def read_run(path: Path) -> RunFolder:
    """ValueError where the folder has no result, or a file in it is damaged or another run's."""
    record, excerpt = RunRecord.of(path), path / EXCERPT
    return RunFolder(
        record,
        _read_recipe(path / RECIPE),
        _read_certificate(path / "certificate.json", record.result),
        read_curve(path / LOG),
        read_excerpt(excerpt, record.result) if excerpt.is_file() else None,
    )


def read_curve(log: Path) -> TrainingCurve:
    """The training curve in a log of JSON lines; an empty one where there is no log.

    A line counts when it has a `train_loss` (or `loss`) and a `step` (or `done`). A log is added to
    when a run continues, so a step that comes again replaces what was logged from there on.
    """
    if not log.is_file():
        return TrainingCurve()
    points: list[tuple[float, float, float | None]] = []
    lines = read_file(log, MOST_LOG).split(b"\n")
    last = max((i for i, line in enumerate(lines, start=1) if line.strip()), default=0)
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = parse_json(line)
        except ValueError as error:
            # A start that was killed, or had no room, leaves its last line unfinished.
            if number == last or (line.startswith(b"{") and not line.rstrip().endswith(b"}")):
                continue
            raise ValueError(
                f"{log}, line {number} is not JSON ({one_line(error)}); remove the line, or the "
                f"file if it is no log of fairway"
            ) from None
        point = _curve_point(entry)
        if point is not None:
            while points and points[-1][0] >= point[0]:
                points.pop()
            points.append(point)
    scales = [scale for _, _, scale in points if scale is not None]
    return TrainingCurve(
        tuple(step for step, _, _ in points),
        tuple(loss for _, loss, _ in points),
        tuple(scales) if len(scales) == len(points) else (),
    )


def _curve_point(entry: object) -> tuple[float, float, float | None] | None:
    if not isinstance(entry, Mapping) or entry.get("stage", "train") != "train":
        return None
    step = entry.get("step", entry.get("done"))
    loss = entry.get("train_loss", entry.get("loss"))
    if not _is_number(step) or not _is_number(loss):
        return None
    scale = entry.get("lr_scale")
    return float(step), float(loss), float(scale) if _is_number(scale) else None


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and abs(value) < MOST_NUMBER


def _read_recipe(path: Path) -> RecipeData | None:
    return unsealed(read_file(path, MOST_DESCRIPTION)) if path.is_file() else None


def _read_certificate(path: Path, result: RunResult) -> Certificate | None:
    if not path.is_file():
        return None
    try:
        found = Certificate.load(path)
        if result.artifact is not None and found.artifact_sha256 != result.artifact.sha256:
            raise ValueError("it certifies another model than that of the result beside it")
        return found
    except ValueError as error:
        raise ValueError(f"{path}: {one_line(error)}; `fairway prove` writes it again") from error
