"""The state of the source tree in numbers, read from the source alone: nothing is imported.

    python benchmarks/house.py [--baseline REV] [--where]

Prints a table and, as the last line, one JSON object with every number. `--baseline` counts another
revision beside the working tree; `--where` lists the places behind the numbers.
"""

import argparse
import ast
import io
import json
import re
import subprocess
import tarfile
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table
from source.branches import branches_on_kinds, branches_on_lineages
from source.syntax import Module, circles, functions, imports, read_modules

ROOT = Path(__file__).resolve().parents[1]
LONG_FUNCTION, LONG_FILE, FULL_FOLDER = 60, 400, 8


@dataclass(frozen=True)
class Measure:
    """One line of the table.

    value   a count, or a number of lines
    aim     what it should be, in words; empty where none is set
    places  what was counted, one line each
    """

    name: str
    value: int
    aim: str = ""
    places: tuple[str, ...] = ()


def counted(name: str, places: Iterable[str], aim: str = "") -> Measure:
    found = tuple(places)
    return Measure(name, len(found), aim, found)


def stages(root: Path) -> list[str]:
    """STAGES as the test of the import direction states it."""
    tree = ast.parse((root / "tests" / "test_import_direction.py").read_text())
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == "STAGES" for target in targets):
            return ast.literal_eval(node.value)  # type: ignore[union-attr]
    raise ValueError(f"{root}/tests/test_import_direction.py assigns no STAGES")


def import_measures(modules: list[Module], order: list[str]) -> Iterator[Measure]:
    eager = {module.name: imports(module, modules, lazy=False) for module in modules}
    late = {module.name: imports(module, modules, lazy=True) for module in modules}
    both = {name: eager[name] | late[name] for name in eager}
    shown = {" <-> ".join(circle) for circle in circles(eager)}
    yield counted("import circles", sorted(shown), "0")
    hidden = {" <-> ".join(circle) for circle in circles(both)} - shown
    yield counted("circles closed by an import inside a function", sorted(hidden), "0")
    yield counted("imports against the order of stages", sorted(climbs(both, order)), "0")


def climbs(graph: Mapping[str, set[str]], order: list[str]) -> Iterator[str]:
    """Imports of a later stage, and stages that the order does not know."""
    place = {stage: index for index, stage in enumerate(order)}
    for module, needed in graph.items():
        here = _stage(module)
        if here and here not in place:
            yield f"{module}: no such stage"
        for other in needed:
            there = _stage(other)
            if here in place and there in place and place[there] > place[here]:
                yield f"{module} imports {other}"


