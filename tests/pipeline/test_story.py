"""Every recipe, in miniature, through the whole pipeline; and the promises of a run."""

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from fairway.artifact.budget import OverBudget
from fairway.audit.findings import AuditReport
from fairway.evaluate.diagnostic import WARNING
from fairway.pipeline import story, training
from fairway.pipeline.story import RunOptions, run
from fairway.recipes.recipe import Budget
from fairway.recipes.registry import RECIPES, recipe, smoke
from fairway.report.table import diagnostic_lines
from fairway.result import RunResult, read_result
from fairway.runtime.stopping import Stopped
from fairway.tokens.shards import DataFolder
from fairway.tokens.val_text import ValText
from fairway.train.divergence import TrainingDiverged

Go = Callable[..., RunResult]
FINE = AuditReport("model.fwy", {})


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains_packs_scores_and_proves(
    name: str, song: DataFolder, go: Go, tmp_path: Path
) -> None:
    result = go(smoke(recipe(name)), tmp_path, proof_tokens=40)
    assert result.score is not None
    assert result.score.tokens == len(song.val) - 1
    assert result.score.bytes == int(ValText.of(song).target_bytes.sum())
    assert list(result.stages) == ["float", "quantized", "sliding", "ttt"]
    assert result.artifact is not None
    assert result.artifact.bytes_total <= (result.artifact.cap_bytes or 0)
    assert result.chunks["tokens"][-1] == len(song.val) - 1
    assert result.proof is not None
    assert result.proof.tokens == 40
    assert result.holds
    assert read_result(tmp_path) == result


def test_the_same_run_gives_the_same_bytes(go: Go, tmp_path: Path) -> None:
    chosen = smoke(recipe("pocket"))
    files = []
    for part in "ab":
        go(chosen, tmp_path / part)
        files.append((tmp_path / part / "model.fwy").read_bytes())
    assert files[0] == files[1]


def test_a_number_that_is_no_score_says_so_beside_the_honest_one(go: Go, tmp_path: Path) -> None:
    result = go(smoke(recipe("sponge_bath")), tmp_path)
    (line,) = diagnostic_lines(result)
    found = result.diagnostics["adapt_then_score"]
    assert result.score is not None
    assert WARNING in line
    assert f"{found.honest_bits_per_byte:.5f}" in line
    assert found.honest_bits_per_byte == pytest.approx(result.score.bits_per_byte)
    assert found.illegal_bits_per_byte != result.score.bits_per_byte


def test_a_cap_too_small_is_refused_before_training_or_named_with_numbers_after(
    go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = replace(smoke(recipe("pocket")), budget=Budget(cap_bytes=3000, eval_seconds=60))
    with pytest.raises(OverBudget, match="may have 3,000"):
        go(chosen, tmp_path)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr("fairway.pipeline.packing.SURE", 0.0)  # what is likely can be wrong
    with pytest.raises(OverBudget, match="over the 3,000"):
        go(chosen, tmp_path)
    assert list(read_result(tmp_path).stages) == ["float"]  # what was found by then is kept


def test_an_evaluation_that_cannot_fit_its_clock_is_refused_before_training(
    go: Go, tmp_path: Path
) -> None:
    chosen = replace(smoke(recipe("pocket")), budget=Budget(eval_seconds=1e-4))
    with pytest.raises(ValueError, match="nothing allowed fits"):
        go(chosen, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_tokenizer_that_does_not_fit_is_refused_before_training(go: Go, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--vocab-size 270"):
        go(smoke(recipe("pocket"), vocab_size=270), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_loss_that_is_no_number_names_the_step(go: Go, tmp_path: Path) -> None:
    chosen = smoke(recipe("pocket"))
    model = replace(chosen.model, embedding=replace(chosen.model.embedding, init_std=float("inf")))
    with pytest.raises(TrainingDiverged, match="step 1"):
        go(replace(chosen, model=model), tmp_path)


def test_only_the_text_asked_for_is_scored(go: Go, tmp_path: Path) -> None:
    chosen = smoke(recipe("pocket"))
    chosen = replace(chosen, tokens=replace(chosen.tokens, val_tokens=50))
    score = go(chosen, tmp_path).score
    assert score is not None
    assert score.tokens == 49


def test_three_lines_of_python_start_watch_and_resume_a_run(
    song: DataFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The lines themselves, as the module shows them; the first run is interrupted."""
    assert story.__doc__ is not None
    start, watched, resumed = [
        line.strip() for line in story.__doc__.splitlines() if line.startswith("    ")
    ]
    monkeypatch.setattr(story, "audit_run", lambda *_: FINE)
    tiny = smoke(recipe("pocket"))
    paths = {"data": song.path, "runs/a": tmp_path / "run"}
    options = partial(RunOptions, proof_tokens=20)
    names = {"run": run, "RunOptions": options, "recipe": lambda name: tiny, "Path": paths.get}
    exec(start, names)
    shutil.rmtree(tmp_path / "run")  # or else the folder would be refused
    take = training.Dealt.step_done

    def interrupted(dealt: training.Dealt, micro_batches: int) -> None:
        take(dealt, micro_batches)
        if dealt.batches.position == 3 * tiny.train.batch.micro_batches:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(training.Dealt, "step_done", interrupted)
        with pytest.raises(Stopped, match="SIGTERM after step 3"):
            exec(watched, names)
    assert "train 3.0 6.0" in capsys.readouterr().out
    exec(resumed, names)
    result = names["result"]
    assert isinstance(result, RunResult)
    assert result == read_result(tmp_path / "run")
    assert result.audit == FINE
    assert result.train.steps == 6
    assert result.holds
    assert set(result.baselines) == {"xz", "zstd", "ppmd"}
    assert (tmp_path / "run" / "report.html").is_file()
    log = (tmp_path / "run" / "train.log").read_text()
    assert "going on after step 3" in log
