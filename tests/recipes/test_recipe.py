"""A recipe whose parts contradict each other cannot exist."""

from dataclasses import replace

import pytest

from fairway.recipes.recipe import Budget, TokensConfig
from fairway.recipes.registry import recipe


def test_tokenizer_and_model_must_agree_on_the_vocabulary() -> None:
    with pytest.raises(ValueError, match=r"tokens.vocab_size=512 and model.vocab_size=1024 differ"):
        replace(recipe("naive_baseline"), tokens=TokensConfig(vocab_size=512))


def test_time_for_hessians_is_training_time() -> None:
    """Reading training text after the clock has run out closed nine submissions (#535 to #1028)."""
    full = recipe("pr1493")
    with pytest.raises(ValueError, match=r"reserve_seconds=1.0 is less than .*: Hessians read"):
        replace(full, train=replace(full.train, reserve_seconds=1.0))


def test_a_loop_that_never_starts_is_refused() -> None:
    full = recipe("pr1493")
    with pytest.raises(ValueError, match=r"train.loops_at=0.35, but the model has no loop"):
        replace(full, model=replace(full.model, loop=None))


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="both must be positive"):
        Budget(cap_bytes=0)
