"""Segments cover a file once, and stand at the same place in every chunk."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from fairway.evaluate.chunks import plan_chunks
from fairway.proof.segments import (
    MOST_SEGMENTS,
    choose_segments,
    plan_segments,
    segment_bounds,
)

shapes = st.sampled_from([(8, 8), (8, 3), (16, 4), (5, 1)])
cuts = st.tuples(st.integers(0, 300), st.integers(1, 7)).map(lambda x: segment_bounds(*x))


@given(cuts, shapes, st.none() | st.integers(1, 64))
def test_every_token_but_a_segments_first_is_scored_once(
    bounds: list[int], shape: tuple[int, int], chunk_tokens: int | None
) -> None:
    plans = plan_segments(bounds, *shape, chunk_tokens)
    scored = [t for p in plans for w in p.windows for t in range(w.score_from, w.stop)]
    assert sorted(scored) == [t for a, b in pairwise(bounds) for t in range(a + 1, b)]
    for plan in plans:
        for window, row in zip(plan.windows, plan.rows, strict=True):
            assert bounds[row] <= window.start < window.score_from < window.stop <= bounds[row + 1]


@given(cuts, shapes, st.none() | st.integers(1, 64))
def test_a_chunk_is_learned_from_only_where_it_was_scored(
    bounds: list[int], shape: tuple[int, int], chunk_tokens: int | None
) -> None:
    scored: set[int] = set()
    learned: list[int] = []
    for plan in plan_segments(bounds, *shape, chunk_tokens):
        scored |= {t for w in plan.windows for t in range(w.score_from, w.stop)}
        targets = [t for begin, end in plan.spans for t in range(begin + 1, end)]
        assert set(targets) <= scored
        learned += targets
    assert sorted(learned) == sorted(scored)


@given(cuts, shapes)
def test_each_segment_ends_once(bounds: list[int], shape: tuple[int, int]) -> None:
    plans = plan_segments(bounds, *shape, None)
    ended = [row for p in plans for row, ends in zip(p.rows, p.ends, strict=True) if ends]
    assert sorted(ended) == [i for i, (a, b) in enumerate(pairwise(bounds)) if b - a > 1]


@given(st.integers(2, 300), shapes)
def test_one_segment_is_planned_as_an_evaluation_is(
    num_tokens: int, shape: tuple[int, int]
) -> None:
    chunk_tokens = 3 * shape[1]
    ours = plan_segments([0, num_tokens], *shape, chunk_tokens)
    assert ours == plan_chunks(num_tokens, *shape, chunk_tokens)


def test_small_files_are_one_segment_and_large_ones_many() -> None:
    assert choose_segments(0) == choose_segments(16_384) == 1
    assert choose_segments(100_000) == 6
    assert choose_segments(10**9) == MOST_SEGMENTS
