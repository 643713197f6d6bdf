"""Several seeds of one recipe: run, gone on with, summarized; what is done is not done again."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from fairway.artifact.config_json import config_from_json
from fairway.pipeline.folder import Settled, made_with
from fairway.pipeline.options import RunOptions, SlurmOptions
from fairway.pipeline.slurm import job_words, seed_command, submit, wait_for
from fairway.pipeline.story import DEFAULTS, run
from fairway.recipes.recipe import Recipe
from fairway.runs.database import DATABASE, RunsDatabase
from fairway.runs.description import RUN, read_run
from fairway.runs.groups import Group, group_runs
from fairway.runs.record import RunRecord
from fairway.runs.rules import CHALLENGE, RuleSet
from fairway.runs.scan import read_record
from fairway.runtime.distributed import Ranks
from fairway.runtime.identity import difference
from fairway.runtime.progress import Progress, silent
from fairway.runtime.strict_json import JsonObject, json_object
from fairway.tokens.shards import DataFolder

SLURM = SlurmOptions()


@dataclass(frozen=True)
class Seeds:
    """The runs of several seeds, in the order asked for.

    groups  one, unless something but the seed differed after all: it then names what
    """

    records: tuple[RunRecord, ...]
    groups: tuple[Group, ...]

    @property
    def holds(self) -> bool:
        """Whether nothing that was checked says no, and all are seeds of one thing."""
        return len(self.groups) == 1 and all(record.result.holds for record in self.records)

    def sentences(self, rules: RuleSet = CHALLENGE) -> list[str]:
        """What a reader of the mean must know."""
        found = [f"{g.name}: {words}" for g in self.groups for words in g.reservations]
        if len(self.groups) > 1:
            names = "; ".join(group.name for group in self.groups)
            found.append(f"not seeds of one thing, but of {len(self.groups)}: {names}")
        for record in self.records:
            if not record.result.holds:
                found.append(f"{record.folder} does not keep what its checks ask")
        seeds = {record.seed for record in self.records}
        if len(seeds) < rules.num_seeds:
            found.append(f"the rules of {rules.name} ask for {rules.num_seeds} seeds")
        return found

    def to_json(self, rules: RuleSet = CHALLENGE) -> JsonObject:
        return {
            "holds": self.holds,
            "groups": [group.to_json() for group in self.groups],
            "notes": list(self.sentences(rules)),
        }


def seed_folder(out: Path, seed: int) -> Path:
    return out / f"seed-{seed}"


def run_seeds(
    recipe: Recipe,
    data: Path,
    out: Path,
    seeds: Sequence[int],
    options: RunOptions = DEFAULTS,
    *,
    runs: Path | None = None,
    progress: Progress = silent,
) -> Seeds:
    """Run each seed in `out/seed-N`, one after another; finished ones are left alone.

    runs  the database; `out/runs.sqlite` where it is None

    Under torchrun, which is for one seed, all processes but the first return an empty summary.
    Raises ValueError before anything is run where a seed is named twice, a folder holds another
    run, or several processes are to run several seeds.
    """
    _require_alone(len(seeds))
    require_folders(recipe, data, out, seeds)
    out.mkdir(parents=True, exist_ok=True)
    options = replace(options, resume="auto")
    runs = runs or out / DATABASE
    RunsDatabase(runs).check()
    for seed in seeds:
        chosen, folder = replace(recipe, seed=seed), seed_folder(out, seed)
        run(chosen, data, folder, options, runs=runs, progress=progress)
        if options.compute_dtype is None:  # what is measured once is one thing for all of them
            options = replace(options, compute_dtype=_settled_dtype(folder))
    return summary(out, seeds, runs) if Ranks.from_env().is_main else Seeds((), ())


def submit_seeds(
    recipe: Recipe,
    data: Path,
    out: Path,
    seeds: Sequence[int],
    options: RunOptions = DEFAULTS,
    slurm: SlurmOptions = SLURM,
    *,
    runs: Path | None = None,
    progress: Progress = silent,
) -> Seeds:
    """`run_seeds` as jobs of Slurm, through submitit; waits for them.

    Interrupted, it leaves the jobs as they are; called again, it submits what is not finished.
    Raises ValueError naming the jobs that failed.
    """
    require_folders(recipe, data, out, seeds)
    out.mkdir(parents=True, exist_ok=True)
    RunsDatabase(runs or out / DATABASE).check()
    left = [seed for seed in seeds if not is_finished(seed_folder(out, seed))]
    if left:
        words = job_words(recipe, data.resolve(), out.resolve(), options)
        folders = [seed_folder(out.resolve(), seed) for seed in left]
        commands = [
            seed_command(words, seed, folder, slurm.gpus)
            for seed, folder in zip(left, folders, strict=True)
        ]
        jobs = submit(commands, out / "jobs", slurm)
        for job, folder in zip(jobs, folders, strict=True):
            progress(text=f"job {job.job_id}: {folder}")
        failed = wait_for(jobs)
        if failed:
            raise ValueError("; ".join(failed))
    return summary(out, seeds, runs)


def summary(out: Path, seeds: Sequence[int], database: Path | None = None) -> Seeds:
    """The finished seeds in `out`; they are recorded. ValueError names those that are not."""
    missing = [seed for seed in seeds if not is_finished(seed_folder(out, seed))]
    if missing:
        raise ValueError(
            f"seed {', '.join(map(str, missing))} is not finished in {out}; give the same command "
            f"again to go on"
        )
    runs = RunsDatabase(database or out / DATABASE)
    records = tuple(read_record(seed_folder(out, seed)) for seed in seeds)
    runs.add(records)
    return Seeds(records, tuple(group_runs(records, runs.group_sizes())))


def is_finished(folder: Path) -> bool:
    held = read_run(folder)
    return held is not None and bool(held.get("finished"))


def require_folders(recipe: Recipe, data: Path, out: Path, seeds: Sequence[int]) -> None:
    """ValueError where a seed is named twice, or its folder holds another run."""
    if not seeds:
        raise ValueError("name at least one seed: --seeds 0 42 1234")
    twice = sorted({seed for seed in seeds if list(seeds).count(seed) > 1})
    if twice:
        raise ValueError(f"--seeds names {', '.join(map(str, twice))} twice")
    text = DataFolder(data)
    for seed in seeds:
        folder = seed_folder(out, seed)
        held = read_run(folder)
        if held is None:
            continue
        changed = difference(held["made_with"], made_with(replace(recipe, seed=seed), text))
        if changed is not None:
            raise ValueError(
                f"{folder} holds another run ({changed}, says its {RUN}); name another folder with "
                f"--out"
            )


def _require_alone(num_seeds: int) -> None:
    if Ranks.from_env().world_size > 1 and num_seeds > 1:
        raise ValueError(
            "under torchrun the processes are those of one run: give one seed to each torchrun, "
            "or let `fairway seeds --slurm --gpus N` start them"
        )


def _settled_dtype(folder: Path) -> Literal["float32", "bfloat16"]:
    held = read_run(folder)
    assert held is not None
    return config_from_json(Settled, json_object(held["settled"], "settled")).compute_dtype
