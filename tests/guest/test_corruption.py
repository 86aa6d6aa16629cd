# SPDX-License-Identifier: GPL-2.0-only
"""Damaged and hostile areas through the kernel: accepted or refused as dmremap's check says.

tests/unit/test_corruption.py does the same a hundred times as often with the loader in a process.
The area is a file in memory, rewritten in place under its loop device. Its tables are read at once;
the last tests have one that takes two reads, and in between the lookup is filled. In a guest, as
root.
"""

from __future__ import annotations

import os
import struct
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest
from guest import dmioctl
from guest.lib import (
    SLOW_KERNEL,
    background,
    backing_file,
    dm_create,
    dm_message,
    dm_names,
    dm_remove,
    dm_resume,
    fault_device,
    kernel_log,
    loop_device,
    pattern,
    sectors,
    write,
)
from guest.remapset import held, status, texts
from unit.areas import (
    AREA_BLOCKS,
    HOMES,
    JUNK,
    MAIN_SECTORS,
    OTHER,
    SET,
    Disk,
    fresh,
    give_names,
    mapped,
    reseal,
    superblock,
    table,
)

from dmremap.ondisk import (
    BLOCK,
    BLOCK_SECTORS,
    Entry,
    Load,
    SetState,
    SlotState,
    opened,
    segment_for,
    write_mapped_area,
)
from dmremap.ondisk.check import examine
from dmremap.ondisk.layout import REFUGES, pack_super, pack_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dmremap.dm.lines import Status

pytestmark = [pytest.mark.guest, pytest.mark.module]

RELEASE = os.uname().release
AREAS = 100 if SLOW_KERNEL else 500
NAME = "damaged"
SPLATS = ("BUG:", "WARNING:", "Oops", "KASAN", "UBSAN", "general protection", "INFO: task")
SEQ_MAX = (1 << 63) - 1
MOST_MOVED = (1 << 24) - 1


def _entries(random: Random, index: int) -> list[Entry]:
    out = []
    for slot in random.sample(range(index * 252, index * 252 + 200), random.randrange(5)):
        state = random.choice([SlotState.MAPPED, SlotState.MAPPED, SlotState.LOST, SlotState.BAD])
        live = state is not SlotState.BAD
        unit, generation = random.randrange(60), random.randrange(7)
        out.append(Entry(slot, state, unit if live else 0, generation if live else 0))
    return out


def _hostile_entry(random: Random, index: int, copy: int, seq: int) -> bytes:
    """Return a table block whose checksum is right and one of whose entries is not."""
    raw = bytearray(table(index, copy, [], seq))
    unit = random.choice([0, MAIN_SECTORS - 1, MAIN_SECTORS, 1 << 63, random.getrandbits(64)])
    state = random.choice([0, 1, 2, 3, 4, 255]) | random.choice([0, 1, 0xFFFFFF]) << 8
    zero = random.choice([0, 0, 0, 1])
    struct.pack_into("<QII", raw, 64 + 16 * random.randrange(252), unit, state, zero)
    return reseal(bytes(raw), HOMES[index][copy], HOMES[index][copy])


def _hostile_super(random: Random, home: int) -> bytes:
    """Return a superblock whose checksum is right and one of whose fields is not."""
    raw = bytearray(pack_super(superblock(seq=random.randrange(2, 5)), home))
    values = [0, 1, 255, 256, 1 << 51, 1 << 54, (1 << 64) - 1, random.getrandbits(64)]
    # The words from the features to the data's length, from the epochs to the first two segments,
    # two stand-ins' names, and what follows them.
    at = random.choice([*range(64, 144, 8), *range(432, 576, 8), 1536, 1600, 2552, 2560])
    struct.pack_into("<Q", raw, at, random.choice(values))
    return reseal(bytes(raw), home, home)


