# SPDX-License-Identifier: GPL-2.0-only
"""One command that changes something at a time.

A flock and not a pid file: it goes with its holder, however that ends.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from dmremap.errors import Busy, Failure

RUN_DIR: Final = Path("/run/dmremap")


@contextlib.contextmanager
def locked(timeout: float = 20.0, *, directory: Path = RUN_DIR) -> Iterator[None]:
    """Hold the lock, waiting for it at most `timeout` seconds."""
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as err:
        raise Failure(
            "DMR-E103",
            f"cannot make the lock {directory / 'lock'}: {err.strerror}",
            hint="Make room there, or make the directory writable.",
        ) from None
    try:
        end = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
                    raise Busy(
                        "DMR-E407", f"another dmremapctl (process {holder}) is changing something"
                    ) from None
                time.sleep(0.05)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)
