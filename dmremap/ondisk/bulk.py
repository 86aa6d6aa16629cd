# SPDX-License-Identifier: GPL-2.0-only
"""A whole set with many mappings, written offline and in bulk.

The kernel maps one failing write after the other. Whoever needs a set that already has a million
mappings, to measure or to test, writes it here: slot i of the set holds the i-th unit given.
"""

from array import array
from collections.abc import Iterable

from dmremap.ondisk.area import format_area
from dmremap.ondisk.device import BlockDevice, Progress
from dmremap.ondisk.layout import (
    NO_UNIT,
    Superblock,
    check_table,
    pack_mapped_table,
)


def _as_array(units: Iterable[int | None]) -> "array[int]":
    if isinstance(units, array) and units.typecode == "Q":
        return units
    try:
        return array("Q", (NO_UNIT if unit is None else unit for unit in units))
    except (OverflowError, TypeError) as wrong:
        raise ValueError(f"a unit is a number from 0 on, or None: {wrong}") from None


def _check_units(sb: Superblock, units: "array[int]") -> None:
    if len(units) > sb.slots:
        raise ValueError(f"{len(units)} slots are given, but the set has {sb.slots}")
    mapped = set(units)
    mapped.discard(NO_UNIT)
    if mapped and max(mapped) >= sb.units:
        slot = next(i for i, unit in enumerate(units) if sb.units <= unit != NO_UNIT)
        raise ValueError(f"slot {slot}: unit {units[slot]}, but main has {sb.units} units")
    if len(mapped) < len(units) - units.count(NO_UNIT):
        seen: set[int] = set()
        for slot, unit in enumerate(units):
            if unit in seen:
                raise ValueError(f"slot {slot}: unit {unit} is in another slot already")
            if unit != NO_UNIT:
                seen.add(unit)


def pack_tables(sb: Superblock, units: Iterable[int | None]) -> dict[int, bytes]:
    """Return every table block of a set, both copies, by its home (in blocks of the area).

    Slot i is MAPPED to the i-th of `units`, which count from the start of main in units of
    `sb.unit` bytes; a slot of None, or NO_UNIT in an array of type Q, and all slots behind the
    last one given are free. Raises ValueError for what no set can hold: a unit twice or outside
    of main, more units than slots.
    """
    table = _as_array(units)
    _check_units(sb, table)
    blocks: dict[int, bytes] = {}
    first = 0
    for segment in sb.segments:
        for index in range(segment.table_blocks):
            used = segment.used(index)
            chunk = table[first : first + used]
            for home in (segment.copy_a + index, segment.copy_b + index):
                blocks[home] = pack_mapped_table(sb.uuid, chunk, home)
            if wrong := check_table(blocks[segment.copy_a + index], used, sb.units):
                raise ValueError(f"table block {segment.copy_a + index}: {wrong}")
            first += used
    return blocks


def write_mapped_area(
    device: BlockDevice,
    sb: Superblock,
    units: Iterable[int | None],
    start: int = 0,
    *,
    progress: Progress | None = None,
) -> None:
    """Write a fresh set with these mappings (see pack_tables()) into a blank area.

    `start` is the area's first sector on the device. Nothing is written if a unit is refused. What
    the slots themselves hold is left as it is.
    """
    blocks = pack_tables(sb, units)
    format_area(device, sb, start, progress=progress, table=blocks.__getitem__)
