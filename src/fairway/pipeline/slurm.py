"""Seeds of one recipe as an array of Slurm jobs, through submitit.

A job that is preempted, requeued or runs into its time limit goes on from its last checkpoint. Jobs
write their run folders and nothing else: the database of runs, which needs one machine's disk, is
filled by whoever waits for them.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from fairway.artifact.config_json import plugins_of
from fairway.pipeline.options import RunOptions, SlurmOptions
from fairway.recipes.diff import to_json
from fairway.recipes.recipe import Recipe
from fairway.runs.database import ENVIRONMENT
from fairway.runtime.files import atomic_write

if TYPE_CHECKING:
    import submitit

RECIPE = "recipe.json"
STOPPED_SECONDS = 300.0  # a job that was told to end waits so long for Slurm to end it


class SeedJob:
    """One run: submitit calls it in the job, and `checkpoint` before Slurm ends that."""

    def __init__(self, command: Sequence[str], stopped_seconds: float = STOPPED_SECONDS) -> None:
        self.command, self.stopped_seconds = list(command), stopped_seconds

    def __call__(self) -> int:
        """The exit status: 0, or 1 where a check of the result failed."""
        # The database of runs is for whoever waits for the jobs.
        env = {name: value for name, value in os.environ.items() if name != ENVIRONMENT}
        self.child = subprocess.Popen(self.command, env=env)
        status = self.child.wait()
        if status < 0 or status > 128:  # a signal, which was this job's: Slurm ends it or restarts
            time.sleep(self.stopped_seconds)
        if status not in (0, 1):
            raise RuntimeError(f"{' '.join(self.command)} ended with {status}")
        return status

    def checkpoint(self) -> "submitit.helpers.DelayedSubmission":
        """What to start again, once the run has kept what it has."""
        import submitit

        self.child.send_signal(signal.SIGTERM)  # which torchrun hands on to its processes
        self.child.wait()
        return submitit.helpers.DelayedSubmission(SeedJob(self.command, self.stopped_seconds))


def job_words(recipe: Recipe, data: Path, out: Path, options: RunOptions) -> list[str]:
    """What `fairway run` must be told so that it runs this recipe, which is written to `out`."""
    atomic_write(out / RECIPE, json.dumps(to_json(recipe), indent=1).encode())
    words = [str(out / RECIPE), str(data)]
    for plugin in plugins_of(recipe):
        words += ["--plugin", plugin.name]
    for field in fields(RunOptions):
        value = getattr(options, field.name)
        if field.name not in ("resume", "overwrite") and value != field.default:
            name = field.name.replace("_", "-")
            flag = {True: f"--{name}", False: f"--no-{name}"}
            words += [flag[value]] if isinstance(value, bool) else [f"--{name}", str(value)]
    return words


def seed_command(words: Sequence[str], seed: int, folder: Path, gpus: int = 0) -> list[str]:
    """What a job runs: `fairway run WORDS`, by torchrun where there are several GPUs.

    words  as `job_words` has them
    """
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(gpus)]
    return [
        *(sys.executable, *(torchrun if gpus > 1 else []), "-m", "fairway", "run", *words),
        *("--seed", str(seed), "--out", str(folder), "--resume", "auto"),
    ]


def submit(
    commands: Sequence[Sequence[str]], logs: Path, options: SlurmOptions
) -> "list[submitit.Job[int]]":
    """One job for each command, as an array. ValueError where submitit is missing."""
    try:
        import submitit
    except ImportError as error:
        raise ValueError("--slurm needs submitit: pip install 'fairway[slurm]'") from error

    executor = submitit.AutoExecutor(options.logs or logs, cluster=options.cluster)
    executor.update_parameters(
        name="fairway",
        timeout_min=options.minutes,
        cpus_per_task=options.cpus,
        gpus_per_node=options.gpus,
    )
    if executor.cluster == "slurm":
        executor.update_parameters(slurm_signal_delay_s=90, slurm_array_parallelism=options.at_once)
        if options.partition is not None:
            executor.update_parameters(slurm_partition=options.partition)
    return executor.submit_array([SeedJob(command) for command in commands])


def wait_for(jobs: "Sequence[submitit.Job[int]]") -> list[str]:
    """Until all have ended; returns what went wrong, one sentence for each job that failed."""
    failed = []
    for job in jobs:
        error = job.exception()
        if error is not None:
            failed.append(f"job {job.job_id} failed; see {job.paths.stderr}")
    return failed
