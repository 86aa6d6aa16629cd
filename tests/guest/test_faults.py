# SPDX-License-Identifier: GPL-2.0-only
"""What the `remap` target does about errors: which are mapped, which are passed up, what survives.

Runs inside a guest, as root.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from guest.lib import (
    MIB,
    Device,
    background,
    backing_file,
    describe,
    dm_device,
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
    KernelLog,
    contents,
    entries,
    format_set,
    held,
    new_superblock,
    refusal,
    remap_set,
    segment_of,
    status,
    tagged_set,
    texts,
)

from dmremap.ondisk import BLOCK, Entry, SlotState, opened
from dmremap.ondisk.layout import SCRATCH_BLOCKS, pack_table, parse_super

if TYPE_CHECKING:
    from collections.abc import Iterator

    from guest.remapset import RemapSet

pytestmark = [pytest.mark.guest, pytest.mark.module]


@pytest.fixture
def tagged() -> Iterator[RemapSet]:
    """A set whose main is tagged: sector n is main's sector 2048 + n."""
    with tagged_set() as made:
        yield made


def slot_sector(made: RemapSet, slot: int) -> int:
    """Return where a slot of one sector is on the spare."""
    return segment_of(made).data * 8 + slot


def slots(made: RemapSet) -> dict[int, int]:
    """Return which slot each mapped sector has."""
    return {row.sector: row.slot for row in entries(made.name) if row.sector is not None}


def legs(made: RemapSet) -> tuple[int | None, str | None, str | None]:
    """Return how many flushes have failed, and how main and the spare are."""
    now = made.status
    return now.flush_errors, now.main, now.spare


def flushed(made: RemapSet) -> str:
    """Return how a flush of the set ends."""
    with Device(made.path) as device:
        return outcome(device.flush)


# Writes


def test_a_write_to_a_bad_sector_succeeds_and_is_mapped(small: RemapSet) -> None:
    small.main.add(8, 1, "write", "medium")
    write(small.path, 8, pattern(8))
    assert small.mapped == [8]
    assert held(small.path, 8) == ["8/0"]
    assert held(small.main_disk, 8) == ["zero"]
    assert held(small.spare_disk, slot_sector(small, 0)) == ["8/0"]
    now = small.status
    assert (now.mapped, now.remapped, now.write_errors, now.transient) == (1, 1, 1, 0)
    assert now.free == now.slots - 1


@pytest.mark.parametrize("status", ["medium", "ioerr", "target"])
def test_an_error_that_may_be_the_mediums_is_mapped(status: str, small: RemapSet) -> None:
    small.main.add(10, 2, "write", status)
    write(small.path, 8, pattern(8, 8))
    assert small.mapped == [10, 11]
    assert held(small.path, 8, 8) == texts(8, 8)


def test_one_write_costs_its_data_and_two_metadata_blocks(small: RemapSet) -> None:
    small.main.add(8, 1, "write", "medium")
    small.reset()
    write(small.path, 8, pattern(8))
    counters = small.spare.counters()
    assert (counters["writes"], counters["fua"], counters["reads"]) == (3, 3, 0)
    assert counters["write_sectors"] == 1 + 2 * 8
    assert counters["flushes"] == 0
    assert small.main.counters()["failed"] == 2


def test_64_bad_sectors_of_one_bio_are_one_commit(small: RemapSet) -> None:
    small.main.add(64, 64, "write", "medium")
    small.reset()
    write(small.path, 60, pattern(60, 72))
    assert small.mapped == list(range(64, 128))
    counters = small.spare.counters()
    assert counters["write_sectors"] == 64 + 2 * 8
    assert counters["writes"] <= 64 + 2
    assert counters["fua"] == counters["writes"]
    assert held(small.path, 60, 72) == texts(60, 72)


def test_neighbours_get_neighbouring_slots(small: RemapSet) -> None:
    small.main.add(64, 16, "write", "medium")
    write(small.path, 64, pattern(64, 16))
    found = slots(small)
    assert [found[sector] - found[64] for sector in range(64, 80)] == list(range(16))


def test_what_main_takes_main_keeps(small: RemapSet) -> None:
    small.main.add(100, 1, "write", "medium")
    write(small.path, 96, pattern(96, 8))
    assert held(small.main_disk, 96, 8) == [
        "zero" if n == 100 else f"{n}/0" for n in range(96, 104)
    ]


def test_a_write_that_fails_once_stays_on_main(small: RemapSet) -> None:
    small.main.add(8, 1, "write", "medium", 1)
    write(small.path, 8, pattern(8))
    assert small.mapped == []
    assert (small.status.transient, small.status.write_errors) == (1, 1)
    assert held(small.main_disk, 8) == ["8/0"]


def test_the_first_and_the_last_sector_are_mapped(small: RemapSet) -> None:
    for sector in (0, 16383):
        small.main.add(sector, 1, "write", "medium")
        write(small.path, sector, pattern(sector))
    assert small.mapped == [0, 16383]


def test_a_write_to_a_mapped_sector_does_not_ask_main(small: RemapSet) -> None:
    small.main.add(8, 1, "write", "medium")
    write(small.path, 8, pattern(8))
    small.reset()
    write(small.path, 8, pattern(8, 1, 1))
    assert small.main.counters()["writes"] == 0
    assert small.spare.counters()["writes"] == 1
    assert held(small.path, 8) == ["8/1"]


def test_the_dm_event_counter_rises(small: RemapSet) -> None:
    before = small.status.seq
    small.main.add(8, 1, "write", "medium")
    write(small.path, 8, pattern(8))
    small.wait_event(before)


# Pieces


@pytest.fixture
def pieces() -> Iterator[RemapSet]:
    """A set whose main has sectors of 512 and physical blocks of 4096 bytes."""
    with remap_set(main_options=("physical", "4096")) as made:
        yield made


def test_a_whole_piece_that_fails_is_mapped_whole(pieces: RemapSet) -> None:
    pieces.main.add(19, 1, "write", "medium")
    pieces.reset()
    write(pieces.path, 8, pattern(8, 32))
    assert pieces.mapped == list(range(16, 24))
    assert pieces.spare.counters()["writes"] == 1 + 2
    assert pieces.main.counters()["failed"] == 2
    assert held(pieces.path, 8, 32) == texts(8, 32)


def test_a_part_of_a_piece_is_mapped_by_the_sector(pieces: RemapSet) -> None:
    pieces.main.add(19, 1, "write", "medium")
    write(pieces.path, 18, pattern(18, 4))
    assert pieces.mapped == [19]
    assert held(pieces.path, 18, 4) == texts(18, 4)


