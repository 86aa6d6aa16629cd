# SPDX-License-Identifier: GPL-2.0-only
"""Notes of what is being done and would stay half done if this process were killed.

A note is a file in /run, gone with the boot, and its writer holds a lock on it: where nobody does,
the writer is gone, and whoever finds it finishes or takes back what it says. It is there as a whole
before that begins, and until it has ended. Who cannot write one goes on without.
"""

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dmremap.host import signals

DIRECTORY: Final = Path("/run/dmremap/begun")


@dataclass(frozen=True, slots=True)
class Note:
    """What a process that is gone had begun, and what it says of that. when: seconds since 1970."""

    path: Path
    kind: str
    about: Mapping[str, object]
    when: float

    def end(self) -> None:
        """Forget it: nothing of it is left."""
        self.path.unlink(missing_ok=True)


@dataclass(slots=True)
class Own:
    """A note of this process. kept: it stays when the process has gone on, for the next one."""

    kept: bool = False


@contextlib.contextmanager
def noted(kind: str, *, directory: Path | None = None, **about: str | int) -> Iterator[Own]:
    """Have a note while the block runs."""
    import json  # who only asks notes nothing

    where = DIRECTORY if directory is None else directory
    own = Own()
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            _write(stack, where, json.dumps({"kind": kind, **about}), own)
        yield own


def _write(stack: contextlib.ExitStack, where: Path, text: str, own: Own) -> None:
    import secrets

    with contextlib.suppress(FileNotFoundError):
        where.parent.mkdir(mode=0o755, exist_ok=True)
    where.mkdir(mode=0o755, exist_ok=True)
    fd = os.open(where, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    stack.callback(os.close, fd)
    fcntl.flock(fd, fcntl.LOCK_EX)
    os.write(fd, text.encode())
    # No number of a process: another one may have it by the time that the note is found.
    path = where / secrets.token_hex(8)
    # A signal must not come between it and what takes it away.
    with signals.held(signals.ENDING):
        # It has its name when it is whole and locked. (With src_dir_fd the link is followed.)
        os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=fd)
        # The name goes before the lock does, or who waits for that would find what has ended.
        stack.callback(_forget, path, own)


def _forget(path: Path, own: Own) -> None:
    if not own.kept:
        with contextlib.suppress(OSError):
            path.unlink()


@contextlib.contextmanager
def left(*, directory: Path | None = None) -> Iterator[list[Note]]:
    """Have the notes of processes that are gone while the block runs, the newest first.

    They are ours as long, so that nobody else does the same.
    """
    import json

    where = DIRECTORY if directory is None else directory
    found: list[Note] = []
    with contextlib.ExitStack() as stack:
        for path in _paths(where):
            with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
                flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
                fd = os.open(path, flags)
                stack.callback(os.close, fd)
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                info = os.fstat(fd)
                # Without a name it has ended between its being found and being locked.
                ours = info.st_nlink and info.st_uid == os.geteuid()
                if not ours or not stat.S_ISREG(info.st_mode):
                    continue
                about = dict(json.loads(os.read(fd, 1 << 16)))
                kind = str(about.pop("kind"))
                found.append(Note(path, kind, about, info.st_mtime))
        yield sorted(found, key=lambda note: note.when, reverse=True)


def _paths(where: Path) -> list[Path]:
    try:
        return sorted(where.iterdir())
    except OSError:
        return []
