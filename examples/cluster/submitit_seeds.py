"""Several seeds of one recipe as an array of Slurm jobs, through submitit.

    pip install 'fairway[slurm]'
    python examples/cluster/submitit_seeds.py naive_baseline data/fineweb runs/base --seeds 1 2

A job that is preempted, requeued or runs into its time limit goes on from its last checkpoint: the
command is the same every time. What follows `--` is passed on, as in `-- --train.seconds 300`.
`--cluster local` runs the same as processes of this machine.
"""

import argparse
import signal
import subprocess
import sys
import time
from pathlib import Path

import submitit


class Seed:
    """One run: submitit calls it in the job, and `checkpoint` before Slurm ends that."""

    def __init__(self, recipe: str, data: str, out: Path, seed: int, rest: list[str]) -> None:
        self.arguments = (recipe, data, out, seed, rest)
        self.command = [
            *(sys.executable, "-m", "fairway", "run", recipe, data),
            *("--seed", str(seed), "--out", f"{out}-{seed}", "--resume", "auto", *rest),
        ]

    def __call__(self) -> int:
        """The exit status: 0, or 1 where a check of the result failed."""
        self.child = subprocess.Popen(self.command)
        status = self.child.wait()
        if status > 128:  # a signal, which was this job's: Slurm ends it, or starts it again
            time.sleep(300)
        if status not in (0, 1):
            raise RuntimeError(f"{' '.join(self.command)} ended with {status}")
        return status

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """What to start again, once the run has kept what it has."""
        self.child.send_signal(signal.SIGUSR1)
        self.child.wait()
        return submitit.helpers.DelayedSubmission(Seed(*self.arguments))


def submit(args: argparse.Namespace, rest: list[str]) -> list[submitit.Job[int]]:
    executor = submitit.AutoExecutor(args.logs, cluster=args.cluster)
    executor.update_parameters(
        name="fairway", timeout_min=args.minutes, cpus_per_task=args.cpus, gpus_per_node=args.gpus
    )
    if executor.cluster == "slurm":
        executor.update_parameters(slurm_signal_delay_s=90, slurm_array_parallelism=args.at_once)
    seeds = [Seed(args.recipe, args.data, args.out, seed, rest) for seed in args.seeds]
    return executor.submit_array(seeds)


def main(argv: list[str]) -> int:
    cut = argv.index("--") if "--" in argv else len(argv)
    parser = argparse.ArgumentParser(description="Seeds of one recipe on Slurm.")
    parser.add_argument("recipe")
    parser.add_argument("data")
    parser.add_argument("out", type=Path, help="the run folders' name, to which the seed is added")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--cluster", choices=("slurm", "local"), help="slurm where there is one")
    parser.add_argument("--logs", type=Path, default=Path("runs/submitit"))
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--cpus", type=int, default=8)
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument("--at-once", type=int, default=8)
    jobs = submit(parser.parse_args(argv[:cut]), argv[cut + 1 :])
    for job in jobs:
        print(job.job_id, flush=True)
    return max(job.result() for job in jobs)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
