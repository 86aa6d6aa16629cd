# SPDX-License-Identifier: GPL-2.0-only
"""A set with many mappings, written at once, is what the reader and the C code take it for."""

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from uuid import UUID

import pytest
from unit.areas import entries_of

from dmremap.ondisk import (
    BLOCK,
    HEAD_BLOCKS,
    NO_UNIT,
    BlockDevice,
    Entry,
    Segment,
    SetState,
    SlotState,
    Superblock,
    format_area,
    opened,
    pack_tables,
    segment_for,
    write_mapped_area,
)
from dmremap.ondisk._format import ffi, lib
from dmremap.ondisk.check import examine
from dmremap.ondisk.layout import ENTRIES, pack_mapped_table, pack_table

SET = UUID("0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0")
AREA_BLOCKS = HEAD_BLOCKS + 1024
UNITS = 1 << 20


def superblock() -> Superblock:
    segment = segment_for(AREA_BLOCKS, BLOCK)
    assert segment is not None
    return Superblock(
        uuid=SET,
        name="bulk",
        state=SetState.READY,
        unit=BLOCK,
        area_blocks=AREA_BLOCKS,
        segments=(segment,),
        tagged=False,
        main_sectors=UNITS * BLOCK // 512,
        data_start=0,
        data_sectors=UNITS * BLOCK // 512,
    )


@pytest.fixture
def area(tmp_path: Path) -> Iterator[BlockDevice]:
    path = tmp_path / "area"
    path.write_bytes(bytes(AREA_BLOCKS * BLOCK))
    with opened(str(path), write=True) as device:
        yield device


def entries(units: Iterable[int | None]) -> list[Entry]:
    return [
        Entry(slot, SlotState.MAPPED, unit, 0)
        for slot, unit in enumerate(units)
        if unit is not None
    ]


def test_what_is_written_is_read(area: BlockDevice) -> None:
    sb = superblock()
    random = Random(1)
    units: list[int | None] = [0, *random.sample(range(1, UNITS - 1), sb.slots - 2), UNITS - 1]
    for slot in random.sample(range(1, sb.slots - 1), 100):
        units[slot] = None
    write_mapped_area(area, sb, units)
    load = examine(area)
    assert not load.findings
    assert load.superblock == replace(sb, seq=sb.seq + 1)
    assert entries_of(load) == entries(units)


def test_slots_behind_the_last_one_given_are_free(area: BlockDevice) -> None:
    sb = superblock()
    write_mapped_area(area, sb, [7, None, 5])
    assert entries_of(examine(area)) == entries([7, None, 5])


def test_the_area_may_start_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "area"
    path.write_bytes(bytes((AREA_BLOCKS + 3) * BLOCK))
    sb = superblock()
    with opened(str(path), write=True) as device:
        write_mapped_area(device, sb, [1, 2], start=16)
        assert entries_of(examine(device, 16)) == entries([1, 2])
        assert not examine(device).accepted


def test_no_mappings_are_an_empty_set(area: BlockDevice) -> None:
    sb = superblock()
    write_mapped_area(area, sb, [])
    bulk = area.read(0, AREA_BLOCKS * BLOCK)
    area.zero([(0, AREA_BLOCKS * BLOCK)])
    format_area(area, sb)
    assert bulk == area.read(0, AREA_BLOCKS * BLOCK)


def test_the_slots_are_left_alone(area: BlockDevice) -> None:
    (segment,) = superblock().segments
    write_mapped_area(area, superblock(), range(10))
    first, end = segment.data * BLOCK, segment.copy_b * BLOCK
    assert all(to <= first or since >= end for since, to in area.written)


def test_both_copies_pass_the_checks_of_the_c_code() -> None:
    sb = superblock()
    (segment,) = sb.segments
    blocks = pack_tables(sb, range(sb.slots))
    assert len(blocks) == 2 * segment.table_blocks
    for home, block in blocks.items():
        raw = ffi.from_buffer("char[]", block)
        assert lib.dmr_header_ok(raw, lib.DMR_TYPE_TABLE, home)
        assert not lib.dmr_header_ok(raw, lib.DMR_TYPE_TABLE, home + 1)
        index = (home - segment.copy_a) if home < segment.copy_b else home - segment.copy_b
        assert not lib.dmr_table_check(
            ffi.from_buffer("struct dmr_table *", block), segment.used(index), UNITS
        )


def test_a_block_is_the_one_that_is_packed_entry_by_entry() -> None:
    units = [9, None, 3, UNITS - 1]
    raw = array("Q", (NO_UNIT if unit is None else unit for unit in units))
    assert pack_mapped_table(SET, raw, 256, 5) == pack_table(SET, entries(units), 0, 256, 5)


def test_slots_are_counted_over_all_segments() -> None:
    one = Segment(HEAD_BLOCKS, 5, 3, 1)
    two = Segment(HEAD_BLOCKS + 5, 6, 4, 1)
    sb = replace(superblock(), segments=(one, two), area_blocks=HEAD_BLOCKS + 11)
    blocks = pack_tables(sb, [10, 11, 12, 13])
    for segment, first in ((one, [10, 11, 12]), (two, [13])):
        for home in (segment.copy_a, segment.copy_b):
            assert blocks[home] == pack_mapped_table(SET, array("Q", first), home)


@pytest.mark.parametrize(
    ("units", "complaint"),
    [
        ([1, 2, 1], "slot 2: unit 1 is in another slot"),
        ([1, UNITS], f"slot 1: unit {UNITS}, but main has {UNITS} units"),
        ([None, -1], "a number from 0 on"),
        (["x"], "a number from 0 on"),
        ([2**64], "a number from 0 on"),
        ([None] * 5000, "5000 slots are given, but the set has"),
    ],
)
def test_what_no_set_can_hold_is_refused(
    units: list[int | None], complaint: str, area: BlockDevice
) -> None:
    with pytest.raises(ValueError, match=complaint):
        write_mapped_area(area, superblock(), units)
    assert not area.written


def test_a_block_has_no_room_for_more_entries() -> None:
    with pytest.raises(ValueError, match="it has 252 entries"):
        pack_mapped_table(SET, array("Q", range(ENTRIES + 1)), 256)


def test_an_array_is_taken_as_it_is(area: BlockDevice) -> None:
    sb = superblock()
    write_mapped_area(area, sb, array("Q", [4, NO_UNIT, 6]))
    assert entries_of(examine(area)) == entries([4, None, 6])