def _damage_raw(random: Random, disk: Disk, place: int, other: int) -> None:
    raw = bytearray(disk[place])
    match random.randrange(6):
        case 0 | 1:
            for _ in range(random.randrange(1, 9)):
                raw[random.randrange(BLOCK)] ^= 1 << random.randrange(8)
            disk[place] = bytes(raw)
        case 2:
            disk[place] = random.choice([JUNK, bytes(BLOCK)])
        case 3:
            disk[place], disk[other] = disk[other], disk[place]
        case 4:
            disk[place] = disk[other]
        case _:
            for part in range(0, BLOCK, 512):
                if random.random() < 0.5:
                    raw[part : part + 512] = disk[other][part : part + 512]
            disk[place] = bytes(raw)


def _forge(random: Random, disk: Disk) -> None:
    index, copy = random.randrange(len(HOMES)), random.randrange(2)
    home = HOMES[index][copy]
    place = random.randrange(128, 140)
    near = random.randrange(3, 8)
    match random.randrange(9):
        case 0:
            disk[home] = table(index, copy, _entries(random, index), near)
        case 1:
            disk[home] = _hostile_entry(random, index, copy, near)
        case 2:
            disk[place] = table(index, copy, _entries(random, index), near, place=place)
        case 3:
            target = random.choice([0, 255, 1, home, HOMES[0][0], 10**6, (1 << 64) - 1])
            disk[place] = reseal(table(index, copy, [], near), target, place)
            if random.random() < 0.5:
                give_names(disk, {place: target})
        case 4:
            disk[home] = table(index, copy, [], near, uuid=OTHER)
        case 5:
            seq = random.choice([1, SEQ_MAX - 8, 1 << 62])
            for one in random.choice([[copy], [0, 1]]):
                disk[HOMES[index][one]] = table(index, one, [mapped(index * 252, 70 + index)], seq)
        case 6:
            at = random.choice([0, 255])
            disk[at] = _hostile_super(random, at)
        case 7:
            at = random.choice([0, 255])
            seq = random.randrange(1, 5)
            disk[REFUGES[0]] = pack_super(superblock(seq=seq), at, REFUGES[0])
        case _:
            at, state = random.choice([0, 255]), random.choice(list(SetState))
            uuid = random.choice([SET, SET, OTHER])
            disk[at] = pack_super(
                superblock(uuid=uuid, seq=random.randrange(1, 5), state=state), at
            )


def damaged(random: Random) -> Disk:
    """Return an area that is damaged in a few places, or in none."""
    disk = fresh([], seq=5)
    for index, homes in enumerate(HOMES):
        some = _entries(random, index)
        for copy in (0, 1):
            disk[homes[copy]] = table(index, copy, some, 5)
    every = [home for both in HOMES for home in both]
    give_names(
        disk, {place: random.choice(every) for place in range(128, 134) if random.random() < 0.6}
    )
    places = [0, 255, *every, *range(128, 134), *REFUGES[:2]]
    for _ in range(random.choice([0, 1, 1, 1, 2, 2, 3, 5])):
        if random.random() < 0.5:
            _damage_raw(random, disk, *random.sample(places, 2))
        else:
            _forge(random, disk)
    return disk


def _activate(line: str) -> str:
    """Load the table and resume; return where it was refused, or nothing."""
    dmioctl.create(NAME)
    try:
        dmioctl.load(NAME, line)
    except OSError:
        return "ctr"
    try:
        dmioctl.resume(NAME)
    except OSError:
        return "load"
    return ""


def _put(file: int, disk: Disk) -> None:
    """Write what differs from the area that stands there, in steps of 20 blocks."""
    step = 20 * BLOCK
    for at in range(0, disk.size, step):
        part = disk.data[at : at + step]
        if os.pread(file, step, at) != part:
            os.pwrite(file, part, at)


def _verdict(load: Load) -> bool:
    """Say whether the kernel is to accept it: the check does not look at the table line."""
    if not load.accepted:
        return False
    sb = load.superblock
    assert sb is not None
    return (
        sb.unit == 512
        and sb.area_blocks == AREA_BLOCKS
        and sb.data_start == 0
        and sb.data_sectors >= MAIN_SECTORS
        and sb.main_sectors == MAIN_SECTORS
        and not sb.tagged
    )


