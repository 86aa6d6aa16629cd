# SPDX-License-Identifier: GPL-2.0-only
"""Write a cpio archive in the ``newc`` format, which is what the kernel unpacks."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

MAGIC = b"070701"
TRAILER = "TRAILER!!!"


@dataclass(frozen=True)
class Entry:
    """A directory (no content), a file, or a device node of an archive."""

    name: str
    content: bytes = b""
    mode: int = stat.S_IFREG | 0o755
    device: tuple[int, int] = (0, 0)


def directory(name: str) -> Entry:
    """Return an entry for a directory."""
    return Entry(name, mode=stat.S_IFDIR | 0o755)


def symlink(name: str, target: str) -> Entry:
    """Return an entry for a symbolic link."""
    return Entry(name, target.encode(), stat.S_IFLNK | 0o777)


def character_device(name: str, major: int, minor: int) -> Entry:
    """Return an entry for a character device node."""
    return Entry(name, mode=stat.S_IFCHR | 0o600, device=(major, minor))


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _record(inode: int, entry: Entry) -> bytes:
    name = entry.name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (
        inode,
        entry.mode,
        0,
        0,
        links,
        0,
        len(entry.content),
        0,
        0,
        *entry.device,
        len(name),
        0,
    )
    header = MAGIC + b"".join(b"%08X" % field for field in fields)
    return _padded(header + name) + _padded(entry.content)


def archive(entries: Iterable[Entry]) -> bytes:
    """Return the bytes of an archive; the same entries always give the same bytes."""
    records = [_record(inode, entry) for inode, entry in enumerate(entries, start=1)]
    return b"".join([*records, _record(0, Entry(TRAILER, mode=0))])
