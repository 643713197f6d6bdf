"""Modules as one namespace: every top-level name made unique, imports of ours resolved away."""

import ast
import builtins
from collections.abc import Iterator, Mapping, Sequence

from fairway.submission.program import FUNCTIONS, Symbol, Unit, is_ours

Scope = frozenset[str]  # names that are local there
SCOPES = (*FUNCTIONS, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def flatten(units: Sequence[Unit], stubs: Sequence[Symbol]) -> ast.Module:
    """One module of all that is kept, each after what it needs.

    stubs  what is named and never called: empty classes
    """
    names = _Names(units, stubs)
    imports: dict[str, ast.stmt] = {}
    for unit in units:
        for name in sorted(unit.named & unit.others.keys()):
            final = names.final[unit.name, name]
            imports[final] = _renamed_import(unit.others[name], final)
    body = [ast.ClassDef(names.final[symbol], [], [], [ast.Pass()], []) for symbol in sorted(stubs)]
    for unit in units:
        renamer = _Renamer(names.of(unit), names.modules(unit))
        body += [renamer.visit(node) for node in unit.kept_statements()]
    ordered = [imports[name] for name in sorted(imports)]
    return ast.fix_missing_locations(ast.Module([*ordered, *body], []))


class _Names:
    """What each name is called in the one namespace. `final` goes by (module, name) of what binds
    it; an import from elsewhere is bound by whoever names it, and shared by all that do."""

    def __init__(self, units: Sequence[Unit], stubs: Sequence[Symbol]) -> None:
        self.units = {unit.name: unit for unit in units}
        self.taken = set(dir(builtins)) | {
            name for unit in units for node in unit.kept_statements() for name in _spelled(node)
        }
        self.final: dict[Symbol, str] = {}
        used: set[str] = set(dir(builtins))
        shared: dict[str, str] = {}  # by the import statement
        for unit in units:
            for name in [*unit.kept_names(), *sorted(unit.named & unit.others.keys())]:
                told = ast.unparse(unit.others[name]) if name in unit.others else ""
                if told in shared:
                    self.final[unit.name, name] = shared[told]
                    continue
                self.final[unit.name, name] = chosen = self._unused(name, used)
                used.add(chosen)
                if told:
                    shared[told] = chosen
        for symbol in stubs:
            self.final[symbol] = chosen = self._unused(symbol[1], used)
            used.add(chosen)

    def _unused(self, name: str, used: set[str]) -> str:
        chosen, number = name, 2
        while chosen in used or (number > 2 and chosen in self.taken):
            chosen, number = f"{name}_{number}", number + 1
        return chosen

    def of(self, unit: Unit) -> dict[str, str]:
        """By the name that the unit uses."""
        own = [*unit.kept_names(), *unit.stubs]
        found = {name: self.final[unit.name, name] for name in own}
        for name in unit.named:
            if name in unit.others:
                found[name] = self.final[unit.name, name]
            elif unit.ours[name][1]:
                found[name] = self._resolved(unit.ours[name])
        return found

    def modules(self, unit: Unit) -> dict[str, dict[str, str]]:
        """By the name of a whole module of ours: what its names are called."""
        aliases = {name: unit.ours[name][0] for name in unit.named if name in unit.ours}
        return {
            name: self.of(self.units[module])
            for name, module in aliases.items()
            if not unit.ours[name][1] and module in self.units
        }

    def _resolved(self, symbol: Symbol) -> str:
        """Through modules that only pass a name on."""
        module, name = symbol
        if symbol in self.final:
            return self.final[symbol]
        return self._resolved(self.units[module].ours[name])


class _Renamer(ast.NodeTransformer):
    """Renames what is global in one module."""

    def __init__(self, names: Mapping[str, str], modules: Mapping[str, Mapping[str, str]]) -> None:
        self.names, self.modules = names, modules
        self.local: list[Scope] = []

    def _known(self, name: str) -> bool:
        return name in self.names and not any(name in scope for scope in self.local)

    def _new(self, name: str) -> str:
        return self.names[name] if self._known(name) else name

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self._new(node.id), node.ctx)

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        match node.value:
            case ast.Name(id=name) if name in self.modules and name not in self.names:
                if not any(name in scope for scope in self.local):
                    return ast.Name(self.modules[name][node.attr], node.ctx)
        self.generic_visit(node)
        return node

    def visit_Global(self, node: ast.Global) -> ast.Global:
        return ast.Global([self.names.get(name, name) for name in node.names])

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.stmt:
        return ast.Pass() if is_ours(node) else node  # a late one: it is there already

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        """A class's own names are seen by its statements and not by its methods: every reference
        to a global in the body that the class binds itself would be ambiguous."""
        node.decorator_list = [self.visit(each) for each in node.decorator_list]
        node.bases = [self.visit(each) for each in node.bases]
        node.keywords = [self.visit(each) for each in node.keywords]
        own = frozenset(name for member in node.body for name in _bound_by(member))
        body = []
        for member in node.body:
            if isinstance(member, FUNCTIONS):
                body.append(self._function(member, own))
            else:
                self.local.append(own)
                body.append(self.visit(member))
                self.local.pop()
        node.body = body
        if not self.local:
            node.name = self._new(node.name)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._function(node, frozenset())

    def _function(self, node: ast.stmt, around: Scope) -> ast.stmt:
        """around  the names of the class whose body this stands in: its decorators see them"""
        assert isinstance(node, ast.FunctionDef)
        self.local.append(around)
        node.decorator_list = [self.visit(each) for each in node.decorator_list]
        self._defaults(node.args)
        self.local.pop()
        if not self.local and not around:
            node.name = self._new(node.name)
        self.local.append(_locals_of(node))
        node.body = [self.visit(each) for each in node.body]
        self.local.pop()
        return node

    def _defaults(self, arguments: ast.arguments) -> None:
        arguments.defaults = [self.visit(each) for each in arguments.defaults]
        kept = [each if each is None else self.visit(each) for each in arguments.kw_defaults]
        arguments.kw_defaults = kept

    def visit_Lambda(self, node: ast.Lambda) -> ast.Lambda:
        self._defaults(node.args)
        self.local.append(frozenset(_parameters(node.args)))
        node.body = self.visit(node.body)
        self.local.pop()
        return node

    def _comprehension(self, node: ast.AST) -> ast.AST:
        own = frozenset(name for g in node.generators for name in _stored(g.target))  # type: ignore[attr-defined]
        first = node.generators[0]  # type: ignore[attr-defined]
        first.iter = self.visit(first.iter)
        outer, self.local = self.local, [*self.local, own]
        for place, each in enumerate(node.generators):  # type: ignore[attr-defined]
            each.target = self.visit(each.target)
            each.iter = each.iter if place == 0 else self.visit(each.iter)
            each.ifs = [self.visit(test) for test in each.ifs]
        for part in ("elt", "key", "value"):
            if hasattr(node, part):
                setattr(node, part, self.visit(getattr(node, part)))
        self.local = outer
        return node

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension


