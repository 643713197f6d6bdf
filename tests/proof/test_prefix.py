"""A part's plan is the beginning of the whole's, made from what a decoder is told."""

import dataclasses

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from fairway.evaluate.config import EvaluateConfig, plan_evaluation
from fairway.evaluate.learners.documents import DocumentAdapters
from fairway.evaluate.learners.sgd import Sgd
from fairway.proof.prefix import pack_starts, prefix_of, unpack_starts
from fairway.tokens.val_text import ValText

from .conftest import text

STREAM = EvaluateConfig(context=16, stride=8, ttt=Sgd(chunk_tokens=32))
APART = EvaluateConfig(context=16, stride=8, rows=2, documents=True, ttt=DocumentAdapters())
LONGEST_FIRST = dataclasses.replace(APART, order="longest_first", short_strides=((12, 2), (20, 4)))
lengths = st.lists(st.integers(1, 50), min_size=2, max_size=6)


@given(lengths, st.integers(1, 200))
def test_the_first_tokens_are_planned_as_in_the_whole(lengths: list[int], count: int) -> None:
    tokens, _ = text(lengths)
    whole = plan_evaluation(STREAM, len(tokens), (0,))
    prefix = prefix_of(STREAM, tokens, 1, num_targets=count)
    part = prefix.plans(STREAM)
    assert sum(plan.num_targets for plan in part) == min(count, len(tokens) - 1)
    for mine, theirs in zip(part, whole, strict=False):
        assert (mine.index, mine.num_chunks) == (theirs.index, theirs.num_chunks)
        for a, b in zip(mine.windows, theirs.windows, strict=False):
            assert (a.start, a.score_from) == (b.start, b.score_from)
            assert a.stop in (b.stop, prefix.num_tokens)


@given(lengths, st.integers(1, 6))
def test_the_first_documents_are_planned_as_in_the_whole(lengths: list[int], count: int) -> None:
    tokens, starts = text(lengths)
    count = min(count, len(lengths))
    whole = plan_evaluation(APART, len(tokens), starts)
    prefix = prefix_of(APART, tokens, 1, num_documents=count)
    chosen = {
        window
        for plan in whole
        for window, document in zip(plan.windows, plan.rows, strict=True)
        if document < count
    }
    assert {window for plan in prefix.plans(APART) for window in plan.windows} == chosen
    assert {plan.num_chunks for plan in prefix.plans(APART)} <= {len(whole)}


@given(lengths, st.integers(1, 6), st.booleans())
@example([3, 1], 2, False)
def test_the_documents_scored_first_are_planned_as_in_the_whole(
    lengths: list[int], count: int, by_targets: bool
) -> None:
    """As many batches as hold so much, each window over the very tokens it reads in the whole."""
    tokens, starts = text(lengths)
    count = min(count, len(lengths))
    size = {"num_targets": 10 * count} if by_targets else {"num_documents": count}
    whole = plan_evaluation(LONGEST_FIRST, len(tokens), starts)
    prefix = prefix_of(LONGEST_FIRST, tokens, 1, **size)
    counts = torch.arange(1, len(tokens)) * (tokens[1:] != 1)  # a BOS stands for no byte
    part = prefix.of(ValText(tokens, counts, tuple(starts)))
    assert part.document_starts == prefix.starts
    assert len(part.tokens) == prefix.num_tokens
    plans = prefix.plans(LONGEST_FIRST)
    for mine, theirs in zip(plans, whole, strict=False):
        assert (mine.index, mine.num_chunks) == (theirs.index, theirs.num_chunks)
        assert (mine.batch, mine.places) == (theirs.batch, theirs.places)
        assert (mine.ends, mine.batch_size) == (theirs.ends, theirs.batch_size)
        for a, b in zip(mine.windows, theirs.windows, strict=True):
            assert torch.equal(part.tokens[a.start : a.stop], tokens[b.start : b.stop])
            assert torch.equal(
                part.target_bytes[a.score_from - 1 : a.stop - 1],
                counts[b.score_from - 1 : b.stop - 1],
            )
    reached = sum(plan.num_targets for plan in plans)
    with_targets = {
        document for plan in whole for document in plan.rows
    }  # not so an empty last one
    if by_targets:
        assert reached >= min(10 * count, len(tokens) - 1)
    else:
        assert len(prefix.starts) >= min(count, len(with_targets))
    assert reached == len(part.tokens) - 1


@given(lengths)
def test_everything_is_the_whole_plan(lengths: list[int]) -> None:
    tokens, starts = text(lengths)
    assert prefix_of(STREAM, tokens, 1).plans(STREAM) == plan_evaluation(STREAM, len(tokens), (0,))
    assert prefix_of(APART, tokens, 1).plans(APART) == plan_evaluation(APART, len(tokens), starts)


def test_a_decoder_is_given_each_bos_where_documents_are_apart() -> None:
    tokens, starts = text([5, 4, 6])
    given = prefix_of(APART, tokens, 1).given(1)
    assert given.nonzero()[:, 0].tolist() == list(range(15))
    assert (given == 1).nonzero()[:, 0].tolist() == starts
    stream = prefix_of(STREAM, tokens, 1).given(1)
    assert stream.tolist() == [1] + [-1] * 14


@given(st.lists(st.integers(1, 200_000), max_size=30))
def test_positions_come_back(lengths: list[int]) -> None:
    starts = tuple(torch.tensor([0, *lengths]).cumsum(0).tolist())
    assert unpack_starts(pack_starts(starts)) == starts
    assert unpack_starts(pack_starts(())) == ()


def test_what_cannot_be_proved_is_said() -> None:
    tokens, _ = text([10, 10])
    with pytest.raises(ValueError, match="3 documents to prove, and the text has 2"):
        prefix_of(STREAM, tokens, 1, num_documents=3)
    with pytest.raises(ValueError, match="not both"):
        prefix_of(STREAM, tokens, 1, num_documents=1, num_targets=1)
    with pytest.raises(ValueError, match="at least 1"):
        prefix_of(STREAM, tokens, 1, num_targets=0)
    with pytest.raises(ValueError, match="nothing to prove"):
        prefix_of(STREAM, tokens[:1], 1)
    with pytest.raises(ValueError, match="begins with token 5 instead of the BOS 1"):
        prefix_of(APART, torch.tensor([5, 1, 6]), 1)