def test_damaged_areas() -> None:
    """Others on each kernel, a thousand on Debian's two; the debug kernel is slow."""
    random = Random(RELEASE)
    outcomes: Counter[str] = Counter()
    size = AREA_BLOCKS * BLOCK
    with (
        loop_device(MAIN_SECTORS * 512) as main,
        loop_device(size) as spare,
    ):
        assert sectors(main) == MAIN_SECTORS
        file = os.open(backing_file(spare), os.O_RDWR)
        line = _line(main, spare, AREA_BLOCKS)
        try:
            for number in range(AREAS):
                disk = damaged(random)
                _put(file, disk)
                load = examine(disk, uuid=SET)
                step = _activate(line)
                after = os.pread(file, size, 0)
                why = (number, step, load.refusals, load.findings)
                outcomes[step or "accepted"] += 1
                try:
                    assert _verdict(load) is (step == ""), why
                    if step:
                        assert after == disk.data, why
                        continue
                    shown, counts = status(NAME), load.counts
                    assert (shown.mapped, shown.lost, shown.bad, shown.free) == (
                        counts.mapped,
                        counts.lost,
                        counts.bad,
                        counts.free,
                    ), why
                    if number % 4:
                        continue
                    again = Disk()
                    again.data = bytearray(after)
                    settled = examine(again, uuid=SET)
                    assert settled.accepted, why
                    assert all(block.settled for block in settled.blocks), why
                finally:
                    dmioctl.remove(NAME)
        finally:
            os.close(file)
    print(dict(outcomes))
    assert NAME not in dm_names()
    assert outcomes["accepted"] > AREAS // 5, outcomes
    assert outcomes["ctr"] > AREAS // 50, outcomes
    assert outcomes["load"] > AREAS // 20, outcomes
    log = kernel_log()
    assert [text for text in log if any(word in text for word in SPLATS)] == []


READ_AT_ONCE = 128  # blocks, CHUNK_BLOCKS in dm-remap-load.c
LONG = superblock(area_blocks=4610, segments=(segment_for(4610, 512),))
FIRST_HOMES = (LONG.segments[0].copy_a, LONG.segments[0].copy_b)


def _line(main: Path, spare: Path, blocks: int) -> str:
    """Return the table of an area of so many blocks."""
    return f"0 {MAIN_SECTORS} remap {main} {spare} 0 {blocks * BLOCK_SECTORS} 2 uuid {SET}"


@contextmanager
def _long_set(changes: dict[int, bytes]) -> Iterator[tuple[Path, Path]]:
    """Have main and spare of LONG, whose slot i holds unit i but for these blocks of the area."""
    with (
        loop_device(MAIN_SECTORS * 512) as main,
        loop_device(LONG.area_blocks * BLOCK) as spare,
    ):
        with opened(str(spare), write=True) as area:
            write_mapped_area(area, LONG, range(LONG.slots))
        for place, block in changes.items():
            write(spare, place * BLOCK_SECTORS, block)
        yield main, spare


def _shown_after_slow_load(changes: dict[int, bytes]) -> tuple[list[str], Status]:
    """Load LONG with these blocks, slowly.

    The disk stops at the second part of copy A for as long as the first one takes to get into the
    lookup. Returns what the units and one more hold, generation 1 if from a slot and 0 if from
    main, and the status.
    """
    slots = LONG.slots
    with _long_set(changes) as (main, disk), fault_device(disk) as spare:
        write(disk, LONG.segments[0].data * BLOCK_SECTORS, pattern(0, slots, 1))
        write(main, 0, pattern(0, slots + 1))
        line = _line(main, spare.path, LONG.area_blocks)
        spare.hold("read", (FIRST_HOMES[0] + READ_AT_ONCE) * BLOCK_SECTORS)
        created = background(dm_create, NAME, line)
        try:
            spare.wait_held()
            time.sleep(0.5)
            # Slots that are being filled are nobody's yet: another copy may change them.
            assert dm_message(NAME, "list", 0, 10) == "end"
            assert status(NAME).mode == "init"
            spare.release()
            return held(created.result(60), 0, slots + 1), status(NAME)
        finally:
            spare.release()
            if not created.exception(60):
                dm_remove(NAME)


