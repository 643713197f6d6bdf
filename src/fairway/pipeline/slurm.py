"""Seeds of one recipe as an array of Slurm jobs, through submitit.

A job that is preempted, requeued or runs into its time limit goes on from its last checkpoint. Jobs
write their run folders and nothing else: the database of runs, which needs one machine's disk, is
filled by whoever waits for them.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import submitit

STOPPED_SECONDS = 300.0  # a job that was told to end waits so long for Slurm to end it


@dataclass(frozen=True, kw_only=True)
class SlurmOptions:
    """Where the jobs run.

    Attributes:
        cluster: slurm, or local: as processes of this machine; None: slurm where there is one
        minutes: that one job may take before it is started again
        cpus: cores of each job
        gpus: GPUs of each job, which torchrun shares among as many processes
        at_once: jobs that may run at the same time
        partition: of Slurm; None takes its default
        logs: folder for what the jobs print; a folder `jobs` beside the runs where it is None
    """

    cluster: Literal["slurm", "local"] | None = None
    minutes: int = 60
    cpus: int = 8
    gpus: int = 0
    at_once: int = 8
    partition: str | None = None
    logs: Path | None = None


class SeedJob:
    """One run: submitit calls it in the job, and `checkpoint` before Slurm ends that."""

    def __init__(self, command: Sequence[str], stopped_seconds: float = STOPPED_SECONDS) -> None:
        self.command, self.stopped_seconds = list(command), stopped_seconds

    def __call__(self) -> int:
        """The exit status: 0, or 1 where a check of the result failed."""
        self.child = subprocess.Popen(self.command)
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


def seed_command(words: Sequence[str], seed: int, folder: Path, gpus: int = 0) -> list[str]:
    """What a job runs: `fairway run WORDS`, by torchrun where there are several GPUs.

    words  recipe, data, and whatever options `fairway run` takes beside those set here
    """
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(gpus)]
    return [
        *(sys.executable, *(torchrun if gpus > 1 else []), "-m", "fairway", "run", *words),
        *("--seed", str(seed), "--out", str(folder), "--resume", "auto", "--runs", "None"),
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
