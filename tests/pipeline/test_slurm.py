"""Seeds as jobs: what they run, and what becomes of those that end, fail, or are stopped."""

import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from fairway.cli import COMMANDS
from fairway.cli.parsing import ask
from fairway.pipeline.options import RunOptions, SlurmOptions
from fairway.pipeline.slurm import SeedJob, job_words, seed_command, submit, wait_for
from fairway.recipes.diff import override
from fairway.recipes.registry import recipe
from fairway.runs.database import ENVIRONMENT

submitit = pytest.importorskip("submitit")


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_job_is_told_all_that_makes_its_run(tmp_path: Path) -> None:
    changed = override(recipe("pocket"), {"train.grad_clip": 0.7, "evaluate.mixture": None})
    options = RunOptions(
        proof_tokens=0, audit_seconds=0.5, compute_dtype="bfloat16", compiled=False, threads=2
    )
    words = job_words(changed, Path("data"), tmp_path, options)
    command = seed_command(words, 7, Path("out/seed-7"))
    assert command[1:3] == ["-m", "fairway"]
    found = ask(COMMANDS, command[3:]).parsed()
    assert found["fields"] == replace(changed, seed=7)
    assert (found["data"], found["out"]) == (Path("data"), Path("out/seed-7"))
    assert found["how"] == replace(options, resume="auto")


def test_several_gpus_are_torchruns() -> None:
    command = seed_command(["pocket", "data"], 7, Path("out"), gpus=8)
    assert " ".join(command[1:9]) == (
        "-m torch.distributed.run --standalone --nproc-per-node 8 -m fairway run"
    )


@pytest.mark.slow
def test_jobs_run_as_processes_of_this_machine_and_failures_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "runs.sqlite"))
    touch = (
        "import os, pathlib; "
        f"pathlib.Path({str(tmp_path)!r}, os.environ.get({ENVIRONMENT!r}, 'unset')).touch()"
    )
    jobs = submit(
        [python(touch), python("raise SystemExit(2)")],
        tmp_path / "jobs",
        SlurmOptions(cluster="local", minutes=1),
    )
    (failed,) = wait_for(jobs)
    assert f"job {jobs[1].job_id} failed" in failed
    assert (tmp_path / "unset").exists()


def test_a_job_that_is_stopped_asks_to_be_started_again(tmp_path: Path) -> None:
    told = tmp_path / "told"
    code = f"""
import pathlib, signal, sys, time
told = pathlib.Path({str(told)!r})
signal.signal(signal.SIGTERM, lambda *_: (told.write_text("kept"), sys.exit(143)))
told.touch()
time.sleep(60)
"""
    job = SeedJob(python(code), stopped_seconds=0.0)
    failures: list[str] = []

    def call() -> None:
        try:
            job()
        except RuntimeError as error:
            failures.append(str(error))

    thread = threading.Thread(target=call)
    thread.start()
    while not told.exists():
        time.sleep(0.01)
    again = job.checkpoint()
    thread.join()
    assert told.read_text() == "kept"
    assert again.function.command == job.command
    assert "ended with 143" in failures[0]


def test_an_answer_that_is_no_is_no_failure_of_the_job() -> None:
    assert SeedJob(python("raise SystemExit(1)"))() == 1
