"""The folder of one run: whose it is, what the run in it is made with, and what was settled once.

`run.json` holds what makes the run (recipe, data, versions) and what its first start settled for
good: number type, compilation, evaluation as planned. A folder is new, holds this run, unfinished
or finished, or holds another; old outputs are moved into `earlier/N/`, never mixed with new ones.
"""

import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, cast

import torch

from fairway.artifact.config_json import config_from_json, config_to_json, plugins_of
from fairway.evaluate.planner import Estimate
from fairway.pipeline.options import Resume
from fairway.recipes.recipe import Recipe
from fairway.runs.description import RECIPE, RUN, read_run
from fairway.runtime.distributed import Ranks
from fairway.runtime.files import atomic_write, file_sha256, locked
from fairway.runtime.identity import difference, json_sha256, sealed
from fairway.runtime.run_log import RunLog
from fairway.runtime.setup import LOG, Runtime
from fairway.runtime.sharing import share
from fairway.runtime.strict_json import Json
from fairway.runtime.version import VERSION
from fairway.tokens.shards import DataFolder

LOCK, EARLIER = "run.lock", "earlier"
# What a run writes, its description first: without it the rest is nobody's.
OUTPUTS = (
    RUN, RECIPE, LOG, "checkpoint*.safetensors", ".checkpoint*", "*.spent", "hessians.safetensors",
    "score *.safetensors*", "score *.nats.npy", "model.fwy", "result.json",
    "documents.safetensors", "excerpt.safetensors", "proof.fwp", "certificate.json", "report.html",
    "train_gpt.py",
)  # fmt: skip
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class Settled:
    """What a run measured at its first start, and no later start measures again.

    obstacle  why steps were not compiled, at one start at least, although they were to be
    """

    compute_dtype: Literal["float32", "bfloat16"]
    compiled: bool
    obstacle: str = ""
    evaluation: Estimate | None = None


def made_with(recipe: Recipe, data: DataFolder) -> dict[str, Json]:
    """All that decides what a run gives, as JSON."""
    files = [*data.shard_files("train"), *data.shard_files("val")]
    files += [*data.path.glob("*val_bytes_[0-9]*.bin"), *data.path.glob("*.model")]
    return {
        "recipe": config_to_json(recipe),
        "data": {f.name: data.recorded.get(f.name) or file_sha256(f) for f in sorted(files)},
        "versions": {"fairway": VERSION, "torch": str(torch.__version__)},
        "plugins": [asdict(plugin) for plugin in plugins_of(recipe)],
    }


@contextmanager
def owned(out: Path, ranks: Ranks) -> Iterator[None]:
    """Hold the folder, so that no second run writes into it; made if need be.

    Raises ValueError naming the process that holds it. A folder that was made here and in which
    nothing came about is removed again.
    """
    if not ranks.is_main:
        yield
        return
    is_new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        with locked(out / LOCK, f"process {os.getpid()} on {socket.gethostname()}"):
            for torn in out.glob(".*.partial"):  # of a process that was killed while it wrote
                torn.unlink()
            yield
    finally:
        if is_new and [path.name for path in out.iterdir()] == [LOCK]:
            shutil.rmtree(out)


