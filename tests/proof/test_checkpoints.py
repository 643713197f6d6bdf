"""Checkpoints fall on the same tokens for encoder and decoder, and the first wrong one stops."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairway.proof.checkpoints import CannotRetrace, Checkpoints

steps = st.lists(st.lists(st.integers(0, 9000), min_size=1, max_size=5), max_size=30)


def run(groups: list[list[int]], every: int, expected=None) -> tuple[int, ...]:
    checkpoints = Checkpoints(every, expected)
    for group in groups:
        checkpoints.add(torch.tensor(group))
    return checkpoints.finish()


@given(steps, st.integers(1, 20))
def test_the_same_tokens_pass(groups: list[list[int]], every: int) -> None:
    noted = run(groups, every)
    assert run(groups, every, noted) == noted


@given(steps.filter(bool), st.integers(1, 20), st.data())
def test_any_other_token_is_caught(groups: list[list[int]], every: int, data) -> None:
    noted = run(groups, every)
    group = data.draw(st.integers(0, len(groups) - 1))
    place = data.draw(st.integers(0, len(groups[group]) - 1))
    changed = [list(g) for g in groups]
    changed[group][place] += 1
    with pytest.raises(CannotRetrace, match="other probabilities"):
        run(changed, every, noted)


@given(steps.filter(bool), st.integers(1, 20))
def test_tokens_too_few_or_too_many_are_caught(groups: list[list[int]], every: int) -> None:
    noted = run(groups, every)
    for other in (groups[:-1], [*groups, [1]]):
        with pytest.raises(CannotRetrace):
            run(other, every, noted)
