# SPDX-License-Identifier: GPL-2.0-only
"""What has become of the mutants, kept as lines of JSON that are only ever added to.

A line is of a step that a mutant has passed, or its end. What was written when a run was stopped,
by its time or by a power cut, counts the next time.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class End(StrEnum):
    """How a mutant ends."""

    KILLED = "killed"
    SURVIVED = "survived"
    STILLBORN = "stillborn"
    """It does not compile."""
    EQUAL = "equal"
    """The compiler makes the same of it as of the original."""


NO_MUTANTS = (End.STILLBORN, End.EQUAL)
"""Another one is drawn instead."""


@dataclass
class Fate:
    """What is known of one mutant."""

    key: str
    end: End | None = None
    stage: str = ""
    how: str = ""
    seconds: float = 0.0
    passed: set[str] = field(default_factory=set)
    """The steps that did not notice it."""


@dataclass(frozen=True)
class Row:
    """One line of the file."""

    key: str
    step: str = ""
    end: End | None = None
    stage: str = ""
    how: str = ""
    seconds: float = 0.0

    def line(self) -> str:
        """Return it as JSON, without what is empty."""
        fields = {name: value for name, value in vars(self).items() if value}
        return json.dumps(fields) + "\n"


def rows(text: str) -> list[Row]:
    """Read the file; a last line that is torn has not been written."""
    found = []
    for line in text.splitlines():
        try:
            fields = json.loads(line)
        except ValueError:
            continue
        if "end" in fields:
            fields["end"] = End(fields["end"])
        found.append(Row(**fields))
    return found


def fates(written: Iterable[Row]) -> dict[str, Fate]:
    """Add the lines up. The first end of a mutant counts: two parts may have met the same one."""
    found: dict[str, Fate] = {}
    for row in written:
        fate = found.setdefault(row.key, Fate(row.key))
        if fate.end:
            continue
        fate.seconds += row.seconds
        if row.end:
            fate.end, fate.stage, fate.how = row.end, row.stage, row.how
        else:
            fate.passed.add(row.step)
    return found


class Store:
    """The file."""

    def __init__(self, path: Path) -> None:
        """Name it; it is made with its first line."""
        self.path = path

    def read(self) -> dict[str, Fate]:
        """Return what is known of each mutant."""
        if not self.path.exists():
            return {}
        return fates(rows(self.path.read_text(errors="replace")))

    def add(self, row: Row) -> None:
        """Write a line, in one piece: other parts may be writing, too."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        append(self.path, row.line())


def append(path: Path, line: str) -> None:
    """Add a line to a file in one piece, after a torn one on a line of its own."""
    with path.open("ab+") as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
            if file.read(1) != b"\n":
                line = "\n" + line
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())
