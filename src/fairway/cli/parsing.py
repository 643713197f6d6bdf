"""Words become a call: one parser over all commands, made by tyro from their signatures.

What may follow RECIPE or MODEL depends on which one it is: a recipe's own fields are options, and
its own values their defaults. Such a command has one parameter marked `SettledBy(function)`. So
words are parsed twice: loosely, which tells the command, the plug-ins, and what that function asks
for; then as a whole, with an option for each field of what it returned. A help text comes from the
first alone, and costs no PyTorch; `--help-all` from the second.
"""

import inspect
import io
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Any, NamedTuple, Union, get_args

import tyro
from tyro.conf import (
    AvoidSubcommands,
    FlagCreatePairsOff,
    Positional,
    Suppress,
    UseAppendAction,
    arg,
)
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
)

from fairway.cli.answer import Answer
from fairway.cli.signatures import (
    Command,
    command_name,
    in_short,
    metadata_of,
    parameters_of,
    positional_of,
    settled_of,
)
from fairway.pipeline.options import Resume

PROGRAM = "fairway"
HELP, HELP_ALL = ("-h", "--help"), "--help-all"
REST = "words"  # all that a command's positional parameters take, in the first parse

REGISTRY = ConstructorRegistry()


@REGISTRY.primitive_rule
def _resume_alone_is_yes(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[str] | None:
    """`--resume` alone is `--resume yes`."""
    if info.type != Resume:
        return None
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar="[{yes,no,auto}]",
        instance_from_str=_one_or_yes,
        is_instance=lambda value: value in get_args(Resume),
        str_from_instance=lambda value: [value],
        choices=get_args(Resume),
    )


def _one_or_yes(words: list[str]) -> str:
    if len(words) > 1:
        raise ValueError("one of yes, no and auto")
    return words[0] if words else "yes"


@REGISTRY.primitive_rule
def _numbers_are_finite(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[float] | None:
    """A NaN is neither more nor less than any limit, so each check would let it pass."""
    if info.type is not float:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="FLOAT",
        instance_from_str=_finite,
        is_instance=lambda value: isinstance(value, int | float),
        str_from_instance=lambda value: [str(value)],
    )


def _finite(words: list[str]) -> float:
    number = float(words[0])
    if not math.isfinite(number):
        raise ValueError(f"{words[0]} is no number to reckon with")
    return number


# What every command takes, before its name and after it.
EVERYWHERE = {
    "json": inspect.Parameter(
        "json",
        inspect.Parameter.KEYWORD_ONLY,
        default=False,
        annotation=Annotated[
            bool,
            FlagCreatePairsOff,
            arg(help='print the answer, or {"error": ...}, as one JSON object: the last line'),
        ],
    ),
    "plugin": inspect.Parameter(
        "plugin",
        inspect.Parameter.KEYWORD_ONLY,
        default=(),
        annotation=Annotated[
            tuple,  # of what, tyro would take a tenth of a second to check
            UseAppendAction,
            arg(
                metavar="NAME",
                help="load a class of your own first: package.module:Class, path/file.py:Class, "
                "or an entry point of the group fairway.plugins",
            ),
        ],
    ),
}


class BadWords(ValueError):
    """What the parser said of words that it could not use.

    shown  the same as it is laid out for people
    """

    def __init__(self, shown: str) -> None:
        self.shown = shown
        inside = (line.strip("╭╮╰╯│─ \n") for line in shown.splitlines())
        super().__init__("; ".join(filter(None, inside)))


class _Call(NamedTuple):
    command: Command
    arguments: dict[str, Any]


class _Parsed(NamedTuple):
    call: _Call
    json: bool
    plugins: tuple[str, ...]
    further: list[str]


