# SPDX-License-Identifier: GPL-2.0-only
"""Units that move: their slot refuses a write, so they go to another one, and nothing is lost.

With what belongs to it: slots that refuse their first data, two entries of one unit after a cut,
and a set of which a part of the table is gone.

Runs inside a guest, as root.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager, suppress
from itertools import groupby
from typing import TYPE_CHECKING

import pytest
from guest.lib import (
    MIB,
    SECTOR,
    Device,
    background,
    describe,
    dm_create,
    dm_lines,
    dm_message,
    dm_remove,
    dm_resume,
    dm_suspend,
    loop_device,
    outcome,
    pattern,
    read,
    run,
    try_read,
    try_write,
    wait_for,
    write,
)
from guest.remapset import (
    SMALLEST_AREA,
    contents,
    entries,
    held,
    refusal,
    remap_set,
    table,
    tagged_set,
    texts,
)

from dmremap.dm.messages import parse_remap
from dmremap.ondisk import BLOCK, BLOCK_SECTORS, Entry, SlotState, Superblock
from dmremap.ondisk.layout import ENTRIES, pack_table, parse_entries, parse_super, same_body

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from guest.remapset import RemapSet

pytestmark = [pytest.mark.guest, pytest.mark.module]

Row = tuple[int | None, int, str, int]
"""Sector, slot, state and generation of a slot that is not free."""
REFUSED = ("write", "write_zeroes")
STANDINS = (128 * BLOCK_SECTORS, 127 * BLOCK_SECTORS)
GEN_MAX = 0xFFFFFF
SPARE = 3 * MIB // 2
"""Bytes: four table blocks."""


def superblock_of(made: RemapSet) -> Superblock:
    """Return what the spare says about its set."""
    found = parse_super(read(made.spare_disk, 0, BLOCK_SECTORS), 0)
    assert found is not None
    return found


def table_home(made: RemapSet, copy: int, index: int = 0) -> int:
    """Return the first sector of a copy of a table block."""
    (segment,) = superblock_of(made).segments
    return ((segment.copy_b if copy else segment.copy_a) + index) * BLOCK_SECTORS


def slot_sector(made: RemapSet, slot: int) -> int:
    """Return where a slot of one sector is on the spare."""
    (segment,) = superblock_of(made).segments
    return segment.data * BLOCK_SECTORS + slot


def refuse(made: RemapSet, *slots: int, status: str = "medium") -> None:
    """Have slots take no data from now on; what they hold can be read."""
    for slot in slots:
        for direction in REFUSED:
            made.spare.add(slot_sector(made, slot), 1, direction, status)


def elsewhere(made: RemapSet, first: int) -> int:
    """Return the slot that is tried when this one and the next one have refused."""
    return first + made.status.slots // 14


def map_sectors(made: RemapSet, sector: int, count: int = 1) -> None:
    """Have main refuse a write of generation 1 to these sectors, and then heal."""
    made.main.add(sector, count, "write", "medium")
    write(made.path, sector, pattern(sector, count, 1))
    made.main.clear()


def rows(made: RemapSet) -> list[Row]:
    """Return what the target lists."""
    return [(row.sector, row.slot, row.state, row.generation) for row in entries(made.name)]


def on_disk(made: RemapSet, copy: int) -> list[Row]:
    """Return the same from one copy of the table on the spare, all of it at home."""
    (segment,) = superblock_of(made).segments
    data = read(made.spare_disk, table_home(made, copy), segment.table_blocks * BLOCK_SECTORS)
    found = [
        entry
        for index in range(segment.table_blocks)
        for entry in parse_entries(
            data[index * BLOCK : (index + 1) * BLOCK], segment.used(index), index * ENTRIES
        )
    ]
    return [
        (
            None if entry.state is SlotState.BAD else entry.unit,
            entry.slot,
            entry.state.name.lower(),
            entry.generation,
        )
        for entry in found
    ]


def assert_durable(made: RemapSet, expected: list[Row]) -> None:
    """Have it listed, in both copies on the spare, and still there when the set starts again."""
    assert rows(made) == expected
    made.remove()
    for copy in (0, 1):
        assert on_disk(made, copy) == expected
    made.create()
    assert rows(made) == expected


def assert_adds_up(made: RemapSet) -> None:
    """Every slot is counted once, and as the list has it."""
    now, states = made.status, [row[2] for row in rows(made)]
    assert now.mapped + now.bad + now.free + now.doubt == now.slots
    assert now.mapped == states.count("mapped") + states.count("lost")
    assert (now.lost, now.bad) == (states.count("lost"), states.count("bad"))


def wait_bad(made: RemapSet, count: int) -> None:
    """Wait until so many slots are listed as bad, which happens after a write that fails."""
    listed = f"{count} bad slots in the list"
    wait_for(lambda: [row[2] for row in rows(made)].count("bad") == count, listed)


def write_tables(made: RemapSet, saying: list[Entry]) -> None:
    """Have both copies of a set's table say this while the set is down."""
    superblock = superblock_of(made)
    ordered = sorted(saying, key=lambda row: row.slot)
    for index, some in groupby(ordered, lambda row: row.slot // ENTRIES):
        block = list(some)
        for copy in (0, 1):
            home = table_home(made, copy, index)
            data = pack_table(
                superblock.uuid, block, index * ENTRIES, home // BLOCK_SECTORS, seq=1000
            )
            write(made.spare_disk, home, data)


@contextmanager
def written_set(saying: list[Entry]) -> Iterator[RemapSet]:
    """Have a set that is down, with this table.

    Main holds generation 100 of its first sectors, and each slot its unit in the generation that
    the entry has.
    """
    with remap_set(spare_size=SPARE) as made:
        write(made.path, 0, pattern(0, 128, 100))
        made.remove()
        write_tables(made, saying)
        for row in saying:
            if row.state is SlotState.MAPPED:
                data = pattern(row.unit, 1, row.generation)
                write(made.spare_disk, slot_sector(made, row.slot), data)
        yield made


def fill_first_block(*rows: Entry) -> list[Entry]:
    """Return a table whose first block has no free slot: the rest of it is bad."""
    taken = {row.slot for row in rows}
    rest = [Entry(slot, SlotState.BAD, 0, 0) for slot in range(ENTRIES) if slot not in taken]
    return [*rows, *rest]


@pytest.fixture
def small() -> Iterator[RemapSet]:
    """A set with a smaller table than elsewhere, which is made and compared in less time."""
    with remap_set(spare_size=SPARE) as made:
        yield made


@pytest.fixture
def worn(small: RemapSet) -> RemapSet:
    """A set with sectors 8 to 11 in slots 0 to 3, of which slot 1 refuses writes.

    The slots hold generation 1, main generation 0 of everything.
    """
    write(small.path, 0, pattern(0, 32))
    map_sectors(small, 8, 4)
    refuse(small, 1)
    return small


WORN: list[Row] = [(8 + n, n, "mapped", 0) for n in range(4)]
ONCE: list[Row] = [
    (8, 0, "mapped", 0),
    (None, 1, "bad", 0),
    (10, 2, "mapped", 0),
    (11, 3, "mapped", 0),
    (9, 4, "mapped", 1),
]
"""What `worn` has when sector 9 has moved."""


# A write whose slot refuses


def write_plain(device: Device) -> None:
    """Write the one sector."""
    device.write(9, pattern(9, 1, 2))


def write_fua(device: Device) -> None:
    """Write it with FUA."""
    device.write(9, pattern(9, 1, 2), fua=True)


def write_zeroes(device: Device) -> None:
    """Zero it without sending data."""
    device.write_zeroes(9, 1)


def write_many(device: Device) -> None:
    """Write it in the middle of others, on main and in slots."""
    device.write(6, pattern(6, 8, 2))


def write_many_zeroes(device: Device) -> None:
    """Zero the same ones."""
    device.write_zeroes(6, 8)


AROUND = texts(6, 2) + texts(8, 4, 1) + texts(12, 2)
"""Sectors 6 to 13 of `worn`."""
WRITES: dict[Callable[[Device], None], list[str]] = {
    write_plain: [*AROUND[:3], "9/2", *AROUND[4:]],
    write_fua: [*AROUND[:3], "9/2", *AROUND[4:]],
    write_zeroes: [*AROUND[:3], "zero", *AROUND[4:]],
    write_many: texts(6, 8, 2),
    write_many_zeroes: ["zero"] * 8,
}


@pytest.mark.parametrize(
    "how", [pytest.param(how, id=how.__name__.removeprefix("write_")) for how in WRITES]
)
def test_a_write_whose_slot_refuses_moves_its_unit(
    how: Callable[[Device], None], worn: RemapSet
) -> None:
    before = worn.status
    with Device(worn.path) as device:
        how(device)
        assert describe(device.read(6, 8)) == WRITES[how]
    assert rows(worn) == ONCE
    now = worn.status
    assert (now.moved, now.bad, now.mapped, now.lost) == (1, 1, 4, 0)
    assert (now.free, now.remapped, now.mode) == (before.free - 1, before.remapped, "rw")
    assert_adds_up(worn)
    assert_durable(worn, ONCE)
    assert worn.status.moved == 0
    assert_adds_up(worn)
    assert held(worn.path, 6, 8) == WRITES[how]


def test_a_unit_moves_again(worn: RemapSet) -> None:
    write(worn.path, 9, pattern(9, 1, 2))
    refuse(worn, 4)
    write(worn.path, 9, pattern(9, 1, 3))
    twice = [*ONCE[:4], (None, 4, "bad", 0), (9, 5, "mapped", 2)]
    assert rows(worn) == twice
    assert (worn.status.moved, worn.status.bad, worn.status.mapped) == (2, 2, 4)
    assert_durable(worn, twice)
    refuse(worn, 5)
    write(worn.path, 9, pattern(9, 1, 4))
    assert_durable(worn, [*twice[:5], (None, 5, "bad", 0), (9, 6, "mapped", 3)])
    assert_adds_up(worn)
    assert held(worn.path, 8, 4) == texts(8, 4, 1, g4=[9])


def test_main_is_asked_for_no_unit_that_moved(worn: RemapSet) -> None:
    write(worn.path, 9, pattern(9, 1, 2))
    for _ in range(2):
        worn.spare.add(slot_sector(worn, 4), 1, "read", "medium")
        assert try_read(worn.path, 9) == "ENODATA"
        worn.spare.clear()
        refuse(worn, 1)
        assert held(worn.path, 9) == ["9/2"]
        worn.recreate()
    assert held(worn.main_disk, 9) == ["9/0"]
    assert worn.pending == []


def test_writes_after_a_move_go_to_the_new_slot(worn: RemapSet) -> None:
    write(worn.path, 9, pattern(9, 1, 2))
    worn.recreate()  # ends what is left of the move
    worn.reset()
    write(worn.path, 9, pattern(9, 1, 3))
    assert worn.spare.counters()["writes"] == 1
    assert worn.main.counters()["writes"] == 0
    assert held(worn.spare_disk, slot_sector(worn, 1)) == ["9/1"]
    assert held(worn.spare_disk, slot_sector(worn, 4)) == ["9/3"]


def test_reads_beside_a_unit_that_moves_see_nothing_wrong(worn: RemapSet) -> None:
    acknowledged = [1]  # generation of sector 9
    stop: list[bool] = []

    def look() -> int:
        rounds = 0
        with Device(worn.path, writable=False) as device:
            while not stop:
                least = acknowledged[0]
                found = describe(device.read(7, 6))
                most = acknowledged[0] + 1
                assert found.pop(2) in {f"9/{n}" for n in range(least, most + 1)}
                assert found == ["7/0", "8/1", "10/1", "11/1", "12/0"]
                rounds += 1
        return rounds

    reader = background(look)
    slot = 1
    with Device(worn.path) as device:
        for generation in range(2, 22):
            device.write(9, pattern(9, 1, generation))
            acknowledged[0] = generation
            slot = 4 if slot == 1 else slot + 1
            refuse(worn, slot)
    stop.append(True)
    assert reader.result(30) > 0
    assert worn.status.moved == 20
    assert held(worn.path, 8, 4) == texts(8, 4, 1, g21=[9])


def test_writes_that_overlap_move_their_unit_once(worn: RemapSet) -> None:
    worn.spare.hold("write", table_home(worn, 0), 8)
    first = background(write, worn.path, 9, pattern(9, 1, 2))
    worn.spare.wait_held()
    errors = worn.status.write_errors
    second = background(write, worn.path, 8, pattern(8, 4, 3))
    wait_for(lambda: worn.status.write_errors > errors, "the second one to fail")
    assert held(worn.path, 9) == ["9/1"]
    worn.spare.release()
    first.result(30)
    second.result(30)
    assert worn.status.moved == 1
    # The second one waited for the first.
    assert held(worn.path, 8, 4) == texts(8, 4, 3)
    assert_durable(worn, ONCE)
    assert held(worn.path, 8, 4) == texts(8, 4, 3)


# What it costs, and in which order


def test_a_move_is_its_data_and_two_metadata_blocks_twice(worn: RemapSet) -> None:
    worn.reset()
    write(worn.path, 9, pattern(9, 1, 2))
    wait_for(lambda: worn.spare.counters()["writes"] >= 7, "the old slot's entry")
    counters = worn.spare.counters()
    # The write and its repetition, the data, the new entry, the old entry.
    assert (counters["writes"], counters["failed"], counters["fua"]) == (2 + 1 + 2 + 2, 2, 5)
    assert counters["write_sectors"] == 2 + 1 + 4 * 8
    assert (counters["reads"], counters["flushes"]) == (0, 0)
    assert worn.main.counters()["writes"] == 0
    worn.remove()
    assert worn.spare.counters()["writes"] == 7
    worn.create()


@pytest.mark.parametrize("copy", [0, 1])
def test_a_move_is_not_published_before_both_copies_are_durable(copy: int, worn: RemapSet) -> None:
    worn.spare.hold("write", table_home(worn, copy), 8)
    late = background(write, worn.path, 9, pattern(9, 1, 2))
    worn.spare.wait_held()
    assert not late.done()
    assert rows(worn) == WORN
    assert held(worn.path, 8, 4) == texts(8, 4, 1)
    # The data is there before any entry.
    assert held(worn.spare_disk, slot_sector(worn, 4)) == ["9/2"]
    cut = read(worn.spare_disk, 0, SPARE // SECTOR)
    worn.spare.release()
    late.result(30)
    assert held(worn.path, 9) == ["9/2"]
    worn.remove()
    # A power cut at that moment leaves the old data or the new.
    write(worn.spare_disk, 0, cut)
    worn.create()
    assert held(worn.path, 8, 4) == (texts(8, 4, 1, g2=[9]) if copy else texts(8, 4, 1))
    assert_adds_up(worn)
    assert_durable(worn, ONCE if copy else WORN)


def test_the_old_slot_becomes_bad_after_the_acknowledgement() -> None:
    with written_set(fill_first_block(Entry(0, SlotState.MAPPED, 9, 0))) as made:
        made.create()
        refuse(made, 0)
        made.reset()
        made.spare.hold("write", table_home(made, 0), 8)
        background(write, made.path, 9, pattern(9, 1, 1)).result(30)
        # Acknowledged, while the old slot's block is on its way.
        made.spare.wait_held()
        assert made.spare.counters()["writes"] == 2 + 1 + 2 + 1
        assert held(made.path, 9) == ["9/1"]
        assert (made.status.moved, made.status.bad) == (1, 252)
        both = [(9, 0, "mapped", 0), (9, 252, "mapped", 1)]
        for copy in (0, 1):
            assert [row for row in on_disk(made, copy) if row[2] == "mapped"] == both
        cut = read(made.spare_disk, 0, SPARE // SECTOR)
        made.spare.release()
        wait_for(lambda: made.spare.counters()["writes"] == 7, "the old slot's block")
        done = [*((None, slot, "bad", 0) for slot in range(252)), (9, 252, "mapped", 1)]
        assert_durable(made, done)
        # The same after a power cut at that moment.
        made.remove()
        write(made.spare_disk, 0, cut)
        made.create()
        assert held(made.path, 9) == ["9/1"]
        assert_durable(made, done)
        assert held(made.path, 9) == ["9/1"]


def test_an_old_slot_that_cannot_be_marked_loses_nothing() -> None:
    with written_set(fill_first_block(Entry(0, SlotState.MAPPED, 9, 0))) as made:
        made.create()
        refuse(made, 0)
        made.spare.add(*STANDINS, "write", "medium")
        for copy in (0, 1):
            made.spare.add(table_home(made, copy), 8, "write", "medium")
        write(made.path, 9, pattern(9, 1, 1))
        wait_for(lambda: made.status.mode == "ro", "mode ro")
        assert made.status.doubt == 0
        write(made.path, 9, pattern(9, 1, 2))
        made.spare.clear()
        made.recreate()
        assert (made.status.mode, made.status.bad) == ("rw", 252)
        assert held(made.path, 9) == ["9/2"]


# Pieces


@pytest.fixture
def pieces() -> Iterator[RemapSet]:
    """A set on a 512e main: sector 100 in slot 0, the piece at 16 in slots 8 to 15."""
    with remap_set(spare_size=SPARE, main_options=("physical", "4096")) as made:
        write(made.path, 0, pattern(0, 128))
        map_sectors(made, 100)
        map_sectors(made, 16, 8)
        yield made


def test_a_piece_moves_whole_into_an_aligned_run(pieces: RemapSet) -> None:
    assert rows(pieces) == [
        (100, 0, "mapped", 0),
        *((16 + n, 8 + n, "mapped", 0) for n in range(8)),
    ]
    refuse(pieces, 11)
    pieces.reset()
    write(pieces.path, 16, pattern(16, 8, 2))
    wait_for(lambda: pieces.spare.counters()["writes"] >= 7, "the old slots' entries")
    counters = pieces.spare.counters()
    assert (counters["writes"], counters["write_sectors"]) == (7, 3 * 8 + 4 * 8)
    moved: list[Row] = [
        (100, 0, "mapped", 0),
        *((None, 8 + n, "bad", 0) for n in range(8)),
        *((16 + n, 16 + n, "mapped", 1) for n in range(8)),
    ]
    assert (pieces.status.moved, pieces.status.bad) == (8, 8)
    assert_durable(pieces, moved)
    assert_adds_up(pieces)
    assert slot_sector(pieces, 16) % 8 == 0
    # It stays one bio.
    pieces.reset()
    write(pieces.path, 16, pattern(16, 8, 3))
    assert held(pieces.path, 16, 8) == texts(16, 8, 3)
    counters = pieces.spare.counters()
    assert (counters["writes"], counters["reads"]) == (1, 1)


def test_of_a_part_of_a_piece_only_what_is_refused_moves(pieces: RemapSet) -> None:
    refuse(pieces, 11)
    write(pieces.path, 17, pattern(17, 4, 2))
    moved: list[Row] = [(16 + n, 8 + n, "mapped", 0) for n in range(8)]
    moved[3] = (None, 11, "bad", 0)
    assert rows(pieces) == [(100, 0, "mapped", 0), (19, 1, "mapped", 1), *moved]
    assert held(pieces.path, 16, 8) == texts(16, 8, 1, g2=range(17, 21))
    # A whole one that lies apart afterwards.
    write(pieces.path, 14, pattern(14, 12, 3))
    pieces.recreate()
    assert held(pieces.path, 14, 12) == texts(14, 12, 3)


# Errors that move nothing


@pytest.mark.parametrize(
    ("status", "error"),
    [("transport", "ENOLINK"), ("offline", "ENODEV"), ("timeout", "ETIMEDOUT")],
)
def test_other_errors_of_a_slot_pass_up_and_move_nothing(
    status: str, error: str, worn: RemapSet
) -> None:
    worn.spare.clear()
    worn.spare.add(slot_sector(worn, 1), 1, "any", status)
    before = worn.status
    worn.reset()
    for data in (pattern(9, 1, 2), pattern(9, 1, 3)):
        assert try_write(worn.path, 9, data) == error
    with Device(worn.path) as device:
        assert outcome(device.write_zeroes, 9, 1) == error
    assert try_read(worn.path, 9) == error
    # The spare is not asked to write zeroes, but for them to be written.
    counters = worn.spare.counters()
    assert (counters["writes"], counters["write_zeroes"]) == (3, 0)
    assert worn.main.counters()["writes"] == 0
    now = worn.status
    assert (now.moved, now.bad, now.free, now.mode) == (0, 0, before.free, "rw")
    worn.spare.clear()
    assert held(worn.path, 8, 4) == texts(8, 4, 1)
    assert_durable(worn, WORN)


def test_errors_medium_moves_for_medium_errors_only() -> None:
    with remap_set("errors", "medium", spare_size=SPARE) as made:
        map_sectors(made, 8, 2)
        refuse(made, 0, status="ioerr")
        refuse(made, 1)
        assert try_write(made.path, 8, pattern(8, 1, 2)) == "EIO"
        assert try_write(made.path, 9, pattern(9, 1, 2)) == "OK"
        assert_durable(made, [(8, 0, "mapped", 0), (None, 1, "bad", 0), (9, 2, "mapped", 1)])
        assert held(made.path, 8, 2) == texts(8, 2, 1, g2=[9])


def test_a_new_slot_that_cannot_be_reached_is_not_burnt(worn: RemapSet) -> None:
    refuse(worn, 4, status="transport")
    before = worn.status
    assert try_write(worn.path, 9, pattern(9, 1, 2)) == "ENODATA"
    now = worn.status
    assert (now.moved, now.bad, now.free, now.mode) == (0, 0, before.free, "rw")
    assert held(worn.path, 8, 4) == texts(8, 4, 1)
    assert_durable(worn, WORN)
    worn.spare.clear()
    refuse(worn, 1)
    write(worn.path, 9, pattern(9, 1, 2))
    assert_durable(worn, ONCE)


@pytest.mark.parametrize(("status", "error"), [("ioerr", "EIO"), ("medium", "ENODATA")])
def test_a_dead_spare_moves_nothing_and_burns_nothing(
    status: str, error: str, worn: RemapSet
) -> None:
    before = worn.status
    worn.spare.dead(status)
    assert try_write(worn.path, 9, pattern(9, 1, 2)) == error
    wait_for(lambda: worn.status.mode == "ro", "mode ro")
    now = worn.status
    assert (now.moved, now.bad, now.free, now.doubt) == (0, 0, before.free, 0)
    # No sector of main stands in for it, and the others of main work.
    assert try_read(worn.path, 9) == error
    write(worn.path, 12, pattern(12, 4, 2))
    assert held(worn.path, 4, 4) + held(worn.path, 12, 4) == texts(4, 4) + texts(12, 4, 2)
    assert held(worn.main_disk, 9) == ["9/0"]
    worn.spare.dead()
    assert held(worn.path, 8, 4) == texts(8, 4, 1)
    assert_durable(worn, WORN)
    assert worn.status.mode == "rw"
    write(worn.path, 9, pattern(9, 1, 3))
    assert_durable(worn, ONCE)


def test_a_write_that_fails_later_moves_nothing(worn: RemapSet) -> None:
    refuse(worn, 2, status="transport")
    before = worn.status
    assert try_write(worn.path, 8, pattern(8, 4, 2)) == "ENOLINK"
    now = worn.status
    assert (now.moved, now.bad, now.free) == (0, 0, before.free)
    assert held(worn.path, 8, 4) == ["8/2", *texts(9, 3, 1)]
    assert_durable(worn, WORN)
    assert held(worn.path, 8, 4) == ["8/2", *texts(9, 3, 1)]


def test_an_open_breaker_moves_nothing(worn: RemapSet) -> None:
    dm_message(worn.name, "breaker", "open")
    assert try_write(worn.path, 9, pattern(9, 1, 2)) == "ENODATA"
    assert rows(worn) == WORN
    assert held(worn.path, 9) == ["9/1"]
    dm_message(worn.name, "breaker", "close")
    write(worn.path, 9, pattern(9, 1, 2))
    assert rows(worn) == ONCE


def test_what_moves_counts_for_the_breaker() -> None:
    with remap_set("remap_rate", "3", spare_size=SPARE) as made:
        map_sectors(made, 8)
        for slot in (0, 1):
            refuse(made, slot)
            write(made.path, 8, pattern(8, 1, 2 + slot))
        refuse(made, 2)
        before = made.status
        assert try_write(made.path, 8, pattern(8, 1, 4)) == "ENODATA"
        now = made.status
        assert (before.breaker, now.breaker) == ("closed", "open")
        assert (now.moved, now.bad) == (2, 2)
        assert held(made.path, 8) == ["8/3"]


@pytest.mark.parametrize("how", ["dead", "readonly"])
def test_a_move_does_not_need_main(how: str) -> None:
    """Main is not what failed, and mapped sectors work without it."""
    with tagged_set(spare_size=SPARE) as made:
        made.main.add(2048 + 8, 1, "write", "medium")
        write(made.path, 8, pattern(8, 1, 1))
        refuse(made, 0)
        getattr(made.main, how)("ioerr")
        assert try_write(made.path, 8, pattern(8, 1, 2)) == "OK"
        assert held(made.path, 8) == ["8/2"]
        assert made.status.moved == 1


# Slots that refuse their first data


def test_a_slot_that_refuses_its_first_data_is_bad_for_good(small: RemapSet) -> None:
    refuse(small, 0, 1, 2)
    map_sectors(small, 8)
    bad: list[Row] = [(None, 0, "bad", 0), (None, 1, "bad", 0)]
    taken: Row = (8, elsewhere(small, 0), "mapped", 0)
    assert small.status.bad == 2
    assert_adds_up(small)
    assert_durable(small, [*bad, taken])
    assert_adds_up(small)
    small.spare.clear()
    map_sectors(small, 9)
    assert_durable(small, [*bad, (9, 2, "mapped", 0), taken])
    assert held(small.path, 8, 2) == texts(8, 2, 1)


def test_it_is_bad_even_if_the_write_fails_later(small: RemapSet) -> None:
    refuse(small, 0)
    small.main.add(8, 1, "write", "medium")
    small.main.add(9, 1, "write", "transport")
    assert try_write(small.path, 8, pattern(8, 2)) == "ENOLINK"
    wait_bad(small, 1)
    # The slot that was taken instead is free again.
    assert_durable(small, [(None, 0, "bad", 0)])
    assert_adds_up(small)
    small.spare.clear()
    small.main.clear()
    map_sectors(small, 8)
    assert_durable(small, [(None, 0, "bad", 0), (8, 1, "mapped", 0)])


def test_a_new_slot_that_refuses_a_unit_that_moves_is_bad_too(worn: RemapSet) -> None:
    refuse(worn, 4, 5)
    write(worn.path, 9, pattern(9, 1, 2))
    slot = elsewhere(worn, 4)
    moved = [*ONCE[:4], (None, 4, "bad", 0), (None, 5, "bad", 0), (9, slot, "mapped", 1)]
    assert (worn.status.moved, worn.status.bad) == (1, 3)
    assert_durable(worn, moved)
    assert_adds_up(worn)
    assert held(worn.path, 8, 4) == texts(8, 4, 1, g2=[9])


def refuse_all(made: RemapSet) -> None:
    """Have no slot take data from now on."""
    for direction in REFUSED:
        made.spare.add(slot_sector(made, 0), made.status.slots, direction, "ioerr")


def test_slots_that_refuse_and_no_other_takes_it_are_free_again(small: RemapSet) -> None:
    """As those of a sparse file on a file system that is full."""
    small.main.add(8, 4, "write", "medium")
    before = small.status
    refuse_all(small)
    for sector in range(8, 11):
        failed = small.spare.counters()["failed"]
        assert try_write(small.path, sector, pattern(sector)) == "ENODATA"  # main's error
        assert small.spare.counters()["failed"] - failed == 16
    now = small.status
    assert (now.bad, now.free, now.mode) == (0, before.free, "rw")
    assert rows(small) == []
    assert_adds_up(small)
    small.spare.clear()
    write(small.path, 8, pattern(8, 4, 1))
    # Three slots further each time.
    assert_durable(small, [(n + 8, n + 9, "mapped", 0) for n in range(4)])
    assert held(small.path, 8, 4) == texts(8, 4, 1)


def test_a_spare_on_a_full_file_system_serves_again_when_there_is_space(tmp_path: Path) -> None:
    """A sparse file takes what is written where it was written before: the metadata."""
    run("mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", tmp_path)
    try:
        with ExitStack() as stack:
            image, filler = tmp_path / "spare", tmp_path / "filler"
            image.touch()
            os.truncate(image, 8 * MIB)
            disk = stack.enter_context(loop_device(image=image))
            made = stack.enter_context(remap_set(spare_disk=disk))
            with suppress(OSError), filler.open("wb", buffering=0) as full:
                while full.write(bytes(BLOCK)):
                    pass
            made.main.add(0, 40, "write", "medium")
            for sector in range(0, 40, 2):
                assert try_write(made.path, sector, pattern(sector)) == "ENODATA"
            now = made.status
            assert (now.bad, now.free, now.mode, now.breaker) == (0, now.slots, "rw", "closed")
            assert_adds_up(made)
            filler.unlink()
            write(made.path, 0, pattern(0, 40, 1))
            assert made.status.bad == 0
            made.recreate()
            assert made.mapped == list(range(40))
            assert held(made.path, 0, 40) == texts(0, 40, 1)
    finally:
        run("umount", tmp_path)


def test_fifteen_slots_are_bad_once_the_sixteenth_takes_the_data(small: RemapSet) -> None:
    refuse_all(small)
    small.spare.clear(slot_sector(small, 2))
    map_sectors(small, 8)
    assert (small.mapped, small.status.bad) == ([8], 15)
    bad = [row for row in rows(small) if row[2] == "bad"]
    assert [slot for _, slot, _, _ in bad][:3] == [0, 1, elsewhere(small, 0)]
    assert_durable(small, [*bad[:2], (8, 2, "mapped", 0), *bad[2:]])
    assert_adds_up(small)
    assert held(small.path, 8) == ["8/1"]


def test_a_unit_that_no_slot_takes_stays_where_it_is(worn: RemapSet) -> None:
    before = worn.status
    worn.spare.clear()
    refuse_all(worn)
    assert try_write(worn.path, 9, pattern(9, 1, 2)) == "EIO"  # its slot's error
    assert held(worn.path, 8, 4) == texts(8, 4, 1)
    now = worn.status
    assert (now.moved, now.bad, now.free, now.mode) == (0, 0, before.free, "rw")
    assert_durable(worn, WORN)
    assert_adds_up(worn)
    worn.spare.clear()
    refuse(worn, 1)
    write(worn.path, 9, pattern(9, 1, 3))
    assert_durable(worn, ONCE)
    assert held(worn.path, 8, 4) == texts(8, 4, 1, g3=[9])


def test_full_is_said_when_all_free_slots_have_refused() -> None:
    with remap_set("remap_rate", "0", spare_len=SMALLEST_AREA) as made:
        write(made.path, 0, pattern(0, 8))
        map_sectors(made, 0, 3)
        refuse_all(made)
        assert remap_by_hand(made, 4, 1) == (0, 1, "full")
        made.main.add(4, 1, "write", "medium")
        assert try_write(made.path, 4, pattern(4)) == "ENODATA"
        assert (made.status.bad, made.status.free) == (0, 5)
        assert_adds_up(made)
        made.spare.clear()
        write(made.path, 4, pattern(4, 1, 1))
        assert held(made.path, 0, 8) == texts(0, 8, 0, g1=[0, 1, 2, 4])


def remap_by_hand(made: RemapSet, *words: str | int) -> tuple[int, int, str | None]:
    """Send the message `remap` to a set, which is suspended for it."""
    dm_suspend(made.name)
    try:
        reply = parse_remap(dm_message(made.name, "remap", *words))
    finally:
        dm_resume(made.name)
    return reply.done, reply.total, reply.obstacle


def test_a_slot_that_refuses_what_is_mapped_by_hand_is_bad(small: RemapSet) -> None:
    write(small.path, 8, pattern(8, 2))
    refuse(small, 0)
    assert remap_by_hand(small, 8, 2) == (2, 2, None)
    assert_durable(small, [(None, 0, "bad", 0), (8, 1, "mapped", 0), (9, 2, "mapped", 0)])
    assert_adds_up(small)
    assert held(small.path, 8, 2) == texts(8, 2)


def test_slots_that_refuse_what_is_mapped_by_hand_are_free_again(small: RemapSet) -> None:
    write(small.path, 8, pattern(8, 2))
    before = small.status
    refuse_all(small)
    assert remap_by_hand(small, 8, 2) == (0, 2, "failed")
    now = small.status
    assert (now.bad, now.free, now.mode) == (0, before.free, "rw")
    assert_adds_up(small)
    small.spare.clear()
    assert remap_by_hand(small, 8, 2) == (2, 2, None)
    assert_durable(small, [(8, 3, "mapped", 0), (9, 4, "mapped", 0)])


# No slot is left


def test_without_a_free_slot_a_move_fails_and_the_old_data_stays() -> None:
    with remap_set("remap_rate", "0", spare_len=SMALLEST_AREA) as made:
        write(made.path, 0, pattern(0, 16))
        map_sectors(made, 0, 7)
        assert made.status.free == 1
        refuse(made, 2, 3)
        full: list[Row] = [(n, n, "mapped", 0) for n in range(7)]
        # Two units, one slot: neither moves.
        assert try_write(made.path, 2, pattern(2, 2, 2)) == "ENODATA"
        assert rows(made) == full
        assert held(made.path, 0, 8) == [*texts(0, 7, 1), "7/0"]
        write(made.path, 2, pattern(2, 1, 3))
        full[2] = (None, 2, "bad", 0)
        full.append((2, 7, "mapped", 1))
        assert (made.status.free, made.status.moved) == (0, 1)
        assert try_write(made.path, 3, pattern(3, 1, 3)) == "ENODATA"
        assert held(made.path, 0, 8) == [*texts(0, 7, 1, g3=[2]), "7/0"]
        assert made.status.mode == "rw"
        assert_durable(made, full)
        assert_adds_up(made)
        assert held(made.path, 0, 8) == [*texts(0, 7, 1, g3=[2]), "7/0"]
        made.spare.clear()
        write(made.path, 3, pattern(3, 1, 4))
        assert rows(made) == full


# A commit that fails half way


@pytest.mark.parametrize("copy", [0, 1])
def test_a_move_whose_commit_half_fails_is_in_doubt(copy: int, worn: RemapSet) -> None:
    worn.spare.add(*STANDINS, "write", "medium")
    worn.spare.add(table_home(worn, copy), 8, "write", "medium")
    assert try_write(worn.path, 9, pattern(9, 1, 2)) == "EIO"
    now = worn.status
    assert (now.mode, now.doubt, now.moved, now.bad) == ("ro", 1, 0, 0)
    assert now.mapped + now.bad + now.free + now.doubt == now.slots
    worn.spare.clear()
    # Until it is known what is true.
    assert try_read(worn.path, 9) == "EIO"
    assert try_read(worn.path, 6, 8) == "EIO"
    assert try_write(worn.path, 9, pattern(9, 1, 3)) == "EIO"
    with Device(worn.path) as device:
        assert outcome(device.write_zeroes, 9, 1) == "EIO"
    assert held(worn.main_disk, 9) == ["9/0"]
    write(worn.path, 10, pattern(10, 4, 3))
    assert held(worn.path, 6, 3) == ["6/0", "7/0", "8/1"]
    worn.recreate()
    assert (worn.status.mode, worn.status.doubt) == ("rw", 0)
    assert held(worn.path, 9)[0] in ("9/1", "9/2")
    assert_adds_up(worn)
    write(worn.path, 9, pattern(9, 1, 4))
    for _ in range(2):
        assert held(worn.path, 8, 6) == texts(8, 6, 3, g1=[8], g4=[9])
        worn.recreate()
    assert held(worn.main_disk, 9) == ["9/0"]


# Two entries of one unit


def test_of_the_entries_of_a_unit_the_highest_generation_counts() -> None:
    mapped, lost = SlotState.MAPPED, SlotState.LOST
    saying = [
        # Higher slot, lower slot, the middle one of three, and a newer one without content.
        Entry(3, mapped, 50, 7),
        Entry(300, mapped, 50, 8),
        Entry(4, mapped, 51, 2),
        Entry(301, mapped, 51, 1),
        Entry(5, mapped, 52, 0),
        Entry(6, mapped, 52, 2),
        Entry(302, mapped, 52, 1),
        Entry(7, mapped, 53, 1),
        Entry(8, lost, 53, 2),
    ]
    live: list[Row] = [
        (None, 3, "bad", 0),
        (51, 4, "mapped", 2),
        (None, 5, "bad", 0),
        (52, 6, "mapped", 2),
        (None, 7, "bad", 0),
        (53, 8, "lost", 2),
        (50, 300, "mapped", 8),
        (None, 301, "bad", 0),
        (None, 302, "bad", 0),
    ]
    with written_set(saying) as made:
        before = contents(made.spare_disk)
        made.create(readonly=True)
        assert held(made.path, 50, 3) == ["50/8", "51/2", "52/2"]
        assert try_read(made.path, 53) == "ENODATA"
        made.remove()
        assert contents(made.spare_disk) == before
        made.create()
        assert_adds_up(made)
        assert (made.status.mapped, made.status.bad, made.status.lost) == (4, 5, 1)
        # Now it is on the disk.
        assert_durable(made, live)
        assert_adds_up(made)
        assert held(made.path, 49, 4) == ["49/100", "50/8", "51/2", "52/2"]
        assert try_read(made.path, 53) == "ENODATA"


def test_no_entry_is_given_up_before_the_newer_one_is_there_twice() -> None:
    saying = [Entry(3, SlotState.MAPPED, 50, 1), Entry(300, SlotState.MAPPED, 50, 2)]
    with written_set(saying) as made:
        for index in (0, 1):
            write(made.spare_disk, table_home(made, 1, index), bytes(BLOCK))
        # The newer one's block has one copy, and no second can be written.
        made.spare.add(*STANDINS, "write", "medium")
        for copy in (0, 1):
            made.spare.add(table_home(made, copy, 1), 8, "write", "medium")
        assert "the set was not started" in refusal(made.line)
        assert on_disk(made, 0) == [(50, 3, "mapped", 1), (50, 300, "mapped", 2)]
        made.spare.clear()
        made.create()
        assert held(made.path, 50) == ["50/2"]
        assert_durable(made, [(None, 3, "bad", 0), (50, 300, "mapped", 2)])


@pytest.mark.parametrize(("one", "other"), [(3, 5), (3, 300)])
def test_two_entries_of_equal_generation_are_refused(one: int, other: int) -> None:
    saying = [
        Entry(one, SlotState.MAPPED, 50, 4),
        Entry(other, SlotState.MAPPED, 50, 4),
        Entry(other + 1, SlotState.MAPPED, 51, 4),
    ]
    with written_set(saying) as made:
        before = contents(made.spare_disk)
        for readonly in (False, True):
            log = refusal(made.line, readonly=readonly)
            assert f"unit 50 is mapped twice, to slots {one} and {other}" in log
        assert contents(made.spare_disk) == before


# Units whose content is lost


@pytest.fixture
def lost(small: RemapSet) -> RemapSet:
    """A set whose sectors 100 to 102 are lost, in slots 0 to 2; slot 1 refuses writes."""
    write(small.path, 96, pattern(96, 16))
    assert remap_by_hand(small, 100, 3, "lost") == (3, 3, None)
    refuse(small, 1)
    return small


def test_a_lost_unit_whose_slot_refuses_moves_and_is_found(lost: RemapSet) -> None:
    assert (lost.status.lost, lost.status.mapped) == (3, 3)
    assert try_read(lost.path, 101) == "ENODATA"
    lost.reset()
    write(lost.path, 101, pattern(101, 1, 1))
    wait_for(lambda: lost.spare.counters()["writes"] >= 6, "the old slot's entry")
    counters = lost.spare.counters()
    # Refused once: what is lost goes straight to the error path.
    assert (counters["writes"], counters["failed"]) == (1 + 1 + 2 + 2, 1)
    now = lost.status
    assert (now.lost, now.mapped, now.moved, now.bad) == (2, 3, 1, 1)
    assert_adds_up(lost)
    assert_durable(
        lost,
        [(100, 0, "lost", 0), (None, 1, "bad", 0), (102, 2, "lost", 0), (101, 3, "mapped", 1)],
    )
    assert_adds_up(lost)
    assert held(lost.path, 101) == ["101/1"]
    assert [try_read(lost.path, n) for n in (100, 102)] == ["ENODATA"] * 2


@pytest.mark.parametrize("zeroes", [False, True])
def test_lost_units_are_found_whether_they_move_or_not(zeroes: bool, lost: RemapSet) -> None:
    with Device(lost.path) as device:
        if zeroes:
            device.write_zeroes(98, 8)
        else:
            device.write(98, pattern(98, 8, 1))
    now = lost.status
    assert (now.lost, now.mapped, now.moved, now.bad) == (0, 3, 1, 1)
    assert_adds_up(lost)
    assert_durable(
        lost,
        [(100, 0, "mapped", 0), (None, 1, "bad", 0), (102, 2, "mapped", 0), (101, 3, "mapped", 1)],
    )
    assert held(lost.path, 98, 8) == (["zero"] * 8 if zeroes else texts(98, 8, 1))


def test_a_lost_unit_that_cannot_move_stays_lost(lost: RemapSet) -> None:
    refuse_all(lost)
    assert try_write(lost.path, 101, pattern(101, 1, 1)) != "OK"
    assert (lost.status.lost, lost.status.bad) == (3, 0)
    assert try_read(lost.path, 101) == "ENODATA"
    lost.recreate()
    assert try_read(lost.path, 101) == "ENODATA"
    assert_adds_up(lost)
    lost.spare.clear()
    refuse(lost, 1)
    write(lost.path, 101, pattern(101, 1, 2))
    assert held(lost.path, 101) == ["101/2"]
    assert lost.status.lost == 2


def test_a_lost_unit_stays_lost_if_its_write_fails_elsewhere(lost: RemapSet) -> None:
    lost.spare.clear()
    refuse(lost, 1, status="transport")
    assert try_write(lost.path, 100, pattern(100, 3, 1)) == "ENOLINK"
    still: list[Row] = [(100 + n, n, "lost", 0) for n in range(3)]
    assert rows(lost) == still
    assert_adds_up(lost)
    assert [try_read(lost.path, n) for n in (100, 101, 102)] == ["ENODATA"] * 3
    assert_durable(lost, still)
    lost.spare.clear()
    write(lost.path, 100, pattern(100, 3, 2))
    assert held(lost.path, 100, 3) == texts(100, 3, 2)
    assert lost.status.lost == 0


# The last generation


def test_a_unit_of_the_last_generation_does_not_move() -> None:
    with written_set([Entry(0, SlotState.MAPPED, 9, GEN_MAX - 1)]) as made:
        made.create()
        refuse(made, 0)
        write(made.path, 9, pattern(9, 1, 2))
        last: list[Row] = [(None, 0, "bad", 0), (9, 1, "mapped", GEN_MAX)]
        assert_durable(made, last)
        refuse(made, 1)
        free = made.status.free
        assert try_write(made.path, 9, pattern(9, 1, 3)) == "ENODATA"
        assert (made.status.free, made.status.moved, made.status.mode) == (free, 0, "rw")
        assert held(made.path, 9) == ["9/2"]
        assert_durable(made, last)
        assert held(made.path, 9) == ["9/2"]
        made.spare.clear()
        write(made.path, 9, pattern(9, 1, 4))
        assert held(made.path, 9) == ["9/4"]
        assert held(made.main_disk, 9) == ["9/100"]


# A part of the table is gone


def test_accept_stale_serves_what_is_left() -> None:
    saying = [Entry(0, SlotState.MAPPED, 9, 1), Entry(300, SlotState.MAPPED, 20, 1)]
    with written_set(saying) as made:
        homes = [table_home(made, copy) for copy in (0, 1)]
        for home in homes:
            write(made.spare_disk, home, pattern(home, 8))
        before = contents(made.spare_disk, made.main_disk)
        stale = f"{made.line} 1 accept_stale"
        gone = f"both copies of metadata block {homes[0] // 8} are gone, it and block "
        for readonly in (False, True):
            assert gone + str(homes[1] // 8) in refusal(made.line, readonly=readonly)
        assert "accept_stale: expected a read-only table" in refusal(stale)
        assert contents(made.spare_disk, made.main_disk) == before

        again = accept_stale(made, stale, gone=1)
        # The line that it prints makes the same device.
        assert accept_stale(made, again, gone=1) == again
        # Another block, in which nothing was mapped.
        for copy in (0, 1):
            write(made.spare_disk, table_home(made, copy, 2), bytes(BLOCK))
        before = contents(made.spare_disk, made.main_disk)
        assert accept_stale(made, again, gone=2) == again
        assert contents(made.spare_disk, made.main_disk) == before
        # The block that is left is as it was.
        data = [read(made.spare_disk, table_home(made, copy, 1), 8) for copy in (0, 1)]
        assert same_body(*data)


def accept_stale(made: RemapSet, line: str, gone: int) -> str:
    """Start a set that has lost the first block of its table; return the table line it prints."""
    dm_create(made.name, line, readonly=True)
    try:
        now = made.status
        assert (now.mode, now.gone, now.mapped) == ("ro", gone, 1)
        assert rows(made) == [(20, 300, "mapped", 1)]
        # Sector 9 was mapped, which nobody knows any more: main's is old.
        assert held(made.path, 8, 2) == texts(8, 2, 100)
        assert held(made.path, 19, 3) == texts(19, 3, 100, g1=[20])
        assert table(made.name).accept_stale
        (printed,) = dm_lines(made.name, table=True)
        return printed
    finally:
        dm_remove(made.name)
