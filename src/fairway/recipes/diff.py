"""Recipes compared, changed field by field, and written down.

Every function here works on any frozen dataclass; none knows what a field means.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from fairway.artifact.config_json import config_from_json, config_to_json
from fairway.recipes.recipe import Recipe

Config = TypeVar("Config")


class Difference(NamedTuple):
    path: str  # dotted, from the recipe down
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.path}: {self.old!r} -> {self.new!r}"


def diff(old: Any, new: Any, path: str = "") -> list[Difference]:
    """Fields in which two configs of one class differ, as deep as both go alike."""
    if type(old) is not type(new) or not dataclasses.is_dataclass(old):
        return [] if old == new else [Difference(path, old, new)]
    return [
        difference
        for field in dataclasses.fields(old)
        for difference in diff(
            getattr(old, field.name), getattr(new, field.name), f"{path}.{field.name}".lstrip(".")
        )
    ]


def override(config: Config, changes: Mapping[str, Any]) -> Config:
    """A copy with the field at each dotted path set; ValueError where there is no such field.

    >>> from fairway.train.schedule import Warmdown
    >>> override(Warmdown(), {"fraction": 0.5}).fraction
    0.5
    """
    direct: dict[str, Any] = {}
    deeper: dict[str, dict[str, Any]] = {}
    for path, value in changes.items():
        head, _, rest = path.partition(".")
        _require_field(config, head, path)
        if rest:
            deeper.setdefault(head, {})[rest] = value
        else:
            direct[head] = value
    for head, inner in deeper.items():
        held = direct.get(head, getattr(config, head))
        if not dataclasses.is_dataclass(held):
            first = next(iter(inner))
            raise ValueError(
                f"{head}.{first} cannot be set: {head} is {held!r}. Set {head} itself, or start "
                f"from a recipe that has it"
            )
        direct[head] = override(held, inner)
    return dataclasses.replace(config, **direct)  # type: ignore[type-var]


def set_json(config: Config, path: str, value: Any) -> Config:
    """A copy with the field at a dotted path read from JSON data, as `recipe.json` has it.

    For what no single value can say: another way to learn, or none.

    >>> from fairway.evaluate.config import EvaluateConfig
    >>> set_json(EvaluateConfig(), "ttt", {"type": "Sgd", "epochs": 2}).ttt.epochs
    2
    """
    head, _, rest = path.partition(".")
    _require_field(config, head, path)
    if rest:
        held = getattr(config, head)
        if not dataclasses.is_dataclass(held):
            raise ValueError(f"{path} cannot be set: {head} is {held!r}")
        return dataclasses.replace(config, **{head: set_json(held, rest, value)})  # type: ignore[type-var]
    return config_from_json(type(config), config_to_json(config) | {head: value})


def _require_field(config: Any, name: str, path: str) -> None:
    names = [field.name for field in dataclasses.fields(config)]
    if name not in names:
        raise ValueError(
            f"{path!r}: {type(config).__name__} has no field {name!r}; it has {', '.join(names)}"
        )


def to_json(recipe: Recipe) -> dict[str, Any]:
    """A recipe as JSON data, defaults included, for `recipe.json`."""
    return config_to_json(recipe)


def from_json(data: Mapping[str, Any]) -> Recipe:
    return config_from_json(Recipe, data)


def config_classes(root: type = Recipe) -> dict[str, type]:
    """By name, every class that a recipe may hold: `eval(repr(r), config_classes()) == r`."""
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
