import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.evaluate.windows import document_windows, sliding_windows

SHAPES = st.integers(1, 40).flatmap(lambda c: st.tuples(st.just(c), st.integers(1, c)))


@given(st.integers(0, 300), st.integers(0, 50), SHAPES)
def test_every_token_but_the_first_is_scored_exactly_once(
    length: int, first: int, shape: tuple[int, int]
) -> None:
    context, stride = shape
    windows = list(sliding_windows(first, first + length, context, stride))
    scored = [p for w in windows for p in range(w.score_from, w.stop)]
    assert scored == list(range(first + 1, first + length))
    for window in windows:
        assert first <= window.start < window.score_from  # nothing is predicted from nothing
        assert window.num_inputs <= context
        assert window.num_inputs == window.stop - 1 - window.start
    for window in windows[1:]:
        assert window.num_targets <= stride
        assert window.score_from - window.start == context - stride + 1


@given(st.lists(st.integers(1, 60), min_size=1, max_size=8), SHAPES)
def test_no_window_reads_across_the_start_of_a_document(
    lengths: list[int], shape: tuple[int, int]
) -> None:
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    stop = sum(lengths)
    found = list(document_windows(starts, stop, *shape))
    scored = [p for _, w in found for p in range(w.score_from, w.stop)]
    assert scored == list(range(1, stop))  # the BOS that ends a document is paid for too
    for document, window in found:
        assert window.start >= starts[document]
        inputs_end = starts[document + 1] if document + 1 < len(starts) else stop
        assert window.stop - 1 <= inputs_end


def test_a_document_of_one_token_has_nothing_to_predict_but_its_end() -> None:
    assert list(sliding_windows(5, 6, 8, 4)) == []
    assert [tuple(w) for _, w in document_windows([0, 1], 4, 8, 4)] == [(0, 1, 2), (1, 2, 4)]


@pytest.mark.parametrize(("context", "stride"), [(8, 9), (8, 0), (0, 1)])
def test_a_stride_beyond_the_context_would_leave_tokens_unscored(context: int, stride: int) -> None:
    with pytest.raises(ValueError, match=f"context={context}, stride={stride}"):
        list(sliding_windows(0, 100, context, stride))
