"""JSON from files that nobody vouches for."""

import json
from typing import TypeAlias

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"


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
