"""What a command answers, and what it shows while it works."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fairway.runtime.progress import Progress

Answer = dict[str, Any]


class No(Exception):
    """Done, and the answer is no; carries what to print."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer


def take_settings(config: Any, argv: list[str]) -> tuple[Any, list[str]]:
    """Apply every `--set PATH=JSON` among the arguments; returns the rest of them."""
    from fairway.recipes.diff import set_json

    rest: list[str] = []
    given = iter(argv)
    for argument in given:
        if argument != "--set":
            rest.append(argument)
            continue
        path, equals, text = next(given, "").partition("=")
        if not equals:
            raise ValueError("--set takes PATH=JSON, as in --set evaluate.ttt=null")
        try:
            value = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"--set {path}: {text!r} is not JSON ({error})") from error
        config = set_json(config, path, value)
    return config, rest


@contextmanager
def shown(name: str) -> "Iterator[Progress]":
    """Progress of a long call on standard error."""
    from fairway.runtime.run_log import RunLog

    with RunLog(None) as log, log.stage(name, total=1.0) as stage:

        def progress(
            done: float = 0.0, total: float = 0.0, *, text: str = "", **numbers: float
        ) -> None:
            stage.update(done / total if total else 0.0, **numbers)

        yield progress
