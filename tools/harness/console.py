# SPDX-License-Identifier: GPL-2.0-only
"""Tell the console lines that a kernel developer would not accept from all others."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.errors import FailureKind

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FIRST_INSTRUCTION = "harness: first instruction"
"""What ``init.sh`` prints first."""

REPORT_LINES = 120
LINES_BEFORE = 10

# "[   12.345678] ", and with PRINTK_CALLER "[   12.345678][    T1] "
_STAMP = re.compile(r"\[\s*\d+\.\d{6}\](?:\[\s*[TC]\d+\])? (?P<text>.*)")

_PANIC = re.compile(r"Kernel panic - not syncing")

_SPLATS = (
    # The kernel starts these lines itself, so they are looked for at the start only: a
    # program that logs the word WARNING is no splat.
    r"^WARNING: ",
    r"^BUG: (?!KCSAN: )",
    r"^BUG [\w-]+ \(",
    r"^watchdog: BUG: ",
    r"^kernel BUG at ",
    r"^Oops\b",
    r"^(general protection fault|invalid opcode|double fault|stack segment|divide error)\b.*:",
    r"^INFO: task .* blocked for more than \d+ seconds",
    r"^INFO: (possible|suspicious|inconsistent|trying to register non-static key)",
    r"^INFO: lockdep is turned off",
    r"^(rcu: )?INFO: rcu_\w+ .*(self-detected stall|detected (expedited )?stalls?)",
    r"^rcu: rcu_\w+ kthread (starved|timer wakeup)",
    r"^UBSAN: ",
    r"^ODEBUG: ",
    r"^refcount_t: ",
    r"^list_(add|del)(_rcu)? corruption",
    r"^slab .*: Slab cache still has objects",
    r"^kmem_cache_destroy .*: Slab cache still has objects",
    r"^kmemleak: \d+ new suspected memory leaks",
    r"^Out of memory: Killed process",
    r"^workqueue: .*(flushing|destroy_workqueue)",
    r"^NMI watchdog: Watchdog detected hard LOCKUP",
    r"^watchdog: Watchdog detected hard LOCKUP",
    # These have a prefix of their caller's.
    r"\bpage allocation failure: order:",
    r"\bscheduling while atomic\b",
    r"\bsleeping function called from invalid context\b",
    r"\bdm_put_device call missing\b",
)
_SPLAT = re.compile("|".join(_SPLATS))

# A report of a data race is many lines: the first of these, then each side and its stack, then on
# what, which may be our workqueue, and a ruler. Linux has races of its own, on top of us too: in an
# interrupt, or in what the block layer does to a bio of ours. So a race is ours if an access is
# made by a module of ours, or by a function that it has called for it. One is not that seems so:
# kthread_data() reads a task's flags in the tick, which the task itself changes meanwhile, in
# memalloc_noio_save(), of which the compiler makes lines of ours.
_RACE = re.compile(r"^BUG: KCSAN: ")
_NOT_OURS = re.compile(r"data-race in (\S+ / )?kthread_data\b")
_SIDE = re.compile(r" to 0x[0-9a-f]+ of \d+ bytes by .*:$")
_FRAME = re.compile(r"^ \S+\+0x[0-9a-f]+/0x[0-9a-f]+(?P<ours> \[dm_(remap|fault)\w*\])?")
_FRAMES = 2
_RULER = re.compile(r"^={60,}$")


@dataclass(frozen=True)
class Hit:
    """A line that fails the test."""

    kind: FailureKind
    line: str


def _text(line: str) -> str:
    """Return what the kernel said in a line, without the time: nothing if it was not the kernel."""
    stamped = _STAMP.match(line.strip())
    return stamped["text"] if stamped else ""


def classify(line: str, allowed: Sequence[re.Pattern[str]] = ()) -> Hit | None:
    """Return what is wrong with a console line, or nothing.

    Only lines of the kernel's own, which have a time stamp, can be wrong. Of a data race
    :class:`Console` judges the whole report.
    """
    line = line.strip()
    text = _text(line)
    if _PANIC.search(text):
        kind = FailureKind.PANIC
    elif _SPLAT.search(text):
        kind = FailureKind.SPLAT
    else:
        return None
    return None if any(pattern.search(text) for pattern in allowed) else Hit(kind, line)


class Console:
    """Follows the file that QEMU writes the console to."""

    def __init__(self, path: Path) -> None:
        """Follow a file that need not be there yet."""
        self.path = path
        self.allowed: list[re.Pattern[str]] = []
        self.hit: Hit | None = None
        self.races = Counter[str]()
        """Data races that have nothing to do with us, by the report's first line."""
        self._race = ""
        """The first line of the report that is being printed, while nothing in it is ours."""
        self._frames = 0
        """How many of its side's innermost frames are still to come."""
        self._offset = 0
        self._partial = ""

    @property
    def text(self) -> str:
        """Everything that was printed so far, over all boots."""
        return self.since(0)

    def since(self, mark: int) -> str:
        """What was printed after the console had :meth:`size` ``mark``."""
        data = self.path.read_bytes() if self.path.exists() else b""
        return data[mark:].decode(errors="replace").replace("\r", "")

    def report(self, line: str = "") -> str:
        """Return the lines around one that was found, or else the last ones."""
        lines = self.text.splitlines()
        if line in lines:
            first = max(lines.index(line) - LINES_BEFORE, 0)
            return "\n".join(lines[first : first + REPORT_LINES])
        return "\n".join(lines[-REPORT_LINES:])

    def size(self) -> int:
        """How many bytes were printed so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def forgive(self) -> None:
        """Forget what was found, as a test may that has reported it."""
        self.hit = None

    def poll(self) -> Hit | None:
        """Read what is new and return the worst line: a panic, or the first splat."""
        if self.size() > self._offset:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
            self._offset += len(data)
            *lines, self._partial = (self._partial + data.decode(errors="replace")).split("\n")
            for line in lines:
                self._note(classify(line, self.allowed) or self._race_of_ours(line.strip()))
        return self.hit

    def _race_of_ours(self, line: str) -> Hit | None:
        text = _text(line)
        if _RACE.search(text):
            self._race, self._frames = "" if _NOT_OURS.search(text) else line, 0
            self.races[text] += 1
        elif _RULER.search(text):
            self._race = ""
        elif _SIDE.search(text):
            self._frames = _FRAMES
        frame = _FRAME.search(text)
        if not self._race or not self._frames or frame is None:
            return None
        self._frames -= 1
        if not frame["ours"]:
            return None
        line, self._race = self._race, ""
        title = _text(line)
        self.races -= Counter([title])
        allowed = any(pattern.search(title) for pattern in self.allowed)
        return None if allowed else Hit(FailureKind.SPLAT, line)

    def _note(self, hit: Hit | None) -> None:
        if hit is not None and (self.hit is None or self._worse(hit.kind)):
            # A panic is named by what led to it, where something did.
            self.hit = Hit(hit.kind, self.hit.line if self.hit else hit.line)

    def _worse(self, kind: FailureKind) -> bool:
        assert self.hit is not None
        return kind is FailureKind.PANIC and self.hit.kind is not FailureKind.PANIC
