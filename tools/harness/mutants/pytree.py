# SPDX-License-Identifier: GPL-2.0-only
"""Errors that can be planted in a Python file, found by its syntax tree.

The text is replaced where the tree says it is, so that all else stays as it was written. Left out:
docstrings, annotations, imports, ``if TYPE_CHECKING``, ``__repr__``, and what is inside of an
f-string, of which Python 3.11 does not know the place.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from harness.mutants.mutant import Mutant, at

if TYPE_CHECKING:
    from collections.abc import Iterator

COMPARED: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: (r"is\s+not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: (r"not\s+in", "in"),
}
CALCULATED: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "+"),
    ast.FloorDiv: ("//", "*"),
    ast.Div: ("/", "*"),
    ast.Mod: ("%", "//"),
    ast.LShift: ("<<", ">>"),
    ast.RShift: (">>", "<<"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
}
BETWEEN = re.compile(r"#[^\n]*")
NOT = re.compile(r"not[ \t]*")


class _Finder:
    """Walks the tree of one file."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.text = text
        self.found: list[Mutant] = []
        # The tree counts bytes of a line.
        self.lines = text.encode().splitlines(keepends=True)
        self.begins = [0]
        for line in self.lines:
            self.begins.append(self.begins[-1] + len(line.decode()))

    def offset(self, line: int, column: int) -> int:
        return self.begins[line - 1] + len(self.lines[line - 1][:column].decode())

    def span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return (
            self.offset(node.lineno, node.col_offset),
            self.offset(node.end_lineno, node.end_col_offset),
        )

    def plant(self, start: int, end: int, operator: str, new: str) -> None:
        self.found.append(at(self.file, self.text, start, end, operator, new))

    def replace(self, node: ast.expr | ast.stmt, operator: str, new: str) -> None:
        self.plant(*self.span(node), operator, new)

    def between(
        self, left: ast.expr, right: ast.expr, operator: str, swap: tuple[str, str]
    ) -> None:
        """Replace the operator between two operands."""
        start, end = self.span(left)[1], self.span(right)[0]
        gap = BETWEEN.sub(lambda found: " " * len(found[0]), self.text[start:end])
        pattern = swap[0] if swap[0][0].isalpha() else re.escape(swap[0])
        if found := re.search(pattern, gap):
            self.plant(start + found.start(), start + found.end(), operator, swap[1])

    def walk(self, node: ast.AST) -> None:
        if isinstance(node, ast.JoinedStr | ast.Import | ast.ImportFrom):
            return
        if isinstance(node, ast.FunctionDef) and node.name == "__repr__":
            return
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        self.visit(node)
        for child in _children(node):
            self.walk(child)

    def visit(self, node: ast.AST) -> None:
        match node:
            case ast.Compare():
                left = node.left
                for operator, right in zip(node.ops, node.comparators, strict=True):
                    self.between(left, right, "relational", COMPARED[type(operator)])
                    left = right
            case ast.BoolOp():
                swap = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
                for left, right in zip(node.values, node.values[1:], strict=False):
                    self.between(left, right, "logical", swap)
            case ast.BinOp() if type(node.op) in CALCULATED and not _is_text(node.left):
                self.between(node.left, node.right, "arithmetic", CALCULATED[type(node.op)])
            case ast.UnaryOp(op=ast.Not()):
                start = self.span(node)[0]
                word = NOT.match(self.text, start)
                assert word is not None
                self.plant(start, word.end(), "not", "")
            case ast.Constant():
                self.constant(node)
            case ast.expr():
                pass
            case _:
                self.statement(node)

    def statement(self, node: ast.AST) -> None:
        match node:
            case ast.If() | ast.While():
                self.negate(node.test)
            case ast.Return(value=ast.expr() as value) if not _is_plain(value):
                self.replace(value, "return", "None")
            case ast.Expr(value=ast.Call()) | ast.Raise() | ast.AugAssign() | ast.Assign():
                if node.col_offset:  # or nothing can be imported
                    self.replace(node, "delete", "pass")
            case ast.Continue():
                self.replace(node, "loop", "break")
            case ast.Break():
                self.replace(node, "loop", "continue")
            case _:
                pass

    def negate(self, test: ast.expr) -> None:
        start, end = self.span(test)
        self.plant(start, end, "negate", f"(not ({self.text[start:end]}))")

    def constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self.replace(node, "constant", str(not node.value))
        elif isinstance(node.value, int):
            start, end = self.span(node)
            if self.text[start:end].isdigit():
                self.replace(node, "constant", str(node.value + 1))
                if node.value:
                    self.replace(node, "constant", str(node.value - 1))


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)
    )


def _is_plain(value: ast.expr) -> bool:
    """Whether returning None instead is no error, or one that another operator makes."""
    return isinstance(value, ast.Constant) and (value.value is None or value.value in (True, False))


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what is below a node and can be wrong at run time."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_comment"):
            continue
        if isinstance(node, ast.arguments) and name not in ("defaults", "kw_defaults"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield child


def find(file: str, text: str) -> list[Mutant]:
    """Return all errors that can be planted in a file."""
    finder = _Finder(file, text)
    finder.walk(ast.parse(text))
    return sorted(finder.found, key=lambda one: (one.start, one.operator, one.new))
