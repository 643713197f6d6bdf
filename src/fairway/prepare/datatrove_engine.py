"""`prepare` by tasks of datatrove: processes of this machine here, Slurm or Ray by its executors.

    job = begin(Path("data"), [Path("corpus")], Request(vocab_size=1024, val_fraction=0.001))
    for stage in stages(job, tasks=64):
        executor = SlurmPipelineExecutor(stage.pipeline, tasks=stage.tasks, depends=..., ...)

What the stages do, and why the bytes do not depend on who does it, is in `tasks.py`. Steps of
datatrove's own, filters say, may be put between the two of the stages "val" and "train".
"""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.utils.logging import setup_default_logger

from fairway.prepare.corpus import Request, requested
from fairway.prepare.partial import Manifest
from fairway.prepare.shard_journal import Journal, clear, unfinished
from fairway.prepare.sources import printable
from fairway.prepare.tasks import (
    PARTS,
    SPLITS,
    TOKENIZER,
    Job,
    encode_unit,
    finish,
    make_tokenizer,
    read_units,
    validation_hashes,
    write_shards,
)
from fairway.prepare.workers import num_cores, worker_pool
from fairway.runtime.files import atomic_write
from fairway.runtime.progress import Progress, silent

MOST_TASKS = 1000  # where nobody says how many
SUFFIX = "tasks"  # of the folder beside the data folder, in which it grows
Documents = Iterator[Document]


class Tokenizing(PipelineStep):
    """The tokenizer, learned from the first documents, or as it was given."""

    name, type = "tokenizer", "fairway"

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.job = job

    def run(self, data: Documents | None, rank: int = 0, world_size: int = 1) -> None:
        make_tokenizer(self.job)


class Reading(PipelineStep):
    """Documents of this task's files; bytes that are no UTF-8 come as surrogates."""

    name, type = "sources", "fairway"

    def __init__(self, job: Job, stage: str) -> None:
        super().__init__()
        self.job, self.stage = job, stage

    def run(self, data: Documents | None, rank: int = 0, world_size: int = 1) -> Documents:
        todo = [
            u for u in self.job.units(self.stage, rank, world_size) if not self.job.is_encoded(u)
        ]
        for unit, document in read_units(self.job, todo):
            text = document.decode("utf-8", "surrogateescape")
            self.stat_update("documents")
            yield Document(text, id=str(unit.file), metadata={"unit": unit.number})


class Encoding(PipelineStep):
    """Documents to the tokens of their file, on disk."""

    name, type = "tokens", "fairway"

    def __init__(self, job: Job, stage: str) -> None:
        super().__init__()
        self.job, self.stage = job, stage

    def run(self, data: Documents | None, rank: int = 0, world_size: int = 1) -> None:
        job = self.job
        todo = [u for u in job.units(self.stage, rank, world_size) if not job.is_encoded(u)]
        seen = validation_hashes(job) if self.stage == "train" and todo else set()
        by_unit = groupby(data or (), key=lambda document: document.metadata["unit"])
        number, documents = next(by_unit, (None, iter(())))
        for unit in todo:
            if unit.number != number:  # nothing is left of it, after a filter
                encode_unit(job, unit, (), seen)
                continue
            texts = (one.text.encode("utf-8", "surrogateescape") for one in documents)
            encode_unit(job, unit, texts, seen)
            number, documents = next(by_unit, (None, iter(())))


class Sharding(PipelineStep):
    """Tokens of all files to shards."""

    name, type = "shards", "fairway"

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.job = job

    def run(self, data: Documents | None, rank: int = 0, world_size: int = 1) -> None:
        write_shards(self.job, self.job.shards(rank, world_size))


class Finishing(PipelineStep):
    """The manifest, and the whole folder in its place."""

    name, type = "finish", "fairway"

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.job = job

    def run(self, data: Documents | None, rank: int = 0, world_size: int = 1) -> None:
        finish(self.job)


@dataclass(frozen=True)
class Stage:
    """A pipeline for an executor of datatrove; the next one needs all of its tasks.

    logs  to give as `logging_dir`: datatrove keeps there which tasks are finished
    """

    name: str
    pipeline: list[PipelineStep | Callable]
    tasks: int
    logs: Path


def begin(out: Path, sources: Sequence[Path], request: Request, *, overwrite: bool = False) -> Job:
    """Check what is asked for, and make ready to work on it, or to go on.

    All files must lie on a disk that every task reaches under the same name. Raises ValueError as
    `prepare` does, and for a corpus that is one document: of that the end is held out, which needs
    no tasks.
    """
    out = Path(out).resolve()
    with unfinished(out, overwrite, SUFFIX) as work:
        return _begin(out, work, sources, request, overwrite)


