"""Edits and the pseudo-text."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.audit.stream import (
    BOS,
    MANNERS,
    MOVING_DOCUMENTS,
    Edit,
    context_matches,
    moves_documents,
    pseudo_text,
)


@given(st.integers(2, 300), st.integers(2, 400), st.integers(0, 3))
def test_the_pseudo_text_is_a_function_of_its_arguments(
    vocab_size: int, num_tokens: int, seed: int
) -> None:
    text = pseudo_text(vocab_size, num_tokens, seed)
    assert len(text) == num_tokens
    assert text[0] == BOS
    assert text.min() >= 0
    assert text.max() < vocab_size
    assert np.array_equal(text, pseudo_text(vocab_size, num_tokens, seed))


def test_the_pseudo_text_gives_caches_something_to_find() -> None:
    text = pseudo_text(1024)
    length, hint = context_matches(text)
    known = length >= 3
    assert known.mean() > 0.1
    assert (hint[known] == text[1:][known]).mean() > 0.5
    assert len(set(hint[known].tolist())) > 20
    assert hint.max() > 900  # rare tokens are spelled by phrases too
    assert (text == BOS).sum() > 3


@given(
    st.sampled_from(sorted(MANNERS)),
    st.integers(2, 60),
    st.integers(0, 99),
    st.integers(1, 100),
    st.integers(0, 5),
)
def test_an_edit_changes_its_first_token_and_nothing_outside(
    how: str, vocab_size: int, start: int, length: int, seed: int
) -> None:
    text = pseudo_text(vocab_size, 100)
    stop = min(100, start + length)
    edited = Edit(start, stop, how, seed).apply(text, vocab_size)
    assert edited[start] != text[start]
    assert np.array_equal(edited[:start], text[:start])
    assert np.array_equal(edited[stop:], text[stop:])
    assert 0 <= edited.min() <= edited.max() < vocab_size
    assert np.array_equal(edited, Edit(start, stop, how, seed).apply(text, vocab_size))


@pytest.mark.parametrize("how", sorted(set(MANNERS) - set(MOVING_DOCUMENTS)))
def test_document_marks_stay_unless_the_edit_is_about_them(how: str) -> None:
    text = pseudo_text(64, 256)
    start = int(np.flatnonzero(text[2:] != BOS)[0]) + 2
    assert not moves_documents(text, Edit(start, 256, how).apply(text, 64))


@pytest.mark.parametrize("how", MOVING_DOCUMENTS)
def test_documents_can_be_moved(how: str) -> None:
    text = pseudo_text(64, 256)
    assert moves_documents(text, Edit(9, 256, how).apply(text, 64))


def test_an_unknown_edit_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown edit 'blank'; choose one of uniform"):
        Edit(0, 1, "blank")


def test_context_matches_finds_the_longest_phrase() -> None:
    length, hint = context_matches(np.array([5, 6, 7, 8, 5, 6, 7, 9]))
    assert length.tolist() == [0, 0, 0, 0, 1, 2, 3]
    assert hint.tolist() == [-1, -1, -1, -1, 6, 7, 8]
