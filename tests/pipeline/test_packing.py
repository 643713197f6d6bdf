"""A file is under its cap, or the run ends with the numbers."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fairway.artifact.budget import OverBudget
from fairway.recipes.recipe import Budget
from fairway.recipes.registry import recipe, smoke
from fairway.result import RunResult, read_result

Go = Callable[..., RunResult]


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
