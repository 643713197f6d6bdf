"""A config as JSON and back: nested frozen dataclasses, tuples, optionals, choices among classes.

The annotations say everything; only where a field may hold one of several classes does the JSON
name the one it holds, under "type". No class is looked up by a name found in a file: what may be
built is what the annotation lists. Where it lists a `Pluggable` base too, a class from outside may
stand there, as "package.module:Name"; it is read only if the user has loaded it (`plugins.py`).
"""

import dataclasses
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeGuard, TypeVar, Union, get_args, get_origin, get_type_hints

from fairway.runtime.limits import one_line
from fairway.runtime.plugins import (
    Pluggable,
    Plugin,
    describe_plugin,
    is_plugin,
    plugin_class,
    plugin_name,
)
from fairway.runtime.strict_json import Json

T = TypeVar("T")
TAG = "type"
MOST_ITEMS = 1 << 14  # of a list


def config_to_json(config: object) -> dict[str, Any]:
    """Every field of a dataclass instance, defaults too: a default may change with the code.

    Raises ValueError for a value that `config_from_json` could not bring back.
    """
    return _dataclass_out(type(config), config, type(config).__name__)


def config_from_json(cls: type[T], data: Mapping[str, object]) -> T:
    """The instance of `cls` whose `config_to_json` is `data`.

    Raises ValueError naming the place when a field is unknown, missing or of the wrong type, and
    whatever the class itself raises for values it refuses.
    """
    return _dataclass_in(cls, data, cls.__name__)


def plugins_of(config: object) -> list[Plugin]:
    """The plug-ins among a config and all it holds, each once, for whoever writes it down."""
    found = {cls: describe_plugin(cls) for cls in _classes_in(config) if is_plugin(cls)}
    return sorted(found.values(), key=lambda plugin: plugin.name)


def _classes_in(value: object) -> Iterator[type]:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield type(value)
        value = [getattr(value, field.name) for field in dataclasses.fields(value)]
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, tuple | list):
        for item in value:
            yield from _classes_in(item)


def _base(annotation: object) -> type | None:
    """The base that opens a union to plug-ins, if it lists one."""
    for option in _options(annotation):
        if isinstance(option, type) and Pluggable in option.__bases__:
            return option
    return None


def _is_dataclass(annotation: object) -> TypeGuard[type]:
    return isinstance(annotation, type) and dataclasses.is_dataclass(annotation)


def _options(annotation: object) -> tuple[object, ...]:
    """What a union lists; any other annotation lists itself."""
    if get_origin(annotation) in (Union, types.UnionType):
        return get_args(annotation)
    return (annotation,)


def _needs_tag(annotation: object) -> bool:
    """A plug-in always has its tag; of those listed, each where there are several."""
    return sum(_is_dataclass(option) for option in _options(annotation)) > 1


def _dataclass_out(cls: type, value: object, where: str) -> dict[str, Json]:
    hints = get_type_hints(cls)
    return {
        field.name: _out(hints[field.name], getattr(value, field.name), f"{where}.{field.name}")
        for field in dataclasses.fields(cls)
        if field.init
    }


def _out(annotation: object, value: object, where: str) -> Json:
    base = _base(annotation)
    if base is not None and isinstance(value, base) and is_plugin(type(value)):
        return {TAG: plugin_name(type(value))} | _dataclass_out(type(value), value, where)
    for option in _options(annotation):
        if _is_dataclass(option) and type(value) is option:
            tag = {TAG: option.__name__} if _needs_tag(annotation) else {}
            return tag | _dataclass_out(option, value, where)
        if get_origin(option) is tuple and isinstance(value, tuple):
            kinds = _element_kinds(option, value, where)
            return [
                _out(kind, item, f"{where}[{i}]")
                for i, (kind, item) in enumerate(zip(kinds, value, strict=True))
            ]
        if get_origin(option) in (dict, Mapping) and isinstance(value, Mapping):
            kind = get_args(option)[1]
            return {str(k): _out(kind, item, f"{where}[{k!r}]") for k, item in value.items()}
        if _is_plain(value, option):
            return value
    raise _wrong_type(annotation, value, where)