def test_a_write_with_partial_pieces_at_its_ends(pieces: RemapSet) -> None:
    pieces.main.add(14, 1, "write", "medium")
    pieces.main.add(25, 1, "write", "medium")
    pieces.main.add(17, 1, "write", "medium")
    write(pieces.path, 13, pattern(13, 14))
    assert pieces.mapped == [14, *range(16, 24), 25]
    assert held(pieces.path, 13, 14) == texts(13, 14)


def test_a_mapped_piece_is_one_bio(pieces: RemapSet) -> None:
    pieces.main.add(16, 8, "write", "medium")
    write(pieces.path, 16, pattern(16, 8))
    pieces.reset()
    assert held(pieces.path, 16, 8) == texts(16, 8)
    assert pieces.spare.counters()["reads"] == 1


def test_pieces_are_counted_from_the_start_of_main() -> None:
    options = ("main_start", "12")
    with remap_set(*options, main_options=("physical", "4096")) as made:
        made.main.add(18, 1, "write", "medium")
        write(made.path, 0, pattern(0, 32))
        assert made.mapped == [n - 12 for n in range(16, 24)]


def test_an_unreadable_piece_is_pending_whole(pieces: RemapSet) -> None:
    pieces.main.add(16, 8, "read", "medium")
    assert try_read(pieces.path, 0, 64) == "ENODATA"
    assert pieces.pending == list(range(16, 24))


# Reads


def test_a_read_with_one_bad_sector_fails(small: RemapSet) -> None:
    write(small.path, 0, pattern(0, 64))
    small.main.add(20, 1, "read", "medium")
    assert try_read(small.path, 0, 64) == "ENODATA"
    assert small.pending == [20]
    assert small.mapped == []


def test_exactly_the_bad_sectors_cannot_be_read(small: RemapSet) -> None:
    write(small.path, 0, pattern(0, 64))
    bad = [3, 17, 18, 63]
    for sector in bad:
        small.main.add(sector, 1, "read", "medium")
    with Device(small.path) as device:
        assert outcome(device.read, 0, 64) == "ENODATA"
        assert small.pending == bad
        assert [n for n in range(64) if outcome(device.read, n) != "OK"] == bad
        assert describe(device.read(4, 13)) == texts(4, 13)
    assert small.pending == bad
    assert small.mapped == []


@pytest.mark.parametrize("status", ["medium", "ioerr"])
def test_a_read_error_that_may_be_the_mediums_ends_as_medium(status: str, small: RemapSet) -> None:
    small.main.add(20, 1, "read", status)
    assert try_read(small.path, 20) == "ENODATA"
    assert small.pending == [20]


def test_a_read_that_fails_once_succeeds(small: RemapSet) -> None:
    write(small.path, 0, pattern(0, 64))
    small.main.add(20, 1, "read", "medium", 1)
    assert held(small.path, 0, 64) == texts(0, 64)
    now = small.status
    assert (now.read_errors, now.transient, now.pending, now.mapped) == (1, 1, 0, 0)


def test_a_pending_sector_that_takes_a_write_is_cleared(small: RemapSet) -> None:
    small.main.add(20, 2, "read", "medium", "until_written")
    assert try_read(small.path, 16, 8) == "ENODATA"
    assert small.pending == [20, 21]
    write(small.path, 20, pattern(20))
    assert small.pending == [21]
    assert small.mapped == []
    assert held(small.path, 20) == ["20/0"]


def test_a_note_does_not_outlive_a_write_that_was_under_way(small: RemapSet) -> None:
    """It began before there was a note, and cures the sector after that."""
    small.main.add(20, 1, "read", "medium", "until_written")
    small.main.hold("write", 20, 1)
    writer = background(write, small.path, 20, pattern(20))
    small.main.wait_held()
    assert try_read(small.path, 20) == "ENODATA"
    assert small.pending == [20]
    small.main.release()
    writer.result(30)
    assert small.pending == []
    assert held(small.path, 20) == ["20/0"]


def test_a_pending_sector_that_takes_no_write_is_mapped(small: RemapSet) -> None:
    small.main.add(20, 2, "any", "medium")
    assert try_read(small.path, 16, 8) == "ENODATA"
    assert small.pending == [20, 21]
    write(small.path, 20, pattern(20))
    assert (small.pending, small.mapped) == ([21], [20])
    assert held(small.path, 20) == ["20/0"]
    assert try_read(small.path, 16, 8) == "ENODATA"


def test_a_pending_sector_that_can_be_read_again_is_cleared(small: RemapSet) -> None:
    small.main.add(20, 1, "read", "medium")
    assert try_read(small.path, 20) == "ENODATA"
    assert small.pending == [20]
    small.main.clear()
    assert try_read(small.path, 16, 8) == "OK"
    assert small.pending == []


def test_pending_sectors_are_not_kept(small: RemapSet) -> None:
    small.main.add(20, 1, "read", "medium")
    assert try_read(small.path, 20) == "ENODATA"
    small.recreate()
    assert small.pending == []


def test_a_mapped_sector_that_the_spare_cannot_read_is_an_error(small: RemapSet) -> None:
    write(small.path, 8, pattern(8))
    small.main.add(8, 1, "write", "medium", 2)
    write(small.path, 8, pattern(8, 1, 1))
    small.spare.add(slot_sector(small, 0), 1, "read", "medium")
    assert try_read(small.path, 8) == "ENODATA"
    assert try_read(small.path, 0, 64) == "ENODATA"
    small.spare.clear()
    assert held(small.path, 8) == ["8/1"]


# What is no medium error

PASSED_UP = {
    "transport": "ENOLINK",
    "timeout": "ETIMEDOUT",
    "offline": "ENODEV",
    "nospc": "ENOSPC",
    "protection": "EILSEQ",
    "notsupp": "EOPNOTSUPP",
    "resource": "ENOMEM",
}


@pytest.mark.parametrize("status", PASSED_UP)
def test_other_errors_pass_up_and_map_nothing(status: str, small: RemapSet) -> None:
    small.main.add(8, 1, "any", status)
    small.reset()
    assert try_write(small.path, 0, pattern(0, 16)) == PASSED_UP[status]
    assert try_read(small.path, 0, 16) == PASSED_UP[status]
    assert (small.mapped, small.pending) == ([], [])
    assert small.main.counters()["writes"] == 1
    assert small.spare.counters()["writes"] == 0


def test_a_target_error_of_a_read_passes_up(small: RemapSet) -> None:
    small.main.add(8, 1, "read", "target")
    assert try_read(small.path, 8) == "EREMOTEIO"
    assert small.pending == []


