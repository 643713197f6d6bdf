"""Places that ask what kind of learner or scheme a value is, or which lineage, and so must change
whenever a kind is added."""

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from source.syntax import Module

LEARNERS = {"Sgd", "DocumentAdapters", "Phased", "Mixture"}
SCHEMES = {"Gptq", "RoundRows", "SearchRows", "PercentileRows", "KeepHalf", "KeepFloat"}
BASES = {"Learner", "Scheme"}  # whatever derives from these is a kind too
LINEAGE = re.compile(r"pr\d+")
ALSO_LINEAGES = {"baseline"}  # a common word: counted where the other side is called a lineage


@dataclass(frozen=True)
class Branch:
    """One mention of a kind where a value's type is asked for.

    own_file  in the file that defines the kind, though outside its class
    """

    where: str
    says: str
    own_file: bool


def kinds(modules: Sequence[Module]) -> set[str]:
    """The known learners and schemes, and every class that derives from their bases."""
    bases = {
        node.name: {_last_name(base) for base in node.bases}
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef)
    }
    found, size = LEARNERS | SCHEMES, -1
    while len(found) != size:
        size = len(found)
        found |= {name for name, above in bases.items() if above & (found | BASES)}
    return found - BASES


def branches_on_kinds(modules: Sequence[Module]) -> list[Branch]:
    """isinstance, class patterns, comparisons of types and tables keyed by class; one for each
    kind mentioned, except inside the kind's own class."""
    wanted = kinds(modules)
    found = []
    for module in modules:
        own = {node.name: node for node in module.tree.body if isinstance(node, ast.ClassDef)}
        for asked, how in sorted(_asked_types(module.tree), key=lambda found: found[0].lineno):
            kind = _last_name(asked)
            if kind not in wanted or (kind in own and _within(asked, own[kind])):
                continue
            where = f"{module.path}:{asked.lineno}"
            found.append(Branch(where, f"{how} {kind}", kind in own))
    return found


def _asked_types(tree: ast.AST) -> Iterator[tuple[ast.expr, str]]:
    """Expressions that name a class a value is tested against, and by what."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="isinstance" | "issubclass"), args=[_, tested]):
                yield from ((each, "isinstance") for each in _alternatives(tested))
            case ast.MatchClass(cls=tested):
                yield tested, "case"
            case ast.Compare(left=left, comparators=rights) if _is_type_of(left):
                yield from ((each, "type is") for right in rights for each in _alternatives(right))
            case ast.Dict(keys=keys):
                yield from ((key, "table keyed by") for key in keys if key is not None)


def _alternatives(tested: ast.expr) -> Iterator[ast.expr]:
    match tested:
        case ast.BinOp(op=ast.BitOr(), left=left, right=right):
            yield from (*_alternatives(left), *_alternatives(right))
        case ast.Tuple(elts=elts) | ast.List(elts=elts) | ast.Set(elts=elts):
            for each in elts:
                yield from _alternatives(each)
        case _:
            yield tested


def _is_type_of(value: ast.expr) -> bool:
    return isinstance(value, ast.Call) and _last_name(value.func) == "type"


def _last_name(value: ast.expr) -> str:
    match value:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Subscript(value=inside):
            return _last_name(inside)
    return ""


def _within(node: ast.expr, outer: ast.ClassDef) -> bool:
    return outer.lineno <= node.lineno <= (outer.end_lineno or 0)


def branches_on_lineages(modules: Sequence[Module]) -> list[str]:
    """Comparisons with the name of a published script, and patterns of it; one for each."""
    return [
        f"{module.path}:{line}: {says}"
        for module in modules
        for line, says in sorted(_asked_lineages(module.tree))
    ]


def _asked_lineages(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.Compare(left=left, comparators=rights):
                sides = [each for side in (left, *rights) for each in _alternatives(side)]
                named = any(_last_name(side) == "lineage" for side in sides)
                if any(_is_lineage(side, named) for side in sides):
                    yield node.lineno, ast.unparse(node)
            case ast.Match(subject=subject, cases=cases):
                named = _last_name(subject) == "lineage"
                for case in cases:
                    values = [v for v in ast.walk(case.pattern) if isinstance(v, ast.MatchValue)]
                    if any(_is_lineage(value.value, named) for value in values):
                        yield case.pattern.lineno, f"case {ast.unparse(case.pattern)}"


def _is_lineage(side: ast.expr, named: bool) -> bool:
    """Whether this is a lineage's name; `named`: it is compared with something called a lineage."""
    if not isinstance(side, ast.Constant) or not isinstance(side.value, str):
        return False
    return bool(LINEAGE.fullmatch(side.value)) or (named and side.value in ALSO_LINEAGES)
