"""JSON is read as what it is, or refused by its name."""

from collections.abc import Callable

import pytest

from fairway.runtime.json_types import json_array, json_object, json_text, json_texts


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
