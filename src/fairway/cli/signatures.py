"""What a command's signature says of its options: places, kinds, and what others settle."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_type_hints

from tyro.conf import Positional, Suppress

from fairway.cli.answer import Answer

Command = Callable[..., Answer]


@dataclass(frozen=True)
class SettledBy:
    """Marks the parameter whose class and default follow from what else was said.

    settle  (asked, further) -> a frozen dataclass, whose fields become options. `asked` holds the
            command's arguments by name, of the positional ones only the first; None stands for what
            was not given. `further` are the words that no option is known for yet
    """

    settle: Callable[[Mapping[str, Any], Sequence[str]], Any]


@dataclass(frozen=True)
class Seldom:
    """Marks a parameter that `--help` leaves out and `--help-all` shows, or some of its fields.

    fields  of the parameter's settings, which alone are left out; empty: all of it
    """

    fields: tuple[str, ...] = ()


def in_short(parameter: inspect.Parameter) -> inspect.Parameter:
    """The parameter as `--help` shows it."""
    mark = next((data for data in metadata_of(parameter) if isinstance(data, Seldom)), None)
    if mark is None:
        return parameter
    if not mark.fields:
        return parameter.replace(annotation=Annotated[parameter.annotation, Suppress])
    settings, *metadata = get_args(parameter.annotation)
    hints = get_type_hints(settings, include_extras=True)
    hidden = {name: Annotated[hints[name], Suppress] for name in mark.fields}
    looks = {"__annotations__": hidden, "__doc__": settings.__doc__}
    shorter = dataclass(frozen=True, kw_only=True)(type(settings.__name__, (settings,), looks))
    return parameter.replace(
        annotation=Annotated[shorter, *metadata], default=shorter(**vars(parameter.default))
    )


def command_name(command: Command) -> str:
    """
    >>> def import_(): ...
    >>> def lm_eval(): ...
    >>> command_name(import_), command_name(lm_eval)
    ('import', 'lm-eval')
    """
    return command.__name__.rstrip("_").replace("_", "-")


class Mark(NamedTuple):
    name: str  # of the parameter
    settle: Callable[[Mapping[str, Any], Sequence[str]], Any]


def settled_of(command: Command) -> Mark | None:
    for name, parameter in parameters_of(command).items():
        for data in metadata_of(parameter):
            if isinstance(data, SettledBy):
                return Mark(name, data.settle)
    return None


def positional_of(command: Command) -> list[str]:
    marker = get_args(Positional[int])[1]
    return [name for name, p in parameters_of(command).items() if marker in metadata_of(p)]


def metadata_of(parameter: inspect.Parameter) -> tuple[Any, ...]:
    return getattr(parameter.annotation, "__metadata__", ())


def parameters_of(command: Command) -> dict[str, inspect.Parameter]:
    """By name, each with its annotation itself in the place of its text."""
    hints = get_type_hints(command, include_extras=True)
    found = inspect.signature(command).parameters
    return {name: p.replace(annotation=_plain_union(hints[name])) for name, p in found.items()}


def _plain_union(hint: Any) -> Any:
    """`X | None` as `Optional[X]`, which tyro knows without a tenth of a second of imports."""
    inner, *metadata = get_args(hint) if hasattr(hint, "__metadata__") else (hint,)
    if isinstance(inner, UnionType):
        inner = Union[get_args(inner)]  # noqa: UP007
    return Annotated[inner, *metadata] if metadata else inner
