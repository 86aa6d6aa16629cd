# SPDX-License-Identifier: GPL-2.0-only
"""The one place that starts programs on the host."""

from __future__ import annotations

import os
import shlex
import subprocess
from typing import TYPE_CHECKING

from harness.errors import HarnessError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import TextIO

Argument = str | os.PathLike[str]


def run(argv: Sequence[Argument], *, timeout: float = 120.0) -> str:
    """Run a program to its end and return what it printed; raise if it fails.

    ``timeout`` is in seconds.
    """
    line = shlex.join(os.fspath(word) for word in argv)
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError as error:
        raise HarnessError(f"{argv[0]} is not installed: run tools/prepare") from error
    except subprocess.TimeoutExpired as error:
        raise HarnessError(f"{line}: no end after {timeout:g} s") from error
    if done.returncode != 0:
        raise HarnessError(f"{line}: exit status {done.returncode}\n{done.stderr.strip()}")
    return done.stdout


def spawn(
    argv: Sequence[Argument], *, log: Path, pass_fds: Sequence[int]
) -> subprocess.Popen[bytes]:
    """Start a program that is killed when the calling thread ends, however that happens.

    Its output goes to ``log``; it inherits ``pass_fds`` under their own numbers.
    """
    with log.open("ab") as output:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=pass_fds,
            start_new_session=True,
        )


def attach(argv: Sequence[Argument], *, stdout: TextIO | None = None) -> int:
    """Run a program on the caller's own terminal and return its exit status."""
    return subprocess.run(argv, stdout=stdout, check=False).returncode
