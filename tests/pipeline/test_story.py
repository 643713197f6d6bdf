"""Every recipe, in miniature, through the whole pipeline; and the promises of a run."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fairway.artifact.budget import OverBudget
from fairway.artifact.loaded_model import load_model
from fairway.evaluate.diagnostic import WARNING
from fairway.proof.prove import prove
from fairway.recipes.recipe import Budget
from fairway.recipes.registry import RECIPES, recipe, smoke
from fairway.report.table import diagnostic_lines
from fairway.result import RunResult
from fairway.tokens.shards import DataFolder
from fairway.tokens.val_text import ValText
from fairway.train.divergence import TrainingDiverged

Go = Callable[..., dict]


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains_packs_scores_and_proves(
    name: str, song: DataFolder, go: Go, tmp_path: Path
) -> None:
    result = go(smoke(recipe(name)), tmp_path)
    assert result["score"]["tokens"] == len(song.val) - 1
    assert result["score"]["bytes"] == int(ValText.of(song).target_bytes.sum())
    assert result["artifact"]["bytes_total"] <= result["artifact"]["cap_bytes"]
    assert result["chunks"]["tokens"][-1] == len(song.val) - 1
    text = ValText.of(song)
    certificate = prove(
        load_model(tmp_path / "model.fwy"),
        text.tokens,
        text.target_bytes,
        out=tmp_path / "proof.fwp",
        num_targets=40,
    )
    assert certificate.holds, certificate.verdict


def test_the_same_run_gives_the_same_bytes(go: Go, tmp_path: Path) -> None:
    chosen = smoke(recipe("pocket"))
    files = []
    for part in "ab":
        go(chosen, tmp_path / part)
        files.append((tmp_path / part / "model.fwy").read_bytes())
    assert files[0] == files[1]


def test_a_number_that_is_no_score_says_so_beside_the_honest_one(go: Go, tmp_path: Path) -> None:
    result = go(smoke(recipe("sponge_bath")), tmp_path)
    (line,) = diagnostic_lines(RunResult.from_json(result))
    found = result["diagnostics"]["adapt_then_score"]
    assert WARNING in line
    assert f"{found['honest_bits_per_byte']:.5f}" in line
    assert found["honest_bits_per_byte"] == pytest.approx(result["score"]["bits_per_byte"])
    assert found["illegal_bits_per_byte"] != result["score"]["bits_per_byte"]


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
    assert go(chosen, tmp_path)["score"]["tokens"] == 49
