"""What a command answers, what it shows while it works, and how it finds what the user names."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

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


def with_settings(config: Config, settings: Sequence[str]) -> Config:
    """The config after each `PATH=JSON` of --set.

    A plug-in that the JSON names as a "type" is loaded: the user typed its name.
    """
    from fairway.recipes.diff import set_json
    from fairway.runtime.plugins import load_plugin

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
    return config


def _plugin_names(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        name = value.get("type")
        if isinstance(name, str) and ":" in name:
            yield name
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _plugin_names(item)


def require_places(*files: Path | None) -> None:
    """ValueError where one of these files could not be written when the work is done."""
    from fairway.runtime.files import require_writable

    for file in files:
        if file is not None:
            require_writable(file.resolve())


def read_env(path: Path) -> dict[str, str]:
    """The variables of a published script, as texts."""
    if not path.is_file():
        raise ValueError(f"there is no file {path}; it is to hold a script's variables as JSON")
    try:
        env = json.loads(path.read_bytes())
    except ValueError as error:  # no UTF-8, either
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(env, dict) or any(isinstance(v, dict | list) for v in env.values()):
        raise ValueError(f'{path} must be an object of variables, such as {{"NUM_LAYERS": "11"}}')
    return {name: str(int(v) if isinstance(v, bool) else v) for name, v in env.items()}


def model_file(path: Path) -> Path:
    """Where it lies here; one at hf://OWNER/NAME is fetched."""
    from fairway.fetch.model_file import HUB_PATH, hub_model

    return hub_model(str(path)) if str(path).startswith(HUB_PATH) else path


def open_model(path: Path, device: "torch.device | str" = "cpu") -> "LoadedModel":
    """`load_model`, of a file or of hf://OWNER/NAME; says where a plug-in is not the one that the
    model was made with."""
    from fairway.artifact.loaded_model import load_model
    from fairway.runtime.compiler_cache import make_usable
    from fairway.runtime.plugins import check_recorded

    loaded = load_model(model_file(path), device)
    if moved := make_usable():  # what learns, needs it
        print(moved, file=sys.stderr)
    for plugin in loaded.plugins:
        if difference := check_recorded(plugin):
            print(difference, file=sys.stderr)
    return loaded


def open_decoder(path: Path, device: "torch.device | str" = "cpu") -> "LoadedModel":
    """`open_model` for whoever takes one token after another; says where that is slow, and why."""
    from fairway.model.decode_step import why_plain

    loaded = open_model(path, device)
    if why := why_plain(loaded.model):
        print(f"decoding by the plain forward pass, several times as slow: {why}", file=sys.stderr)
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