@dataclass(frozen=True)
class Asked:
    """A command, and the words that it was given, which nothing has been settled by yet."""

    name: str
    command: Command
    arguments: dict[str, Any]  # as far as they are known
    further: list[str]
    json: bool
    plugins: tuple[str, ...]
    words: list[str]
    all_options: bool  # show them

    def call(self) -> Answer:
        """The command's answer. Raises whatever it may, and as `parsed` does."""
        return self.command(**self.parsed())

    def parsed(self) -> dict[str, Any]:
        """Its arguments, from the words as a whole.

        Raises `BadWords`, `SystemExit` after a help text, and whatever settling may.
        """
        form, words = _form(self.command, whole=True), self.words
        mark, first = settled_of(self.command), positional_of(self.command)[:1]
        if self.all_options:
            words = [*words, HELP[1]]
        if mark is not None:
            if not self.all_options and any(self.arguments[name] is None for name in first):
                if self.further:
                    raise ValueError(f"{first[0].upper()} comes before the options it decides on")
                _parsed({self.name: form}, words)  # says what is missing
            settled = mark.settle(self.arguments, self.further)
            form = _form(self.command, settled=settled, whole=True)
        arguments = _parsed({self.name: form}, words).call.arguments
        for name in first if mark is not None else ():
            if str(arguments[name]) != self.arguments[name]:
                raise ValueError(f"{name.upper()} comes before the options it decides on")
        return arguments


def ask(commands: Iterable[Command], words: Sequence[str]) -> Asked:
    """Which command the words are for.

    Raises `BadWords`, and `SystemExit` after a help text.
    """
    table = {command_name(command): command for command in commands}
    all_options = HELP_ALL in words
    words = [word for word in words if word != HELP_ALL] or [HELP[1]]
    if set(HELP) & set(words):
        forms = {name: _form(command) for name, command in table.items()}
        _parsed(forms, words, listed=not set(table) & set(words))  # shows it and ends
    loose = {name: _loosely(command) for name, command in table.items()}
    try:
        found = _parsed(loose, words, whole=False)
    except BadWords as error:
        raise BadWords(error.shown + _meant(words, table)) from None
    command, arguments = found.call
    return Asked(
        name=command_name(command),
        command=command,
        arguments=arguments,
        further=found.further,
        json=found.json,
        plugins=found.plugins,
        words=words,
        all_options=all_options,
    )


def _meant(words: Sequence[str], table: Iterable[str]) -> str:
    """The command that was meant by the first word, if it is like one."""
    first = next((word for word in words if not word.startswith("-")), None)
    close = [] if first is None else get_close_matches(first, list(table), n=1)
    if not close or first in close:
        return ""
    return f"{PROGRAM}: there is no command {first!r}; did you mean {close[0]}?\n"


def completion_script(commands: Iterable[Command], shell: str) -> str:
    """What makes bash, zsh or fish complete commands and options."""
    forms = {command_name(command): _form(command, whole=True) for command in commands}
    script = io.StringIO()
    with redirect_stdout(script), suppress(SystemExit):
        tyro.cli(
            _root(forms),
            args=["--tyro-print-completion", shell],
            prog=PROGRAM,
            registry=REGISTRY,
        )
    return script.getvalue()


def _parsed(
    forms: Mapping[str, type],
    words: Sequence[str],
    *,
    whole: bool = True,
    listed: bool = False,
) -> _Parsed:
    """
    whole   every word must be known
    listed  tell of each command in one line
    """
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            found: Any = tyro.cli(
                _root(forms, listed),
                args=words,
                prog=PROGRAM,
                return_unknown_args=not whole,
                registry=REGISTRY,
            )
    except SystemExit as stop:
        if stop.code:
            raise BadWords(said.getvalue()) from None
        raise
    parsed, further = (found, []) if whole else found
    return parsed._replace(further=further)


