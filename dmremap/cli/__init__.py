# SPDX-License-Identifier: GPL-2.0-only
"""The command line: arguments in, words out.

Each verb is a module of this package that exposes `command`, a click command whose function
returns a `Result`. Modules are imported only when their verb is called, and click itself only
when there is more to do than to print the version.
"""

import os
import sys
from collections.abc import Sequence

from dmremap import __version__


def _open_closed() -> None:
    """Keep closed standard descriptors from becoming those of devices; writing to them fails."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDONLY)
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def _printed(text: str) -> bool:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError:
        return False  # what is said about it takes more than is imported yet
    return True


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _take_signals() -> None:
    """Let a service manager's stop, or a terminal that goes away, be what Ctrl-C is.

    What was begun is taken back then. And the kernel does not give up what it is just doing, as it
    does for a process that a signal kills: a device whose resume failed for that would stay
    suspended.
    """
    # Not at the top: that would be a good part of what --version takes.
    import signal
    import threading

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:  # else it is ignored: nohup
                signal.signal(number, _interrupt)


def main(argv: Sequence[str] | None = None) -> int:
    """Run dmremapctl and return its exit code."""
    _open_closed()
    # Not list(): in this package that is the verb, once it is imported.
    args = [*(sys.argv[1:] if argv is None else argv)]
    if args == ["--version"] and _printed(f"dmremapctl {__version__}\n"):
        return 0
    _take_signals()
    try:
        from dmremap.cli.app import run
    except ModuleNotFoundError as err:
        sys.stderr.write(f"dmremapctl: the Python package {err.name} is missing [DMR-E308]\n")
        return 3
    return run(args)
