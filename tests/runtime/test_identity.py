"""What something was made with: one hash, and a seal that a damaged file does not keep."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.runtime.identity import difference, json_sha256, sealed, unsealed

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
OBJECTS = st.dictionaries(st.text().filter(lambda name: name != "sha256"), PLAIN, max_size=4)


@given(OBJECTS)
def test_what_was_sealed_comes_back_without_its_seal(held: dict) -> None:
    assert unsealed(json.dumps(sealed(held)), required=True) == held
    assert unsealed(json.dumps(held)) == held


@given(OBJECTS, st.data())
def test_another_byte_is_refused_or_says_the_same(held: dict, data: st.DataObject) -> None:
    text = bytearray(json.dumps(sealed(held)).encode())
    place = data.draw(st.integers(0, len(text) - 1))
    text[place] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(ValueError):
        assert unsealed(bytes(text), required=True) == held


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "holds a list"),
        ("5", "holds a int"),
        ("{", "Expecting"),
        ("[" * 10**5, "nested too deeply"),
        ('{"a": 1, "sha256": 5}', "checksum is wrong"),
    ],
)
def test_what_is_no_sealed_object_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        unsealed(text)


def test_a_seal_whose_name_is_damaged_is_no_missing_one() -> None:
    text = json.dumps(sealed({"seed": 1})).replace("sha256", "sha257")
    with pytest.raises(ValueError, match="checksum is wrong"):
        unsealed(text)


def test_a_seal_may_be_asked_for() -> None:
    with pytest.raises(ValueError, match="checksum"):
        unsealed('{"a": 1}', required=True)


@given(OBJECTS)
def test_the_order_of_names_does_not_matter(held: dict) -> None:
    turned = dict(reversed(held.items()))
    assert json_sha256(turned) == json_sha256(held)
    assert difference(held, turned) is None


def test_differences_are_told_by_their_place() -> None:
    made = {"recipe": {"seed": 1, "lr": [0.5]}, "data": {"a": "x"}}
    now = {"recipe": {"seed": 2, "lr": [0.5]}}
    assert difference(made, now) == 'data {"a": "x"} instead of null, recipe.seed 1 instead of 2'
    many = {str(i): i for i in range(9)}
    assert str(difference(many, {})).endswith(", and 6 more")