def test_an_error_that_changes_when_tried_again_passes_up(small: RemapSet) -> None:
    small.main.add(8, 1, "write", "medium", 1)
    small.main.add(8, 1, "write", "transport")
    assert try_write(small.path, 8, pattern(8)) == "ENOLINK"
    assert small.mapped == []
    assert small.status.free == small.status.slots


def test_slots_of_a_write_that_fails_later_are_given_back(small: RemapSet) -> None:
    small.main.add(8, 4, "write", "medium")
    small.main.add(12, 1, "write", "transport")
    assert try_write(small.path, 8, pattern(8, 4)) == "OK"
    small.main.add(20, 4, "write", "medium")
    small.main.add(24, 1, "write", "transport")
    small.main.add(16, 1, "write", "medium", 1)
    assert try_write(small.path, 16, pattern(16, 12)) == "ENOLINK"
    assert small.mapped == [8, 9, 10, 11]
    assert small.status.free == small.status.slots - 4
    write(small.path, 20, pattern(20, 4))
    assert sorted(slots(small).values()) == list(range(8))


def test_errors_medium_believes_medium_errors_only() -> None:
    with remap_set("errors", "medium") as made:
        made.main.add(8, 1, "any", "ioerr")
        made.main.add(9, 1, "any", "target")
        made.main.add(10, 1, "any", "medium")
        assert try_write(made.path, 8, pattern(8)) == "EIO"
        assert try_write(made.path, 9, pattern(9)) == "EREMOTEIO"
        assert try_read(made.path, 8) == "EIO"
        assert (made.mapped, made.pending) == ([], [])
        assert try_read(made.path, 10) == "ENODATA"
        assert made.pending == [10]
        assert try_write(made.path, 10, pattern(10)) == "OK"
        assert made.mapped == [10]


DEAD = {"ioerr": "EIO", "medium": "ENODATA", "offline": "ENODEV"}


@pytest.mark.parametrize("status", DEAD)
def test_a_dead_main_maps_nothing_and_marks_nothing(status: str, small: RemapSet) -> None:
    write(small.path, 0, pattern(0, 64))
    small.main.dead(status)
    small.reset()
    for sector in (0, 100, 16383):
        assert try_write(small.path, sector, pattern(sector, 1, 1)) == DEAD[status]
        assert try_read(small.path, sector) == DEAD[status]
    assert (small.mapped, small.pending) == ([], [])
    assert small.spare.counters()["writes"] == 0
    small.main.dead()
    assert held(small.path, 0, 64) == texts(0, 64)
    small.main.add(8, 1, "write", "medium")
    write(small.path, 8, pattern(8))
    assert small.mapped == [8]


@pytest.mark.usefixtures("fresh_module")
def test_a_dead_main_is_told_once_and_its_return_too(small: RemapSet) -> None:
    small.main.dead("ioerr")
    before = small.status.seq
    with KernelLog() as log:
        assert try_write(small.path, 8, pattern(8)) == "EIO"
        small.wait_event(before)
        assert try_write(small.path, 8, pattern(8)) == "EIO"
    assert log.text.count("main fails elsewhere too, nothing is mapped") == 1
    between = small.status.seq
    small.main.dead()
    small.main.add(8, 1, "write", "medium")
    write(small.path, 8, pattern(8))
    wait_for(lambda: small.status.seq >= between + 2, "events: probe, remapped")


def test_mapped_sectors_work_while_main_is_dead(small: RemapSet) -> None:
    small.main.add(8, 1, "write", "medium")
    write(small.path, 8, pattern(8))
    small.main.dead("offline")
    assert held(small.path, 8) == ["8/0"]
    write(small.path, 8, pattern(8, 1, 1))
    assert held(small.path, 8) == ["8/1"]


def test_an_adopted_main_gone_read_only_burns_256_slots_at_most(small: RemapSet) -> None:
    small.main.readonly("ioerr")
    with Device(small.path) as device:
        results = [outcome(device.write, n, pattern(n)) for n in range(256)]
        # Each of them might have been a bad block.
        assert legs(small) == (0, "ok", "ok")
        results += [outcome(device.write, n, pattern(n)) for n in range(256, 300)]
    assert results == ["OK"] * 256 + ["EIO"] * 44
    assert legs(small) == (0, "failing", "ok")
    assert small.mapped == list(range(256))
    assert held(small.path, 0, 256) == texts(0, 256)
    # Main takes a write: it may be believed again.
    small.main.readonly()
    write(small.path, 400, pattern(400))
    assert legs(small) == (0, "ok", "ok")
    small.main.readonly("ioerr")
    write(small.path, 300, pattern(300))
    assert small.mapped == [*range(256), 300]


def test_one_bio_on_a_read_only_main_burns_256_slots_at_most(small: RemapSet) -> None:
    small.main.readonly("ioerr")
    assert try_write(small.path, 0, pattern(0, 1024)) == "EIO"
    assert small.status.mapped <= 256


def test_a_tagged_main_gone_read_only_burns_no_slot(tagged: RemapSet) -> None:
    tagged.main.readonly("ioerr")
    tagged.spare.reset()
    for sector in range(4):
        assert try_write(tagged.path, sector, pattern(sector)) == "EIO"
    assert tagged.mapped == []
    assert tagged.spare.counters()["writes"] == 0
    assert try_read(tagged.path, 0) == "OK"


