# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's fault injection: allocations and requests that fail where a test wants them to.

/proc/self/fail-nth makes the n-th allocation or request of this task fail, counted from now on;
what it reads as afterwards says whether it came to that. With make-it-fail set as well, and a
probability of 100, all that follow fail, too: a second way of getting memory does not help then.
What another task or an interrupt does is not counted. For the debug kernel only.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from guest.lib import errno_name, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEBUGFS = Path("/sys/kernel/debug")
KINDS = ("failslab", "fail_page_alloc", "fail_make_request")
BEYOND = 1 << 20
"""More than anything here needs."""
MOST = 3000
"""Failures in a row: a task that is stuck in a page fault gets on again."""


def set_up() -> None:
    """Have every kind of failure ready, and none of them happening."""
    if not (DEBUGFS / "failslab").is_dir():
        run("mount", "-t", "debugfs", "debugfs", DEBUGFS)
    for kind in KINDS:
        set_all(kind, {"verbose": 0, "interval": 1, "probability": 0, "stacktrace-depth": 0})
        set_all(kind, {"task-filter": "Y"})
    for kind in ("failslab", "fail_page_alloc"):
        set_all(kind, {"ignore-gfp-wait": "N"})
    # Memory of user space is not what is tested: those pages may be high ones.
    set_all("fail_page_alloc", {"ignore-gfp-highmem": "Y", "min-order": 0})
    mcl_current, mcl_future = 1, 2
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(mcl_current | mcl_future):
        raise OSError(ctypes.get_errno(), "mlockall")


def set_all(kind: str, values: dict[str, int | str]) -> None:
    """Write settings of one kind of failure."""
    for name, value in values.items():
        (DEBUGFS / kind / name).write_text(f"{value}\n")


class Injection:
    """What happened while something was injected."""

    def __init__(self) -> None:
        self.reached = False
        self.left = 0
        self.error = "OK"


def inject(number: int, function: Callable[[], object], *, on: bool = False) -> Injection:
    """Call a function of which the n-th allocation or request fails; with `on` all after it, too.

    It may raise OSError, or MemoryError where Python itself got no memory.
    """
    result = Injection()
    nth = os.open("/proc/thread-self/fail-nth", os.O_RDWR)
    task = os.open("/proc/thread-self/make-it-fail", os.O_RDWR)
    try:
        if on:
            for kind in KINDS:
                set_all(kind, {"times": MOST, "probability": 100})
            os.write(task, b"1")
        os.write(nth, b"%d" % number)
        try:
            function()
        except OSError as error:
            result.error = errno_name(error.errno or 0)
        except MemoryError:
            result.error = "ENOMEM"
        finally:
            os.write(task, b"0")
            result.left = int(os.pread(nth, 32, 0).strip(b"\0\n"))
            os.write(nth, b"0")
    finally:
        if on:
            for kind in KINDS:
                set_all(kind, {"probability": 0})
        os.close(nth)
        os.close(task)
    result.reached = not result.left
    return result


def needed(function: Callable[[], object]) -> int:
    """Call a function and return how many of its allocations and requests could have failed."""
    result = inject(BEYOND, function)
    if result.error != "OK":
        raise OSError(f"without a failure it ended with {result.error}")
    return BEYOND - result.left


@cache
def _code(module: str) -> tuple[int, int]:
    """Return where the code of a module is, which stays loaded from here on."""
    symbols = (line.split() for line in Path("/proc/kallsyms").read_text().splitlines())
    code = [int(word[0], 16) for word in symbols if word[3:] == [f"[{module}]"] and word[1] in "tT"]
    return min(code), max(code) + 4096


@contextmanager
def below(module: str, kinds: tuple[str, ...], probability: int) -> Iterator[None]:
    """Let what a module calls fail so often, in whichever task, while the block runs."""
    start, end = _code(module)
    for kind in kinds:
        set_all(kind, {"stacktrace-depth": 32, "require-start": start, "require-end": end})
        set_all(kind, {"times": -1, "task-filter": "N", "probability": probability})
    try:
        yield
    finally:
        for kind in kinds:
            set_all(kind, {"probability": 0, "task-filter": "Y", "stacktrace-depth": 0})
            set_all(kind, {"require-start": 0, "require-end": (1 << 64) - 1})


def leaks() -> list[str]:
    """Return what kmemleak says of memory that was lost since the boot."""
    file = DEBUGFS / "kmemleak"
    # What it meets for the first time it does not report yet.
    for _ in range(2):
        file.write_text("scan\n")
    return file.read_text().split("unreferenced object ")[1:]
