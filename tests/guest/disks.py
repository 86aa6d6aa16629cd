# SPDX-License-Identifier: GPL-2.0-only
"""Sets on disks whose sectors fail, in a guest: filled, and checked again after a reboot.

The arguments are ``fill`` or ``check`` and JSON: the spare, the sectors of an area on it, the range
that is written to, the range that is only read, a failing sector of the first, and the mains in the
order of their areas, with what the fault device does over a disk that cannot fail as wanted. The
answer is JSON by main: the physical block, how a read and a write of that sector fail on the bare
disk, what is mapped, what is pending, and how reads of single units that failed did so.
"""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from guest.lib import (
    SECTOR,
    Device,
    dm_device,
    dm_message,
    fault_device,
    outcome,
    pattern,
    queue,
    sectors,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GENERATION = 5


def listed(name: str, what: str) -> list[int]:
    """Return the sectors of a list that the target gives in pages."""
    found: list[int] = []
    start = "0"
    while start:
        # Small pages, so that there are several.
        *lines, last = dm_message(name, what, start, 7).splitlines()
        for line in lines:
            first, count, *rest = line.split()
            assert what == "pending" or rest[1] == "mapped", line
            found += range(int(first), int(first) + int(count))
        start = "" if last == "end" else last.split()[1]
    return sorted(found)


def read_units(path: Path, plan: dict[str, Any]) -> dict[int, str]:
    """Read what was never written unit by unit; return the failures by sector."""
    unit = int(queue(path, "logical_block_size")) // SECTOR
    first, count = plan["read"]
    with Device(path) as device:
        words = {n: outcome(device.read, n, unit) for n in range(first, first + count, unit)}
    return {sector: word for sector, word in words.items() if word != "OK"}


@contextmanager
def failing(name: str, disk: str, fault: dict[str, Any] | None) -> Iterator[Path | str]:
    """Have a main that fails: the disk itself, or the fault device over one that cannot."""
    if fault is None:
        yield disk
        return
    words = ("physical", str(fault["physical"]))
    with fault_device(disk, *words, name=f"{name}-fault") as device:
        for first, count in fault["bad"]:
            for direction in ("read", "write"):
                device.add(first, count, direction, fault["status"])
        yield device.path


def bare(lower: Path | str, sector: int) -> dict[str, str]:
    """Return the errno of a read and of a write of a failing block of the disk itself."""
    unit = int(queue(lower, "logical_block_size")) // SECTOR
    with Device(lower) as device:
        return {
            "read": outcome(device.read, sector, unit),
            "write": outcome(device.write, sector, pattern(sector, unit)),
        }


def look(path: Path, name: str, plan: dict[str, Any]) -> dict[str, Any]:
    """Check the data that was written, and report."""
    first, count = plan["write"]
    with Device(path) as device:
        assert device.read(first, count) == pattern(first, count, GENERATION), name
    assert listed(name, "pending") == [], name
    failures = read_units(path, plan)
    mapped, pending = listed(name, "list"), listed(name, "pending")
    physical = int(queue(path, "physical_block_size"))
    return {"physical": physical, "mapped": mapped, "pending": pending, "failures": failures}


def main() -> None:
    """Fill or check all sets."""
    plan = json.loads(sys.argv[2])
    answer = {}
    for index, (name, main_) in enumerate(plan["mains"].items()):
        with failing(name, **main_) as lower:
            errors = bare(lower, plan["bad"])
            area = f"{plan['spare']} {index * plan['area']} {plan['area']}"
            line = f"0 {sectors(lower)} remap {lower} {area}"
            with dm_device(name, line) as path:
                if sys.argv[1] == "fill":
                    first, count = plan["write"]
                    with Device(path) as device:
                        device.write(first, pattern(first, count, GENERATION))
                        device.flush()
                answer[name] = {**look(path, name, plan), "bare": errors}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
