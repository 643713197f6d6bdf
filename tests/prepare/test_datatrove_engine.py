"""`prepare` by tasks of datatrove: the same bytes, whatever is killed on the way."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("datatrove", reason="needs datatrove: pip install 'fairway[datatrove]'")

from fairway.cli import main
from fairway.prepare import Request, prepare_request
from fairway.prepare.datatrove_engine import Stage, begin, prepare_with_datatrove, stages

Files = dict[str, bytes]
REQUEST = Request(vocab_size=290, val_fraction=0.2, tokens_per_shard=700)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Five files of documents, one of them with bytes that are no UTF-8, and one in JSON lines."""
    folder = tmp_path / "source"
    folder.mkdir()
    for number in range(4):
        texts = [f"{number} bottles, {i * number} more. ".encode() * (1 + i % 6) for i in range(40)]
        (folder / f"{number}.txt").write_bytes(b"\0".join([*texts, b"\xff\xfe odd \xc3"]))
    (folder / "4.jsonl").write_text('{"text": "one line of it"}\n' * 3)
    return folder


def files(folder: Path) -> Files:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def whole(source: Path, request: Request) -> Files:
    prepare_request(source.parent / "whole", [source], request, workers=1)
    return files(source.parent / "whole")


def run(stage: Stage, ranks: list[int]) -> None:
    """Tasks of a stage in this process, as datatrove's own executor runs them."""
    for rank in ranks:
        data: Any = None
        for step in stage.pipeline:
            data = step(data, rank, stage.tasks)


@pytest.mark.parametrize("tasks", [1, 3, 8])
@pytest.mark.parametrize("own_val", [False, True])
def test_any_number_of_tasks_in_any_order_gives_the_bytes_of_one_process(
    source: Path, tasks: int, own_val: bool
) -> None:
    request = REQUEST
    if own_val:  # some of which is in the sources, too
        val = source.parent / "val.jsonl"
        val.write_text('{"text": "one line of it"}\n{"text": "a line of its own"}\n')
        request = Request(vocab_size=290, val=[val], tokens_per_shard=700)
    known = whole(source, request)
    job = begin(source.parent / "again", [source], request)
    for stage in stages(job, tasks):
        run(stage, list(reversed(range(stage.tasks))))
    assert files(source.parent / "again") == known


def test_a_filter_between_reading_and_encoding_leaves_documents_out(source: Path) -> None:
    job = begin(source.parent / "again", [source], REQUEST)
    for stage in stages(job, 2):
        if stage.name == "train":  # nothing is left of two files
            stage.pipeline.insert(
                1, lambda data, rank, size: (d for d in data if d.text[0] in "13o")
            )
        run(stage, list(range(stage.tasks)))
    manifest = (source.parent / "again" / "data.json").read_text()
    assert '"documents"' in manifest
    assert files(source.parent / "again") != whole(source, REQUEST)


@pytest.mark.slow
def test_two_processes_by_the_command_line(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = whole(source, Request(vocab_size=290, val_fraction=0.2))
    out, options = source.parent / "again", ["--vocab-size", "290", "--val-fraction", "0.2"]
    command = ["prepare", str(out), str(source), *options, "--engine", "datatrove"]
    assert main([*command, "--workers", "2", "--tasks", "3", "--json"]) == 0
    assert files(out) == known
    assert not (source.parent / ".again.tasks").exists()
    assert '"dropped_because_in_val": 0' in capsys.readouterr().out
    assert main(command) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*command, "--overwrite", "--workers", "1"]) == 0
    assert files(out) == known


@pytest.mark.slow
def test_a_worker_that_dies_is_one_line_and_the_same_command_goes_on(source: Path) -> None:
    big = "\0".join(f"{i} sheep, {i * i} goats. " * 20 for i in range(6_000))
    (source / "9.txt").write_text(big)
    out = source.parent / "again"
    command = [sys.executable, "-m", "fairway", "prepare", str(out), str(source)]
    command += ["--vocab-size", "290", "--val-fraction", "0.2", "--engine", "datatrove"]
    process = subprocess.Popen([*command, "--workers", "2"], stderr=subprocess.PIPE, text=True)
    parts = source.parent / ".again.tasks" / "parts"
    until = time.monotonic() + 60
    while not list(parts.glob("train-000000.json")):
        assert time.monotonic() < until
        time.sleep(0.02)
    (worker,) = [pid for pid in workers_of(process.pid)][:1]
    os.kill(worker, signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "a process was ended" in said
    assert "Traceback" not in said
    assert not out.exists()
    kept = (parts / "train-000000.tokens").stat().st_mtime_ns
    again = subprocess.Popen([*command, "--workers", "1"], stderr=subprocess.PIPE, text=True)
    while (parts / "train-000000.tokens").exists():
        assert (parts / "train-000000.tokens").stat().st_mtime_ns == kept
        time.sleep(0.05)
    assert again.wait(60) == 0
    prepare_request(source.parent / "one", [source], Request(vocab_size=290, val_fraction=0.2))
    assert files(out) == files(source.parent / "one")


def workers_of(pid: int) -> list[int]:
    """Its children that Python spawned to work, and not to count semaphores."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [
        int(child)
        for child in children
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


def test_tasks_that_are_finished_are_skipped_and_those_whose_files_are_gone_are_not(
    source: Path,
) -> None:
    job = begin(source.parent / "again", [source], REQUEST)
    found = {stage.name: stage for stage in stages(job, 3)}
    for name in ("tokenizer", "train"):
        run(found[name], list(range(found[name].tasks)))
        marks = found[name].logs / "completions"
        marks.mkdir(parents=True)
        for rank in range(found[name].tasks):
            (marks / f"{rank:05d}").touch()
    job.part("train", 4, "tokens").unlink()  # of the second task
    again = begin(source.parent / "again", [source], REQUEST)
    (train,) = [stage for stage in stages(again, 3) if stage.name == "train"]
    left = sorted(mark.name for mark in (train.logs / "completions").iterdir())
    assert left == ["00000", "00002"]


def test_another_job_in_the_same_place_is_refused_by_what_differs(source: Path) -> None:
    begin(source.parent / "again", [source], REQUEST)
    other = Request(vocab_size=291, val_fraction=0.2, tokens_per_shard=700)
    with pytest.raises(ValueError, match=r"begun otherwise \(vocab_size: 290, now 291\)"):
        begin(source.parent / "again", [source], other)
    begin(source.parent / "again", [source], other, overwrite=True)


def test_one_document_needs_no_tasks(tmp_path: Path) -> None:
    (tmp_path / "novel.txt").write_text("one\ntwo\nthree\n" * 50)
    request = Request(tokenizer=Path("bytes"), val_fraction=0.2)
    with pytest.raises(ValueError, match="one document: leave out --engine datatrove"):
        prepare_with_datatrove(tmp_path / "data", [tmp_path / "novel.txt"], request)
    assert not (tmp_path / ".data.tasks").exists()


@pytest.mark.slow
def test_a_bad_file_is_one_line_and_leaves_nothing(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "0.parquet").write_bytes(b"PAR1 but not for long")
    command = ["prepare", str(source.parent / "data"), str(source), "--tokenizer", "bytes"]
    assert main([*command, "--val-fraction", "0.2", "--engine", "datatrove", "--workers", "1"]) == 2
    assert "0.parquet: expected a Parquet column" in capsys.readouterr().err


def test_tasks_without_the_engine_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["prepare", "data", "x.txt", "--tokenizer", "bytes", "--val-fraction", "0.1"]
    assert main([*command, "--tasks", "3"]) == 2
    assert "--engine datatrove" in capsys.readouterr().err
