"""The package's own source files: which ones a module needs, and copies that stand alone.

What is handed to people who have no fairway (a model in a folder of theirs, a script for a judge)
is made of the very files that ran here.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path

OURS = "fairway"
IMPORT = re.compile(rf"^(\s*)from {OURS}\.([\w.]+) import ", re.MULTILINE)


def needed_modules(entries: Iterable[str]) -> list[str]:
    """Every module of ours that `entries` import, however late, dependencies first.

    Raises ValueError for an import that a copy could not follow: `import fairway.x`, or a relative
    one.
    """
    ordered: list[str] = []

    def visit(module: str) -> None:
        if module in ordered:
            return
        for needed in _imports(module):
            visit(needed)
        ordered.append(module)

    for entry in entries:
        visit(entry)
    return ordered


def source_of(module: str) -> str:
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ValueError(f"no source of {module}; was the package installed whole?")
    return Path(spec.origin).read_text(encoding="utf-8")


def flat_name(module: str) -> str:
    """
    >>> flat_name("fairway.model.gpt")
    'fairway_model_gpt'
    """
    return module.replace(".", "_")


def flat_source(module: str) -> str:
    """The source of a module that lies beside those it needs, each under its flat name."""
    return IMPORT.sub(
        lambda found: f"{found[1]}from .{flat_name(f'{OURS}.{found[2]}')} import ",
        source_of(module),
    )


def _imports(module: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source_of(module))):
        if isinstance(node, ast.Import):
            wrong = [a.name for a in node.names if a.name.split(".")[0] == OURS]
        elif isinstance(node, ast.ImportFrom):
            wrong = [node.module or "."] if node.level or node.module == OURS else []
            if (node.module or "").startswith(f"{OURS}."):
                assert node.module is not None
                yield node.module
        else:
            continue
        if wrong:
            raise ValueError(f"{module} imports {wrong[0]}; say `from {OURS}.module import name`")
