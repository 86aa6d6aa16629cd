# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's own load, in this process: its sources, compiled as they are, into a library.

kernelshim/ has the little of Linux that they need.
"""

import ctypes
import os
import subprocess
from pathlib import Path
from uuid import UUID

from unit.areas import SB, SET, Disk
from unit.shim import KERNEL, LOADER, SHIM, empty_headers

from dmremap.ondisk import BLOCK, Errors, Superblock


class Result(ctypes.Structure):
    """What kernelshim/run.c returns."""

    _fields_ = [
        *((name, ctypes.c_int) for name in ("inspect", "load", "format")),
        *((name, ctypes.c_int) for name in ("mapped", "lost", "bad", "free", "away", "gone")),
        *((name, ctypes.c_int) for name in ("writes", "raised", "no_raise", "medium", "rate")),
        ("place", ctypes.c_uint32 * 4096),
        ("why", ctypes.c_char * 256),
        ("super", ctypes.c_uint8 * BLOCK),
        ("epoch", ctypes.c_uint64.__ctype_le__ * 2),  # as in the superblock
    ]


class KernelLoad:
    """Runs the kernel's load on a disk in memory; it changes the disk."""

    def __init__(self, where: Path) -> None:
        """Compile it into an empty directory."""
        sources = [KERNEL / name for name in LOADER]
        empty_headers(where, KERNEL / "dm-remap.h", *sources)
        options = ["-shared", "-fPIC", "-O1", "-w", "-Wl,--no-undefined"]
        options += ["-include", str(SHIM / "shim.h"), "-I", str(where), "-I", str(KERNEL)]
        files = [str(path) for path in (SHIM / "run.c", *sources)]
        subprocess.run(
            [os.environ.get("CC", "cc"), *options, "-o", str(where / "load.so"), *files], check=True
        )
        self.library = ctypes.CDLL(str(where / "load.so"))

    def __call__(
        self,
        disk: Disk,
        *,
        uuid: UUID | None = SET,
        sb: Superblock = SB,
        accept_stale: bool = False,
        formats: bool = False,
        errors: Errors | None = None,
        remap_rate: int | None = None,
    ) -> tuple[int, Result]:
        """Load with the table line of a set, read-only with `accept_stale`; return the errno.

        With `formats` a set is made where there is none. `errors` and `remap_rate` are words of
        the line.
        """
        rate = -1 if remap_rate is None else remap_rate
        for name, value in (
            ("may_format", formats),
            ("errors_word", errors or 0),
            ("rate_word", rate),
        ):
            ctypes.c_int.in_dll(self.library, name).value = value
        count = disk.size // BLOCK
        flags = [bytearray(count), bytearray(count)]
        for places, flag in zip((disk.bad, disk.stuck), flags, strict=True):
            for place in places:
                flag[place] = 1
        data = (ctypes.c_char * disk.size).from_buffer(disk.data)
        bad, stuck = ((ctypes.c_char * count).from_buffer(flag) for flag in flags)
        out = Result()
        code: int = self.library.run(
            data,
            ctypes.c_uint64(count),
            bad,
            stuck,
            uuid.bytes if uuid else None,
            sb.unit,
            ctypes.c_uint64(sb.main_sectors),
            ctypes.c_uint64(sb.data_sectors),
            ctypes.c_uint64(sb.area_blocks),
            int(accept_stale),
            int(accept_stale),
            ctypes.byref(out),
        )
        del data, bad, stuck
        disk.bad = {place for place in range(count) if flags[0][place]}
        return code, out
