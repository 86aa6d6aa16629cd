# SPDX-License-Identifier: GPL-2.0-only
"""What one failing write costs, in bios that the fault device counts on both legs.

Main has logical blocks of 512 bytes and physical ones of 4 KiB, as most disks: a unit is 512
bytes, and 4 KiB are one piece. The spare is formatted by the kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.bench.rows import Row
from harness.disks import Disk
from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.machine import Machine

DISKS = (Disk(name="main", size=16 << 20), Disk(name="spare", size=8 << 20))
PIECE = 8  # sectors
UNITS = 64  # of 512 bytes, in one bio
BLOCK_SECTORS = 8


def counters(text: str) -> dict[str, int]:
    """Read the fault device's counters.

    >>> counters("reads=1 writes=3 held=0")
    {'reads': 1, 'writes': 3, 'held': 0}
    """
    pairs = (word.split("=") for word in text.split())
    return {name: int(value) for name, value in pairs}


class Set:
    """A set over two fault devices."""

    def __init__(self, vm: Machine) -> None:
        """Make it; the modules are loaded."""
        self.vm = vm
        sizes = {disk.name: disk.size // 512 for disk in DISKS}
        for name, size in sizes.items():
            table = f"0 {size} fault {vm.device(name)} 0"
            self._create(f"fault-{name}", table + (" physical 4096" if name == "main" else ""))
        line = f"0 {sizes['main']} remap /dev/mapper/fault-main /dev/mapper/fault-spare 0"
        self._create("set", f"{line} {sizes['spare']}")

    def _create(self, name: str, table: str) -> None:
        self.vm.run(["dmsetup", "create", name, "--table", table])
        self.vm.run(["dmsetup", "mknodes"])

    def _message(self, name: str, *words: object) -> str:
        return self.vm.run(["dmsetup", "message", name, "0", *map(str, words)]).stdout

    def failing_write(self, sector: int, count: int) -> tuple[dict[str, int], dict[str, int]]:
        """Write sectors that main refuses, with one bio; return the counters of both legs."""
        self._message("fault-main", "add", sector, count, "write", "medium")
        for name in ("fault-main", "fault-spare"):
            self._message(name, "count", "reset")
        size = count * 512
        offset = f"seek={sector * 512}"
        flags = "oflag=direct,seek_bytes"
        command = ["dd", "if=/dev/zero", "of=/dev/mapper/set", f"bs={size}", "count=1"]
        self.vm.run([*command, offset, flags, "conv=notrunc", "status=none"])
        main, spare = (
            counters(self._message(name, "count")) for name in ("fault-main", "fault-spare")
        )
        if not main["failed"]:
            raise HarnessError(f"sectors {sector} to {sector + count - 1} did not fail on main")
        return main, spare

    def remove(self) -> None:
        """Take it apart."""
        self.vm.run(["dmsetup", "remove", "set", "fault-main", "fault-spare"])


def measure(vm: Machine) -> list[Row]:
    """Return the rows."""
    made = Set(vm)
    series = vm.kernel.series
    main, spare = made.failing_write(800, PIECE)
    many_main, many = made.failing_write(1600, UNITS)
    made.remove()
    metadata = (many["write_sectors"] - UNITS) / BLOCK_SECTORS
    details = {f"spare {name}": float(spare[name]) for name in ("writes", "write_sectors")}
    many_details = {f"spare {name}": float(many[name]) for name in ("writes", "write_sectors")}
    many_details["failed on main"] = float(many_main["failed"])
    return [
        Row(series, "one failing 4 KiB write", spare["writes"], "bios on the spare", 3, 0, details),
        Row(series, "one failing 4 KiB write", main["failed"], "failing commands on main", 2, 0),
        Row(
            series,
            "64 failing units of one bio",
            metadata,
            "metadata blocks written",
            2,
            0,
            many_details,
        ),
    ]
