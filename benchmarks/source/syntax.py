"""Modules as syntax trees: what each imports, which import each other in circles."""

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """A source file: its dotted name, its path inside the package, its text."""

    name: str
    path: Path
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def is_package(self) -> bool:
        return self.path.stem == "__init__"

    @property
    def num_lines(self) -> int:
        return self.text.count("\n")


def read_modules(package: Path) -> list[Module]:
    """Every module below the folder `package`, in the order of their paths."""
    found = []
    for file in sorted(package.rglob("*.py")):
        path = file.relative_to(package)
        parts = [package.name, *path.with_suffix("").parts]
        name = ".".join(parts).removesuffix(".__init__")
        found.append(Module(name, path, file.read_text()))
    return found


def functions(tree: ast.AST) -> Iterator[Function]:
    """Every function and method, those inside others too."""
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def imports(module: Module, modules: Sequence[Module], *, lazy: bool) -> set[str]:
    """Modules of the package that `module` names in an import.

    lazy  those inside functions; else those outside, under TYPE_CHECKING too

    `from fairway.a import b` names the module `fairway.a.b` where there is one, and else
    `fairway.a`; the packages above a module are not counted as imported by it.
    """
    known = {other.name for other in modules}
    found = set()
    for node in _outside_functions(module.tree) if not lazy else _inside_functions(module.tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(module, node)
            names = {f"{base}.{alias.name}" for alias in node.names}
            found |= {name if name in known else base for name in names}
    return (found & known) - {module.name}


def _outside_functions(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        yield node
        if not isinstance(node, Function):
            yield from _outside_functions(node)


def _inside_functions(tree: ast.AST) -> Iterator[ast.AST]:
    return (node for function in functions(tree) for node in ast.walk(function))


def _absolute(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = module.name.split(".")
    kept = len(parts) - node.level + module.is_package
    return ".".join([*parts[:kept], *([node.module] if node.module else [])])


def circles(graph: Mapping[str, set[str]]) -> list[tuple[str, ...]]:
    """Groups of two or more modules that all reach each other, each group sorted.

    Two modules share a group when each is among what the other reaches; the graph is small.
    """
    reached = {name: _reachable(graph, name) for name in graph}
    groups = {
        tuple(sorted(other for other in reached[name] if name in reached[other]))
        for name in graph
        if name in reached[name]
    }
    return sorted(groups)


def _reachable(graph: Mapping[str, set[str]], start: str) -> set[str]:
    """What `start` imports, and what that imports; `start` itself only through a circle."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        new = graph.get(waiting.pop(), set()) - found
        found |= new
        waiting += new
    return found
