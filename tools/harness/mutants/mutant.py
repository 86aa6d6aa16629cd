# SPDX-License-Identifier: GPL-2.0-only
"""One planted error: a piece of one file that is replaced."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """The text between two offsets of a file is replaced by another one of as many lines."""

    file: str
    """Below the checkout."""
    line: int
    column: int
    """Both from 1."""
    operator: str
    """What kind of error it is."""
    old: str
    new: str
    start: int
    """Offset of ``old`` in the file, in characters."""

    @property
    def key(self) -> str:
        """What tells it from all others of the same sources."""
        return f"{self.file}:{self.line}:{self.column} {self.operator}: {self.new.strip()}"

    @property
    def place(self) -> str:
        """The line it is in."""
        return f"{self.file}:{self.line}"

    @property
    def last_line(self) -> int:
        """The last line that it replaces something in."""
        return self.line + self.old.count("\n")

    def apply(self, text: str) -> str:
        """Return the file with the error."""
        end = self.start + len(self.old)
        if text[self.start : end] != self.old:
            raise ValueError(f"{self.key}: the file has changed")
        return text[: self.start] + self.new + text[end:]

    def diff(self, text: str) -> str:
        """Return the lines that differ, as a diff does."""
        changed = slice(self.line - 1, self.last_line)
        old, new = text.split("\n")[changed], self.apply(text).split("\n")[changed]
        return "\n".join(
            [f"-{line}" for line in old] + [f"+{line}" for line in new if line.strip()]
        )


def at(file: str, text: str, start: int, end: int, operator: str, new: str) -> Mutant:
    """Make a mutant of a piece of a file; lines that go are left empty, so that none moves."""
    old = text[start:end]
    line = text.count("\n", 0, start) + 1
    column = start - text.rfind("\n", 0, start)
    new += "\n" * (old.count("\n") - new.count("\n"))
    return Mutant(file, line, column, operator, old, new, start)
