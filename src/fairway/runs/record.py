"""One run as it is kept and compared: its result, and all that decided it but the seed.

Two runs are seeds of one thing where their resolved recipes, texts and versions are the same. A
resolved recipe is what was run: the evaluation as the clock chose it, the number type as measured;
what only says which recipe it is (`ABOUT`) is left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from fairway.artifact.config_json import config_to_json
from fairway.result import RESULT, RunResult, read_result
from fairway.runs.description import MOST_DESCRIPTION, RECIPE, RUN, read_run
from fairway.runtime.files import file_sha256, read_file
from fairway.runtime.identity import difference, json_sha256, unsealed
from fairway.runtime.limits import one_line
from fairway.runtime.strict_json import JsonObject, json_object

ABOUT = frozenset({"name", "parent", "claim_bpb", "pull_request"})
# A choice that is made is in the evaluation; what else might have been chosen decided nothing.
NOT_SETTINGS = ABOUT | {"seed", "evaluate_range"}
ARTIFACT = "model.fwy"


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run that was trained, as far as it has come.

    settings  the resolved recipe without seed, as JSON; empty where the folder has none
    versions  of fairway and PyTorch; empty where they are unknown
    plugins   classes from outside that took part, each with the hash of its source
    finished  all that was asked for is there
    recorded  when the result was last written: UTC, ISO 8601
    """

    folder: Path
    result: RunResult
    settings: JsonObject = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    plugins: tuple[JsonObject, ...] = ()
    finished: bool = False
    recorded: str = ""

    @classmethod
    def of(cls, folder: Path) -> "RunRecord":
        """What a run folder holds; a folder without `run.json` says less.

        Raises ValueError where there is no result, a file is damaged, or is another run's.
        """
        folder = folder.resolve()
        result, run = read_result(folder), read_run(folder)
        recorded = datetime.fromtimestamp((folder / RESULT).stat().st_mtime, UTC)
        made = {} if run is None else json_object(run.get("made_with"), "made_with")
        recipe = _recipe(folder, made)
        if run is not None:
            _require_one_run(folder, result, made, recipe)
        return cls(
            folder=folder,
            result=result,
            settings=_resolved(recipe, {} if run is None else run.get("settled")),
            versions={k: str(v) for k, v in _mapping(made.get("versions")).items()},
            plugins=tuple(made.get("plugins") or ()),  # type: ignore[arg-type]
            finished=run is not None and bool(run.get("finished")),
            recorded=recorded.isoformat(timespec="milliseconds"),
        )

    @property
    def seed(self) -> int:
        return self.result.seed

    @property
    def machine(self) -> str:
        """Processor and GPUs, as far as the result says."""
        found = self.result.machine
        return self.result.device if found is None else ", ".join([found.processor, *found.gpus])

    @cached_property
    def run_id(self) -> str:
        """Of this very execution: equal in a copied folder, another when the same is run again."""
        made = self.result.made_with or [self.settings, self.result.recipe, self.seed]
        return json_sha256({"made_with": made, "train": config_to_json(self.result.train)})

    @cached_property
    def text(self) -> dict[str, Any]:
        """The text that was scored: hashes of its files, and how much of it."""
        files = {name: sha for name, sha in self.result.data.items() if _is_scored(name)}
        if files:
            tokens = _mapping(self.settings.get("tokens"))
            return {"files": files, "val_tokens": tokens.get("val_tokens")}
        score = self.result.score
        return {"bytes": score and score.bytes, "tokens": score and score.tokens}

    @cached_property
    def text_id(self) -> str:
        return json_sha256(self.text)

    @cached_property
    def experiment(self) -> dict[str, Any]:
        """All that decides a run but its seed. Texts are named by the beginning of their hash."""
        training = {name: sha for name, sha in self.result.data.items() if not _is_scored(name)}
        about = {
            "validation text": self.text_id[:8],
            "training text": json_sha256(training)[:8] if training else "unknown",
            "version": self.versions,
            "plugins": list(self.plugins),
        }
        return {**self.settings, **about}

    @cached_property
    def group_id(self) -> str:
        """Equal for the seeds of one thing; a run that does not say what it was is alone."""
        return json_sha256(self.experiment if self.settings else {"alone": self.run_id})

    def to_json(self) -> JsonObject:
        return {
            "folder": str(self.folder),
            "result": self.result.to_json(),
            "settings": self.settings,
            "versions": self.versions,
            "plugins": list(self.plugins),
            "finished": self.finished,
            "recorded": self.recorded,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "RunRecord":
        return cls(
            folder=Path(data["folder"]),
            result=RunResult.from_json(data["result"]),
            settings=data["settings"],
            versions=data["versions"],
            plugins=tuple(data["plugins"]),
            finished=data["finished"],
            recorded=data["recorded"],
        )


def require_own_artifact(record: RunRecord) -> None:
    """ValueError where the model file beside the result is not the one that was scored."""
    path, artifact = record.folder / ARTIFACT, record.result.artifact
    if artifact is not None and path.is_file() and file_sha256(path) != artifact.sha256:
        raise ValueError(
            f"{path} is not the file that was scored: its sha256 is not that of {RESULT}; bring "
            f"the right one back, or run it again"
        )


def _is_scored(name: str) -> bool:
    """Whether a file of a data folder is part of the text that is scored, or its tokenizer."""
    return "val" in name or name.endswith(".model")


def _recipe(folder: Path, made: Mapping[str, object]) -> JsonObject:
    path = folder / RECIPE
    if not path.is_file():
        return dict(_mapping(made.get("recipe")))
    try:
        return unsealed(read_file(path, MOST_DESCRIPTION))
    except ValueError as error:
        raise ValueError(f"{path}: {one_line(error)}; run the stage that writes it again") from None


def _require_one_run(
    folder: Path, result: RunResult, made: Mapping[str, Any], recipe: JsonObject
) -> None:
    if result.made_with not in (None, json_sha256(made)):
        raise ValueError(
            f"{folder / RESULT} is the result of another run than {RUN} beside it describes; bring "
            f"the right file back, or run it again"
        )
    foreign = difference(recipe, made.get("recipe"))
    if foreign is not None:
        raise ValueError(f"{folder / RECIPE} is another run's than {RUN} beside it ({foreign})")
    if result.seed != recipe.get("seed"):
        raise ValueError(
            f"{folder / RESULT} has seed {result.seed}, and {RECIPE} beside it "
            f"{recipe.get('seed')}: they are of two runs"
        )


def _resolved(recipe: JsonObject, settled: object) -> JsonObject:
    """The recipe as it was run."""
    if not recipe:
        return {}
    found = {name: value for name, value in recipe.items() if name not in NOT_SETTINGS}
    settled = _mapping(settled)
    evaluation = _mapping(settled.get("evaluation"))
    if evaluation:
        found["evaluate"] = dict(_mapping(evaluation.get("config")))
    found["compute_dtype"] = settled.get("compute_dtype")
    return found


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
