"""Which tokens may be drawn, and that what is asked for twice is drawn twice."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairway.generate.sampling import GenerateConfig, draw, min_p, penalized, top_k, top_p

LOGITS = torch.tensor([0.0, 3.0, 1.0, 2.0])
ROWS = st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=30).map(torch.tensor)


def drawn(logits: torch.Tensor = LOGITS, times: int = 200, **settings) -> set[int]:
    config, source = GenerateConfig(**settings), torch.Generator().manual_seed(0)
    return {draw(logits, config, source) for _ in range(times)}


def test_only_the_top_k_are_drawn() -> None:
    assert drawn(temperature=5.0, top_k=2) == {1, 3}


def test_top_p_is_the_smallest_set_that_reaches_it() -> None:
    # Probabilities 0.032, 0.644, 0.087, 0.237.
    assert drawn(temperature=1.0, top_p=0.6) == {1}
    assert drawn(temperature=1.0, top_p=0.65) == {1, 3}
    assert drawn(temperature=1.0, top_p=1.0, times=1000) == {0, 1, 2, 3}


def test_the_coldest_takes_the_likeliest() -> None:
    assert drawn(temperature=5e-324) == drawn(temperature=1e-300, top_k=3) == {1}


def test_min_p_is_a_share_of_the_likeliest() -> None:
    assert drawn(temperature=1.0, min_p=0.3) == {1, 3}
    assert drawn(temperature=1.0, min_p=1.0) == {1}


def test_a_penalty_makes_what_was_there_less_likely_whatever_its_sign() -> None:
    logits = torch.tensor([-1.0, 2.0, 0.5])
    assert penalized(logits, [0, 1, 1], 2.0).tolist() == [-2.0, 1.0, 0.5]
    assert logits.tolist() == [-1.0, 2.0, 0.5]  # the caller's are as they were


@given(ROWS, st.integers(1, 40), st.floats(0.01, 1.0))
def test_the_likeliest_always_stays_and_nothing_else_changes(
    logits: torch.Tensor, k: int, share: float
) -> None:
    for kept in (top_k(logits, k), top_p(logits, share), min_p(logits, share)):
        possible = kept > float("-inf")
        assert possible[logits.argmax()]
        assert torch.equal(kept[possible], logits[possible])
        assert logits[possible].min() >= logits[~possible].max() if (~possible).any() else True


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"seed": 1 << 63},
        {"seed": 1.5},
        {"num_tokens": 2.0},
        {"context": 1 << 30},
        {"stop": "end"},
        {"stop": (b"end",)},
        {"repetition_penalty": 1e-310},
        {"top_k": 0},
        {"top_p": 0.0},
        {"min_p": 1.5},
        {"repetition_penalty": 0.0},
        {"stop": ("",)},
        {"context": 1},
    ],
)
def test_what_cannot_be_drawn_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        GenerateConfig(**wrong)
