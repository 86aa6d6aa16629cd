# SPDX-License-Identifier: GPL-2.0-only
"""The one place that runs other programs.

Argument lists only, never a shell; a fixed locale, so that what is parsed does not depend on who
runs it; no standard input, so that nothing can sit and wait for an answer; always a deadline.
"""

import contextlib
import logging
import os
import shlex
import shutil
import subprocess
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from dmremap.errors import Failure, NotFound

log = logging.getLogger(__name__)
# Who wants to see something says so; Python would show warnings unasked.
logging.getLogger("dmremap").addHandler(logging.NullHandler())

# sbin first: an unprivileged user's PATH often lacks it, and blkid and modprobe live there.
SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"


_KILLED_SECONDS: Final = 1.0


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
    always NotFound and one that outlives its deadline is killed and always a Failure, a second
    later at the latest: what waits for a disk cannot be killed, and is not waited for.
    """
    words = tuple(os.fspath(word) for word in argv)
    log.debug("+ %s", shlex.join(words))
    try:
        child = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            env={**environment(), **(env or {})},
        )
    except FileNotFoundError:
        raise NotFound("DMR-E301", f"the program {words[0]} is not installed") from None
    try:
        out, err = child.communicate(stdin, timeout=timeout)
    except BaseException as problem:
        _leave(child)
        if not isinstance(problem, subprocess.TimeoutExpired):
            raise
        late = f"{words[0]} did not finish within {timeout:g} seconds"
        raise Failure("DMR-E102", late) from None
    result = Completed(words, child.returncode, out, err)
    if check and result.returncode not in ok:
        raise Failure(
            "DMR-E101",
            f"{shlex.join(words)} failed ({result.returncode})"
            + (f": {result.complaint}" if result.complaint else ""),
        )
    return result


def session(leader: int) -> list[int]:
    """Return the processes of a session that have not ended, by the id of its leader."""
    if leader <= 0:  # the kernel's own threads are in session 0
        raise ValueError(f"no program has the id {leader}")
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it has gone meanwhile
                with open(f"/proc/{entry.name}/stat", encoding="utf-8", errors="replace") as file:
                    # Of proc(5): the name in parentheses, then state, parent, group, session.
                    state, _, _, its_session = file.read().rpartition(")")[2].split()[:4]
                if state not in "ZX" and int(its_session) == leader:
                    found.append(int(entry.name))
    return found


def _leave(child: subprocess.Popen[str]) -> None:
    """Kill a program, and wait for its end only as long as one that can be killed takes."""
    child.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.communicate(timeout=_KILLED_SECONDS)
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe:
            with contextlib.suppress(OSError):  # what could not be written to it
                pipe.close()
