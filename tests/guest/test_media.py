# SPDX-License-Identifier: GPL-2.0-only
"""Media errors in the metadata itself: any block, at any moment, costs nothing but an event.

Every block of the superblocks and of both copies of every table block is made to fail, by its home
refusing writes or by refusing everything, while the set runs and while it is loaded. The set stays
rw, the copy goes to a stand-in, and what was mapped reads back after the next load.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from guest.lib import (
    MIB,
    CommandError,
    background,
    dm_message,
    dm_resume,
    dm_suspend,
    pattern,
    try_write,
    wait_for,
    write,
)
from guest.remapset import RemapSet, held, remap_set, scrub, segment_of, texts

from dmremap.ondisk.layout import REFUGES, STANDINS

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.guest, pytest.mark.module]

PER_BLOCK = 252
"""Slots of a table block."""
MAPPED = PER_BLOCK + 20
"""Units mapped to begin with: entries in the first two table blocks."""
GOOD = 8 * PER_BLOCK
"""The first sector that main takes."""
FOR_TABLES = len(STANDINS) - len(REFUGES)
"""Stand-ins that copies of tables may have."""
EPOCH = 2
"""Blocks that a load writes to the spare for its epoch."""
PLACES = ("super 0", "super 1", *(f"{copy} {block}" for copy in "AB" for block in range(3)))


def home(made: RemapSet, place: str) -> int:
    """Return the first sector of a metadata block's home."""
    kind, number = place.split()
    if kind == "super":
        return 255 * 8 * int(number)
    segment = segment_of(made)
    assert segment.table_blocks >= 3
    return ((segment.copy_a if kind == "A" else segment.copy_b) + int(number)) * 8


def map_units(made: RemapSet, first: int, count: int) -> None:
    """Map units, with writes that main takes between them: 256 without one are the limit."""
    for begin in range(first, first + count, 200):
        write(made.path, begin, pattern(begin, min(200, first + count - begin)))
        write(made.path, GOOD, pattern(GOOD))


@contextmanager
def mapped_set(*options: str, spare_size: int = 2 * MIB) -> Iterator[RemapSet]:
    """Have a set in which the first units are mapped."""
    with remap_set("remap_rate", "0", *options, spare_size=spare_size) as made:
        made.main.add(0, GOOD, "write", "medium")
        map_units(made, 0, MAPPED)
        assert made.status.mapped == MAPPED
        yield made


def fail(made: RemapSet, place: str, how: str) -> None:
    """Make a home fail."""
    directions = {"writes": ["write"], "reads": ["read"], "everything": ["write", "read"]}
    for direction in directions[how]:
        made.spare.add(home(made, place), 8, direction, "medium")


def change_everything(made: RemapSet, first: int) -> int:
    """Have every metadata block written: map into each table block, and rename."""
    count = 3 * PER_BLOCK - made.status.mapped if first == MAPPED else 1
    map_units(made, first, count)
    dm_message(made.name, "rename", f"name{first}")
    return first + count


@pytest.mark.parametrize("how", ["writes", "everything"])
@pytest.mark.parametrize("place", PLACES)
def test_a_block_fails_while_the_set_runs(place: str, how: str) -> None:
    with mapped_set() as made:
        fail(made, place, how)
        before = made.status.seq
        end = change_everything(made, MAPPED)
        # The first table block is full: nothing makes anybody write it.
        moved = 0 if place in ("A 0", "B 0") else 1
        now = made.status
        assert (now.mode, now.copies, now.mapped, now.doubt) == ("rw", moved, end, 0)
        made.wait_event(before)
        made.recreate()
        # Unreadable at home, a copy is made again elsewhere; readable, it was good.
        moved |= how == "everything"
        now = made.status
        assert (now.mode, now.copies, now.mapped) == ("rw", moved, end)
        assert held(made.path, 0, end) == texts(0, end)
        made.reset()
        made.recreate()
        assert made.status.mapped == end
        assert made.spare.counters()["writes"] == EPOCH, "there were two good copies"