def test_tables_that_take_two_reads() -> None:
    assert LONG.segments[0].table_blocks > READ_AT_ONCE
    units, shown = _shown_after_slow_load({})
    assert units == [*texts(0, LONG.slots, 1), f"{LONG.slots}/0"]
    assert (shown.mapped, shown.bad) == (LONG.slots, 0)


def test_a_newer_copy_comes_when_the_older_one_is_in_the_lookup() -> None:
    """Its slots 0 and 1 hold other units: what copy A says is forgotten, in the lookup, too."""
    last = LONG.slots
    entries = [mapped(0, last), mapped(1, 0), *(mapped(slot, slot) for slot in range(2, 252))]
    newer = pack_table(SET, entries, 0, FIRST_HOMES[1], 2)
    units, shown = _shown_after_slow_load({FIRST_HOMES[1]: newer})
    assert units == ["1/1", "1/0", *texts(2, LONG.slots - 2, 1), "0/1"]
    assert (shown.mapped, shown.bad) == (LONG.slots, 0)


def test_a_unit_is_found_twice_before_all_is_read() -> None:
    """The entry with the higher generation counts, the other slot is bad."""
    entries = [mapped(0, 0), mapped(1, 0, 1), *(mapped(slot, slot) for slot in range(2, 252))]
    both = {home: pack_table(SET, entries, 0, home, 2) for home in FIRST_HOMES}
    units, shown = _shown_after_slow_load(both)
    assert units == ["1/1", "1/0", *texts(2, LONG.slots - 2, 1), f"{LONG.slots}/0"]
    assert (shown.mapped, shown.bad) == (LONG.slots - 1, 1)


def _resumed(changes: dict[int, bytes]) -> tuple[float, list[str], Status]:
    """Load LONG with these blocks; return the seconds, the first units and the status."""
    with _long_set(changes) as (main, spare):
        for slot in (0, 1, LONG.slots // 2 - 1):
            write(spare, LONG.segments[0].data * BLOCK_SECTORS + slot, pattern(slot, 1, 1))
        dmioctl.create(NAME)
        try:
            dmioctl.load(NAME, _line(main, spare, LONG.area_blocks))
            begin = time.monotonic()
            dm_resume(NAME)
            return time.monotonic() - begin, held(Path("/dev/mapper", NAME), 0, 2), status(NAME)
        finally:
            dm_remove(NAME)


def test_a_table_of_two_units_again_and_again_is_loaded_as_fast_as_another() -> None:
    """Each entry is newer than the last one of its unit, and the other unit is in its way."""
    half = LONG.slots // 2
    generations = [MOST_MOVED, *range(half - 1), *range(LONG.slots - half)]
    entries = [mapped(n, int(not 0 < n < half), g) for n, g in enumerate(generations)]
    blocks = {
        home + index: pack_table(SET, entries[first : first + 252], first, home + index, 2)
        for index, first in enumerate(range(0, LONG.slots, 252))
        for home in FIRST_HOMES
    }
    plain, units, shown = _resumed({})
    assert (units, shown.mapped) == (texts(0, 2, 1), LONG.slots)
    crowded, units, shown = _resumed(blocks)
    print(f"{LONG.slots} slots: {plain:.2f} s, of two units {crowded:.2f} s")
    assert units == [f"{half - 1}/1", "0/1"]
    assert (shown.mapped, shown.bad) == (2, LONG.slots - 2)
    # All slots but two are written again as bad, in both copies.
    assert crowded < 4 * plain + 2
