"""What is scored, in its time, and what is no score."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fairway.evaluate.diagnostic import WARNING
from fairway.recipes.recipe import Budget
from fairway.recipes.registry import recipe, smoke
from fairway.report.table import diagnostic_lines
from fairway.result import RunResult
from fairway.runs.documents import Documents, read_documents

Go = Callable[..., RunResult]


def test_a_number_that_is_no_score_says_so_beside_the_honest_one(go: Go, tmp_path: Path) -> None:
    result = go(smoke(recipe("sponge_bath")), tmp_path)
    (line,) = diagnostic_lines(result)
    found = result.diagnostics["adapt_then_score"]
    assert result.score is not None
    assert WARNING in line
    assert f"{found.honest_bits_per_byte:.5f}" in line
    assert found.honest_bits_per_byte == pytest.approx(result.score.bits_per_byte)
    assert found.illegal_bits_per_byte != result.score.bits_per_byte


def test_an_evaluation_that_cannot_fit_its_clock_is_refused_before_training(
    go: Go, tmp_path: Path
) -> None:
    chosen = replace(smoke(recipe("pocket")), budget=Budget(eval_seconds=1e-4))
    with pytest.raises(ValueError, match="nothing allowed fits"):
        go(chosen, tmp_path)
    assert not list(tmp_path.iterdir())


def test_only_the_text_asked_for_is_scored(go: Go, tmp_path: Path) -> None:
    chosen = smoke(recipe("pocket"))
    chosen = replace(chosen, tokens=replace(chosen.tokens, val_tokens=50))
    score = go(chosen, tmp_path).score
    assert score is not None
    assert score.tokens == 49


def test_what_each_document_cost_adds_up_to_the_score(go: Go, tmp_path: Path) -> None:
    result = go(smoke(recipe("pocket")), tmp_path)
    documents = read_documents(tmp_path, result)
    assert result.score is not None
    assert isinstance(documents, Documents)
    assert documents.learning.sum() == pytest.approx(result.score.nats)
    assert documents.tokens.sum() == result.score.tokens
    assert documents.bytes.sum() == result.score.bytes
    sliding = result.stages["sliding"].nats_per_token
    assert documents.frozen.sum() == pytest.approx(sliding * result.score.tokens)