@pytest.mark.parametrize("place", ["super", "first table block", "second table block"])
def test_both_homes_fail_while_the_set_runs(place: str) -> None:
    number = ("first", "second").index(place.split(maxsplit=1)[0]) if place != "super" else None
    homes = ("super 0", "super 1") if number is None else (f"A {number}", f"B {number}")
    with mapped_set() as made:
        for each in homes:
            fail(made, each, "everything")
        end = change_everything(made, MAPPED)
        now = made.status
        written = 0 if number == 0 else 2
        assert (now.mode, now.copies, now.mapped) == ("rw", written, end)
        # Nobody had to write the first table block: until a scrub only memory knows it.
        lost = [] if written else [(home(made, each) // 8, "written") for each in homes]
        assert scrub(made.name) == lost
        now = made.status
        assert (now.mode, now.copies, now.mapped) == ("rw", 2, end)
        made.recreate()
        assert (made.status.mode, made.status.mapped) == ("rw", end)
        assert held(made.path, 0, end) == texts(0, end)


def test_both_homes_fail_and_nothing_reads_them() -> None:
    with mapped_set() as made:
        for each in ("A 0", "B 0"):
            fail(made, each, "everything")
        made.remove()
        assert "both copies of metadata block" in made.refused()


@pytest.mark.parametrize("how", ["reads", "everything"])
@pytest.mark.parametrize("place", PLACES)
def test_a_scrub_finds_what_nothing_else_reads(place: str, how: str) -> None:
    with mapped_set() as made:
        assert scrub(made.name, page=3) == []
        assert made.status.copies == 0
        fail(made, place, how)
        made.reset()
        before = made.status.seq
        assert scrub(made.name, page=3) == [(home(made, place) // 8, "written")]
        # The home refuses it, or takes it and does not give it back. A stand-in that takes the copy
        # of a table is named first, in both superblocks.
        assert made.spare.counters()["writes"] == (2 if place.startswith("super") else 4)
        now = made.status
        assert (now.mode, now.copies, now.mapped, now.doubt) == ("rw", 1, MAPPED, 0)
        made.wait_event(before)
        assert scrub(made.name) == []
        made.reset()
        made.recreate()
        assert made.spare.counters()["writes"] == EPOCH, "there were two good copies"
        assert (made.status.mode, made.status.copies, made.status.mapped) == ("rw", 1, MAPPED)
        assert held(made.path, 0, MAPPED) == texts(0, MAPPED)


def test_a_home_that_reads_again_when_it_is_written() -> None:
    with mapped_set() as made:
        made.spare.add(home(made, "A 0"), 8, "read", "medium", "until_written")
        made.reset()
        assert scrub(made.name) == [(home(made, "A 0") // 8, "written")]
        assert made.spare.counters()["writes"] == 1
        assert made.status.copies == 0
        made.recreate()
        assert held(made.path, 0, MAPPED) == texts(0, MAPPED)


def test_a_scrub_that_finds_no_place() -> None:
    with mapped_set() as made:
        fail(made, "B 0", "everything")
        made.spare.add(STANDINS.start * 8, len(STANDINS) * 8, "write", "medium")
        assert scrub(made.name) == [(home(made, "B 0") // 8, "failed")]
        # The set goes on with the copy that is left.
        now = made.status
        assert (now.mode, now.copies, now.mapped) == ("rw", 0, MAPPED)
        made.spare.clear()
        assert scrub(made.name) == []


def test_a_scrub_makes_way_for_a_suspend() -> None:
    with mapped_set() as made:
        made.main.hold("write", GOOD)
        writer = background(write, made.path, GOOD, pattern(GOOD))
        made.main.wait_held()
        suspend = background(dm_suspend, made.name)
        wait_for(lambda: dm_message(made.name, "scrub", 5, 100) == "next 5", "the suspend to wait")
        assert not suspend.done()
        made.main.release()
        writer.result(30)
        suspend.result(30)
        try:
            # On a quiet device nobody waits.
            fail(made, "B 1", "reads")
            assert scrub(made.name) == [(home(made, "B 1") // 8, "written")]
        finally:
            dm_resume(made.name)
        assert scrub(made.name) == []
        assert (made.status.mode, made.status.copies) == ("rw", 1)


def test_a_write_waits_for_one_copy_of_a_scrub() -> None:
    with mapped_set() as made:
        made.spare.add(home(made, "A 0"), 8, "read", "medium", "until_written")
        made.spare.delay(3)
        made.spare.hold("read", home(made, "B 0"), 8)
        made.reset()
        asked = background(scrub, made.name)
        wait_for(lambda: made.spare.counters()["reads"] == 2, "the first table block to be read")
        writer = background(write, made.path, MAPPED, pattern(MAPPED))
        # What goes to main or to a slot does not wait.
        write(made.path, GOOD, pattern(GOOD))
        write(made.path, 0, pattern(0))
        assert not writer.done()
        # Else this would wait for the copy that is held.
        writer.result(30)
        made.spare.wait_held()
        assert not asked.done()
        made.spare.release()
        assert asked.result(30) == [(home(made, "A 0") // 8, "written")]
        assert made.status.mapped == MAPPED + 1


@pytest.mark.usefixtures("fresh_module")
def test_a_spare_that_is_away_is_not_written() -> None:
    with mapped_set() as made:
        for dead in ("medium", "transport"):
            made.spare.dead(dead)
            made.reset()
            with pytest.raises(CommandError, match="Input/output error"):
                scrub(made.name)
            assert made.spare.counters()["writes"] == 0
            made.spare.dead("off")
            assert scrub(made.name) == []
        assert made.status.mode == "rw"


def test_119_bad_blocks_are_the_limit() -> None:
    # Of so many table blocks one copy each fails: A of the first 64, B of the other ones.
    with remap_set("remap_rate", "0", spare_size=18 * MIB) as made:
        segment = segment_of(made)
        assert segment.table_blocks > FOR_TABLES
        made.main.add(0, 64, "write", "medium")
        write(made.path, 0, pattern(0, 8))
        made.remove()
        for direction in ("read", "write"):
            made.spare.add(segment.copy_a * 8, 64 * 8, direction, "medium")
            made.spare.add((segment.copy_b + 64) * 8, (FOR_TABLES - 64) * 8, direction, "medium")
        made.create()
        now = made.status
        assert (now.mode, now.copies, now.mapped) == ("rw", FOR_TABLES, 8)
        # The next load finds two good copies of everything.
        made.reset()
        made.recreate()
        assert made.status.copies == FOR_TABLES
        assert made.spare.counters()["writes"] == EPOCH
        write(made.path, 8, pattern(8, 8))
        assert made.status.mapped == 16
        # One more, and there is no place for it.
        made.spare.add(segment.copy_b * 8, 8, "write", "medium")
        assert try_write(made.path, 16, pattern(16)) == "EIO"
        now = made.status
        assert (now.mode, now.doubt, now.mapped) == ("ro", 1, 16)
        assert held(made.path, 0, 16) == texts(0, 16)
        made.remove()
        # As long as it refuses, no load can have two copies; healed it goes on.
        said = made.refused()
        assert "cannot be written anywhere" in said
        assert "no metadata can be written: try dmremapctl assemble --readonly" in said
        made.spare.clear(segment.copy_b * 8, 8)
        made.create()
        assert made.status.mode == "rw"
        assert held(made.path, 0, 16) == texts(0, 16)


def test_one_block_too_many_is_refused_at_load() -> None:
    with remap_set("remap_rate", "0", spare_size=18 * MIB) as made:
        segment = segment_of(made)
        made.main.add(0, 64, "write", "medium")
        write(made.path, 0, pattern(0, 8))
        made.remove()
        for direction in ("read", "write"):
            made.spare.add(segment.copy_a * 8, 64 * 8, direction, "medium")
            made.spare.add((segment.copy_b + 64) * 8, (FOR_TABLES - 63) * 8, direction, "medium")
        said = made.refused()
        assert "cannot be written anywhere" in said
        assert "no metadata can be written: try dmremapctl assemble --readonly" in said
        # A read-only table needs no second copy.
        made.create(readonly=True)
        assert (made.status.mode, made.status.mapped) == ("ro", 8)
        assert held(made.path, 0, 8) == texts(0, 8)
        made.remove()
        made.spare.clear((segment.copy_b + FOR_TABLES) * 8, 8)
        made.create()
        assert (made.status.mode, made.status.copies) == ("rw", FOR_TABLES)
