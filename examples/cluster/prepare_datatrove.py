"""A corpus beyond one machine: `fairway prepare` as jobs of Slurm or Ray, through datatrove.

    pip install 'fairway[datatrove]'
    python examples/cluster/prepare_datatrove.py data/web corpus/*.parquet \
        --vocab-size 1024 --val-fraction 0.0001 --tasks 200 --cluster slurm --partition cpu

The sources and the folder to write lie on a disk that every machine reaches under the same name.
The same command goes on with what is there, after any interruption: finished tasks are skipped.
The shards are those of `fairway prepare` on one machine, byte for byte. Each file is the work of
one task, so many files are better than few. `--cluster ray` needs `pip install 'ray[default]'`.
"""

import argparse
import sys
from pathlib import Path

from datatrove.executor import RayPipelineExecutor, SlurmPipelineExecutor

from fairway.prepare import Request
from fairway.prepare.datatrove_engine import Stage, begin, stages


def on_slurm(
    stage: Stage, before: SlurmPipelineExecutor | None, args: argparse.Namespace
) -> SlurmPipelineExecutor:
    return SlurmPipelineExecutor(
        stage.pipeline,
        tasks=stage.tasks,
        depends=before,
        logging_dir=str(stage.logs),
        job_name=f"prepare-{stage.name}",
        time=args.time,
        partition=args.partition,
        qos=args.qos,
        workers=args.at_once,
        mem_per_cpu_gb=args.memory,
    )


def on_ray(
    stage: Stage, before: RayPipelineExecutor | None, args: argparse.Namespace
) -> RayPipelineExecutor:
    return RayPipelineExecutor(
        stage.pipeline,
        tasks=stage.tasks,
        depends=before,  # type: ignore[arg-type]
        logging_dir=str(stage.logs),
        workers=args.at_once,
        mem_per_cpu_gb=args.memory,
    )


CLUSTERS = {"slurm": on_slurm, "ray": on_ray}


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description="Raw text to shards, on many machines.")
    parser.add_argument("out", type=Path)
    parser.add_argument("sources", type=Path, nargs="+")
    parser.add_argument("--vocab-size", type=int)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--val", type=Path, nargs="+", default=[])
    parser.add_argument("--val-fraction", type=float)
    parser.add_argument("--overwrite", action="store_true")
    parser.add_argument("--cluster", choices=CLUSTERS, default="slurm")
    parser.add_argument("--tasks", type=int, default=100, help="into which each stage is divided")
    parser.add_argument(
        "--at-once", type=int, default=-1, help="of them; -1: as many as there is room"
    )
    parser.add_argument("--time", default="04:00:00", help="of one task, for Slurm")
    parser.add_argument("--partition", default="cpu", help="of Slurm")
    parser.add_argument("--qos", default="", help="of Slurm, where it has some")
    parser.add_argument("--memory", type=int, default=2, help="GB for a task")
    args = parser.parse_args(argv)
    request = Request(
        vocab_size=args.vocab_size,
        tokenizer=args.tokenizer,
        val=args.val,
        val_fraction=args.val_fraction,
    )
    job = begin(args.out, args.sources, request, overwrite=args.overwrite)
    executor = None
    for stage in stages(job, args.tasks):
        executor = CLUSTERS[args.cluster](stage, executor, args)
    if executor is not None:
        executor.run()  # and with it all that it depends on


if __name__ == "__main__":
    main(sys.argv[1:])
