"""Which steps a run takes: measured before its clock, kept when it goes on, eager where compiling
fails. The compiler is PyTorch's tracing one, which is quick; the real one is in `test_compiled.py`.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from fairway.pipeline import compiling, step_costs, story
from fairway.pipeline.step_costs import StepCosts, costs_file, keep_costs, key_of, read_costs
from fairway.recipes.recipe import Recipe
from fairway.recipes.registry import recipe, smoke
from fairway.result import RunResult
from fairway.runs.description import read_run
from fairway.runtime.compiler_cache import VARIABLE
from fairway.runtime.setup import Runtime
from fairway.runtime.stopping import Stopped
from fairway.tokens.shards import DataFolder

Go = Callable[..., RunResult]
TINY = smoke(recipe("pocket"))


@pytest.fixture(autouse=True)
def new_machine(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """On which nothing was measured or compiled."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(step_costs, "FOLDER", folder / "steps")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder / "inductor"))
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    torch.compiler.reset()


def told(out: Path) -> str:
    return (out / "train.log").read_text()


def settled(out: Path) -> dict:
    run = read_run(out)
    assert run is not None
    return dict(run["settled"])  # type: ignore[call-overload]


def measured(chosen: Recipe, eager: float, compiled: float, cold: float = 10.0) -> Path:
    path = costs_file(key_of(chosen, torch.float32))
    costs = StepCosts(eager=eager, compiled=compiled, measured="2026-11-28", cold=cold)
    keep_costs(path, costs, print)
    return path


def test_nothing_measured_is_eager_and_says_how_to_measure(go: Go, tmp_path: Path) -> None:
    result = go(TINY, tmp_path)
    assert result.train.compiled is False
    assert result.train.note is None
    assert "steps are eager: no compiled step was ever measured here" in told(tmp_path)


def test_asked_for_it_is_compiled_and_measured_for_the_next_run(go: Go, tmp_path: Path) -> None:
    assert go(TINY, tmp_path, compiled=True).train.compiled
    costs = read_costs(costs_file(key_of(TINY, torch.float32)), print)
    assert costs is not None
    assert min(costs.eager, costs.compiled) > 0
    assert "a compiled step takes" in told(tmp_path)
    assert "compiled they would take" in told_by_another(go, tmp_path)


def told_by_another(go: Go, tmp_path: Path) -> str:
    go(TINY, tmp_path / "next")
    return told(tmp_path / "next")


def test_steps_that_save_more_than_compiling_takes_are_compiled(go: Go, tmp_path: Path) -> None:
    measured(TINY, eager=100.0, compiled=10.0)
    assert go(TINY, tmp_path).train.compiled
    assert "steps are compiled: compiled they would take 10,000 ms" in told(tmp_path)
    assert settled(tmp_path)["compiled"] is True


def test_a_long_run_tries_what_was_never_measured_and_keeps_what_is_faster(
    go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_costs, "TRIAL_SECONDS", 0.5)
    slower = StepCosts(eager=0.1, compiled=0.2, measured="2026-11-28")
    monkeypatch.setattr(compiling, "_measured", lambda *of: slower)
    train = replace(TINY.train, steps=None, seconds=1.0)
    result = go(replace(TINY, train=train), tmp_path)
    assert result.train.compiled is False
    assert "steps are eager after all: that is faster" in told(tmp_path)


def test_a_run_that_goes_on_keeps_its_choice(
    go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object, **__: object) -> None:
        raise Stopped("killed")

    path = measured(TINY, eager=100.0, compiled=10.0)
    with monkeypatch.context() as patched:
        patched.setattr(story, "train_and_average", die)
        with pytest.raises(Stopped):
            go(TINY, tmp_path)
    path.unlink()
    measured(TINY, eager=10.0, compiled=100.0)
    assert go(TINY, tmp_path, resume="yes").train.compiled


def test_where_compiling_fails_the_run_is_eager_and_says_so(
    go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(graph: object, inputs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=broken))
    result = go(TINY, tmp_path, compiled=True)
    assert result.train.compiled is False
    assert result.train.note is not None
    assert "No space left on device" in result.train.note
    assert "steps are eager after all: torch.compile failed" in told(tmp_path)
    assert settled(tmp_path)["compiled"] is False
    assert settled(tmp_path)["obstacle"] == result.train.note


def test_trying_leaves_the_runs_own_numbers_as_they_are(runtime: Runtime) -> None:
    numbers = torch.get_rng_state()
    compiling.compile_and_measure(TINY, runtime, None)
    assert torch.equal(numbers, torch.get_rng_state())


TRAIN_COMPILED = """
import sys
from pathlib import Path
from fairway.pipeline.story import RunOptions, train
from fairway.recipes.registry import recipe, smoke
how = RunOptions(compiled=True, compute_dtype="float32", device="cpu", overwrite=True)
found = train(smoke(recipe("pocket")), Path(sys.argv[1]), Path(sys.argv[2]), how)
print(found.compiled, found.note)
"""


@pytest.mark.slow
def test_a_broken_cache_or_compiler_ends_no_run(song: DataFolder, tmp_path: Path) -> None:
    """The real compiler, in processes of their own: what it has loaded once it would not miss."""
    cache, bin_folder = tmp_path / "cache", tmp_path / "bin"
    bin_folder.mkdir()

    def train_compiled(folder: Path = cache, **env: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", TRAIN_COMPILED, str(song.path), str(tmp_path / "run")],
            env={**os.environ, VARIABLE: str(folder), "HOME": str(tmp_path), **env},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert train_compiled() == "True None\n"
    for library in cache.rglob("*.so"):
        library.write_bytes(library.read_bytes()[:5000])
    said = train_compiled()
    assert said.startswith("False torch.compile failed")
    assert f"rm -r {cache}" in said
    assert "False torch.compile failed" in train_compiled(tmp_path / "none", CXX="/bin/false")
    said = train_compiled(tmp_path / "none", PATH=str(bin_folder))
    assert "There is no C++ compiler: install one of" in said
    shutil.rmtree(cache)
    cache.touch()
    assert "no C++ compiler" in train_compiled(PATH=str(bin_folder))  # PyTorch would not even begin
