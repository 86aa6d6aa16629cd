# SPDX-License-Identifier: GPL-2.0-only
"""What can go wrong, by name."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class HarnessError(Exception):
    """The harness cannot do what was asked; the message says what to do about it."""


class FailureKind(StrEnum):
    """How a machine failed."""

    BOOT = "BOOT"
    """Died before the first instruction of ours, more than once."""
    PANIC = "PANIC"
    """The kernel panicked."""
    SPLAT = "SPLAT"
    """The console has a line that a kernel developer would not accept."""
    HANG = "HANG"
    """No answer by the deadline."""
    GONE = "GONE"
    """QEMU ended and the console does not say why."""


class MachineFailure(HarnessError):
    """The guest failed, whatever the exit status of the command it was running."""

    def __init__(self, kind: FailureKind, line: str, tail: str, workdir: Path) -> None:
        """Name the console line, and show what is around it."""
        super().__init__(f"{kind}: {line}\n--- console, {workdir}/console.log:\n{tail}")
        self.kind = kind
        self.line = line
        self.tail = tail
        self.workdir = workdir
