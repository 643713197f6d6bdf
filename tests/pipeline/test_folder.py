"""Run folders: whose they are, and that nothing of one run becomes another's."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fairway.pipeline import story
from fairway.pipeline.folder import owned
from fairway.pipeline.story import RunOptions, run
from fairway.recipes.registry import recipe, smoke
from fairway.result import RunResult, read_result
from fairway.runs.description import RUN, read_run
from fairway.runtime.distributed import Ranks
from fairway.runtime.stopping import Stopped
from fairway.tokens.shards import DataFolder

Go = Callable[..., RunResult]
TINY = smoke(recipe("pocket"))


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def killed_at(monkeypatch: pytest.MonkeyPatch, name: str, go: Callable[[], object]) -> None:
    """The run ends where the story comes to `name`."""

    def die(*_: object, **__: object) -> None:
        raise Stopped("killed")

    with monkeypatch.context() as patched:
        patched.setattr(story, name, die)
        with pytest.raises(Stopped):
            go()


def test_going_on_never_publishes_another_runs_model(
    go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run A is finished; B begins in its folder and is killed early; then `--resume`."""
    other = replace(TINY, seed=2)
    go(TINY, tmp_path / "run")
    first = files(tmp_path / "run")
    with pytest.raises(ValueError, match=r"another run \(recipe.seed 1337 instead of 2\).*--over"):
        go(other, tmp_path / "run")
    assert files(tmp_path / "run") == first
    killed_at(monkeypatch, "train_and_average", lambda: go(other, tmp_path / "run", overwrite=True))
    assert not (tmp_path / "run" / "model.fwy").exists()
    moved = files(tmp_path / "run" / "earlier" / "1")
    assert moved == {n: b for n, b in first.items() if n in moved}
    assert {"model.fwy", "result.json", "run.json", "checkpoint.safetensors"} <= moved.keys()
    assert go(other, tmp_path / "run", resume="yes").seed == 2
    alone = go(other, tmp_path / "alone")
    assert alone.artifact == read_result(tmp_path / "run").artifact


def test_a_finished_run_is_returned_or_refused_or_moved_away(go: Go, tmp_path: Path) -> None:
    found = go(TINY, tmp_path)
    before = files(tmp_path)
    with pytest.raises(ValueError, match=r"this run, finished; go on with --resume, or .*--over"):
        go(TINY, tmp_path)
    assert files(tmp_path) == before
    assert go(TINY, tmp_path, resume="auto") == found
    assert {n: b for n, b in files(tmp_path).items() if n != "train.log"} == {
        n: b for n, b in before.items() if n != "train.log"
    }
    log = files(tmp_path)["train.log"]
    assert log.startswith(before["train.log"])
    assert b"nothing is left to do" in log
    go(TINY, tmp_path, overwrite=True)
    assert (tmp_path / "earlier" / "1" / "train.log").read_bytes() == log


def test_one_command_line_starts_and_goes_on(
    go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = go(TINY, tmp_path / "whole")
    for name in (
        "train_and_average", "kept_calibration", "pack_run", "load_model", "with_scores",
        "judge_run",
    ):  # fmt: skip
        killed_at(monkeypatch, name, lambda: go(TINY, tmp_path / "parts", resume="auto"))
    parts = go(TINY, tmp_path / "parts", resume="auto")
    assert parts.artifact == whole.artifact
    assert parts.score == whole.score
    assert read_run(tmp_path / "parts")["finished"]  # type: ignore[index]
    left = {path.name for path in (tmp_path / "parts").iterdir()}
    assert left == {path.name for path in (tmp_path / "whole").iterdir()}
    log = (tmp_path / "parts" / "train.log").read_text().splitlines()
    stages = [json.loads(line).get("stage") for line in log if '"end"' in line]
    done = ("train", "calibrate", "pack", "score float", "score quantized", "score sliding")
    assert [stages.count(name) for name in done] == [1, 1, 1, 1, 1, 2]  # the 2nd only read it


def test_what_was_settled_is_not_measured_again(
    go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On resume a busy machine would choose another number type, another evaluation."""
    killed_at(monkeypatch, "train_and_average", lambda: go(TINY, tmp_path))
    begun = read_run(tmp_path)
    assert begun is not None

    def measured_again(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr("fairway.runtime.setup.choose_compute_dtype", measured_again)
    monkeypatch.setattr(story, "plan_into_clock", measured_again)
    with pytest.raises(ValueError, match="was started in float32"):
        go(TINY, tmp_path, resume="yes", compute_dtype="bfloat16")
    go(TINY, tmp_path, resume="yes")
    ended = read_run(tmp_path)
    assert ended is not None
    assert ended["settled"] == begun["settled"]


def test_nothing_is_touched_before_data_and_options_are_checked(
    song: DataFolder, go: Go, tmp_path: Path
) -> None:
    go(TINY, tmp_path / "run")
    before = files(tmp_path)
    wrong = smoke(recipe("pocket"), vocab_size=270)
    for chosen, data, out, options in (
        (TINY, tmp_path / "nope", "run", RunOptions(overwrite=True)),
        (TINY, tmp_path / "nope", "new", RunOptions()),
        (wrong, song.path, "run", RunOptions(overwrite=True)),
        (TINY, song.path, "run", RunOptions()),
        (TINY, song.path, "run", RunOptions(device="cuda:99", overwrite=True)),
    ):
        with pytest.raises(ValueError, match=r"no data folder|vocab-size|finished|cuda:99"):
            run(chosen, data, tmp_path / out, options)
        assert {n: b for n, b in files(tmp_path).items() if n != "run/run.lock"} == before
    assert not (tmp_path / "new").exists()


def test_a_second_run_into_one_folder_is_refused_with_the_owner_named(
    song: DataFolder, tmp_path: Path
) -> None:
    code = "import sys; from fairway.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "run", "pocket", str(song.path), "--out", str(tmp_path)]
    with owned(tmp_path, Ranks()):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()[-1:]
    assert f"in use by process {os.getpid()}" in line
    assert "Traceback" not in done.stderr


def test_a_damaged_description_is_refused_and_can_be_moved_away(go: Go, tmp_path: Path) -> None:
    go(TINY, tmp_path)
    for damage in (b"", b"[]", b"{", b'{"sha256": 1}', (tmp_path / RUN).read_bytes()[:-9] + b'"}'):
        (tmp_path / RUN).write_bytes(damage)
        with pytest.raises(ValueError, match=r"run.json is damaged .*--overwrite"):
            go(TINY, tmp_path, resume="auto")
    go(TINY, tmp_path, resume="auto", overwrite=True)


def test_half_of_what_was_moved_away_is_no_run(
    go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(TINY, tmp_path)
    (tmp_path / RUN).unlink()  # as after a kill in between: it goes first
    with pytest.raises(ValueError, match="another run"):
        go(TINY, tmp_path, resume="auto")
    go(TINY, tmp_path, resume="auto", overwrite=True)
    assert (tmp_path / "earlier" / "1" / "model.fwy").exists()
