# SPDX-License-Identifier: GPL-2.0-only
"""Errors that can be planted in a C file, found by its tokens.

Inside functions only, and not in comments, strings, declarations, labels or preprocessor lines. Of
statements that are deleted those are left out that emulation does not show: barriers (and an
smp_store_release() that becomes WRITE_ONCE() is no operator at all), assertions and hints to the
scheduler. A processor that TCG emulates orders all stores, whatever the code says.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.mutants.mutant import Mutant, at

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TOKEN = re.compile(
    r"""
      (?P<comment>/\*.*?\*/|//[^\n]*)
    | (?P<directive>^[ \t]*\#(?:\\\n|/\*.*?\*/|[^\n])*)
    | (?P<string>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
    | (?P<number>\d[\w.]*)
    | (?P<name>[A-Za-z_]\w*)
    | (?P<mark><<=|>>=|\.\.\.|->|\+\+|--|<<|>>|<=|>=|==|!=|&&|\|\||[-+*/%&|^]=|[^\s\w])
    """,
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
RELATIONAL = {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "=="}
LOGICAL = {"&&": "||", "||": "&&"}
ARITHMETIC = {
    "+": "-",
    "-": "+",
    "/": "*",
    "%": "/",
    "<<": ">>",
    ">>": "<<",
    "&": "|",
    "|": "&",
    "+=": "-=",
    "-=": "+=",
    "|=": "&=",
    "&=": "|=",
    "++": "--",
    "--": "++",
}
PREFIX_TOO = {"+", "-", "&"}
"""These are operators of two operands only after one."""
ASSIGNMENTS = {"=", "+=", "-=", "*=", "/=", "%=", "|=", "&=", "^=", "<<=", ">>=", "++", "--"}
WORDS = {"true": "false", "false": "true", "continue": "break", "break": "continue"}
TYPE_WORDS = {
    *("static", "const", "struct", "union", "enum", "unsigned", "signed", "int", "long", "short"),
    *("char", "bool", "void", "volatile", "register", "extern", "typedef"),
}
TYPE = re.compile(r"(?:[us](?:8|16|32|64)|__\w+|\w+_t)\Z")
INVISIBLE = re.compile(
    r"lockdep_\w+|smp_\w*mb\w*|[rw]?mb|barrier|might_sleep\w*|cond_resched\w*|WARN_ON\w*"
    r"|BUILD_BUG_ON\w*|static_assert|prefetchw?|cpu_relax|__acquire|__release"
)
NUMBER = re.compile(r"(0[xX][0-9a-fA-F]+|\d+)([uUlL]*)\Z")
ERROR = re.compile(r"-E[A-Z0-9]+\Z")


@dataclass(frozen=True)
class Token:
    """A word of the language, and where it is."""

    kind: str
    text: str
    start: int

    @property
    def end(self) -> int:
        """The offset behind it."""
        return self.start + len(self.text)


def tokens(text: str) -> list[Token]:
    """Return the tokens of a file without comments and directives."""
    return [
        Token(kind, found.group(), found.start())
        for found in TOKEN.finditer(text)
        if (kind := found.lastgroup or "") not in ("comment", "directive")
    ]


def closing(words: Sequence[Token], opening: int) -> int:
    """Return the index of the token that closes what the one at an index opens."""
    depth = 0
    for index in range(opening, len(words)):
        text = words[index].text
        if text in ("(", "[", "{"):
            depth += 1
        elif text in (")", "]", "}"):
            depth -= 1
            if not depth:
                return index
    return len(words) - 1


def returns(head: Sequence[str]) -> tuple[str, ...]:
    """Return what a function of this head may return instead.

    >>> returns(["static", "int", "f", "(", "void", ")"])
    ('0', '-EIO')
    >>> returns(["const", "char", "*", "f", "(", "bool", "b", ")"])
    ('NULL',)
    """
    kind = set(head[: head.index("(")]) if "(" in head else set()
    if "*" in kind:
        return ("NULL",)
    if "bool" in kind:
        return ("true", "false")
    return ("0", "-EIO") if "int" in kind and "unsigned" not in kind else ("0",)


def bodies(words: Sequence[Token]) -> Iterator[tuple[Sequence[str], Sequence[Token]]]:
    """Yield each function: its head, and the tokens of its body without its braces."""
    begin = index = 0
    while index < len(words):
        text = words[index].text
        if text == "{":
            end = closing(words, index)
            head = [word.text for word in words[begin:index]]
            if ")" in head and "=" not in head:
                yield head, words[index + 1 : end]
                begin = end + 1
            index = end
        elif text == ";":
            begin = index + 1
        index += 1


def _statement_end(words: Sequence[Token], index: int) -> int:
    while index < len(words) and words[index].text != ";":
        opens = words[index].text in ("(", "[", "{")
        index = (closing(words, index) if opens else index) + 1
    return index


def _declares(words: Sequence[Token], index: int) -> bool:
    if words[index].text in TYPE_WORDS:
        return True
    if words[index].kind != "name":
        return False
    after = index + 1
    while after < len(words) and words[after].text == "*":
        after += 1
    return after < len(words) and words[after].kind == "name"


class _Finder:
    """Walks the statements of one file."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.text = text
        self.found: list[Mutant] = []
        self.instead: tuple[str, ...] = ()

    def plant(self, start: int, end: int, operator: str, new: str) -> None:
        self.found.append(at(self.file, self.text, start, end, operator, new))

    def body(self, head: Sequence[str], words: Sequence[Token]) -> None:
        self.instead = returns(head)
        index = 0
        while index < len(words):
            index = self.statement(words, index)

    def statement(self, words: Sequence[Token], index: int) -> int:
        """Take in what begins here; return where the next statement begins."""
        word = words[index]
        after = words[index + 1].text if index + 1 < len(words) else ""
        if word.text in ("{", "}", ";", "else", "do"):
            return index + 1
        if word.text in ("if", "while", "switch", "for"):
            return self.head(words, index)
        if word.text in ("case", "default") or (word.kind == "name" and after == ":"):
            while words[index].text != ":":
                index += 1
            return index + 1
        end = _statement_end(words, index)
        if word.kind == "name" and after == "(":
            # A loop that is a macro: what follows it is no operator.
            close = closing(words, index + 1)
            behind = words[close + 1] if close + 1 < len(words) else word
            if behind.text == "{" or behind.kind == "name":
                self.expression(words[index + 2 : close])
                return close + 1
        if word.text == "return":
            self.returned(words[index + 1 : end])
        elif word.text in WORDS:
            self.plant(word.start, word.end, "loop", WORDS[word.text])
        elif word.text != "goto" and not _declares(words, index):
            self.expression(words[index:end])
            self.deleted(words[index:end])
        return end + 1

    def head(self, words: Sequence[Token], index: int) -> int:
        close = closing(words, index + 1)
        inside = words[index + 2 : close]
        if words[index].text in ("if", "while") and inside:
            start, end = inside[0].start, inside[-1].end
            self.plant(start, end, "negate", f"!({self.text[start:end]})")
        self.expression(inside)
        return close + 1

    def returned(self, words: Sequence[Token]) -> None:
        if not words:
            return
        start, end = words[0].start, words[-1].end
        value = self.text[start:end]
        constant = value in ("0", "NULL", *WORDS) or ERROR.match(value)
        for new in self.instead:
            if new != value and not (new.startswith("-E") and ERROR.match(value)):
                self.plant(start, end, "return", new)
        if not constant:
            self.expression(words)

    def deleted(self, words: Sequence[Token]) -> None:
        calls = any(word.text == "(" for word in words)
        assigns = any(word.text in ASSIGNMENTS for word in words)
        if words and (calls or assigns) and not INVISIBLE.fullmatch(words[0].text):
            self.plant(words[0].start, words[-1].end, "delete", "")

    def expression(self, words: Sequence[Token]) -> None:
        index = 0
        while index < len(words):
            word = words[index]
            if word.text in ("sizeof", "offsetof", "typeof") and index + 1 < len(words):
                index = closing(words, index + 1)
            elif word.kind == "mark":
                self.mark(words, index)
            elif word.kind == "number":
                self.number(word)
            elif word.text in ("true", "false"):
                self.plant(word.start, word.end, "constant", WORDS[word.text])
            index += 1

    def mark(self, words: Sequence[Token], index: int) -> None:
        word = words[index]
        if word.text == "!":
            self.plant(word.start, word.end, "not", "")
        for name, table in (
            ("relational", RELATIONAL),
            ("logical", LOGICAL),
            ("arithmetic", ARITHMETIC),
        ):
            if word.text in table and (word.text not in PREFIX_TOO or _operand(words, index)):
                self.plant(word.start, word.end, name, table[word.text])

    def number(self, word: Token) -> None:
        if not (match := NUMBER.match(word.text)):
            return
        digits, suffix = match.groups()
        octal = len(digits) > 1 and digits[0] == "0" and digits.isdigit()
        value = int(digits, 8 if octal else 0)
        for other in (value + 1, value - 1)[: 2 if value else 1]:
            new = f"{other:#x}" if digits[:2].lower() == "0x" else str(other)
            self.plant(word.start, word.end, "constant", new + suffix)


def _operand(words: Sequence[Token], index: int) -> bool:
    """Whether what is before an operator can be its left side."""
    if not index:
        return False
    before = words[index - 1]
    if before.text == ")":
        # The type of a cast is none.
        opening = index - 1
        depth = 0
        while opening >= 0:
            depth += {")": 1, "(": -1}.get(words[opening].text, 0)
            if not depth:
                break
            opening -= 1
        inside = words[opening + 1 : index - 1]
        called = opening > 0 and words[opening - 1].kind == "name"
        return called or not all(
            word.text in TYPE_WORDS or word.text == "*" or TYPE.match(word.text) for word in inside
        )
    return before.kind in ("name", "number", "string") or before.text == "]"


def find(file: str, text: str) -> list[Mutant]:
    """Return all errors that can be planted in a file."""
    finder = _Finder(file, text)
    for head, body in bodies(tokens(text)):
        finder.body(head, body)
    return finder.found
