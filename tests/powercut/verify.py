# SPDX-License-Identifier: GPL-2.0-only
"""Has the kernel load sets from images, in a guest, and says what it finds.

The argument is JSON: a list of [main, spare, uuid, length], paths of images, the uuid to load, ""
for none, and the sectors of the spare that belong to the set. The answer is JSON, for each: the
mappings as [sector, state], and the generation that each sector reads as, None where it is an error
or no pattern of the sector's own. Each set is loaded twice: what it mends at the first load must
leave the same.
"""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from guest.lib import (
    SECTOR,
    Device,
    dm_device,
    dm_message,
    dm_status,
    loop_device,
    sectors,
)

from powercut.oracle import generation

CHUNK = 256


def read_all(path: Path) -> dict[int, bytes]:
    """Return all that can be read of a device, by sector."""
    found = {}
    with Device(path, writable=False) as device:
        size = sectors(path)
        for start in range(0, size, CHUNK):
            try:
                found[start] = device.read(start, min(CHUNK, size - start))
            except OSError:
                for sector in range(start, min(start + CHUNK, size)):
                    with suppress(OSError):
                        found[sector] = device.read(sector)
    return found


def generations(content: dict[int, bytes], size: int) -> list[int | None]:
    """Return the generation of every sector of a device."""
    found: list[int | None] = [None] * size
    for start, data in content.items():
        for place in range(0, len(data), SECTOR):
            sector = start + place // SECTOR
            found[sector] = generation(sector, data[place : place + SECTOR])
    return found


def mappings(name: str) -> list[tuple[int, str]]:
    """Return the sectors that a target has mapped, and their states."""
    found, start = [], "0"
    while start:
        *lines, last = dm_message(name, "list", start, 1000).splitlines()
        for sector, count, _, state, _ in (line.split() for line in lines):
            assert count == "1", "units are sectors here"
            if state != "bad":
                found.append((int(sector), state))
        start = "" if last == "end" else last.split()[1]
    return sorted(found)


def load(line: str) -> tuple[list[tuple[int, str]], dict[int, bytes], str]:
    """Load a set and look at all of it."""
    with dm_device("cut", line) as path:
        return mappings("cut"), read_all(path), dm_status("cut")


def verify(main: str, spare: str, uuid: str, length: int) -> dict[str, object]:
    """Load a set twice, from copies of its images."""
    with TemporaryDirectory(dir="/dev/shm") as directory, ExitStack() as stack:
        legs = []
        for name in (main, spare):
            copy = Path(shutil.copy(name, directory))
            legs.append(stack.enter_context(loop_device(image=copy)))
        option = f" 2 uuid {uuid}" if uuid else ""
        size = sectors(legs[0])
        line = f"0 {size} remap {legs[0]} {legs[1]} 0 {length}{option}"
        mapped, content, status = load(line)
        again = load(line)
        assert again[:2] == (mapped, content), "not the same at the second load"
        return {"mapped": mapped, "read": generations(content, size), "status": status}


def main() -> None:
    """Verify all that is asked for."""
    print(json.dumps([verify(*case) for case in json.loads(sys.argv[1])]))


if __name__ == "__main__":
    main()
