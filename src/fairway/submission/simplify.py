"""A module's source without what only people need: docstrings, annotations, messages, assertions.

What it computes stays the same. An error says at which line of which module it was raised, where
the whole sentence stands. Checks of settings are gone, for those were checked when the recipe was
frozen; those of data, and of what a computation gave, stay.
"""

import ast
from collections.abc import Collection
from typing import Any

SETTINGS_ALONE = (
    *("model", "train.config", "train.param_groups", "train.loop", "train.muon"),
    *("quant", "evaluate"),
)

WATCHING = {"_peers_expected", "_collective", "waiting"}  # methods of ranks and their meter


class Simplifier(ast.NodeTransformer):
    """One module.

    configs  names of its classes whose annotations are read at run time
    says     whether errors keep their sentences
    """

    def __init__(self, module: str, configs: Collection[str], *, says: bool = False) -> None:
        self.module, self.configs, self.says = module, configs, says
        self.within: list[ast.AST] = []  # classes and functions around
        place = module.partition(".")[2]
        self.checks_settings = f"{place}.".startswith(tuple(f"{p}." for p in SETTINGS_ALONE))

    def visit_Module(self, node: ast.Module) -> ast.Module:
        node.body = self._body(node.body)
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        self.within.append(node)
        if node.name in self.configs or self.checks_settings:
            node.body = [member for member in node.body if not _only_checks(member)]
        node.body = self._body(node.body) or [ast.Pass()]
        asked_of = any(_is(d, "runtime_checkable") for d in node.decorator_list)
        idle = ("ABC",) if asked_of else ("Protocol", "ABC")
        node.bases = [base for base in node.bases if not _is(base, *idle)]
        self.within.pop()
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        self.within.append(node)
        kept = [d for d in node.decorator_list if not _is(d, "abstractmethod", "override")]
        node.decorator_list = kept
        if not any("custom_op" in ast.dump(d) for d in kept):  # which reads them
            node.returns = None
            arguments = node.args
            for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
                each.annotation = None
            for each in (arguments.vararg, arguments.kwarg):
                if each is not None:
                    each.annotation = None
            node.args.defaults = [self.visit(d) for d in node.args.defaults]
        node.body = self._body(node.body) or [ast.Pass()]
        self.within.pop()
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.stmt | None:
        if node.value is not None:
            node.value = self.visit(node.value)
        around = self.within[-1] if self.within else None
        if isinstance(around, ast.ClassDef):
            if around.name not in self.configs and not _mentions(node.annotation, "ClassVar"):
                node.annotation = ast.Name("int", ast.Load())
            return node
        return None if node.value is None else ast.Assign([node.target], node.value)

    def visit_Assert(self, node: ast.Assert) -> None:
        return None

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if _is(node.func, "cast") and len(node.args) == 2:
            return node.args[1]
        return node

    def visit_Raise(self, node: ast.Raise) -> ast.stmt:
        self.generic_visit(node)
        match node.exc:
            case ast.Call(args=[ast.JoinedStr() | ast.Constant() | ast.BinOp()]) if not self.says:
                node.exc.args = [ast.Constant(f"{self.module.rpartition('.')[2]}:{node.lineno}")]
        return node

    def visit_Return(self, node: ast.Return) -> ast.Return:
        """Why a backend of attention is passed over is said by a run, and not by its script."""
        self.generic_visit(node)
        around = self.within[-1] if self.within else None
        tells = isinstance(around, ast.FunctionDef) and around.name.startswith("_obstacle")
        if tells and (isinstance(node.value, ast.JoinedStr) or _is_text(node.value)):
            node.value = ast.Constant("no")
        return node

    def _block(self, node: Any) -> ast.AST:
        self.generic_visit(node)
        node.body = node.body or [ast.Pass()]
        return node

    visit_For = visit_While = visit_ExceptHandler = _block

    def visit_With(self, node: ast.With) -> ast.AST | list[ast.stmt]:
        """Peers are not watched over: the collective is made, and torchrun ends what fails."""
        calls = (item.context_expr for item in node.items)
        if all(
            isinstance(call, ast.Call)
            and isinstance(call.func, ast.Attribute)
            and call.func.attr in WATCHING
            for call in calls
        ):
            return self._body(node.body)
        return self._block(node)

    def visit_Try(self, node: ast.Try) -> ast.stmt | list[ast.stmt]:
        """One that only words errors anew is as good as its body."""
        self.generic_visit(node)
        reworded = all(
            len(handler.body) == 1 and isinstance(handler.body[0], ast.Raise)
            for handler in node.handlers
        )
        if self.says or node.finalbody or node.orelse or not reworded:
            return node
        return node.body

    def visit_If(self, node: ast.If) -> ast.stmt | None:
        self.generic_visit(node)
        match node:
            case ast.If(body=[ast.Raise(exc=ast.Call(func=ast.Name(id="ValueError")))], orelse=[]):
                if self.checks_settings and not any(
                    isinstance(part, ast.NamedExpr) for part in ast.walk(node.test)
                ):
                    return None
        node.body = node.body or [ast.Pass()]
        return node

    def _body(self, body: list[ast.stmt]) -> list[ast.stmt]:
        done: list[ast.stmt] = []
        for statement in body:
            found = self.visit(statement)
            done += found if isinstance(found, list) else [] if found is None else [found]
        return [statement for statement in done if not _says_nothing(statement)]


def _says_nothing(node: ast.stmt) -> bool:
    return isinstance(node, ast.Pass) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    )


def _is_text(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _only_checks(member: ast.stmt) -> bool:
    """A `__post_init__` that sets nothing: what it could refuse was refused before."""
    return (
        isinstance(member, ast.FunctionDef)
        and member.name == "__post_init__"
        and not _mentions(member, "__setattr__")
    )


def _is(node: ast.AST, *names: str) -> bool:
    return isinstance(node, ast.Name) and node.id in names


def _mentions(node: ast.AST, name: str) -> bool:
    return any(
        (isinstance(n, ast.Name) and n.id == name)
        or (isinstance(n, ast.Attribute) and n.attr == name)
        for n in ast.walk(node)
    )
