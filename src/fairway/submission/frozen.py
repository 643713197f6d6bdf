"""Settings as the expression that makes them: a recipe frozen into a script."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from fairway.runtime.own_sources import OURS


def expression(value: Any) -> str:
    """Python for a config and all it holds; what is a default is left out.

    Raises ValueError for a class from outside the package, which a script could not import.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        cls = type(value)
        if cls.__module__.split(".")[0] != OURS:
            raise ValueError(
                f"the recipe holds {cls.__module__}:{cls.__qualname__}, a plug-in, and a script "
                f"stands alone; replace it by a class of fairway's, or contribute it"
            )
        told = [
            f"{field.name}={expression(getattr(value, field.name))}"
            for field in dataclasses.fields(value)
            if field.init and not _is_default(field, getattr(value, field.name))
        ]
        return f"{cls.__name__}({', '.join(told)})"
    if isinstance(value, tuple):
        items = ", ".join(expression(item) for item in value)
        return f"({items},)" if len(value) == 1 else f"({items})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k!r}: {expression(v)}" for k, v in sorted(value.items())) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(expression, value)) + "]"
    return repr(value)


def classes_in(value: Any) -> Iterator[type]:
    """Of the configs in a value."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield type(value)
        value = [getattr(value, field.name) for field in dataclasses.fields(value)]
    if isinstance(value, tuple | list):
        for item in value:
            yield from classes_in(item)


def _is_default(field: dataclasses.Field, value: object) -> bool:
    if field.default is not dataclasses.MISSING:
        default: object = field.default
    elif field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    else:
        return False
    return type(default) is type(value) and default == value
