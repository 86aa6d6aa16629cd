# SPDX-License-Identifier: GPL-2.0-only
"""Notes of what is being done and would stay half done if this process were killed.

A note is a file in /run, gone with the boot, and its writer holds a lock on it: where nobody does,
the writer is gone, and whoever finds it finishes or takes back what it says. It is there as a whole
before that begins, and until it has ended. Who cannot write one goes on without.
"""

import contextlib
import fcntl
import itertools
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

DIRECTORY: Final = Path("/run/dmremap/begun")

_numbers: Final = itertools.count()


@dataclass(frozen=True, slots=True)
class Note:
    """What a process that is gone had begun, and what it says of that."""

    path: Path
    kind: str
    about: Mapping[str, object]

    def end(self) -> None:
        """Forget it: nothing of it is left."""
        self.path.unlink(missing_ok=True)


@contextlib.contextmanager
def noted(kind: str, *, directory: Path | None = None, **about: str | int) -> Iterator[None]:
    """Have a note while the block runs."""
    where = DIRECTORY if directory is None else directory
    path = where / f"{os.getpid()}-{next(_numbers)}"
    with contextlib.ExitStack() as stack:
        stack.callback(_forget, path)
        with contextlib.suppress(OSError):
            _write(stack, path, json.dumps({"kind": kind, **about}))
        yield


def _forget(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _write(stack: contextlib.ExitStack, path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    fd = os.open(path.parent, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    stack.callback(os.close, fd)
    fcntl.flock(fd, fcntl.LOCK_EX)
    os.write(fd, text.encode())
    # It has its name when it is whole and locked. (With src_dir_fd the link is followed.)
    os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=fd)


@contextlib.contextmanager
def left(*, directory: Path | None = None) -> Iterator[list[Note]]:
    """Have the notes of processes that are gone while the block runs, the newest first.

    They are ours as long, so that nobody else does the same.
    """
    where = DIRECTORY if directory is None else directory
    found: list[tuple[int, Note]] = []
    with contextlib.ExitStack() as stack:
        for path in _paths(where):
            with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
                stack.callback(os.close, fd)
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                about = json.loads(os.read(fd, 1 << 16))
                kind = str(about.pop("kind"))
                found.append((os.fstat(fd).st_mtime_ns, Note(path, kind, about)))
        yield [note for _, note in sorted(found, key=lambda pair: pair[0], reverse=True)]


def _paths(where: Path) -> list[Path]:
    try:
        return sorted(where.iterdir())
    except OSError:
        return []
