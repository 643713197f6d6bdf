"""What JSON holds, as a type, and what is read out of it, checked."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
JsonObject: TypeAlias = dict[str, Json]


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