def _stage(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def branch_measures(modules: list[Module]) -> Iterator[Measure]:
    found = branches_on_kinds(modules)
    yield counted(
        "branches on a learner's or scheme's type, outside its file",
        (f"{branch.where}: {branch.says}" for branch in found if not branch.own_file),
        "0",
    )
    yield counted(
        "the same, in its file but outside the class",
        (f"{branch.where}: {branch.says}" for branch in found if branch.own_file),
    )
    lineages = branches_on_lineages(modules)
    yield counted("branches on the name of a lineage", lineages, "0")


def size_measures(modules: list[Module]) -> Iterator[Measure]:
    yield Measure("lines under src/fairway", sum(m.num_lines for m in modules), "18,000")
    lengths = {
        f"{module.path}:{function.lineno} {function.name}": _lines(function)
        for module in modules
        for function in functions(module.tree)
    }
    by_length = sorted(lengths, key=lambda where: -lengths[where])
    long = [f"{where}: {lengths[where]}" for where in by_length if lengths[where] > LONG_FUNCTION]
    yield counted(f"functions over {LONG_FUNCTION} lines", long, "3")
    yield Measure("longest function, lines", max(lengths.values()), "80", tuple(long[:1]))
    yield Measure("median function, lines", int(median(lengths.values())))
    large = [f"{m.path}: {m.num_lines}" for m in modules if m.num_lines > LONG_FILE]
    yield counted(f"files over {LONG_FILE} lines", large, "0")
    folders = Counter(str(m.path.parent) for m in modules if not m.is_package)
    full = [f"{folder}: {size}" for folder, size in folders.items() if size > FULL_FOLDER]
    yield counted(f"folders over {FULL_FOLDER} files", full, "0")


def _lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def name_measures(modules: list[Module]) -> Iterator[Measure]:
    uses = [f"{m.path}:{line}" for m in modules for line in sorted(_lines_with_any(m.tree))]
    plain = sum(len(re.findall(r"\bAny\b", m.text)) for m in modules)
    yield counted("Any, as a name in code", uses, "80")
    yield Measure("Any, by plain search", plain)
    stems: dict[str, list[str]] = defaultdict(list)
    public: dict[str, list[str]] = defaultdict(list)
    for module in modules:
        if not module.path.stem.startswith("__"):
            stems[module.path.stem].append(str(module.path))
        for node in module.tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_":
                public[node.name].append(str(module.path))
    yield counted("names of modules that occur more than once", _repeated(stems), "0")
    yield counted("public functions and classes defined twice", _repeated(public))


def _lines_with_any(tree: ast.AST) -> Iterator[int]:
    for node in ast.walk(tree):
        match node:
            case ast.Name(id="Any") | ast.Attribute(attr="Any") | ast.alias(name="Any"):
                yield node.lineno


def _repeated(places: Mapping[str, list[str]]) -> list[str]:
    return [f"{name}: {', '.join(ps)}" for name, ps in sorted(places.items()) if len(ps) > 1]


def test_measures(modules: list[Module], root: Path) -> Iterator[Measure]:
    """Files that define something and have no test at the mirrored path.

    Files whose recipes the registry lists count as tested by `test_registry.py`, as long as that
    takes every listed recipe through its tests.
    """

    def mirrored(module: Module) -> Path:
        name = module.path.parent.name if module.is_package else module.path.stem
        return module.path.with_name(f"test_{name}.py")

    together = recipe_files(modules, root)
    telling = (m for m in modules if m.path.stem != "__main__" and any(functions(m.tree)))
    missing = (
        str(m.path)
        for m in telling
        if m.name not in together and not (root / "tests" / mirrored(m)).is_file()
    )
    yield counted("source files without a test at the mirrored path", missing, "0")


def recipe_files(modules: list[Module], root: Path) -> set[str]:
    """Modules that the registry imports recipes from, if its test is parametrized over them all."""
    tests = root / "tests" / "recipes" / "test_registry.py"
    if not tests.is_file() or not re.search(r"parametrize\(.name., RECIPES\)", tests.read_text()):
        return set()
    listed = next(
        (imports(m, modules, lazy=False) for m in modules if m.name.endswith("recipes.registry")),
        set(),
    )
    return {
        m.name
        for m in modules
        if m.name in listed
        and any(
            isinstance(f.returns, ast.Name) and f.returns.id == "Recipe" for f in functions(m.tree)
        )
    }


def measures(root: Path) -> list[Measure]:
    """All measures of the checkout at `root`."""
    modules = read_modules(root / "src" / "fairway")
    return [
        *import_measures(modules, stages(root)),
        *branch_measures(modules),
        *size_measures(modules),
        *name_measures(modules),
        *test_measures(modules, root),
    ]


def measures_of_revision(revision: str) -> list[Measure]:
    """The same of another git revision, unpacked into a temporary folder."""
    command = ["git", "-C", str(ROOT), "archive", revision, "src/fairway", "tests"]
    packed = subprocess.run(command, check=True, capture_output=True).stdout
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(folder, filter="data")
        return measures(Path(folder))


def table(now: list[Measure], before: dict[str, int], revision: str) -> Table:
    found = Table(title="src/fairway", title_justify="left")
    found.add_column("")
    if before:
        found.add_column(revision, justify="right")
    found.add_column("now", justify="right")
    found.add_column("at most", justify="right")
    for measure in now:
        was = [f"{before[measure.name]:,}"] if before else []
        found.add_row(measure.name, *was, f"{measure.value:,}", measure.aim)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--baseline", metavar="REV", help="a git revision to count beside this one")
    parser.add_argument("--where", action="store_true", help="list the places behind each number")
    args = parser.parse_args()
    now = measures(ROOT)
    old = measures_of_revision(args.baseline) if args.baseline else []
    before = {measure.name: measure.value for measure in old}
    console = Console()
    console.print(table(now, before, args.baseline or ""))
    places = {measure.name: measure.places for measure in now if measure.places}
    for name, found in places.items() if args.where else ():
        console.print(f"\n{name}", style="bold")
        console.print("\n".join(f"  {place}" for place in found), markup=False)
    shown = {"places": places} if args.where else {}
    found = {measure.name: measure.value for measure in now}
    print(json.dumps({"now": found, "baseline": before or None, **shown}))


if __name__ == "__main__":
    main()