def _dataclass_in(cls: type[T], data: object, where: str) -> T:
    if not isinstance(data, Mapping):
        raise _wrong_type(cls, data, where)
    hints = get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    unknown = sorted(set(data) - set(fields))
    if unknown:
        raise ValueError(
            f"{where} has no field {', '.join(map(repr, unknown)):.80}; its fields are "
            f"{', '.join(fields)}. A file written by a newer version needs that version to be read"
        )
    missing = [
        name
        for name, field in fields.items()
        if name not in data
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ValueError(
            f"{where} lacks {', '.join(map(repr, missing))}; state what this config is to hold"
        )
    values = {name: _in(hints[name], data[name], f"{where}.{name}") for name in data}
    try:
        return cls(**values)
    except ValueError as error:  # which may repeat a value as long as the file
        raise ValueError(one_line(error, 500)) from error


def _in(annotation: object, data: object, where: str) -> object:
    options, base = _options(annotation), _base(annotation)
    if isinstance(data, Mapping) and (_needs_tag(annotation) or (base is not None and TAG in data)):
        classes = {option.__name__: option for option in options if _is_dataclass(option)}
        name = data.get(TAG)
        if base is not None and isinstance(name, str) and ":" in name:
            classes[name] = _named(name, base, where)
        if not isinstance(name, str) or name not in classes:
            raise ValueError(
                f"{where}: {TAG!r} is {name!r:.80}; here it must be one of "
                f"{', '.join(sorted(classes))}"
            )
        rest = {key: item for key, item in data.items() if key != TAG}
        return _dataclass_in(classes[name], rest, where)
    for option in options:
        if _is_dataclass(option) and isinstance(data, Mapping):
            return _dataclass_in(option, data, where)
        if get_origin(option) is tuple and isinstance(data, list | tuple):
            kinds = _element_kinds(option, data, where)
            return tuple(
                _in(kind, item, f"{where}[{i}]")
                for i, (kind, item) in enumerate(zip(kinds, data, strict=True))
            )
        if get_origin(option) in (dict, Mapping) and isinstance(data, Mapping):
            kind = get_args(option)[1]
            return {k: _in(kind, item, f"{where}[{k!r:.40}]") for k, item in data.items()}
        if _is_plain(data, option):
            # JSON written by hand says 1 where it means 1.0.
            return float(data) if option is float else data  # type: ignore[arg-type]
    raise _wrong_type(annotation, data, where)


def _named(name: str, base: type, where: str) -> type:
    try:
        return plugin_class(name, base)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _element_kinds(annotation: object, items: Sequence[object], where: str) -> tuple[object, ...]:
    """The annotation of each element of a tuple: `tuple[X, ...]` or `tuple[X, Y]`."""
    kinds = get_args(annotation)
    if len(items) > MOST_ITEMS:
        raise ValueError(f"{where} lists {len(items):,} values; it may list {MOST_ITEMS:,}")
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        return (kinds[0],) * len(items)
    if len(kinds) != len(items):
        raise ValueError(f"{where} holds {len(items)} values; it needs exactly {len(kinds)}")
    return kinds


def _is_plain(value: object, annotation: object) -> TypeGuard[bool | int | float | str | None]:
    if annotation is None or annotation is type(None):
        return value is None
    if get_origin(annotation) is Literal:
        return any(
            type(value) is type(choice) and value == choice for choice in get_args(annotation)
        )
    if annotation is float:
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return False
        return abs(value) <= sys.float_info.max  # no NaN either
    return annotation in (int, str, bool) and type(value) is annotation


def _wrong_type(annotation: object, value: object, where: str) -> ValueError:
    wanted = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    return ValueError(f"{where} is {value!r:.80}; it must be {wanted.replace('typing.', '')}")
