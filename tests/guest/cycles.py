# SPDX-License-Identifier: GPL-2.0-only
"""Load, create, write to failing blocks, remove, unload: many times, in a guest.

The arguments are numbers of cycles, ascending. Prints a line after each of them: the number and the
kB of memory in slab objects and in vmalloc, measured when nothing is loaded any more.
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
    dm_device,
    dm_status,
    dmsetup,
    load_module,
    loop_device,
    module_loaded,
    pattern,
    run,
    try_read,
    unload_module,
)

SIZE = 8 * MIB
BAD = range(1000, 1016)
UNREAD = range(9000, 9008)


def failing(lower: Path) -> str:
    """Return the table of a main device with two failing ranges."""
    lines, start = [], 0
    for bad in (BAD, UNREAD):
        lines.append(f"{start} {bad.start - start} linear {lower} {start}")
        lines.append(f"{bad.start} {len(bad)} error")
        start = bad.stop
    lines.append(f"{start} {SIZE // SECTOR - start} linear {lower} {start}")
    return "\n".join(lines)


def cycle(number: int, main: Path, spare: Path) -> None:
    """Do it all once."""
    with Device(spare) as device:
        device.discard(0, SIZE // SECTOR)  # a blank spare
    load_module("dm_remap")
    with dm_device("failing", failing(main)) as lower:
        line = f"0 {SIZE // SECTOR} remap {lower} {spare} 0 {SIZE // SECTOR}"
        with dm_device("cycle", line) as path, Device(path) as device:
            data = pattern(960, 128, number)
            device.write(960, data, fua=bool(number % 2))
            assert device.read(960, 128) == data
            assert try_read(path, UNREAD.start) == "ENODATA"
            words = dm_status("cycle").split()
            assert words[2].startswith(f"{len(BAD)}/"), words
            assert "pending=1" in words, words
    unload_module("dm_remap")


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
    measured = [int(word) for word in sys.argv[1:]]
    run("modprobe", "libcrc32c")
    with loop_device(SIZE) as lower, loop_device(SIZE) as spare:
        for number in range(1, measured[-1] + 1):
            cycle(number, lower, spare)
            assert not module_loaded("dm_remap")
            if number in measured:
                print(number, *settled(), flush=True)
        assert dmsetup("ls") == "No devices found"


if __name__ == "__main__":
    main()
