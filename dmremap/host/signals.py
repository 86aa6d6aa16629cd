# SPDX-License-Identifier: GPL-2.0-only
"""Signals wait while something is done that must not be left half done.

Blocking them is not enough: a thread that does not, such as one that draws progress, takes them,
and Python has the main thread act. So what acts waits, too.
"""

import contextlib
import signal
import threading
from collections.abc import Collection, Iterator
from typing import Final

ENDING: Final = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})
"""What a person, a terminal or a service manager ends a program with."""

_came: Final[list[int]] = []
"""What has come and waits."""


def _note(number: int, _frame: object) -> None:
    _came.append(number)


@contextlib.contextmanager
def held(which: Collection[int] | None = None) -> Iterator[None]:
    """Let signals wait while the block runs, all of them unless some are named.

    Programs that are started meanwhile inherit that: where there may be some, name ENDING.
    """
    numbers = signal.valid_signals() if which is None else which
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        for number in ENDING.intersection(numbers):
            handler = signal.getsignal(number)
            if callable(handler) and handler is not _note:
                handlers[number] = handler
                signal.signal(number, _note)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if handlers and _came:
            first = _came[0]
            _came.clear()
            signal.raise_signal(first)


def ending() -> bool:
    """Say whether a signal waits that is to end the program."""
    # One that is ignored is pending, too, as long as it is blocked.
    waiting = {
        number for number in signal.sigpending() if signal.getsignal(number) is not signal.SIG_IGN
    }
    return bool(_came) or bool(waiting & ENDING)
