"""Which statements of the package a function needs: reachability over the whole program, by name.

A module is its top-level statements, a class its members. A statement is kept if one that is kept
names what it binds; a method, if its name is spoken of anywhere in what is kept, or if a base from
outside may call it. So too much may be kept and never too little, as long as no name is made up at
run time.
"""

import ast
from collections.abc import Callable, Collection, Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec

from fairway.runtime.own_sources import OURS, source_of

Symbol = tuple[str, str]  # a module, and a name that it binds; "" for the module itself
Simplify = Callable[[str, ast.Module], ast.Module]  # of a module's name and tree
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


class Unit:
    """One module of the package, cut into statements.

    statements  top-level ones that are neither imports nor docstrings
    bound       by name: the statements that bind it
    effects     statements that bind nothing
    ours        by name: what of the package it was imported as, anywhere in the module
    others      by name: the import of it from elsewhere
    kept        ids of the statements and members that are needed
    named       of `ours` and `others`, those that are needed
    stubs       of `bound`, those that are left out and named all the same
    """

    def __init__(self, name: str, simplify: Simplify, source: str | None = None) -> None:
        self.name = name
        self.statements: list[ast.stmt] = []
        self.bound: dict[str, list[ast.stmt]] = {}
        self.effects: list[ast.stmt] = []
        self.ours: dict[str, Symbol] = {}
        self.others: dict[str, ast.stmt] = {}
        self.kept: set[int] = set()
        self.named: set[str] = set()
        self.stubs: set[str] = set()
        tree = simplify(name, ast.parse(source_of(name) if source is None else source))
        for node in ast.walk(tree):  # late imports too
            if isinstance(node, ast.ImportFrom) and is_ours(node):
                for alias in node.names:
                    self.ours[alias.asname or alias.name] = symbol(node, alias)
        for node in tree.body:
            self._take(node)

    def _take(self, node: ast.stmt) -> None:
        match node:
            case ast.Import(names=names):
                for alias in names:
                    self.others[alias.asname or alias.name.split(".")[0]] = ast.Import([alias])
            case ast.ImportFrom(module=module, names=names):
                for alias in () if is_ours(node) else names:
                    only = ast.ImportFrom(module, [alias], 0)
                    self.others[alias.asname or alias.name] = only
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                pass
            case _:
                self.statements.append(node)
                names = set(_names_bound(node))
                for name in names:
                    self.bound.setdefault(name, []).append(node)
                if not names:
                    self.effects.append(node)

    def kept_statements(self) -> list[ast.stmt]:
        """In order, and of classes the members that are needed."""
        return [self._cut(node) for node in self.statements if id(node) in self.kept]

    def kept_names(self) -> list[str]:
        """That its kept statements bind."""
        return [
            name
            for name, nodes in self.bound.items()
            if any(id(node) in self.kept for node in nodes)
        ]

    def _cut(self, node: ast.stmt) -> ast.stmt:
        if not isinstance(node, ast.ClassDef):
            return node
        body = [m for m in node.body if not isinstance(m, FUNCTIONS) or id(m) in self.kept]
        return ast.ClassDef(
            node.name, node.bases, node.keywords, body or [ast.Pass()], node.decorator_list
        )


