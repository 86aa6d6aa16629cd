# SPDX-License-Identifier: GPL-2.0-only
"""Swap on a set that wears out: under pressure, the error path may wait for no memory.

Run by tests/vm/test_filesystems.py inside a guest that has little memory, as root.
"""

from __future__ import annotations

import mmap
import re
import struct
import time
from pathlib import Path

import pytest
from guest.lib import MIB, run
from guest.wear import nothing_logged, worn_set
from guest.workloads import timed

pytestmark = [pytest.mark.guest, pytest.mark.module]

PAGE = 4096
_WORDS = struct.Struct("<QQ")


def page(number: int, generation: int) -> bytes:
    """Return what a page holds: not the same as any other ever."""
    return _WORDS.pack(number, generation) * (PAGE // _WORDS.size)


def meminfo(name: str) -> int:
    """Return a line of /proc/meminfo, in bytes."""
    found = re.search(rf"^{name}: +(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) * 1024


def test_swap_under_pressure(long: bool) -> None:
    """Fill more memory than there is, then verify and fill it again, block by block."""
    with worn_set("physical", "4096") as (made, wear), nothing_logged("Read-error on swap"):
        run("mkswap", "-q", made.path)
        run("swapon", made.path)
        size = meminfo("MemAvailable") + 96 * MIB
        begin = time.monotonic()
        with wear, mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
            most = 0
            for generation in range(8 if long else 2):
                for number in range(size // PAGE):
                    place = slice(number * PAGE, (number + 1) * PAGE)
                    if generation:
                        assert memory[place] == page(number, generation - 1), number
                    memory[place] = page(number, generation)
                    if not number % 4096:
                        most = max(most, meminfo("SwapTotal") - meminfo("SwapFree"))
                timed(
                    f"round {generation}", begin, f"{made.status.mapped} mapped, {most >> 20} MiB"
                )
            for number in range(size // PAGE):
                assert memory[number * PAGE : (number + 1) * PAGE] == page(number, generation)
        run("swapoff", made.path)
        assert most >= 64 * MIB
        print(f"swap: {size >> 20} MiB touched, {most >> 20} swapped, {wear.judge(most)} mapped")
