"""What a command answers, what it shows while it works, and how it finds what the user names."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fairway.runtime.plugins import check_recorded, load_plugin
from fairway.runtime.progress import Progress

if TYPE_CHECKING:
    import torch

    from fairway.artifact.loaded_model import LoadedModel

Answer = dict[str, Any]  # any JSON object
Config = TypeVar("Config")


class No(Exception):
    """Done, and the answer is no; carries what to print."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer


def take_values(name: str, argv: list[str]) -> tuple[list[str], list[str]]:
    """The value of every `NAME VALUE` or `NAME=VALUE` among the arguments, and the rest of them."""
    values, rest = [], []
    given = iter(argv)
    for argument in given:
        if argument == name:
            value = next(given, None)
            if value is None:
                raise ValueError(f"{name} needs a value; fairway COMMAND --help says which")
            values.append(value)
        elif argument.startswith(f"{name}="):
            values.append(argument.partition("=")[2])
        else:
            rest.append(argument)
    return values, rest


def take_settings(config: Config, argv: list[str]) -> tuple[Config, list[str]]:
    """Apply every `--set PATH=JSON` among the arguments; returns the rest of them.

    A plug-in that the JSON names as a "type" is loaded: the user typed its name.
    """
    from fairway.recipes.diff import set_json

    settings, rest = take_values("--set", argv)
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals:
            raise ValueError("--set takes PATH=JSON, as in --set evaluate.ttt=null")
        try:
            value = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"--set {path}: {text!r} is not JSON ({error})") from error
        for name in _plugin_names(value):
            load_plugin(name)
        config = set_json(config, path, value)
    return config, rest


def _plugin_names(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        name = value.get("type")
        if isinstance(name, str) and ":" in name:
            yield name
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _plugin_names(item)


def two_paths(argv: list[str], usage: str, command: str) -> tuple[Path, Path, list[str]]:
    """The two paths that a command begins with, and the rest of its arguments."""
    if len(argv) >= 2 and not argv[0].startswith("-") and not argv[1].startswith("-"):
        return Path(argv[0]), Path(argv[1]), argv[2:]
    if {"-h", "--help"} & set(argv):
        print(f"{usage}; {command} --help lists the options")
        sys.exit(0)
    raise ValueError(usage)


def open_model(path: Path, device: "torch.device | str" = "cpu") -> "LoadedModel":
    """`load_model`, of a file or of hf://OWNER/NAME; says where a plug-in is not the one that the
    model was made with."""
    from fairway.artifact.loaded_model import load_model
    from fairway.fetch.model_file import HUB_PATH, hub_model

    if str(path).startswith(HUB_PATH):
        path = hub_model(str(path))
    loaded = load_model(path, device)
    for plugin in loaded.plugins:
        if difference := check_recorded(plugin):
            print(difference, file=sys.stderr)
    return loaded


@contextmanager
def shown(name: str) -> Iterator[Progress]:
    """Progress of a long call on standard error."""
    from fairway.runtime.run_log import RunLog

    with RunLog() as log, log.stage(name) as stage:
        yield stage.update


def print_text(done: float = 0.0, total: float = 0.0, *, text: str = "", **numbers: float) -> None:
    """A `Progress` of which only the words are shown."""
    if text:
        print(text, file=sys.stderr)
