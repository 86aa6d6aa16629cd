# SPDX-License-Identifier: GPL-2.0-only
"""How fast this machine's time stamp counter is, which an emulated processor shows as its own.

A guest measures it at boot against an emulated timer, and on a busy host it measures anything: a
guest's clock was seen to run six times too fast, and each time limit in it was six times too short.
So it is measured here, where an interruption is noticed, and the guest is told.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import platform
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# rdtsc; shl rdx, 32; or rax, rdx; ret
CODE = bytes.fromhex("0f31 48c1e220 4809d0 c3")
SECONDS = 0.05
CLOSE_NS = 5_000
"""Between two readings of the clock, with one of the counter between them."""
TRIES = 1000


@functools.cache
def khz() -> int | None:
    """Return how many thousands it counts in a second, or None where there is none."""
    if platform.machine() != "x86_64":
        return None
    access = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    with mmap.mmap(-1, mmap.PAGESIZE, prot=access) as code:
        code.write(CODE)
        start = ctypes.c_char.from_buffer(code)
        read = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(start))
        first_ns, first = _both(read)
        time.sleep(SECONDS)
        last_ns, last = _both(read)
        del read, start
    return round((last - first) * 1_000_000 / (last_ns - first_ns))


def _both(read: Callable[[], int]) -> tuple[int, int]:
    """Read clock and counter at the same time."""
    for _ in range(TRIES):
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        count = read()
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        if after - before < CLOSE_NS:
            break
    return (before + after) // 2, count
