"""What a recipe's `repr` needs to be read back."""

import dataclasses
import types
import typing
from typing import Any

import pytest

from fairway.recipes.recipe import Recipe


@pytest.fixture(scope="session")
def classes() -> dict[str, type]:
    """By name, every class that a recipe may hold: `eval(repr(recipe), classes) == recipe`."""
    return config_classes(Recipe)


def config_classes(root: type) -> dict[str, type]:
    found = {root.__name__: root}
    for hint in typing.get_type_hints(root).values():
        for kind in _dataclasses_in(hint):
            if kind.__name__ not in found:
                found |= config_classes(kind)
    return found


def _dataclasses_in(hint: Any) -> list[type]:
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return [hint]
    inner = typing.get_args(hint) if typing.get_origin(hint) is not typing.Literal else ()
    if isinstance(hint, types.UnionType):
        inner = hint.__args__
    return [kind for argument in inner for kind in _dataclasses_in(argument)]
