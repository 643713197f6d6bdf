"""A stream ends before the first stop, however it is cut into pieces."""

from hypothesis import given
from hypothesis import strategies as st

from fairway.generate.stops import before_first

LETTERS = st.lists(st.sampled_from([b"a", b"b", b"ab", b"ba", b"aab", b""]), max_size=12)
STOPS = st.lists(st.sampled_from([b"ab", b"aba", b"bb", b"baa"]), max_size=2)


@given(LETTERS, STOPS)
def test_what_comes_is_the_text_before_the_first_stop(
    pieces: list[bytes], stops: list[bytes]
) -> None:
    whole = b"".join(pieces)
    ends = [whole.find(stop) for stop in stops if stop in whole]
    assert b"".join(before_first(pieces, stops)) == whole[: min(ends, default=len(whole))]


def test_nothing_is_held_back_without_need() -> None:
    shown = before_first(iter([b"one", b" t", b"en"]), [b"two"])
    assert [next(shown), next(shown), next(shown)] == [b"one", b" ", b"ten"]
