# SPDX-License-Identifier: GPL-2.0-only
"""Device-mapper's ioctls, as the kernel has them: struct dm_ioctl of linux/dm-ioctl.h.

dmsetup does the same, at the price of a program start, which an emulated machine takes a tenth of
a second for. Nothing is shared between calls and the interpreter goes on during one: a suspend
may wait in one thread while another sends messages. No cookies: where udevd runs, what makes it
act (resume, remove) is for dmsetup.

Every function raises the OSError that the kernel returned.
"""

from __future__ import annotations

import ctypes
import os
import struct
from dataclasses import dataclass
from typing import NamedTuple

CONTROL = "/dev/mapper/control"

# Numbers of the commands
DEV_CREATE, DEV_REMOVE, DEV_SUSPEND, DEV_STATUS = 3, 4, 6, 7
LIST_DEVICES, TABLE_LOAD, TABLE_CLEAR, TABLE_STATUS, TARGET_MSG = 2, 9, 10, 12, 14

# Flags
READONLY = 1 << 0
SUSPEND = 1 << 1
STATUS_TABLE = 1 << 4
BUFFER_FULL = 1 << 8
SKIP_LOCKFS = 1 << 10
NOFLUSH = 1 << 11
QUERY_INACTIVE_TABLE = 1 << 12
DATA_OUT = 1 << 16

# version[3], data_size, data_start, target_count, open_count, flags, event_nr, padding, dev,
# name, uuid, data[7]
_HEADER = struct.Struct("=3IIIIiIIIQ128s129s7x")
# sector_start, length, status, next, target_type
_TARGET = struct.Struct("=QQiI16s")
# dev, next; the name follows
_NAME = struct.Struct("=QI")
_libc = ctypes.CDLL(None, use_errno=True)
_BUFFER = 16 * 1024
"""What libdevmapper begins with."""


class Line(NamedTuple):
    """A line of a table or of a status."""

    start: int
    length: int
    type: str
    arguments: str


@dataclass(frozen=True)
class Answer:
    """What the kernel has written back."""

    target_count: int
    open_count: int
    flags: int
    event_nr: int
    dev: int
    data: bytes

    @property
    def suspended(self) -> bool:
        """Whether the device is suspended."""
        return bool(self.flags & SUSPEND)


def _call(
    command: int,
    name: str = "",
    *,
    uuid: str = "",
    flags: int = 0,
    targets: int = 0,
    data: bytes = b"",
) -> Answer:
    """Do one ioctl, again with a larger buffer as long as the kernel finds it too small."""
    request = 3 << 30 | _HEADER.size << 16 | 0xFD << 8 | command  # _IOWR
    room = max(_BUFFER, _HEADER.size + len(data))
    fd = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        while True:
            head = (4, 0, 0, room, _HEADER.size, targets, 0, flags, 0, 0, 0)
            buffer = bytearray(room)
            _HEADER.pack_into(buffer, 0, *head, name.encode(), uuid.encode())
            buffer[_HEADER.size : _HEADER.size + len(data)] = data
            # Not fcntl.ioctl(): with more than 1024 bytes it keeps all other threads waiting.
            memory = (ctypes.c_char * room).from_buffer(buffer)
            if _libc.ioctl(fd, ctypes.c_ulong(request), memory):
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), name)
            fields = _HEADER.unpack_from(buffer)
            if not fields[7] & BUFFER_FULL:
                break
            room *= 2
    finally:
        os.close(fd)
    start, count, opened, answer, event, _, dev = fields[4:11]
    return Answer(count, opened, answer, event, dev, bytes(buffer[start:]))


def _text(data: bytes) -> str:
    return data.partition(b"\0")[0].decode()


def create(name: str, uuid: str = "") -> None:
    """Make a device without a table."""
    _call(DEV_CREATE, name, uuid=uuid)


def remove(name: str) -> None:
    """Remove a device."""
    _call(DEV_REMOVE, name)


def load(name: str, table: str, *, readonly: bool = False) -> None:
    """Load a table, of one line or more as dmsetup takes them, beside the running one."""
    data, count = b"", 0
    for line in filter(None, map(str.strip, table.splitlines())):
        start, length, kind, *arguments = line.split(maxsplit=3)
        text = "".join(arguments).encode() + b"\0"
        size = -(-(_TARGET.size + len(text)) // 8) * 8
        head = _TARGET.pack(int(start), int(length), 0, size, kind.encode())
        data += (head + text).ljust(size, b"\0")
        count += 1
    _call(TABLE_LOAD, name, flags=READONLY if readonly else 0, targets=count, data=data)


def clear(name: str) -> None:
    """Forget the table that was loaded."""
    _call(TABLE_CLEAR, name)


def suspend(name: str, *, flush: bool = True, lockfs: bool = True) -> None:
    """Suspend a device."""
    options = (0 if flush else NOFLUSH) | (0 if lockfs else SKIP_LOCKFS)
    _call(DEV_SUSPEND, name, flags=SUSPEND | options)


def resume(name: str) -> None:
    """Resume a device, with the table loaded last."""
    _call(DEV_SUSPEND, name)


def info(name: str) -> Answer:
    """Return what the kernel knows about a device; the data is nothing."""
    return _call(DEV_STATUS, name)


def message(name: str, sector: int, text: str) -> str:
    """Send a message to the target at a sector and return its reply."""
    answer = _call(TARGET_MSG, name, data=struct.pack("=Q", sector) + text.encode() + b"\0")
    return _text(answer.data) if answer.flags & DATA_OUT else ""


def lines(name: str, *, table: bool = False, inactive: bool = False) -> list[Line]:
    """Return the status, or the table, of a device; the inactive one if that is asked for."""
    flags = (STATUS_TABLE if table else 0) | (QUERY_INACTIVE_TABLE if inactive else 0)
    answer = _call(TABLE_STATUS, name, flags=flags)
    found, at = [], 0
    for _ in range(answer.target_count):
        start, length, _, after, kind = _TARGET.unpack_from(answer.data, at)
        found.append(Line(start, length, _text(kind), _text(answer.data[at + _TARGET.size :])))
        at = after
    return found


def names() -> list[str]:
    """Return the names of all devices."""
    data = _call(LIST_DEVICES).data
    found, at = [], 0
    while True:
        dev, after = _NAME.unpack_from(data, at)
        if dev:  # where there are no devices all of it is zero
            found.append(_text(data[at + _NAME.size :]))
        if not after:
            return found
        at += after
