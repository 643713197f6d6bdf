"""Chunks hold every target once, in order, and no token beyond their own."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.evaluate.chunks import (
    cut_chunk,
    plan_chunks,
    plan_documents,
)
from fairway.evaluate.orders import Order, document_batches, stride_of
from fairway.evaluate.windows import Window

from .models import CONTEXT, text, val_text

TOKENS, STARTS = text((21, 2, 30, 17, 9, 26))


@given(st.integers(2, 400), st.integers(1, 6), st.integers(1, 20), st.integers(1, 8))
@settings(max_examples=60)
def test_a_chunk_owns_no_target_that_is_still_to_be_scored(
    num_tokens: int, stride: int, longer: int, strides: int
) -> None:
    plans = plan_chunks(num_tokens, stride + longer, stride, stride * strides)
    scored: list[int] = []
    for plan in plans:
        scored += [p for w in plan.windows for p in range(w.score_from, w.stop)]
        ((begin, end),) = plan.spans
        assert set(range(begin + 1, end)) <= set(scored)
    assert scored == list(range(1, num_tokens))
    owned = [p for plan in plans for begin, end in plan.spans for p in range(begin + 1, end)]
    assert owned == scored


@given(st.lists(st.integers(1, 60), min_size=1, max_size=9), st.integers(1, 4), st.integers(1, 8))
@settings(max_examples=60)
def test_documents_side_by_side_stay_in_file_order(
    lengths: list[int], rows: int, stride: int
) -> None:
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    plans = plan_documents(starts, sum(lengths), 8, stride, rows)
    scored = [p for plan in plans for w in plan.windows for p in range(w.score_from, w.stop)]
    assert sorted(scored) == list(range(1, sum(lengths)))
    for plan in plans:
        assert len(set(plan.rows)) == len(plan.rows)
        assert len({document // rows for document in plan.rows}) == 1
        for window, span in zip(plan.windows, plan.spans, strict=True):
            assert span == (window.score_from - 1, window.stop)
    for row in range(len(lengths)):
        own = [
            (w, e)
            for p in plans
            for r, w, e in zip(p.rows, p.windows, p.ends, strict=True)
            if r == row
        ]
        assert [ends for _, ends in own] == [False] * (len(own) - 1) + [True] * bool(own)
        assert all(a.stop == b.score_from for (a, _), (b, _) in pairwise(own))


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=9),
    st.integers(1, 4),
    st.integers(1, 8),
    st.sampled_from(["longest_first", "shortest_first"]),
)
@settings(max_examples=60)
def test_an_order_by_length_scores_every_target_once(
    lengths: list[int], rows: int, stride: int, order: Order
) -> None:
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    short = ((12, 2), (30, 3))
    plans = plan_documents(starts, sum(lengths), 8, stride, rows, order, short)
    scored = [p for plan in plans for w in plan.windows for p in range(w.score_from, w.stop)]
    assert sorted(scored) == list(range(1, sum(lengths)))
    with_end = [length + (i + 1 < len(lengths)) for i, length in enumerate(lengths)]
    batches = document_batches(with_end, rows, order)
    reached = []
    for plan in plans:
        batch = batches[plan.batch]
        assert plan.rows == tuple(batch[place] for place in plan.places)
        assert plan.batch_size == len(batch)
        own = min(stride_of(max(with_end[d] for d in batch), stride, short), 8)
        assert all(w.num_targets <= own and w.num_inputs <= 8 for w in plan.windows)
        reached.append(plan.batch)
    assert reached == sorted(reached)
    longest = [max(with_end[d] for d in batch) for batch in batches]
    assert longest == sorted(longest, reverse=order == "longest_first")


def test_a_documents_windows_grow_to_the_context() -> None:
    plans = plan_documents([0], 13, 8, 4, 1)
    assert [plan.windows for plan in plans] == [
        (Window(0, 1, 5),),
        (Window(0, 5, 9),),
        (Window(4, 9, 13),),
    ]


def test_a_chunk_holds_copies_and_reaches_no_token_beyond_its_own() -> None:
    tokens = TOKENS.clone()
    chunk = cut_chunk(plan_chunks(len(tokens), CONTEXT, 4, 24)[1], val_text(tokens))
    before = [one.clone() for one in (*chunk.texts, *chunk.span_texts)]
    tokens.zero_()
    assert all(
        torch.equal(a, b) for a, b in zip(before, (*chunk.texts, *chunk.span_texts), strict=True)
    )
    last = max(window.stop for window in chunk.plan.windows)
    assert all(one.untyped_storage().nbytes() <= 8 * last for one in chunk.texts)


def test_chunks_that_cut_a_stride_are_refused() -> None:
    with pytest.raises(ValueError, match="chunk_tokens=30 is not a multiple of stride=4"):
        plan_chunks(100, 16, 4, 30)
