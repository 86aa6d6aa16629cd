# SPDX-License-Identifier: GPL-2.0-only
"""Files that are there as a whole or as they were before, whenever the power goes."""

import errno
import os
from pathlib import Path

from dmremap.host import begun


def replace(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file, durable, in place of the one that may be there; raise OSError.

    The caller sees to it that nobody else does the same.
    """
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.new")
    with begun.noted("file", path=str(part)):
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(part, flags, 0o600), "w") as file:
                file.write(text)
                file.flush()
                os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
            os.replace(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    sync(path.parent)


def give_name(file: Path, name: Path) -> None:
    """Have a file be called so, if nothing is; raise FileExistsError, or another OSError.

    Who is cut off leaves both names, or on a file system without links, such as FAT, perhaps an
    empty file of the new name.
    """
    try:
        os.link(file, name)
    except OSError as err:
        if err.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        # The name is ours as soon as it is there, so that the rename replaces nobody's file.
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        file.rename(name)


def sync(directory: Path) -> None:
    """Make durable which files a directory has; raise OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
