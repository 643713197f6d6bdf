"""What is read from a file is JSON as every reader would read it, or one line says why not."""

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.runtime.limits import one_line, require_within
from fairway.runtime.strict_json import (
    json_array,
    json_object,
    json_text,
    json_texts,
    parse_json,
)

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, width=32),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
).filter(lambda value: "Infinity" not in json.dumps(value))


@given(values)
def test_json_comes_back(value: object) -> None:
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")) is not ...


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1, "a": 2}', "the name 'a' twice"),
        ("1e999", "holds the number 1e999"),
        ("[NaN]", "holds the number NaN"),
        ("[-Infinity]", "holds the number -Infinity"),
        ("[" * 100_000, "nested too deeply"),
        ("9" * 100_000, "digits"),
        ('{"a": 1}'.encode("utf-16"), "decode"),
        ("{", "Expecting"),
        ("", "Expecting"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_readers_differ_on_is_refused_in_one_line(text: str | bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words) as refused:
        parse_json(text)
    assert str(refused.value).isprintable()


@given(st.text())
def test_one_line_is_printable_and_short(text: str) -> None:
    found = one_line(text, 30)
    assert not found or found.isprintable()


class Config:
    size, rate, none = 5, float("nan"), None


def test_a_number_beyond_its_range_is_named_and_none_is_none() -> None:
    require_within(Config(), size=(5, 5), none=(0, 1))
    with pytest.raises(ValueError, match=r"Config.size=5 must lie within 6 and 1,000"):
        require_within(Config(), size=(6, 1000))
    with pytest.raises(ValueError, match=r"Config.rate=nan"):
        require_within(Config(), rate=(-1, 1))


def test_what_it_is_comes_through() -> None:
    assert json_object({"a": 1}, "x") == {"a": 1}
    assert json_text("a", "x") == "a"
    assert json_array([1, None], "x") == [1, None]
    assert json_texts(["a", "b"], "x") == ("a", "b")


@pytest.mark.parametrize("read", [json_object, json_text, json_array, json_texts])
def test_another_thing_is_refused_by_its_name(read: Callable[[object, str], object]) -> None:
    with pytest.raises(ValueError, match=r"^the place is 7; it must be"):
        read(7, "the place")


def test_of_a_list_the_place_is_told() -> None:
    with pytest.raises(ValueError, match=r"^notes\[1\] is 7; it must be a text"):
        json_texts(["a", 7], "notes")
