"""Every recipe, in miniature, through the whole pipeline; and the promises of a run."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fairway.artifact.budget import OverBudget
from fairway.artifact.served import load
from fairway.pipeline import Here, ValText, run
from fairway.prepare import prepare_documents
from fairway.proof.prove import prove
from fairway.recipes.recipe import Budget, Recipe
from fairway.recipes.registry import RECIPES, recipe, smoke
from fairway.runtime.distributed import Ranks
from fairway.runtime.run_log import RunLog
from fairway.tokens.shards import DataFolder
from fairway.train.watch import TrainingDiverged

DOCUMENTS = [
    f"{i} green bottles hanging on the wall, {i * 7} more. ".encode() * 6 for i in range(40)
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    out = tmp_path_factory.mktemp("text") / "data"
    prepare_documents(out, DOCUMENTS[:-1], DOCUMENTS[-1:], vocab_size=300, source="a song")
    return DataFolder(out)


def go(chosen: Recipe, data: DataFolder, out: Path) -> dict:
    out.mkdir(exist_ok=True)
    here = Here(torch.device("cpu"), torch.float32, Ranks(), RunLog(None, quiet=True))
    return run(chosen, data, out, here)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains_packs_scores_and_proves(
    name: str, data: DataFolder, tmp_path: Path
) -> None:
    result = go(smoke(recipe(name)), data, tmp_path)
    assert result["score"]["tokens"] == len(data.val) - 1
    assert result["score"]["bytes"] == len(DOCUMENTS[-1])
    assert result["artifact"]["bytes_total"] <= result["artifact"]["cap_bytes"]
    text = ValText.of(data)
    certificate = prove(
        load(tmp_path / "model.fwy"),
        text.tokens,
        text.target_bytes,
        out=tmp_path / "proof.fwp",
        num_targets=40,
    )
    assert certificate.holds, certificate.verdict


def test_the_same_run_gives_the_same_bytes(data: DataFolder, tmp_path: Path) -> None:
    chosen = smoke(recipe("pocket"))
    files = []
    for part in "ab":
        go(chosen, data, tmp_path / part)
        files.append((tmp_path / part / "model.fwy").read_bytes())
    assert files[0] == files[1]


def test_a_cap_too_small_is_named_with_numbers(data: DataFolder, tmp_path: Path) -> None:
    chosen = replace(smoke(recipe("pocket")), budget=Budget(cap_bytes=3000, eval_seconds=60))
    with pytest.raises(OverBudget, match="over the 3,000"):
        go(chosen, data, tmp_path)


def test_a_tokenizer_that_does_not_fit_is_refused_before_training(
    data: DataFolder, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="--vocab-size 270"):
        go(smoke(recipe("pocket"), vocab_size=270), data, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_loss_that_is_no_number_names_the_step(data: DataFolder, tmp_path: Path) -> None:
    chosen = smoke(recipe("pocket"))
    model = replace(chosen.model, embedding=replace(chosen.model.embedding, init_std=float("inf")))
    with pytest.raises(TrainingDiverged, match="step 1"):
        go(replace(chosen, model=model), data, tmp_path)
