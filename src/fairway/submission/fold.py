"""Branches that a recipe's settings decide, decided: what is never taken is not shipped.

A field of the settings is known where every object of the recipe that has it agrees on its value,
and nothing that is shipped makes such an object with another. Only None, truth values and names of
choices are put in its place: numbers stay, for one branch or another seldom hangs on them.
"""

import ast
from typing import Any

from fairway.submission.known import Facts

ROOTS = ("config", "frozen", "recipe", "settings")  # what settings are called where they are read


class Folder(ast.NodeTransformer):
    """Puts values in the place of `config.FIELD` and takes out what then cannot be reached.

    configs  names of the module's classes that are settings, in which `self` is
    nothing  what names and attributes hold, as written, wherever they are read in this module
    """

    def __init__(self, facts: Facts, module: str) -> None:
        self.values, self.holders, self.answers = facts.values, facts.holders, facts.answers
        self.configs = facts.configs.get(module, frozenset())
        self.nothing: dict[str, object] = {}
        for prefix, names in facts.nothing.items():
            if module.startswith(prefix):
                self.nothing |= names
        self.in_config = False

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        before, self.in_config = self.in_config, node.name in self.configs
        self.generic_visit(node)
        self.in_config = before
        return node

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id in self.nothing and isinstance(node.ctx, ast.Load):
            return _literal(self.nothing[node.id])
        return node

    def visit_keyword(self, node: ast.keyword) -> ast.keyword | None:
        """What is always nothing is not passed on."""
        if self.nothing.get(node.arg or "", "") is None:
            return None
        self.generic_visit(node)
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        written = ast.unparse(node)
        if written in self.nothing and isinstance(node.ctx, ast.Load):
            return _literal(self.nothing[written])
        if written in self.answers and isinstance(node.ctx, ast.Load):  # a property
            return _literal(self.answers[written])
        known = node.attr in self.values and isinstance(node.ctx, ast.Load)
        if known and self._is_settings(node.value):
            return ast.Constant(self.values[node.attr])
        self.generic_visit(node)
        return node

    def visit_Call(self, node: ast.Call) -> ast.expr:
        written = ast.unparse(node.func)
        if written in self.answers:
            return _literal(self.answers[written])
        self.generic_visit(node)
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        self.generic_visit(node)
        match node:
            case ast.Compare(
                left=ast.Constant(value=left), ops=[op], comparators=[ast.Constant(value=right)]
            ):
                match op:
                    case ast.Is() | ast.Eq():
                        return ast.Constant(left == right)
                    case ast.IsNot() | ast.NotEq():
                        return ast.Constant(left != right)
            case ast.Compare(
                left=ast.Constant(value=left), ops=[op], comparators=[ast.Tuple(elts=elements)]
            ) if all(isinstance(e, ast.Constant) for e in elements):
                found = left in [e.value for e in elements if isinstance(e, ast.Constant)]
                if isinstance(op, ast.In | ast.NotIn):
                    return ast.Constant(found == isinstance(op, ast.In))
        return node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        self.generic_visit(node)
        if isinstance(node.op, ast.Not) and isinstance(node.operand, ast.Constant):
            return ast.Constant(not node.operand.value)
        return node

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.expr:
        self.generic_visit(node)
        stops = isinstance(node.op, ast.Or)  # the truth value that ends it
        kept: list[ast.expr] = []
        for place, part in enumerate(node.values):
            if isinstance(part, ast.Constant):
                if bool(part.value) == stops:
                    kept.append(part)
                    break
                if place < len(node.values) - 1:
                    continue
            kept.append(part)
        return kept[0] if len(kept) == 1 else ast.BoolOp(node.op, kept)

    def visit_IfExp(self, node: ast.IfExp) -> ast.expr:
        self.generic_visit(node)
        if isinstance(node.test, ast.Constant):
            return node.body if node.test.value else node.orelse
        return node

    def visit_If(self, node: ast.If) -> ast.stmt | list[ast.stmt]:
        node.test = self.visit(node.test)
        if isinstance(node.test, ast.Constant):
            return self._all(node.body if node.test.value else node.orelse)
        node.body = self._all(node.body) or [ast.Pass()]
        node.orelse = self._all(node.orelse)
        return (
            node if node.orelse or not isinstance(node.body[0], ast.Pass) else ast.Expr(node.test)
        )

    def visit_Match(self, node: ast.Match) -> ast.stmt | list[ast.stmt]:
        node.subject = self.visit(node.subject)
        if isinstance(node.subject, ast.Constant):
            for case in node.cases:
                match case.pattern:
                    case ast.MatchValue(value=ast.Constant(value=value)) if not case.guard:
                        if value == node.subject.value:
                            return self._all(case.body)
                    case ast.MatchAs(pattern=None):
                        return self._all(case.body)
        self.generic_visit(node)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        arguments = node.args
        kept = [
            (argument, default)
            for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
            if self.nothing.get(argument.arg, "") is not None
        ]
        arguments.kwonlyargs = [argument for argument, _ in kept]
        arguments.kw_defaults = [default for _, default in kept]
        self.generic_visit(node)
        node.body = _until_it_returns(node.body) or [ast.Pass()]
        return node

    def _with_body(self, node: Any) -> ast.AST:
        """A block of which nothing is left is an empty one."""
        self.generic_visit(node)
        node.body = node.body or [ast.Pass()]
        return node

    visit_For = visit_While = visit_With = visit_Try = visit_ExceptHandler = _with_body

    def _all(self, body: list[ast.stmt]) -> list[ast.stmt]:
        done: list[ast.stmt] = []
        for statement in body:
            found = self.visit(statement)
            done += found if isinstance(found, list) else [] if found is None else [found]
        return _until_it_returns(done)

    def _is_settings(self, node: ast.expr) -> bool:
        match node:
            case ast.Name(id="self"):
                return self.in_config
            case ast.Name(id=name):
                return name in ROOTS
            case ast.Attribute(attr=name):
                return name in self.holders or name in ROOTS
            case _:
                return False


def _literal(value: object) -> ast.expr:
    return ast.parse(repr(value), mode="eval").body


def _until_it_returns(body: list[ast.stmt]) -> list[ast.stmt]:
    for place, statement in enumerate(body):
        if isinstance(statement, ast.Return | ast.Raise):
            return body[: place + 1]
    return body
