# SPDX-License-Identifier: GPL-2.0-only
"""Load, create, write to failing blocks, remove, unload: many times, in a guest.

The device is removed with errors under repair. The arguments are how many cycles there are from a
load of the module to its unload, and numbers of cycles, ascending, which are multiples of it.
Prints a line after each of them: the number and the kB of memory in slab objects and in vmalloc,
measured when nothing is loaded any more.
"""

from __future__ import annotations

import re
import sys
import time
from contextlib import suppress
from pathlib import Path

from guest.lib import (
    MIB,
    SECTOR,
    Device,
    background,
    dm_device,
    dm_load,
    dm_resume,
    dm_status,
    dm_suspend,
    dmsetup,
    load_module,
    loop_device,
    module_loaded,
    outcome,
    pattern,
    run,
    try_read,
    unload_module,
    wait_for,
)

SIZE = 8 * MIB
BAD = range(1000, 1016)
UNREAD = range(9000, 9008)
LATE = range(11000, 11512)
"""Those that main refuses when the device is removed."""


def failing(lower: Path) -> str:
    """Return the table of a main device with failing ranges."""
    lines, start = [], 0
    for bad in (BAD, UNREAD, LATE):
        lines.append(f"{start} {bad.start - start} linear {lower} {start}")
        lines.append(f"{bad.start} {len(bad)} error")
        start = bad.stop
    lines.append(f"{start} {SIZE // SECTOR - start} linear {lower} {start}")
    return "\n".join(lines)


class Errors:
    """Threads whose I/O fails and is repaired, for as long as there is a device."""

    def __init__(self, path: Path) -> None:
        """Start; return when there are results."""
        self.done = [0, 0]
        self.futures = [background(self._write, path), background(self._read, path)]
        wait_for(lambda: all(self.done), "errors")

    def _write(self, path: Path) -> None:
        with Device(path) as device:
            for sector in LATE:
                if outcome(device.write, sector, pattern(sector)) != "OK":
                    return
                self.done[0] += 1

    def _read(self, path: Path) -> None:
        with Device(path, writable=False) as device:
            # Removed by force it ends with EIO.
            while outcome(device.read, UNREAD.start) == "ENODATA":
                self.done[1] += 1

    def finish(self) -> None:
        """Wait for their end."""
        for future in self.futures:
            future.result(60)


def remove_busy(name: str, errors: Errors) -> None:
    """Do what 'dmsetup remove --force' does, while nothing has ended."""
    dm_load(name, f"0 {SIZE // SECTOR} error")
    assert not errors.futures[1].done()
    dm_suspend(name, flush=False, lockfs=False)
    dm_resume(name)
    errors.finish()


def cycle(number: int, main: Path, spare: Path) -> None:
    """Create, write, read and remove."""
    with Device(spare) as device:
        device.discard(0, SIZE // SECTOR)  # a blank spare
    with dm_device("failing", failing(main)) as lower:
        line = f"0 {SIZE // SECTOR} remap {lower} {spare} 0 {SIZE // SECTOR}"
        with dm_device("cycle", line) as path:
            with Device(path) as device:
                data = pattern(960, 128, number)
                device.write(960, data, fua=bool(number % 2))
                assert device.read(960, 128) == data
            assert try_read(path, UNREAD.start) == "ENODATA"
            words = dm_status("cycle").split()
            assert words[2].startswith(f"{len(BAD)}/"), words
            assert "pending=1" in words, words
            remove_busy("cycle", Errors(path))


def in_use() -> tuple[int, int]:
    """Return the kB in slab objects and in vmalloc, without what is only cached."""
    run("sync")
    Path("/proc/sys/vm/drop_caches").write_text("3\n")
    for cache in Path("/sys/kernel/slab").glob("*/shrink"):
        with suppress(OSError):
            cache.write_text("1\n")
    # Objects and not pages: how full the pages are differs from time to time.
    caches = (line.split() for line in Path("/proc/slabinfo").read_text().splitlines()[2:])
    slab = sum(int(words[1]) * int(words[3]) for words in caches) // 1024
    used = re.search(r"VmallocUsed: +(\d+)", Path("/proc/meminfo").read_text())
    assert used
    return slab, int(used[1])


def settled() -> tuple[int, int]:
    """Return in_use() when what is freed later has been freed."""
    samples = []
    for _ in range(5):
        samples.append(in_use())
        time.sleep(0.2)
    return min(slab for slab, _ in samples), min(vmalloc for _, vmalloc in samples)


def main() -> None:
    """Do as many cycles as asked for."""
    each, *measured = [int(word) for word in sys.argv[1:]]
    # What it needs of the kernel's stays: it is no leak of ours.
    load_module("dm_remap")
    unload_module("dm_remap")
    with loop_device(SIZE) as lower, loop_device(SIZE) as spare:
        for number in range(1, measured[-1] + 1):
            load_module("dm_remap")
            cycle(number, lower, spare)
            if number % each == 0:
                unload_module("dm_remap")
                assert not module_loaded("dm_remap")
            if number in measured:
                print(number, *settled(), flush=True)
        assert dmsetup("ls") == "No devices found"


if __name__ == "__main__":
    main()
