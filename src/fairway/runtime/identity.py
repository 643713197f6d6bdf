"""What something was made with, as JSON: its hash, and in words what differs between two.

A sealed object carries the hash of all else in it, so that a reader knows when it was damaged.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping

from fairway.runtime.strict_json import Json, parse_json

MOST_TOLD = 3  # differences in one message
SEAL = "sha256"  # the name under which a sealed object has its hash
LONGEST = 40  # characters of a value there


def json_sha256(value: Json) -> str:
    """In hexadecimal; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def sealed(held: Mapping[str, Json]) -> dict[str, Json]:
    """The object, and under "sha256" the hash of the rest of it."""
    rest = {name: value for name, value in held.items() if name != SEAL}
    return {**rest, SEAL: json_sha256(rest)}


def unsealed(text: str | bytes, *, required: bool = False) -> dict[str, Json]:
    """The JSON object in `text`, without its seal.

    Raises ValueError for what is no such object, and where the seal is not that of the rest.

    required  False lets an object pass that has no seal: an earlier version or a person wrote it
    """
    held = parse_json(text)
    if not isinstance(held, dict):
        raise ValueError(f"it holds a {type(held).__name__}, not a JSON object")
    seal = held.pop(SEAL, None)
    damaged = seal != json_sha256(held) if required or seal is not None else _renamed_seal(held)
    if damaged:
        raise ValueError("its checksum is wrong: it was damaged, or changed by hand")
    return held


def _renamed_seal(held: Mapping[str, Json]) -> bool:
    """Whether a seal is there whose name alone was damaged."""
    return any(
        isinstance(value, str)
        and len(value) == 2 * hashlib.sha256().digest_size
        and value == json_sha256({n: v for n, v in held.items() if n != name})
        for name, value in held.items()
    )


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
