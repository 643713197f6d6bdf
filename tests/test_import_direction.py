"""The layout itself: imports point upstream, and the package is light until a stage is used."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "fairway"
STAGES = [  # each may import from itself and from those before it
    "runtime", "text", "tokens", "model", "train", "average", "quant", "coding", "artifact",
    "evaluate", "recipes", "prepare", "fetch", "generate", "proof", "audit", "interop", "result",
    "runs", "submission", "hugging_face", "report", "tune", "pipeline", "planning", "demo", "api",
    "serve", "cli", "__main__",
]  # fmt: skip


def test_imports_only_point_upstream() -> None:
    wrong = []
    for file in sorted(PACKAGE.rglob("*.py")):
        stage = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if stage == "__init__":
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fairway."):
                needed = (node.module or "").split(".")[1]
                if STAGES.index(needed) > STAGES.index(stage):
                    wrong.append(f"{file.relative_to(PACKAGE)} reads {node.module}")
    assert not wrong


def test_no_modules_import_each_other() -> None:
    """Inside a folder too, under TYPE_CHECKING too, however late: a shared part goes upstream."""
    modules = {_dotted(file): file for file in sorted(PACKAGE.rglob("*.py"))}
    graph = {name: set(_imports(file, modules)) - {name} for name, file in modules.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import circle: {' <- '.join(error.args[1])}")


def _dotted(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def _imports(file: Path, modules: dict[str, Path]) -> Iterator[str]:
    """Modules of the package that any import statement of `file` names."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file.name}: imports name the whole path here"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            named = {name if name in modules else node.module or "" for name in names}
            yield from named & modules.keys()


def test_help_needs_no_torch() -> None:
    """A command line that takes seconds to say what it can do is not asked twice."""
    code = "import sys, fairway, fairway.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
