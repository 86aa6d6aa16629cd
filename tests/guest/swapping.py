# SPDX-License-Identifier: GPL-2.0-only
"""Swap on a set that wears out: under pressure, the error path may wait for no memory.

Run by tests/vm/test_filesystems.py inside a guest that has little memory, as root.
"""

from __future__ import annotations

import mmap
import re
import struct
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from guest.lib import MIB, run
from guest.wear import nothing_logged, worn_set
from guest.workloads import timed

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.guest, pytest.mark.module]

PAGE = 4096
BEYOND = 64 * MIB
"""How much more than the memory that there is."""
_WORDS = struct.Struct("<QQ")


def page(number: int, generation: int) -> bytes:
    """Return what a page holds: not the same as any other ever."""
    return _WORDS.pack(number, generation) * (PAGE // _WORDS.size)


def meminfo(name: str) -> int:
    """Return a line of /proc/meminfo, in bytes."""
    found = re.search(rf"^{name}: +(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) * 1024


@contextmanager
def swap_on(path: Path) -> Iterator[None]:
    """Have swap on a device and nowhere else."""
    run("mkswap", "-q", path)
    run("swapon", path)
    try:
        yield
    finally:
        run("swapoff", path)


def swapped() -> int:
    """Return how many bytes are swapped out."""
    return meminfo("SwapTotal") - meminfo("SwapFree")


def fill(memory: mmap.mmap, generation: int) -> int:
    """Verify every page, unless this is the first time, and write it; return the most swapped."""
    most = 0
    for number in range(len(memory) // PAGE):
        place = slice(number * PAGE, (number + 1) * PAGE)
        if generation:
            assert memory[place] == page(number, generation - 1), (number, generation)
        memory[place] = page(number, generation)
        if not number % 4096:
            most = max(most, swapped())
    return most


def test_swap_under_pressure(long: bool) -> None:
    """Fill more memory than there is; then verify and fill it again, page by page."""
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    with worn_set("physical", "4096") as (made, wear), nothing_logged("Read-error on swap"):
        with wear, swap_on(made.path):
            size = meminfo("MemAvailable") + BEYOND
            with mmap.mmap(-1, size, flags=private) as memory:
                for generation in range(20 if long else 2):
                    begin = time.monotonic()
                    most = fill(memory, generation)
                    timed(
                        f"round {generation}",
                        begin,
                        f"{most >> 20} MiB, {made.status.mapped} mapped",
                    )
        assert most >= BEYOND
        print(f"swap: {size >> 20} MiB touched, {most >> 20} swapped, {wear.judge(most)} mapped")
