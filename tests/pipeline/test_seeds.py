"""Several seeds: each run once, gone on with after a kill, summarized as one group."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from fairway.pipeline import seeds as seeds_module
from fairway.pipeline import story
from fairway.pipeline.options import RunOptions, SlurmOptions
from fairway.pipeline.seeds import run_seeds, seed_folder, submit_seeds, summary
from fairway.pipeline.slurm import submit
from fairway.recipes.recipe import Recipe
from fairway.recipes.registry import recipe, smoke
from fairway.runs.database import DATABASE, RunsDatabase
from fairway.tokens.shards import DataFolder

QUICK = RunOptions(proof_tokens=0, audit_seconds=0, compute_dtype="float32", threads=1)


@pytest.fixture
def chosen() -> Recipe:
    return smoke(recipe("pocket"), steps=2)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What judges a run has tests of its own."""
    monkeypatch.setattr(story, "compare", lambda data, text, runtime: {})
    monkeypatch.setattr(story, "write_page", lambda runs, out: out)


def test_seeds_are_run_once_and_gone_on_with(
    chosen: Recipe, song: DataFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = story.judge_run

    def killed(recipe: Recipe, *rest: object) -> None:
        if recipe.seed == 42:
            raise KeyboardInterrupt
        judge(recipe, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(story, "judge_run", killed)
    with pytest.raises(KeyboardInterrupt):
        run_seeds(chosen, song.path, tmp_path, [0, 42], QUICK)
    stamps = {seed: stamp(tmp_path, seed) for seed in (0, 42)}
    with pytest.raises(ValueError, match="seed 42 is not finished"):
        summary(tmp_path, [0, 42])

    monkeypatch.setattr(story, "judge_run", judge)
    found = run_seeds(chosen, song.path, tmp_path, [0, 42], QUICK)
    (group,) = found.groups
    assert group.seeds == (0, 42)
    assert found.holds
    assert any("ask for 3 seeds" in words for words in found.sentences())
    assert stamp(tmp_path, 0) == stamps[0]  # was finished
    before, after = stamps[42], stamp(tmp_path, 42)
    assert after[1] == before[1]  # was trained
    assert len(RunsDatabase(tmp_path / DATABASE).runs()) == 2


def stamp(out: Path, seed: int) -> tuple[int, float]:
    """When the result was written, and the seconds of training in it."""
    path = seed_folder(out, seed) / "result.json"
    return path.stat().st_mtime_ns, story.read_result(path.parent).train.seconds


def test_a_folder_of_another_recipe_is_refused_before_anything_is_run(
    chosen: Recipe, song: DataFolder, tmp_path: Path
) -> None:
    run_seeds(chosen, song.path, tmp_path, [7], QUICK)
    other = replace(chosen, train=replace(chosen.train, grad_clip=0.5))
    with pytest.raises(
        ValueError, match=r"seed-7 holds another run .*grad_clip 0.3 instead of 0.5"
    ):
        run_seeds(other, song.path, tmp_path, [1, 7], QUICK)
    assert not seed_folder(tmp_path, 1).exists()


@pytest.mark.parametrize(("seeds", "words"), [([], "at least one seed"), ([1, 2, 1], "1 twice")])
def test_seeds_that_mean_nothing_are_refused(
    chosen: Recipe, song: DataFolder, tmp_path: Path, seeds: list[int], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        run_seeds(chosen, song.path, tmp_path / "out", seeds, QUICK)
    assert not list(tmp_path.iterdir())


def test_torchrun_is_for_one_seed(
    chosen: Recipe, song: DataFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="one seed to each torchrun"):
        run_seeds(chosen, song.path, tmp_path, [1, 2], QUICK)


@pytest.mark.slow
def test_seeds_run_as_jobs_and_only_what_is_left_is_submitted(
    chosen: Recipe, song: DataFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    local = SlurmOptions(cluster="local", minutes=5)
    run_seeds(chosen, song.path, tmp_path, [0], QUICK)
    before = stamp(tmp_path, 0)
    submitted: list[int] = []

    def counted(commands: Sequence[Sequence[str]], *rest: object) -> list[str]:
        submitted.append(len(commands))
        return submit(commands, *rest)  # type: ignore[arg-type, return-value]

    monkeypatch.setattr(seeds_module, "submit", counted)
    found = submit_seeds(chosen, song.path, tmp_path, [0, 5], QUICK, local)
    assert submitted == [1]
    assert found.groups[0].seeds == (0, 5)
    assert stamp(tmp_path, 0) == before
    assert {run.seed for run in RunsDatabase(tmp_path / DATABASE).runs()} == {0, 5}
    submit_seeds(chosen, song.path, tmp_path, [0, 5], QUICK, local)
    assert submitted == [1]


def test_jobs_that_fail_are_named(
    chosen: Recipe, song: DataFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [SimpleNamespace(job_id=f"3_{i}") for i in range(2)]
    monkeypatch.setattr(seeds_module, "submit", lambda *_: jobs)
    monkeypatch.setattr(seeds_module, "wait_for", lambda _: ["job 3_1 failed; see log"])
    with pytest.raises(ValueError, match="job 3_1 failed"):
        submit_seeds(chosen, song.path, tmp_path, [0, 5], QUICK)
