"""Recipes compared, changed field by field, and written down.

A path names a field within a config: `train.optimizer.betas.0`. Every function here works on any
frozen dataclass; none knows what a field means.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from fairway.artifact.config_json import TAG, config_from_json, config_to_json
from fairway.recipes.recipe import Recipe
from fairway.runtime.strict_json import JsonObject

Config = TypeVar("Config")


class _Absent:
    def __repr__(self) -> str:
        return "absent"


ABSENT = _Absent()  # a key that only the other side has


class Difference(NamedTuple):
    path: str  # dotted, from the config down
    old: object
    new: object

    def __str__(self) -> str:
        return f"{self.path}: {self.old!r} -> {self.new!r}"


def diff(old: object, new: object, path: str = "") -> list[Difference]:
    """Where two configs of one class differ, or their JSON, as deep as both go alike.

    >>> for d in diff({"lr": 0.04, "loop": None}, {"lr": 0.02, "loop": {"last": 5}, "seed": 1}):
    ...     print(d)
    lr: 0.04 -> 0.02
    loop: None -> {'last': 5}
    seed: absent -> 1
    """
    if not _alike(old, new):
        return [] if old == new else [Difference(path, old, new)]
    ours, theirs = _parts(new), _parts(old)
    return [
        difference
        for name in ours | theirs
        for difference in diff(
            theirs.get(name, ABSENT), ours.get(name, ABSENT), f"{path}.{name}".lstrip(".")
        )
    ]


def _alike(old: object, new: object) -> bool:
    """Two instances of one dataclass, or two JSON objects that do not name different ones."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return old.get(TAG) == new.get(TAG)
    return type(old) is type(new) and dataclasses.is_dataclass(old)


def override(config: Config, changes: Mapping[str, object]) -> Config:
    """A copy with the field at each dotted path set; ValueError where there is no such field.

    Items of a tuple are named by their number.

    >>> from fairway.train.schedule import Warmdown
    >>> override(Warmdown(), {"fraction": 0.5}).fraction
    0.5
    """
    direct: dict[str, object] = {}
    deeper: dict[str, dict[str, object]] = {}
    held = _parts(config)
    for path, value in changes.items():
        head, _, rest = path.partition(".")
        if head not in held:
            raise _no_such_field(config, head, path)
        if rest:
            deeper.setdefault(head, {})[rest] = value
        else:
            direct[head] = value
    for head, inner in deeper.items():
        part = direct.get(head, held[head])
        if not _parts(part):
            raise ValueError(
                f"{head}.{next(iter(inner))} cannot be set: {head} is {part!r}. Set {head} itself, "
                f"or start from a recipe that has it"
            )
        direct[head] = override(part, inner)
    if isinstance(config, tuple):
        return tuple((held | direct).values())  # type: ignore[return-value]
    return dataclasses.replace(config, **direct)  # type: ignore[type-var]


def derive(
    parent: Recipe,
    name: str,
    changes: Mapping[str, object],
    *,
    claim_bpb: float | None = None,
    pull_request: int | None = None,
) -> Recipe:
    """A recipe as its difference from its parent.

    changes    dotted paths and values, as for `override`
    claim_bpb  the published score; None where none was published
    """
    about = {"name": name, "parent": parent.name, "claim_bpb": claim_bpb}
    return override(parent, {**about, "pull_request": pull_request, **changes})


def set_json(config: Config, path: str, value: object) -> Config:
    """A copy with the field at a dotted path read from JSON data, as `recipe.json` has it.

    For what no single value can say: another way to learn, or none.

    >>> from fairway.evaluate.config import EvaluateConfig
    >>> set_json(EvaluateConfig(), "ttt", {"type": "Sgd", "epochs": 2}).ttt.epochs
    2
    """
    holder, _, name = path.rpartition(".")
    held = value_at(config, holder) if holder else config
    if not dataclasses.is_dataclass(held) or isinstance(held, type):
        raise ValueError(f"{path} cannot be set: {holder} is {held!r}")
    if name not in _parts(held):
        raise _no_such_field(held, name, path)
    changed: Any = config_from_json(type(held), config_to_json(held) | {name: value})
    return override(config, {holder: changed}) if holder else changed


def present(config: object, changes: Mapping[str, object]) -> dict[str, object]:
    """`changes` without those of parts that are None, in `config` or by these very changes."""

    def is_there(path: str) -> bool:
        holder = path.rpartition(".")[0]
        if not holder:
            return True
        held = changes[holder] if holder in changes else value_at(config, holder)
        return held is not None and is_there(holder)

    return {path: value for path, value in changes.items() if is_there(path)}


def value_at(config: object, path: str, parts: Mapping[str, object] | None = None) -> Any:
    """The value at a dotted path; None beyond an absent part, unless `parts` has one for its path.

    >>> from fairway.train.schedule import Warmdown
    >>> value_at((Warmdown(fraction=0.5), None), "0.fraction")
    0.5
    """
    walked = ""
    for name in path.split("."):
        if config is None:
            config = (parts or {}).get(walked)
        if config is not None:
            parts_here = _parts(config)
            if name not in parts_here and not hasattr(config, name):
                raise _no_such_field(config, name, path)
            config = parts_here[name] if name in parts_here else getattr(config, name)
        walked = f"{walked}.{name}".lstrip(".")
    return config


def _parts(config: object) -> dict[str, object]:
    """What a path may name within a value: fields of a dataclass, keys, or items of a tuple."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    if isinstance(config, tuple):
        return {str(i): item for i, item in enumerate(config)}
    return dict(config) if isinstance(config, Mapping) else {}


def _no_such_field(config: object, name: str, path: str) -> ValueError:
    return ValueError(
        f"{path!r}: {type(config).__name__} has no field {name!r}; it has "
        f"{', '.join(_parts(config))}"
    )


def to_json(recipe: Recipe) -> JsonObject:
    """A recipe as JSON data, defaults included, for `recipe.json`."""
    return config_to_json(recipe)


def from_json(data: Mapping[str, object]) -> Recipe:
    return config_from_json(Recipe, data)