class Program:
    """All that a text needs, which is a module of its own and imports ours.

    left_out  classes and functions that no one will call; they are listed in `stubs` if named
    unused    methods that no one will call, as (module, "Class.method")
    simplify  what is done to a module's tree before it is looked at
    """

    def __init__(
        self,
        text: str,
        *,
        left_out: Collection[Symbol],
        unused: Collection[Symbol],
        simplify: Simplify,
    ) -> None:
        self.left_out, self.unused = frozenset(left_out), frozenset(unused)
        self.simplify = simplify
        self.units: dict[str, Unit] = {}
        self.stubs: set[Symbol] = set()
        self.spoken: set[str] = set()  # names after a dot, and words in quotes
        self.methods: dict[str, list[tuple[Unit, ast.stmt]]] = {}  # not kept yet, by name
        self.waiting: list[tuple[Unit, ast.AST]] = []  # kept, and not looked at yet
        start = self.units[""] = Unit("", simplify, text)
        for node in start.statements:
            self._keep(start, node)
        while self.waiting:
            self._look(*self.waiting.pop())

    def modules(self) -> list[Unit]:
        """Those of which anything is kept, each after those it imports."""
        done: list[Unit] = []

        def visit(unit: Unit) -> None:
            if unit in done:
                return
            for name in sorted(unit.named & unit.ours.keys()):
                if unit.ours[name] not in self.stubs:
                    visit(self.units[unit.ours[name][0]])
            done.append(unit)

        for unit in list(self.units.values()):
            visit(unit)
        return done

    def _demand(self, wanted: Symbol) -> None:
        if wanted in self.left_out:
            self.stubs.add(wanted)
            return
        module, name = wanted
        unit = self.units.get(module)
        if unit is None:
            unit = self.units[module] = Unit(module, self.simplify)
            for node in unit.effects:
                self._keep(unit, node)
        for each in [name] if name else list(unit.bound):
            self._name(unit, each)

    def _name(self, unit: Unit, name: str) -> None:
        if (unit.name, name) in self.left_out:
            self.stubs.add((unit.name, name))
            unit.stubs.add(name)
            return
        for node in unit.bound.get(name, ()):
            self._keep(unit, node)
        if name in unit.bound or name in unit.named:
            return
        if name in unit.ours:
            unit.named.add(name)
            self._demand(unit.ours[name])
        elif name in unit.others:
            unit.named.add(name)

    def _keep(self, unit: Unit, node: ast.stmt) -> None:
        if id(node) not in unit.kept:
            unit.kept.add(id(node))
            self.waiting.append((unit, node))

    def _look(self, unit: Unit, node: ast.AST) -> None:
        """At all that a statement names."""
        if isinstance(node, ast.ClassDef):
            self._look_at_class(unit, node)
            return
        match node:
            case ast.Name(id=name):
                if unit.ours.get(name, ("", "x"))[1] == "" and name not in unit.bound:
                    unit.named.add(name)  # a module of ours as a value
                    self._demand(unit.ours[name])
                else:
                    self._name(unit, name)
            case ast.Attribute(value=value, attr=attribute):
                self._speak(attribute)
                of = unit.ours.get(value.id, ("", "x")) if isinstance(value, ast.Name) else None
                if of is not None and of[1] == "" and isinstance(value, ast.Name):
                    unit.named.add(value.id)
                    self._demand((of[0], attribute))
                    return
            case ast.Constant(value=str(text)) if text.isidentifier():
                self._speak(text)
            case ast.ImportFrom() if is_ours(node):
                for alias in node.names:
                    self._demand(symbol(node, alias))
            case _:
                pass
        for inner in ast.iter_child_nodes(node):
            self._look(unit, inner)

    def _look_at_class(self, unit: Unit, node: ast.ClassDef) -> None:
        called_from_outside = _outside_names(unit.name, node.name)
        for part in (*node.bases, *node.keywords, *node.decorator_list):
            self._look(unit, part)
        for member in node.body:
            if not isinstance(member, FUNCTIONS):
                self._look(unit, member)
            elif (unit.name, f"{node.name}.{member.name}") in self.unused:
                continue
            elif (
                member.name.startswith("__")
                or member.name in called_from_outside
                or member.name in self.spoken
            ):
                self._keep(unit, member)
            else:
                self.methods.setdefault(member.name, []).append((unit, member))

    def _speak(self, name: str) -> None:
        if name not in self.spoken:
            self.spoken.add(name)
            for unit, member in self.methods.pop(name, ()):
                self._keep(unit, member)


def is_ours(node: ast.ImportFrom) -> bool:
    return (node.module or "").split(".")[0] == OURS


@cache
def _is_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def symbol(node: ast.ImportFrom, alias: ast.alias) -> Symbol:
    """What an import of ours brings; a function of the same name hides no module here."""
    whole = f"{node.module}.{alias.name}"
    return (whole, "") if _is_module(whole) else (node.module or "", alias.name)


def _names_bound(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
        yield node.name
        return
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
            yield inner.id


@cache
def _outside_names(module: str, name: str) -> frozenset[str]:
    """Names of members of a class's bases from outside the package."""
    found = getattr(import_module(module), name)
    bases = [b for b in found.__mro__ if b is not object and not b.__module__.startswith(OURS)]
    return frozenset(member for base in bases for member in dir(base))