def test_a_bad_sector_of_a_tagged_main_is_mapped(tagged: RemapSet) -> None:
    tagged.main.add(2048 + 8, 1, "write", "medium")
    before = contents(tagged.main_disk)[0].data
    write(tagged.path, 8, pattern(8))
    assert tagged.mapped == [8]
    after = contents(tagged.main_disk)[0].data
    differ = {n // BLOCK for n in range(0, len(after), 512) if before[n] != after[n]}
    assert differ <= {SCRATCH_BLOCKS[0]}


def test_no_probe_of_a_tagged_main_where_it_took_a_part_of_the_bio(tagged: RemapSet) -> None:
    tagged.main.add(2048 + 8, 1, "write", "medium")
    for block in SCRATCH_BLOCKS:
        tagged.main.add(block * 8, 8, "write", "medium")
    write(tagged.path, 0, pattern(0, 16))
    assert tagged.mapped == [8]
    tagged.main.add(2048 + 100, 1, "write", "medium")
    assert try_write(tagged.path, 100, pattern(100)) == "ENODATA"
    assert tagged.mapped == [8]


def test_a_bio_that_covers_the_whole_target_is_no_dead_main() -> None:
    """No place is left to probe but those of the bio itself."""
    with remap_set(length=256) as made:
        made.main.add(10, 1, "write", "medium")
        made.main.add(20, 1, "read", "medium")
        write(made.path, 0, pattern(0, 256))
        assert made.mapped == [10]
        assert try_read(made.path, 0, 256) == "ENODATA"
        assert made.pending == [20]


def test_a_slow_disk_is_tried_eight_times_for_one_bio(small: RemapSet) -> None:
    small.main.add(8, 64, "write", "medium")
    small.main.delay(0.6)
    small.reset()
    begin = time.monotonic()
    write(small.path, 8, pattern(8, 64))
    assert time.monotonic() - begin < 20
    assert small.main.counters()["failed"] <= 1 + 8
    assert small.mapped == list(range(8, 72))
    assert held(small.path, 8, 64) == texts(8, 64)


# A spare that fails


def test_a_slot_that_refuses_its_data_is_passed_over(small: RemapSet) -> None:
    small.spare.add(slot_sector(small, 0), 2, "write", "medium")
    small.main.add(8, 1, "write", "medium")
    write(small.path, 8, pattern(8))
    # One bad slot would be common; behind two it is tried somewhere else.
    assert slots(small) == {8: small.status.slots // 14}
    assert small.status.bad == 2
    assert held(small.path, 8) == ["8/0"]
    small.recreate()
    assert held(small.path, 8) == ["8/0"]


@pytest.mark.parametrize("status", ["ioerr", "offline", "medium"])
def test_a_dead_spare_gives_the_original_error(status: str, small: RemapSet) -> None:
    write(small.path, 8, pattern(8))
    small.main.add(8, 1, "write", "medium", 2)
    small.spare.dead(status)
    assert try_write(small.path, 8, pattern(8, 1, 1)) == "ENODATA"
    assert (small.mapped, small.status.bad) == ([], 0)
    small.spare.dead()
    assert held(small.path, 8) == ["8/0"]
    small.recreate()
    assert small.mapped == []
    assert held(small.path, 8) == ["8/0"]


def test_clean_io_goes_on_with_a_dead_spare(small: RemapSet) -> None:
    small.spare.dead("offline")
    with Device(small.path) as device:
        device.write(8, pattern(8, 8))
        device.flush()
        assert describe(device.read(8, 8)) == texts(8, 8)


@pytest.mark.usefixtures("fresh_module")
def test_a_full_spare_gives_the_original_error() -> None:
    with remap_set("remap_rate", "0", spare_len=SMALLEST_AREA) as made:
        assert made.status.slots == 8
        made.main.add(0, 100, "write", "medium")
        write(made.path, 0, pattern(0, 6))
        before = made.status.seq
        with KernelLog() as log:
            # Four units, two slots: none is kept.
            assert try_write(made.path, 10, pattern(10, 4)) == "ENODATA"
        assert "no free slot is left on the spare" in log.text
        assert made.mapped == list(range(6))
        write(made.path, 10, pattern(10, 2))
        assert try_write(made.path, 20, pattern(20)) == "ENODATA"
        made.wait_event(before)
        assert made.mapped == [*range(6), 10, 11]
        assert made.status.free == 0
        write(made.path, 3, pattern(3, 1, 1))
        assert held(made.path, 0, 6) == texts(0, 6, g1=[3])
        made.recreate()
        assert held(made.path, 0, 6) == texts(0, 6, g1=[3])
        assert try_write(made.path, 20, pattern(20)) == "ENODATA"


# Metadata that cannot be written


def table_home(made: RemapSet, copy: int) -> int:
    """Return the first sector of a copy of the first table block."""
    segment = segment_of(made)
    return (segment.copy_b if copy else segment.copy_a) * 8


@pytest.mark.parametrize("copy", [0, 1])
def test_an_unwritable_copy_moves_to_a_stand_in(copy: int, small: RemapSet) -> None:
    small.spare.add(table_home(small, copy), 8, "write", "medium")
    small.main.add(8, 3, "write", "medium")
    before = small.status.seq
    write(small.path, 8, pattern(8))
    assert (small.status.copies, small.status.mode, small.mapped) == (1, "rw", [8])
    small.wait_event(before)
    write(small.path, 9, pattern(9))
    assert (small.status.copies, small.mapped) == (1, [8, 9])
    small.recreate()
    assert (small.status.copies, small.mapped) == (1, [8, 9])
    write(small.path, 10, pattern(10))
    small.recreate()
    assert held(small.path, 8, 3) == texts(8, 3)
    assert small.mapped == [8, 9, 10]


@pytest.mark.parametrize("copy", [0, 1])
def test_a_stand_in_alone_keeps_the_mappings(copy: int, small: RemapSet) -> None:
    small.spare.add(table_home(small, copy), 8, "write", "medium")
    small.main.add(8, 1, "write", "medium")
    write(small.path, 8, pattern(8))
    small.remove()
    write(small.spare_disk, table_home(small, 1 - copy), bytes(BLOCK))
    small.create()
    assert small.mapped == [8]
    assert held(small.path, 8) == ["8/0"]


def test_both_copies_may_live_on_stand_ins(small: RemapSet) -> None:
    for copy in (0, 1):
        small.spare.add(table_home(small, copy), 8, "write", "medium")
    small.main.add(8, 1, "write", "medium")
    write(small.path, 8, pattern(8))
    assert (small.status.copies, small.status.mode) == (2, "rw")
    small.recreate()
    assert (small.status.copies, small.mapped) == (2, [8])


def test_a_stand_in_that_fails_is_passed_over(small: RemapSet) -> None:
    small.spare.add(table_home(small, 0), 8, "write", "medium")
    small.spare.add(128 * 8, 16, "write", "medium")
    small.main.add(8, 1, "write", "medium")
    write(small.path, 8, pattern(8))
    assert (small.status.copies, small.status.mode) == (1, "rw")
    small.recreate()
    assert small.mapped == [8]


def test_a_stand_in_in_use_that_fails_is_left(small: RemapSet) -> None:
    small.spare.add(table_home(small, 0), 8, "write", "medium")
    small.main.add(8, 2, "write", "medium")
    write(small.path, 8, pattern(8))
    small.spare.add(128 * 8, 8, "write", "medium")
    write(small.path, 9, pattern(9))
    assert (small.status.copies, small.status.mode) == (1, "rw")
    small.recreate()
    assert small.mapped == [8, 9]


@pytest.mark.parametrize("copy", [0, 1])
def test_without_any_place_for_a_copy_the_units_are_in_doubt(copy: int, small: RemapSet) -> None:
    write(small.path, 8, pattern(8, 8))
    small.main.add(9, 1, "write", "medium")
    write(small.path, 9, pattern(9))
    small.spare.add(128 * 8, 127 * 8, "write", "medium")
    small.spare.add(table_home(small, copy), 8, "write", "medium")
    small.main.add(12, 1, "write", "medium")
    before = small.status.seq
    assert try_write(small.path, 12, pattern(12, 1, 1)) == "EIO"
    assert (small.status.mode, small.status.doubt) == ("ro", 1)
    small.wait_event(before)
    small.main.clear()
    small.spare.clear()
    # Nothing goes to main for it, and nothing comes from there, until it is known what is true.
    assert try_read(small.path, 12) == "EIO"
    assert try_write(small.path, 12, pattern(12, 1, 2)) == "EIO"
    assert try_read(small.path, 8, 8) == "EIO"
    assert held(small.main_disk, 12) == ["12/0"]
    # Everything else works on.
    write(small.path, 9, pattern(9, 1, 1))
    write(small.path, 13, pattern(13, 1, 1))
    assert held(small.path, 8, 4) == texts(8, 4, g1=[9])
    assert held(small.path, 13, 3) == texts(13, 3, g1=[13])
    # Nothing new is mapped.
    small.main.add(14, 1, "write", "medium")
    assert try_write(small.path, 14, pattern(14, 1, 1)) == "ENODATA"
    assert small.mapped == [9]
    small.main.clear()
    small.recreate()
    assert (small.status.mode, small.status.doubt) == ("rw", 0)
    assert held(small.path, 12)[0] in ("12/0", "12/1")
    assert held(small.path, 9) == ["9/1"]
    write(small.path, 12, pattern(12, 1, 3))
    small.recreate()
    assert held(small.path, 8, 8) == texts(8, 8, g1=[9, 13], g3=[12])


# Metadata that is gone at load


def spoil(made: RemapSet, block: int, how: str) -> None:
    """Damage a block of the spare while the set is down."""
    if how == "unreadable":
        made.spare.add(block * 8, 8, "read", "medium", "until_written")
    elif how == "zeroed":
        write(made.spare_disk, block * 8, bytes(BLOCK))
    else:
        data = bytearray(read(made.spare_disk, block * 8, 8))
        data[1000] ^= 0x10
        write(made.spare_disk, block * 8, bytes(data))


DAMAGE = ["unreadable", "zeroed", "one bit"]


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("copy", [0, 1])
def test_one_copy_of_a_table_is_mended_from_the_other(copy: int, how: str, small: RemapSet) -> None:
    small.main.add(8, 1, "write", "medium")
    write(small.path, 8, pattern(8))
    small.remove()
    spoil(small, table_home(small, copy) // 8, how)
    small.create()
    assert (small.mapped, small.status.copies, small.status.mode) == ([8], 0, "rw")
    small.remove()
    spoil(small, table_home(small, 1 - copy) // 8, how)
    small.create()
    assert small.mapped == [8]
    assert held(small.path, 8) == ["8/0"]


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("block", [0, 255])
def test_one_superblock_is_mended_from_the_other(block: int, how: str, small: RemapSet) -> None:
    small.main.add(8, 1, "write", "medium")
    write(small.path, 8, pattern(8))
    small.remove()
    spoil(small, block, how)
    small.create()
    assert (small.mapped, small.status.copies) == ([8], 0)
    homes = [parse_super(read(small.spare_disk, n * 8, 8), n) for n in (0, 255)]
    assert homes[0] is not None
    assert homes[0] == homes[1]
    small.remove()
    spoil(small, 255 - block, how)
    small.create()
    assert small.mapped == [8]


def test_a_copy_that_cannot_be_mended_at_home_goes_to_a_stand_in(small: RemapSet) -> None:
    small.main.add(8, 1, "write", "medium")
    write(small.path, 8, pattern(8))
    small.remove()
    for block in (0, table_home(small, 0) // 8):
        small.spare.add(block * 8, 8, "any", "medium")
    small.create()
    assert (small.status.copies, small.status.mode, small.mapped) == (2, "rw", [8])
    small.recreate()
    assert (small.status.copies, small.mapped) == (2, [8])


@pytest.mark.parametrize("how", DAMAGE)
def test_without_both_copies_of_a_table_the_set_is_refused(how: str, small: RemapSet) -> None:
    small.remove()
    blocks = [table_home(small, copy) // 8 for copy in (0, 1)]
    for block in blocks:
        spoil(small, block, how)
    before = contents(small.spare_disk, small.main_disk)
    log = refusal(small.line)
    assert f"both copies of metadata block {blocks[0]} are gone, it and block {blocks[1]}" in log
    assert contents(small.spare_disk, small.main_disk) == before


@pytest.mark.parametrize("how", DAMAGE)
def test_without_both_superblocks_the_set_is_refused(how: str, small: RemapSet) -> None:
    small.remove()
    for block in (0, 255):
        spoil(small, block, how)
    before = contents(small.spare_disk, small.main_disk)
    assert "spare area is neither blank (all zeros) nor a set" in refusal(small.line)
    assert contents(small.spare_disk, small.main_disk) == before


def test_an_older_copy_loses_and_is_written_again(small: RemapSet) -> None:
    small.main.add(8, 2, "write", "medium")
    write(small.path, 8, pattern(8))
    home = table_home(small, 1)
    old = read(small.spare_disk, home, 8)
    write(small.path, 9, pattern(9))
    small.remove()
    write(small.spare_disk, home, old)
    small.create()
    assert small.mapped == [8, 9]
    assert read(small.spare_disk, home, 8) != old


# Tables that the kernel did not write itself


@contextmanager
def written_set(rows: list[Entry], other_rows: list[Entry] | None = None) -> Iterator[RemapSet]:
    """Have a set that is down, with these entries in copy A, and `other_rows` in copy B."""
    with remap_set() as made:
        made.remove()
        write(made.spare_disk, 0, bytes(1024 * BLOCK))
        superblock = new_superblock(made.main.path, 8192)
        format_set(made.spare_disk, superblock)
        segment = superblock.segments[0]
        with opened(str(made.spare_disk), write=True) as device:
            for home, some in ((segment.copy_a, rows), (segment.copy_b, other_rows or rows)):
                block = pack_table(UUID(str(superblock.uuid)), some, 0, home, 2)
                device.write_block(0, home, block)
        yield made


def slot_data(made: RemapSet, slot: int, data: bytes) -> None:
    """Write the data of a slot while the set is down."""
    write(made.spare_disk, slot_sector(made, slot), data)


def test_mappings_are_read_from_the_table() -> None:
    rows = [Entry(3, SlotState.MAPPED, 100, 0), Entry(5, SlotState.BAD, 0, 0)]
    with written_set(rows) as made:
        slot_data(made, 3, pattern(100, 1, 7))
        made.create()
        assert held(made.path, 99, 3) == ["zero", "100/7", "zero"]
        found = [(row.sector, row.slot, row.state) for row in entries(made.name)]
        assert found == [(100, 3, "mapped"), (None, 5, "bad")]
        assert (made.status.mapped, made.status.bad) == (1, 1)


def test_bad_slots_are_not_used() -> None:
    with written_set([Entry(slot, SlotState.BAD, 0, 0) for slot in (0, 1, 3)]) as made:
        made.create()
        made.main.add(8, 2, "write", "medium")
        write(made.path, 8, pattern(8, 2))
        assert slots(made) == {8: 2, 9: 4}


def test_copies_that_contradict_each_other_are_refused() -> None:
    rows = [Entry(3, SlotState.MAPPED, 100, 0)], [Entry(3, SlotState.MAPPED, 101, 0)]
    with written_set(*rows) as made:
        before = contents(made.spare_disk)
        log = refusal(made.line)
        assert "the copies of metadata block 256 contradict each other" in log
        assert contents(made.spare_disk) == before


def test_of_two_slots_of_a_unit_the_newer_one_counts() -> None:
    rows = [Entry(3, SlotState.MAPPED, 100, 4), Entry(5, SlotState.MAPPED, 100, 3)]
    with written_set(rows) as made:
        slot_data(made, 3, pattern(100, 1, 4))
        slot_data(made, 5, pattern(100, 1, 3))
        made.create()
        assert held(made.path, 100) == ["100/4"]
        for _ in range(2):
            found = [(row.sector, row.slot, row.state) for row in entries(made.name)]
            assert found == [(100, 3, "mapped"), (None, 5, "bad")]
            made.recreate()


def test_two_slots_of_a_unit_with_equal_generations_are_refused() -> None:
    rows = [Entry(3, SlotState.MAPPED, 100, 4), Entry(5, SlotState.MAPPED, 100, 4)]
    with written_set(rows) as made:
        assert "unit 100 is mapped twice, to slots 3 and 5" in refusal(made.line)


def test_a_unit_outside_of_main_is_refused() -> None:
    with written_set([Entry(3, SlotState.MAPPED, 16384, 0)]) as made:
        assert "table block: unit lies outside of main" in refusal(made.line)


@pytest.fixture
def lost() -> Iterator[RemapSet]:
    """A set whose sectors 100 and 101 are mapped, and their content lost."""
    rows = [Entry(3, SlotState.LOST, 100, 1), Entry(4, SlotState.LOST, 101, 1)]
    with written_set(rows) as made:
        made.create()
        yield made


def test_a_lost_sector_cannot_be_read(lost: RemapSet) -> None:
    assert (lost.status.mapped, lost.status.lost) == (2, 2)
    lost.reset()
    assert try_read(lost.path, 100) == "ENODATA"
    assert try_read(lost.path, 96, 8) == "ENODATA"
    assert lost.spare.counters()["reads"] == 0
    assert [row.state for row in entries(lost.name)] == ["lost", "lost"]


def test_a_write_to_a_lost_sector_recovers_it(lost: RemapSet) -> None:
    lost.reset()
    write(lost.path, 100, pattern(100))
    counters = lost.spare.counters()
    assert (counters["writes"], counters["fua"]) == (3, 3)
    assert lost.main.counters()["writes"] == 0
    assert lost.status.lost == 1
    for _ in range(2):
        assert held(lost.path, 100) == ["100/0"]
        assert try_read(lost.path, 101) == "ENODATA"
        assert [row.state for row in entries(lost.name)] == ["mapped", "lost"]
        lost.recreate()


def test_write_zeroes_recover_lost_sectors(lost: RemapSet) -> None:
    with Device(lost.path) as device:
        device.write_zeroes(96, 16)
        assert describe(device.read(96, 16)) == ["zero"] * 16
    lost.recreate()
    assert lost.status.lost == 0
    assert held(lost.path, 96, 16) == ["zero"] * 16


def test_a_discard_does_not_recover_a_lost_sector(lost: RemapSet) -> None:
    with Device(lost.path) as device:
        device.discard(96, 16)
        assert outcome(device.read, 100) == "ENODATA"
    lost.recreate()
    assert lost.status.lost == 2


def test_a_lost_sector_whose_commit_fails_is_in_doubt(lost: RemapSet) -> None:
    lost.spare.add(128 * 8, 127 * 8, "write", "medium")
    lost.spare.add(table_home(lost, 1), 8, "write", "medium")
    assert try_write(lost.path, 100, pattern(100)) == "EIO"
    assert lost.status.mode == "ro"
    assert try_read(lost.path, 100) in ("EIO", "ENODATA")
    assert try_write(lost.path, 101, pattern(101)) == "EIO"
    lost.spare.clear()
    lost.recreate()
    assert try_read(lost.path, 101) == "ENODATA"


# Interleavings


def wait_write_errors(made: RemapSet, count: int) -> None:
    """Wait until so many writes have reached the error path."""
    wait_for(lambda: made.status.write_errors >= count, f"{count} failing writes")


def test_a_read_during_a_repair_sees_the_old_data_and_after_it_the_new(small: RemapSet) -> None:
    write(small.path, 8, pattern(8))
    small.main.add(8, 1, "write", "medium")
    small.spare.hold("write")
    repair = background(write, small.path, 8, pattern(8, 1, 1))
    small.spare.wait_held()
    assert held(small.path, 8) == ["8/0"]
    small.spare.release()
    repair.result(30)
    assert held(small.path, 8) == ["8/1"]


@pytest.mark.parametrize("copy", [0, 1])
def test_nothing_is_published_before_both_copies_are_durable(copy: int, small: RemapSet) -> None:
    write(small.path, 8, pattern(8))
    small.main.add(8, 1, "write", "medium")
    small.spare.hold("write", table_home(small, copy), 8)
    repair = background(write, small.path, 8, pattern(8, 1, 1))
    small.spare.wait_held()
    assert not repair.done()
    assert small.mapped == []
    assert held(small.path, 8) == ["8/0"]
    small.spare.release()
    repair.result(30)
    assert small.mapped == [8]
    assert held(small.path, 8) == ["8/1"]


def test_copy_b_is_not_written_before_copy_a_is_durable(small: RemapSet) -> None:
    before = read(small.spare_disk, table_home(small, 1), 8)
    small.main.add(8, 1, "write", "medium")
    small.spare.hold("write", table_home(small, 0), 8)
    repair = background(write, small.path, 8, pattern(8))
    small.spare.wait_held()
    assert held(small.spare_disk, slot_sector(small, 0)) == ["8/0"]
    assert read(small.spare_disk, table_home(small, 1), 8) == before
    small.spare.release()
    repair.result(30)
    assert read(small.spare_disk, table_home(small, 1), 8) != before


def test_a_read_that_failed_on_main_is_served_from_the_slot_that_came_since(
    small: RemapSet,
) -> None:
    write(small.path, 8, pattern(8))
    small.main.hold("read", 8, 1)
    late = background(held, small.path, 8)
    small.main.wait_held()
    small.main.add(8, 1, "any", "medium")
    write(small.path, 8, pattern(8, 1, 1))
    small.main.release()
    assert late.result(30) == ["8/1"]
    assert small.pending == []


def test_a_write_that_failed_on_main_goes_to_the_slot_that_came_since(small: RemapSet) -> None:
    small.main.hold("write", 8, 1)
    late = background(write, small.path, 8, pattern(8, 1, 1))
    small.main.wait_held()
    small.main.add(8, 1, "any", "medium")
    other = background(write, small.path, 8, pattern(8, 1, 2))
    small.main.wait_held(2)
    small.main.release()
    late.result(30)
    other.result(30)
    assert small.mapped == [8]
    assert len(entries(small.name)) == 1
    now = held(small.path, 8)
    assert now[0] in ("8/1", "8/2")
    small.recreate()
    assert held(small.path, 8) == now


def test_overlapping_failing_writes_take_turns(small: RemapSet) -> None:
    small.main.add(8, 16, "write", "medium")
    small.spare.hold("write")
    first = background(write, small.path, 8, pattern(8, 8, 1))
    small.spare.wait_held()
    second = background(write, small.path, 12, pattern(12, 8, 2))
    wait_write_errors(small, 2)
    assert not second.done()
    small.spare.release()
    first.result(30)
    second.result(30)
    assert small.mapped == list(range(8, 20))
    assert len(entries(small.name)) == 12
    assert held(small.path, 8, 12) == texts(8, 12, 1, g2=range(12, 20))
    small.recreate()
    assert held(small.path, 8, 12) == texts(8, 12, 1, g2=range(12, 20))


def test_clean_io_does_not_wait_for_a_repair(small: RemapSet) -> None:
    small.main.add(8, 1, "write", "medium")
    small.spare.hold("write")
    repair = background(write, small.path, 8, pattern(8))
    small.spare.wait_held()
    write(small.path, 9, pattern(9, 8))
    assert held(small.path, 9, 8) == texts(9, 8)
    assert not repair.done()
    small.spare.release()
    repair.result(30)


def test_writes_that_fail_during_a_commit_share_the_next_one(small: RemapSet) -> None:
    small.main.add(0, 64, "write", "medium")
    small.main.add(100, 1, "read", "medium")
    small.reset()
    small.spare.hold("write", table_home(small, 0), 8)
    writers = [background(write, small.path, 0, pattern(0))]
    small.spare.wait_held()
    writers += [background(write, small.path, n, pattern(n)) for n in range(8, 32, 8)]
    # Narrowing goes on meanwhile: the data of all of them is on its way to the spare, and when
    # a bio that failed after them has ended they wait for the next commit.
    wait_for(lambda: small.spare.counters()["writes"] == 1 + 1 + 3, "data of three more")
    assert try_read(small.path, 100) == "ENODATA"
    small.spare.release()
    for writer in writers:
        writer.result(30)
    assert small.spare.counters()["writes"] == 4 + 2 * 2
    assert small.mapped == [0, 8, 16, 24]


def test_a_crowd_on_the_same_failing_sectors_ends_consistent(small: RemapSet) -> None:
    small.main.add(0, 64, "write", "medium")

    def work(number: int) -> None:
        with Device(small.path) as device:
            for start in range(0, 56, 7):
                device.write(start, pattern(start, 12, number))

    for writer in [background(work, number) for number in range(6)]:
        writer.result(60)
    small.main.clear()
    assert small.mapped == list(range(61))
    assert len(entries(small.name)) == 61
    now = held(small.path, 0, 61)
    assert all(text in {f"{n}/{g}" for g in range(6)} for n, text in enumerate(now))
    small.recreate()
    assert held(small.path, 0, 61) == now


def test_hundreds_of_mappings_in_several_table_blocks_stay() -> None:
    with remap_set() as made:
        bad = [n for start in range(100, 8100, 1000) for n in range(start, start + 90)]
        for sector in bad[::90]:
            made.main.add(sector, 90, "write", "medium")
        with Device(made.path) as device:
            for sector in range(0, 8192, 128):
                device.write(sector, pattern(sector, 128))
        made.main.clear()
        made.recreate()
        assert made.mapped == bad
        assert held(made.path, 0, 8192) == texts(0, 8192)


def test_what_is_behind_the_end_of_a_main_that_has_shrunk_costs_no_slot() -> None:
    with (
        loop_device(8 * MIB) as main,
        loop_device(4 * MIB) as spare,
        dm_device("set", f"0 16384 remap {main} {spare} 0 8192") as path,
    ):
        os.truncate(backing_file(main), 4 * MIB)
        run("losetup", "--set-capacity", main)
        for first in (8192, 8191):  # behind it, and across
            assert try_write(path, first, pattern(first, 8)) == "EIO"
            assert try_read(path, first, 8) == "EIO"
        now = status("set")
        assert (now.mapped, now.pending, now.free, now.mode) == (0, 0, now.slots, "rw")
        write(path, 8191, pattern(8191))
        assert held(path, 8191) == texts(8191, 1)


# What is said of a disk as a whole


def test_a_flush_that_main_fails_is_told_until_one_succeeds(small: RemapSet) -> None:
    assert legs(small) == (0, "ok", "ok")
    small.main.add(0, 0, "flush", "medium")
    with KernelLog() as log:
        assert [flushed(small) for _ in range(3)] == ["ENODATA"] * 3
        assert legs(small) == (3, "failing", "ok")
        wait_for(lambda: small.status.seq == 1, "event: probe")
        # A cache takes writes, and that proves nothing.
        write(small.path, 8, pattern(8))
        assert held(small.path, 8) == ["8/0"]
        assert legs(small) == (3, "failing", "ok")
        small.main.clear()
        assert flushed(small) == "OK"
        assert legs(small) == (3, "ok", "ok")
        wait_for(lambda: small.status.seq == 2, "event: probe")
    assert log.text.count("flushes of main fail") == 1
    assert log.text.count("flushes of main succeed again") == 1
    now = small.status
    assert (now.mapped, now.pending, now.read_errors, now.write_errors) == (0, 0, 0, 0)
    assert now.mode == "rw"


def test_a_flush_that_the_spare_fails_is_told_until_one_succeeds(small: RemapSet) -> None:
    small.main.add(8, 1, "write", "medium")
    write(small.path, 8, pattern(8))
    assert flushed(small) == "OK"
    small.spare.add(0, 0, "flush", "ioerr")
    # There is nothing to flush on the spare.
    assert flushed(small) == "OK"
    assert legs(small) == (0, "ok", "ok")
    write(small.path, 8, pattern(8, 1, 1))
    assert [flushed(small) for _ in range(2)] == ["EIO"] * 2
    assert legs(small) == (2, "ok", "failing")
    write(small.path, 8, pattern(8, 1, 2))
    assert legs(small) == (2, "ok", "failing")
    small.main.add(0, 0, "flush", "timeout", 1)
    assert flushed(small) in ("EIO", "ETIMEDOUT")
    assert legs(small) == (4, "failing", "failing")
    small.spare.clear()
    assert flushed(small) == "OK"
    assert legs(small) == (4, "ok", "ok")
    assert small.status.mode == "rw"
    small.recreate()
    assert legs(small) == (0, "ok", "ok")


@pytest.mark.parametrize("status", ["notsupp", "again"])
def test_a_flush_that_is_no_failure_is_not_counted(status: str, small: RemapSet) -> None:
    small.main.add(0, 0, "flush", status, 1)
    # fsync() of a block device takes no flush for no error.
    assert flushed(small) == {"notsupp": "OK", "again": "EAGAIN"}[status]
    assert small.main.counters()["failed"] == 1
    assert legs(small) == (0, "ok", "ok")


def test_a_dead_main_is_failing_until_it_takes_a_write(small: RemapSet) -> None:
    small.main.dead("ioerr")
    assert try_write(small.path, 8, pattern(8)) == "EIO"
    assert legs(small) == (0, "failing", "ok")
    small.main.dead()
    assert legs(small) == (0, "failing", "ok")
    write(small.path, 8, pattern(8))
    assert legs(small) == (0, "ok", "ok")


def test_a_dead_main_is_failing_until_it_reads(small: RemapSet) -> None:
    small.main.dead("ioerr")
    assert try_read(small.path, 8) == "EIO"
    assert legs(small) == (0, "failing", "ok")
    small.main.dead()
    assert try_read(small.path, 300) == "OK"
    assert legs(small) == (0, "ok", "ok")


def test_a_bad_block_does_not_make_main_failing(small: RemapSet) -> None:
    small.main.add(8, 1, "write", "medium")
    small.main.add(20, 1, "read", "ioerr")
    write(small.path, 8, pattern(8))
    assert try_read(small.path, 20) == "ENODATA"
    assert legs(small) == (0, "ok", "ok")


@pytest.mark.parametrize("status", ["timeout", "transport", "offline"])
@pytest.mark.parametrize("direction", ["read", "write"])
def test_a_disk_that_says_so_itself_is_failing(
    direction: str, status: str, small: RemapSet
) -> None:
    def again(sector: int) -> str:
        if direction == "read":
            return try_read(small.path, sector)
        return try_write(small.path, sector, pattern(sector))

    small.main.add(8, 1, direction, status, 1)
    assert again(8) != "OK"
    assert legs(small) == (0, "failing", "ok")
    assert again(300) == "OK"
    assert legs(small) == (0, "ok", "ok")
    assert small.mapped == []


def test_a_tagged_main_gone_read_only_is_failing_though_it_reads(tagged: RemapSet) -> None:
    tagged.main.readonly("ioerr")
    assert try_write(tagged.path, 8, pattern(8)) == "EIO"
    assert try_read(tagged.path, 300) == "OK"
    assert flushed(tagged) == "OK"
    assert legs(tagged) == (0, "failing", "ok")
    tagged.main.readonly()
    write(tagged.path, 300, pattern(300))
    assert legs(tagged) == (0, "ok", "ok")


@pytest.mark.parametrize("status", ["ioerr", "offline", "medium"])
def test_a_spare_that_does_not_read_is_failing_until_it_does(status: str, small: RemapSet) -> None:
    small.main.add(8, 1, "write", "medium")
    write(small.path, 8, pattern(8))
    small.spare.dead(status)
    assert try_read(small.path, 8) != "OK"
    wait_for(lambda: legs(small) == (0, "ok", "failing"), "spare=failing")
    assert small.status.mode == "rw"
    # Main has nothing to do with it.
    assert try_read(small.path, 300) == "OK"
    write(small.path, 300, pattern(300))
    assert legs(small) == (0, "ok", "failing")
    small.spare.dead()
    assert held(small.path, 8) == ["8/0"]
    assert legs(small) == (0, "ok", "ok")


def test_a_slot_that_does_not_read_does_not_make_the_spare_failing(small: RemapSet) -> None:
    small.main.add(8, 1, "write", "medium")
    write(small.path, 8, pattern(8))
    small.spare.add(slot_sector(small, 0), 1, "read", "medium", 1)
    small.spare.reset()
    assert try_read(small.path, 8) == "ENODATA"
    # The slot, and one block of metadata.
    wait_for(lambda: small.spare.counters()["reads"] == 2, "the probe")
    assert held(small.path, 8) == ["8/0"]
    assert legs(small) == (0, "ok", "ok")


def test_a_spare_that_takes_no_metadata_is_failing_until_it_takes_a_write(
    small: RemapSet,
) -> None:
    small.main.add(8, 2, "write", "medium")
    write(small.path, 8, pattern(8))
    small.spare.dead("ioerr")
    assert try_write(small.path, 9, pattern(9)) == "ENODATA"
    wait_for(lambda: small.status.mode == "ro", "mode ro")
    assert legs(small) == (0, "ok", "failing")
    small.spare.dead()
    write(small.path, 8, pattern(8, 1, 1))
    assert held(small.path, 8) == ["8/1"]
    assert legs(small) == (0, "ok", "ok")
    assert small.status.mode == "ro"