def _root(forms: Mapping[str, type], listed: bool = True) -> Callable[..., _Parsed]:
    """A function whose parameters are what every command takes, and the command itself."""
    arms: list[Any] = [
        Annotated[
            form,
            tyro.conf.subcommand(
                name, prefix_name=False, description=_summary(form) if listed else None
            ),
        ]
        for name, form in forms.items()
    ]
    if len(arms) < 2:  # a union of one is none
        arms.append(Annotated[None, Suppress])

    def root(command: Any, json: bool = False, plugin: tuple[str, ...] = (), version: bool = False):
        return _Parsed(command.call, json or command.json, (*plugin, *command.plugin), [])

    hints = {name: parameter.annotation for name, parameter in EVERYWHERE.items()}
    root.__annotations__ = {
        "command": Annotated[Union[tuple(arms)], arg(name="")],  # noqa: UP007
        **hints,
        "version": Annotated[bool, FlagCreatePairsOff, arg(help="print the version")],
    }
    root.__doc__ = f"""{__import__(PROGRAM).__doc__}

    `fairway COMMAND --help` shows what a command takes, `--help-all` every option there is.
    """
    return root


def _unwrapped(doc: str) -> str:
    r"""The text of each argument on one line, for tyro would keep its line breaks.

    >>> _unwrapped("One.\n\n    Args:\n        a: one\n            and more\n        b: two")
    'One.\n\nArgs:\n    a: one and more\n    b: two'
    """
    return re.sub(r"\n {8,}(?=\S)", " ", inspect.cleandoc(doc))


def _summary(form: type) -> str:
    return (form.__doc__ or "").strip().partition("\n")[0]


def _form(command: Command, settled: object = None, *, whole: bool = False) -> type:
    """What has the command's parameters, and only keeps what it is called with.

    whole    help shows seldom ones too
    settled  in the place of the parameter that is settled by others; without one it has no option
    """
    parameters = parameters_of(command)
    if not whole:
        parameters = {name: in_short(parameter) for name, parameter in parameters.items()}
    mark = settled_of(command)
    if mark is not None:
        parameter = parameters.pop(mark.name)
        if settled is not None:
            hint = Annotated[type(settled), *metadata_of(parameter), AvoidSubcommands]
            parameters[mark.name] = parameter.replace(annotation=hint, default=settled)
    return _like(command, parameters, lambda **arguments: _Call(command, arguments))


def _loosely(command: Command) -> type:
    """The same with nothing required, and all positional parameters as one that takes any words."""
    parameters, mark = parameters_of(command), settled_of(command)
    positional = positional_of(command)
    for name in positional + ([mark.name] if mark else []):
        del parameters[name]
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty:
            found = metadata_of(parameter)
            plain = get_args(parameter.annotation)[0] if found else parameter.annotation
            maybe = Annotated[plain | None, *found] if found else plain | None
            parameters[name] = parameter.replace(annotation=maybe, default=None)
    words = Annotated[tuple, Positional]  # of texts; see EVERYWHERE
    parameters[REST] = inspect.Parameter(
        REST, inspect.Parameter.KEYWORD_ONLY, default=(), annotation=words
    )

    def keep(**arguments: Any) -> _Call:
        given = arguments.pop(REST)
        first = {name: given[0] if given else None for name in positional[:1]}
        return _Call(command, first | arguments)

    return _like(command, parameters, keep)


def _like(
    command: Command, parameters: Mapping[str, inspect.Parameter], keep: Callable[..., _Call]
) -> type:
    """A class with the looks of the command and these parameters, whose instances hold what `keep`
    makes of them.

    A class, because tyro takes a tenth of a second to find out what a function is.
    """

    def __init__(self: Any, **arguments: Any) -> None:
        self.json, self.plugin = (arguments.pop(name) for name in EVERYWHERE)
        self.call = keep(**arguments)

    parameters = {**parameters, **EVERYWHERE}
    required_first = sorted(parameters.values(), key=lambda p: p.default is not p.empty)
    keywords = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in required_first]
    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    __init__.__signature__ = inspect.Signature([itself, *keywords])  # type: ignore[attr-defined]
    __init__.__annotations__ = {name: p.annotation for name, p in parameters.items()}
    doc = _unwrapped(command.__doc__ or "")
    return type(command.__name__, (), {"__init__": __init__, "__doc__": doc})
