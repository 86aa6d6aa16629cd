# SPDX-License-Identifier: GPL-2.0-only
"""What the kernel says about a device-mapper call that fails.

A target's reason for refusing a table goes to the kernel log only; the ioctl returns a bare
number. So the log is opened before the call and what came since is read after it.
"""

import os
import re
from collections.abc import Iterable
from typing import Final

KMSG: Final = "/dev/kmsg"
_RECORD_MAX: Final = 8192

# device-mapper: table: 253:0: remap: <sentence> (-EINVAL)
_TABLE = re.compile(
    r"^device-mapper: table: (?P<dev>\d+:\d+): (?P<target>[\w-]+): (?P<text>.*?)"
    r"(?: \((?P<errno>-?\w+)\))?$"
)
# device-mapper: remap: dm-0: <sentence>, and what the core says without a target
_OTHER = re.compile(r"^device-mapper: (?P<text>.*)$")
_DEVICE = re.compile(r"\b(?:\d+:\d+|dm-\d+)\b")
_NOISE = re.compile(r"^(ioctl: error adding target to table|table: .*: adding target device .*)$")


class KernelLog:
    """The kernel log from the moment of opening. Silent where it may not be read."""

    def __init__(self, path: str = KMSG) -> None:
        """Open the log at its end."""
        self._fd = -1
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.lseek(self._fd, 0, os.SEEK_END)
        except OSError:
            self.close()

    def lines(self) -> list[str]:
        """Return the messages since opening, without their prefix."""
        out: list[str] = []
        while self._fd >= 0:
            try:
                record = os.read(self._fd, _RECORD_MAX)
            except BrokenPipeError:  # overwritten before we read it; the next read goes on
                continue
            except OSError:
                break
            if not record:
                break
            out.append(parse_record(record.decode("utf-8", "replace")))
        return out

    def close(self) -> None:
        """Close the log."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def parse_record(record: str) -> str:
    """Return the text of one record of /dev/kmsg."""
    head, _, rest = record.partition(";")
    text = rest if head[:1].isdigit() else record
    return text.split("\n", 1)[0]


def reasons(lines: Iterable[str], major: int, minor: int) -> list[str]:
    """Return what device-mapper said about a device, the most telling sentence first, none twice.

    Others are at work on their own devices meanwhile: the first device that a line names counts.
    """
    own = (f"{major}:{minor}", f"dm-{minor}")
    table: list[str] = []
    other: list[str] = []
    for line in lines:
        about = _DEVICE.search(line)
        if about is None or about[0] not in own:
            continue
        if match := _TABLE.match(line):
            table.append(match["text"])
        elif (match := _OTHER.match(line)) and not _NOISE.match(match["text"]):
            other.append(match["text"])
    return list(dict.fromkeys(table + other))