def _locals_of(node: ast.FunctionDef) -> Scope:
    names, declared = set(_parameters(node.args)), set()
    for statement in node.body:
        names |= set(_bound_by(statement))
        for inner in _same_scope(statement):
            if isinstance(inner, ast.Global):
                declared |= set(inner.names)
    return frozenset(names - declared)


def _parameters(arguments: ast.arguments) -> Iterator[str]:
    for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
        yield each.arg
    for each in (arguments.vararg, arguments.kwarg):
        if each is not None:
            yield each.arg


def _bound_by(statement: ast.AST) -> Iterator[str]:
    """Names that a statement binds in its own scope."""
    for node in _same_scope(statement):
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                yield name
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.ExceptHandler(name=str(name)) | ast.MatchStar(name=str(name)):
                yield name
            case ast.MatchAs(name=str(name)) | ast.MatchMapping(rest=str(name)):
                yield name
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                if isinstance(node, ast.ImportFrom) and is_ours(node):
                    continue
                for alias in aliases:
                    yield alias.asname or alias.name.split(".")[0]


def _same_scope(node: ast.AST) -> Iterator[ast.AST]:
    """A node and all below it that is in the same scope; an inner scope's own node is the last."""
    yield node
    if isinstance(node, (*FUNCTIONS, ast.ClassDef, ast.Lambda)):
        return
    for inner in ast.iter_child_nodes(node):
        if isinstance(inner, (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
            yield from (n for n in ast.walk(inner) if isinstance(n, ast.NamedExpr))
            for named in ast.walk(inner):
                if isinstance(named, ast.NamedExpr):
                    yield named.target
            continue
        yield from _same_scope(inner)


def _stored(node: ast.AST) -> Iterator[str]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name):
            yield inner.id


def _spelled(node: ast.AST) -> Iterator[str]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name):
            yield inner.id
        elif isinstance(inner, ast.arg):
            yield inner.arg


def _renamed_import(node: ast.stmt, name: str) -> ast.stmt:
    match node:
        case ast.Import(names=[alias]):
            short = alias.name == name and "." not in name
            return ast.Import([ast.alias(alias.name, None if short else name)])
        case ast.ImportFrom(module=module, names=[alias]):
            only = ast.alias(alias.name, None if alias.name == name else name)
            return ast.ImportFrom(module, [only], 0)
    raise AssertionError(ast.dump(node))
