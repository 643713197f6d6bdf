"""JSON from files that nobody vouches for: what it may hold, and what is read out of it."""

import json
from collections.abc import Mapping, Sequence
from typing import TypeAlias

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
JsonObject: TypeAlias = dict[str, Json]


def parse_json(text: str | bytes) -> Json:
    """The value of a JSON text in UTF-8, as any other reader would see it.

    Raises ValueError, in one line, for what is no JSON, for numbers that are not finite, for a name
    given twice in one object (readers differ on which counts), and for endless nesting.

    >>> parse_json('{"rows": [1, 2.5]}')
    {'rows': [1, 2.5]}
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        return json.loads(
            text, object_pairs_hook=_object, parse_float=_finite, parse_constant=_finite
        )
    except RecursionError:
        raise ValueError("its JSON is nested too deeply") from None


def json_object(value: object, what: str) -> Mapping[str, object]:
    """`value` as a JSON object; ValueError naming `what` where it is another thing."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{what} is {value!r:.80}; it must be a JSON object")
    return value


def json_text(value: object, what: str) -> str:
    """`value` as a text; ValueError naming `what` where it is another thing."""
    if not isinstance(value, str):
        raise ValueError(f"{what} is {value!r:.80}; it must be a text")
    return value


def json_array(value: object, what: str) -> Sequence[object]:
    """`value` as a JSON array; ValueError naming `what` where it is another thing."""
    if not isinstance(value, list | tuple):
        raise ValueError(f"{what} is {value!r:.80}; it must be a list")
    return value


def json_texts(value: object, what: str) -> tuple[str, ...]:
    """`value` as texts; ValueError naming `what` where it is no list of them."""
    return tuple(json_text(item, f"{what}[{i}]") for i, item in enumerate(json_array(value, what)))


def _object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"its JSON has the name {twice!r:.80} twice")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not abs(number) < float("inf"):
        raise ValueError(f"its JSON holds the number {text:.20}")
    return number
