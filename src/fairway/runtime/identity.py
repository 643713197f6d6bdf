"""What something was made with, as JSON: its hash, and in words what differs between two."""

import hashlib
import json
from collections.abc import Iterator

from fairway.runtime.strict_json import Json

MOST_TOLD = 3  # differences in one message
LONGEST = 40  # characters of a value there


def json_sha256(value: Json) -> str:
    """In hexadecimal; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def difference(made: Json, now: Json) -> str | None:
    """What was made with something else, in words; None where all is equal.

    >>> difference({"recipe": {"seed": 1}}, {"recipe": {"seed": 2}})
    'recipe.seed 1 instead of 2'
    """
    found = list(_differences(made, now, ""))
    if not found:
        return None
    more = f", and {len(found) - MOST_TOLD} more" if len(found) > MOST_TOLD else ""
    return ", ".join(found[:MOST_TOLD]) + more


def _differences(made: Json, now: Json, path: str) -> Iterator[str]:
    if isinstance(made, dict) and isinstance(now, dict):
        for key in sorted(made.keys() | now.keys()):
            yield from _differences(made.get(key), now.get(key), f"{path}.{key}" if path else key)
    elif made != now or type(made) is not type(now):
        yield f"{path} {_short(made)} instead of {_short(now)}"


def _short(value: Json) -> str:
    text = json.dumps(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