class RunFolder:
    """The folder `path` as this start of a run finds it.

    settled   None in a new run that has settled nothing yet
    finished  all that was asked for is there
    """

    def __init__(self, path: Path, made: dict[str, Json], runtime: Runtime) -> None:
        self.path, self.made, self.runtime = path, made, runtime
        self.sha256 = json_sha256(made)
        self.settled: Settled | None = None
        self.finished = False
        self.is_new = True  # nothing of this run is there yet

    @property
    def data(self) -> dict[str, str]:
        """sha256 of each file of the text, by name."""
        return cast("dict[str, str]", self.made["data"])

    @classmethod
    def open(
        cls,
        path: Path,
        recipe: Recipe,
        data: DataFolder,
        runtime: Runtime,
        resume: Resume = "no",
        overwrite: bool = False,
    ) -> "RunFolder":
        """Look, and touch nothing. Raises ValueError where the folder is not as `resume` needs it.

        resume     "yes" goes on with this run, "auto" starts or goes on, "no" starts
        overwrite  old outputs may be moved away
        """

        def look() -> Json:
            made = made_with(recipe, data)
            return {"made": made, "run": _look(path, made, resume, overwrite)}

        told = share(runtime.ranks, look)
        assert isinstance(told, dict)
        folder, run = cls(path, told["made"], runtime), told["run"]  # type: ignore[arg-type]
        if isinstance(run, dict):
            folder.settled = config_from_json(Settled, run["settled"])  # type: ignore[arg-type]
            folder.finished = bool(run["finished"])
            if runtime.ranks.is_main:
                runtime.log.keep_in(path / LOG)
        folder.is_new = run is None
        return folder

    def settle(
        self, runtime: Runtime, compiled: bool | None = None, dtype: str | None = None
    ) -> Runtime:
        """Number type and compilation: as settled before, else as given, else as measured."""
        before = self.settled
        if before is None:
            return runtime.measured(compiled, dtype)
        if dtype not in (None, before.compute_dtype):
            raise ValueError(
                f"{self.path} was started in {before.compute_dtype}; leave --compute-dtype out, or "
                f"start anew with --overwrite"
            )
        reason = "as at the first start"
        runtime = replace(runtime, obstacle=before.obstacle)
        return runtime.settled(DTYPES[before.compute_dtype], before.compiled, reason)

    def begin(self, recipe: Recipe, runtime: Runtime, evaluation: Estimate | None = None) -> None:
        """Move old outputs away and describe the new run; later starts only add what is new."""
        settled = self.settled or Settled(
            compute_dtype="bfloat16" if runtime.compute_dtype == torch.bfloat16 else "float32",
            compiled=runtime.compiled,
        )
        self.settled = replace(
            settled,
            evaluation=settled.evaluation or evaluation,
            obstacle=runtime.obstacle or settled.obstacle,
        )
        if not runtime.ranks.is_main:
            return
        if self.is_new:
            move_outputs_away(self.path, runtime.log)
        self._write()
        self.is_new = False
        recipe_json = json.dumps(sealed(config_to_json(recipe)), indent=1)
        atomic_write(self.path / RECIPE, recipe_json.encode())
        if runtime.log.file is None:
            runtime.log.keep_in(self.path / LOG)

    def finish(self) -> None:
        """All that was asked for is there."""
        self.finished = True
        self._write()

    def _write(self) -> None:
        assert self.settled is not None
        held: dict[str, Json] = {
            "made_with": self.made,
            "settled": config_to_json(self.settled),
            "finished": self.finished,
        }
        text = json.dumps(sealed(held), indent=1)
        atomic_write(self.path / RUN, text.encode())


def outputs_in(folder: Path) -> list[Path]:
    """What a run has written there, its description first."""
    return list(dict.fromkeys(path for name in OUTPUTS for path in sorted(folder.glob(name))))


def move_outputs_away(folder: Path, log: RunLog) -> None:
    """Into `earlier/N/`, the description first: half of a run must not pass for one."""
    found = outputs_in(folder)
    if not found:
        return
    taken = [int(p.name) for p in (folder / EARLIER).glob("*") if p.name.isdecimal()]
    place = folder / EARLIER / str(max([0, *taken]) + 1)
    place.mkdir(parents=True)
    for path in found:
        path.replace(place / path.name)
    log.say(f"moved {len(found)} files of an earlier run to {place}")


def _look(
    path: Path, made: dict[str, Json], resume: Resume, overwrite: bool
) -> dict[str, Json] | None:
    """The unfinished or finished run to go on with; None to begin a new one."""
    goes_on = resume != "no"
    try:
        run = read_run(path)
    except ValueError:
        if overwrite:
            return None
        raise
    if run is None and not outputs_in(path):
        if resume == "yes":
            raise ValueError(f"nothing to go on from in {path}; leave --resume out to start there")
        return None
    changed = "made by another version" if run is None else difference(run["made_with"], made)
    if goes_on and run is not None and changed is None:
        return run
    if overwrite and resume != "yes":
        return None
    if changed is not None:
        raise ValueError(
            f"{path} holds another run ({changed}); name another folder with --out, or give "
            f"--overwrite, which moves its files to {EARLIER}/"
        )
    state = "this run, finished" if run and run["finished"] else "this run, unfinished"
    raise ValueError(
        f"{path} holds {state}; go on with --resume, or give --overwrite, which moves its files to "
        f"{EARLIER}/ and starts anew"
    )