def _begin(
    out: Path, work: Path, sources: Sequence[Path], request: Request, overwrite: bool
) -> Job:
    try:
        files = [Path(source).resolve() for source in sources]
        absolute = replace(request, val=[Path(source).resolve() for source in request.val])
        corpus, held_out = requested(out, files, absolute)
        if held_out.single:
            raise ValueError("the sources are one document: leave out --engine datatrove")
        going_on = _go_on(Journal(work, corpus.identity), overwrite)
    except ValueError:
        if not (work / PARTS).exists():
            shutil.rmtree(work)
        raise
    if not going_on:
        clear(work)
        Journal(work, corpus.identity).write()
    job = Job(
        out=out,
        work=work,
        held_out=held_out,
        described=tuple(str(source) for source in (*sources, *request.val)),
        vocab_size=request.vocab_size,
        transform=request.transform,
        tokens_per_shard=request.tokens_per_shard,
    )
    job.open()
    given = job.folder / TOKENIZER
    if corpus.tokenizer is not None and not given.exists():
        atomic_write(given, corpus.tokenizer.to_bytes())
    return job


def _go_on(journal: Journal, overwrite: bool) -> bool:
    """Whether this very job was begun; ValueError where another one was."""
    try:
        return journal.take_over()
    except ValueError:
        if not overwrite:
            raise
        return False


def stages(job: Job, tasks: int) -> list[Stage]:
    """What is still to do, one after another; a task whose files are gone is to be done again.

    tasks  into which each stage is divided that can be; the bytes are the same
    """
    if tasks < 1:
        raise ValueError(f"tasks={tasks}: at least one must do the work")
    pipelines: list[tuple[str, list[PipelineStep | Callable], int]] = [
        ("tokenizer", [Tokenizing(job)], 1),
        ("val", [Reading(job, "val"), Encoding(job, "val")], tasks),
        ("train", [Reading(job, "train"), Encoding(job, "train")], tasks),
        ("shards", [Sharding(job)], tasks),
        ("finish", [Finishing(job)], 1),
    ]
    found = []
    for name, pipeline, number in pipelines:
        if name == "val" and not job.units("val"):
            continue
        logs = job.work / "logs" / f"{name}-{number}"
        for mark in logs.glob("completions/*"):
            if not job.is_done(name, int(mark.name), number):
                mark.unlink()
        found.append(Stage(name, pipeline, number, logs))
    return found


def prepare_with_datatrove(
    out: Path,
    sources: Sequence[Path],
    request: Request,
    *,
    workers: int | None = None,
    tasks: int | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Manifest:
    """`prepare` by datatrove's tasks, in processes of this machine: the same bytes.

    workers  processes at a time; None: one for each core
    tasks    None: one for each file of the sources, or for each process

    Every task is run by datatrove's local executor, in processes of ours: its own pool waits for
    ever when one of them dies or cannot load a step, and the process that manages it outlives us.
    """
    workers = num_cores() if workers is None else workers
    if workers < 1:
        raise ValueError(f"workers={workers}: at least one process must work")
    out = Path(out).resolve()
    with unfinished(out, overwrite, SUFFIX) as work:
        job = _begin(out, work, sources, request, overwrite)
        job.clean()
        tasks = max(workers, min(len(job.units("train")), MOST_TASKS)) if tasks is None else tasks
        todo = stages(job, tasks)
        try:
            with worker_pool(min(workers, tasks), _be_quiet) as pool:
                for stage in todo:
                    _run_stage(stage, pool, job, progress)
        except BrokenProcessPool as error:
            raise ValueError(
                f"a process was ended, for want of memory perhaps; use fewer with --workers N. "
                f"What is finished is kept in {printable(work)}: repeat the command to go on"
            ) from error
        except ValueError:
            if not any(job.parts.glob("*.json")):
                shutil.rmtree(work)
            raise
        except OSError as error:
            raise OSError(
                f"{error}; what is finished is kept in {printable(work)}: repeat the command to go "
                f"on"
            ) from error
        shutil.rmtree(work)
    return json.loads((out / "data.json").read_bytes())


def _run_stage(stage: Stage, pool: ProcessPoolExecutor, job: Job, progress: Progress) -> None:
    executor = LocalPipelineExecutor(stage.pipeline, tasks=stage.tasks, logging_dir=str(stage.logs))
    sizes = [
        sum(unit.file.stat().st_size for unit in job.units(stage.name, rank, stage.tasks))
        if stage.name in SPLITS
        else 0
        for rank in range(stage.tasks)
    ]
    todo = executor.get_incomplete_ranks()
    running = {pool.submit(executor._run_for_rank, rank): rank for rank in todo}
    done = sum(sizes) - sum(sizes[rank] for rank in todo)
    for task in as_completed(running):
        task.result()
        done += sizes[running[task]]
        if done:
            progress(done, sum(sizes))


def _be_quiet() -> None:
    """In a worker: what datatrove says is in its logs, and errors come out of its results."""
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (until the process ends)
    setup_default_logger()
