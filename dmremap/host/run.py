# SPDX-License-Identifier: GPL-2.0-only
"""The one place that runs other programs.

Argument lists only, never a shell; a fixed locale, so that what is parsed does not depend on who
runs it; no standard input, so that nothing can sit and wait for an answer; always a deadline.
"""

import logging
import os
import shlex
import shutil
import subprocess
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from dmremap.errors import Failure, NotFound

log = logging.getLogger(__name__)

# sbin first: an unprivileged user's PATH often lacks it, and blkid and modprobe live there.
SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True, slots=True)
class Completed:
    """A program that has ended."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str

    @property
    def complaint(self) -> str:
        """What it said, in one line."""
        text = self.stderr.strip() or self.stdout.strip()
        return "; ".join(line.strip() for line in text.splitlines() if line.strip())


def environment() -> dict[str, str]:
    """Return the environment in which programs run."""
    env = {"PATH": SYSTEM_PATH, "LC_ALL": "C.UTF-8", "TERM": os.environ.get("TERM", "dumb")}
    for keep in ("HOME", "TMPDIR", "XDG_RUNTIME_DIR"):
        if keep in os.environ:
            env[keep] = os.environ[keep]
    return env


def which(program: str) -> str | None:
    """Return where a program is, or None."""
    return shutil.which(program, path=SYSTEM_PATH)


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    check: bool = True,
    ok: Collection[int] = (0,),
    timeout: float = 60.0,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
) -> Completed:
    """Run a program to its end and return what it wrote.

    With `check`, an exit status that is not in `ok` is a Failure. A program that is missing is
    always NotFound and one that outlives its deadline is killed and always a Failure.
    """
    words = tuple(os.fspath(word) for word in argv)
    log.debug("+ %s", shlex.join(words))
    try:
        done = subprocess.run(
            words,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
            env={**environment(), **(env or {})},
            check=False,
        )
    except FileNotFoundError:
        raise NotFound("DMR-E301", f"the program {words[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise Failure("DMR-E102", f"{words[0]} did not finish within {timeout:g} seconds") from None
    result = Completed(words, done.returncode, done.stdout, done.stderr)
    if check and result.returncode not in ok:
        raise Failure(
            "DMR-E101",
            f"{shlex.join(words)} failed ({result.returncode})"
            + (f": {result.complaint}" if result.complaint else ""),
        )
    return result
