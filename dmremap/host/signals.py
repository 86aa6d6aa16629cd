# SPDX-License-Identifier: GPL-2.0-only
"""Signals wait while something is done that must not be left half done."""

import contextlib
import signal
from collections.abc import Collection, Iterator
from typing import Final

ENDING: Final = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})
"""What a person, a terminal or a service manager ends a program with."""


@contextlib.contextmanager
def held(which: Collection[int] | None = None) -> Iterator[None]:
    """Let signals wait while the block runs, all of them unless some are named.

    Programs that are started meanwhile inherit that: where there may be some, name ENDING.
    """
    some = signal.valid_signals() if which is None else which
    before = signal.pthread_sigmask(signal.SIG_BLOCK, some)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ending() -> bool:
    """Say whether a signal waits that is to end the program."""
    return bool(signal.sigpending() & ENDING)
