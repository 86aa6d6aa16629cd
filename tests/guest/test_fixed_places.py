# SPDX-License-Identifier: GPL-2.0-only
"""Every place that the format fixes fails with its neighbours, as docs/places.md says.

The rows of its tables are what is tested, so that they cannot say anything else. In a guest, as
root.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from guest.lib import (
    SECTOR,
    CommandError,
    Device,
    dm_create,
    dm_message,
    dm_names,
    dm_remove,
    dm_suspend,
    fault_device,
    loop_device,
    pattern,
    read,
    sectors,
    try_read,
    try_write,
    write,
)
from guest.remapset import (
    SMALLEST_AREA,
    KernelLog,
    format_set,
    held,
    mapped,
    new_superblock,
    status,
    tag_main,
    texts,
)

from dmremap.ondisk import (
    BLOCK,
    BLOCK_SECTORS,
    HEAD_BLOCKS,
    SUPER_HOMES,
    Entry,
    SlotState,
    View,
    opened,
    read_tags,
)
from dmremap.ondisk.layout import ENTRIES, TAG_BLOCKS, pack_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from guest.lib import Fault

pytestmark = [pytest.mark.guest, pytest.mark.module]

NAME = "places"
AREA = 353
"""Blocks: three for each copy of the table, 256 to 258 and 350 to 352."""
WRITTEN = ((0, 1), (128, 259), (350, AREA))
"""Where loads and commits write, first blocks and ends."""
DOC = Path(__file__).parents[2] / "docs" / "places.md"
FIRST, SECOND, KEPT = range(3), range(3, 6), range(6, 9)
"""Units with a slot in each table block: two that are lost until they are written, one mapped."""
HOW = {"read": ("read",), "written": ("write",), "neither": ("read", "write")}


@dataclass(frozen=True)
class Row:
    """Blocks that are bad, in what state of the set, and what is said of each way and time."""

    state: str
    what: str
    blocks: tuple[int, ...]
    cells: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.state}: {self.what}: {', '.join(map(str, self.blocks))}"


def numbers(text: str) -> tuple[int, ...]:
    """Return the numbers in a list of numbers and ranges.

    >>> numbers("0, 128-130")
    (0, 128, 129, 130)
    """
    ends = (part.split("-") for part in text.split(", "))
    return tuple(
        n for first, *last in ends for n in range(int(first), int((last or [first])[0]) + 1)
    )


def rows() -> list[Row]:
    """Read the tables of the page: each stands below the heading of its state."""
    found, state, what = [], "", ""
    for line in DOC.read_text().splitlines():
        if line.startswith("## "):
            state = line.removeprefix("## ")
        elif re.match(r"\|[^|]*\| [0-9]", line):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            what = cells[0] or what
            found.append(Row(state, what, numbers(cells[1]), tuple(cells[2:])))
    return found


MAIN = "On main"
ROWS = [row for row in rows() if row.state != MAIN]
MAIN_ROWS = [row for row in rows() if row.state == MAIN]
SENTENCES = dict(re.findall(r"^\| (\d+) \| `([^`]+)` \|", DOC.read_text(), re.MULTILINE))
"""What is said where a load is refused; N is a number."""


class Place:
    """A set on two fault devices, and the areas that its states are made from."""

    def __init__(self, main: Fault, spare: Fault, disk: Path) -> None:
        self.main, self.spare, self.disk = main, spare, disk
        self.superblock = new_superblock(main.path, AREA * BLOCK_SECTORS)
        uuid = f"2 uuid {self.superblock.uuid}"
        size = sectors(main.path)
        self.line = f"0 {size} remap {main.path} {spare.path} 0 {AREA * BLOCK_SECTORS} {uuid}"
        self.path = Path("/dev/mapper", NAME)
        self.format()
        self.areas = {NEW: self.area}
        for state, bad in MOVES.items():
            self.areas[state] = self.moved(*bad)

    @property
    def area(self) -> bytes:
        return read(self.disk, 0, AREA * BLOCK_SECTORS)

    def format(self) -> None:
        """Write the set as create does, and the mappings."""
        format_set(self.disk, self.superblock)
        (segment,) = self.superblock.segments
        assert (segment.copy_a, segment.copy_b, segment.table_blocks) == (256, 350, 3)
        for index in range(3):
            slot = index * ENTRIES
            entries = [
                Entry(slot, SlotState.LOST, FIRST[index], 0),
                Entry(slot + 1, SlotState.LOST, SECOND[index], 0),
                Entry(slot + 2, SlotState.MAPPED, KEPT[index], 0),
            ]
            for home in (segment.copy_a + index, segment.copy_b + index):
                table = pack_table(self.superblock.uuid, entries, slot, home, 2)
                write(self.disk, home * BLOCK_SECTORS, table)
            write(self.disk, segment.data * BLOCK_SECTORS + slot + 2, pattern(KEPT[index], 1, 1))

    def moved(self, *bad: int) -> bytes:
        """Return the area after these homes have refused a write each."""
        self.put(NEW)
        dm_create(NAME, self.line)
        self.fail(bad, "written")
        for unit in FIRST:  # one after the other, so that they move in order
            write(self.path, unit, pattern(unit))
        dm_message(NAME, "rename", "moved")
        assert (status(NAME).mode, status(NAME).copies) == ("rw", len(bad))
        self.end()
        return self.area

    def put(self, state: str) -> None:
        """Have the metadata be what it was; what stands in slots that are lost does not matter."""
        area = self.areas[state]
        with Device(self.disk) as device:
            for first, end in WRITTEN:
                at, part = first * BLOCK_SECTORS, area[first * BLOCK : end * BLOCK]
                if device.read(at, len(part) // SECTOR) != part:
                    device.write(at, part)

    def fail(self, blocks: tuple[int, ...], how: str) -> None:
        for block in blocks:
            for direction in HOW[how]:
                self.spare.add(block * BLOCK_SECTORS, BLOCK_SECTORS, direction, "medium")

    def end(self) -> None:
        if NAME in dm_names():
            dm_remove(NAME)
        self.spare.clear()
        self.spare.reset()

    def load(self) -> str:
        """Start the set; return what became of it, in the words of the page."""
        self.spare.reset()
        with KernelLog() as log:
            try:
                dm_create(NAME, self.line)
            except CommandError:
                return refused(log.read())
        mended = re.search(r"wrote both copies of (\d+) metadata blocks again", log.text)
        said = self.said(int(mended[1]) if mended else 0)
        if said == "rw":
            assert self.spare.counters()["writes"] == len(SUPER_HOMES)
        assert held(self.path, KEPT[0], len(KEPT)) == texts(KEPT[0], len(KEPT), 1)
        assert status(NAME).doubt == 0
        return said

    def said(self, mended: int = 0) -> str:
        """Say how the running set is."""
        now = status(NAME)
        words = [f"{mended} mended"] * (mended > 0) + [f"{now.copies} moved"] * (now.copies > 0)
        return ", ".join([now.mode, *words])

    def use(self) -> str:
        """Have all metadata written while the set runs; return what became of it."""
        wrote = [try_write(self.path, unit, pattern(unit, 1, 2)) for unit in SECOND]
        try:
            dm_message(NAME, "rename", "other")
            wrote.append("OK")
        except CommandError:
            wrote.append("EIO")
        assert (set(wrote) == {"OK"}) == (status(NAME).mode == "rw"), wrote
        for unit, ended in zip(SECOND, wrote[:3], strict=True):
            if ended == "OK":
                assert held(self.path, unit) == texts(unit, 1, 2)
            else:
                assert try_read(self.path, unit) != "OK"
        assert held(self.path, KEPT[0], len(KEPT)) == texts(KEPT[0], len(KEPT), 1)
        return self.said()


NEW = "Nothing has moved"
MOVES = {
    "Copies A have moved": (*SUPER_HOMES[:1], 256, 257, 258),
    "Both copies have moved": (*SUPER_HOMES, 256, 350),
}
"""The states besides that of a new set: the homes that have refused a write."""


def refused(log: str) -> str:
    """Return which of the page's sentences the kernel has said."""
    for number, sentence in SENTENCES.items():
        said = re.sub(r"\bN\b", "[0-9]+", re.escape(sentence))
        if re.search(rf"^device-mapper: .*remap: .*{said}( \(-E[A-Z]+\))?$", log, re.MULTILINE):
            return f"refused {number}"
    return f"refused: {log}"


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with (
        loop_device(1 << 20) as below,
        loop_device(AREA * BLOCK) as disk,
        fault_device(below, name="places-main") as main,
        fault_device(disk, name="places-spare") as spare,
    ):
        made = Place(main, spare, disk)
        try:
            yield made
        finally:
            made.end()


def loads(place: Place, row: Row, how: str) -> str:
    place.put(row.state)
    place.fail(row.blocks, how)
    return place.load()


def runs(place: Place, row: Row, how: str) -> str:
    place.put(row.state)
    dm_create(NAME, place.line)
    place.fail(row.blocks, how)
    now = place.use()
    dm_remove(NAME)
    again = place.load()
    return now if again == now else f"{now}; {again}"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row(row: Row, place: Place) -> None:
    """Loads, then runs: blocks that cannot be read, cannot be written, neither."""
    found = []
    for run in (loads, runs):
        for how in HOW:
            try:
                found.append(run(place, row, how))
            finally:
                place.end()
    print(row.name, *found, sep=" | ")
    assert found == list(row.cells)


MAIN_BLOCKS = 512
DATA = HEAD_BLOCKS * BLOCK_SECTORS
"""Where the set's data begins on main, a sector."""
REFUSED = range(80 * BLOCK_SECTORS, 81 * BLOCK_SECTORS)
"""Units of the set that main does not take in any row, and beside them those that it holds."""
UNTOUCHED = range(REFUSED.stop, REFUSED.stop + 8)


class TaggedMain:
    """A set whose main is tagged, on a fault device: it has no id."""

    def __init__(self, main: Fault, disk: Path, spare: Path) -> None:
        self.main, self.disk, self.spare = main, disk, spare
        superblock = new_superblock(main.path, SMALLEST_AREA, tagged=True, data_start=DATA)
        format_set(spare, superblock)
        tag_main(disk, superblock)
        write(disk, DATA + UNTOUCHED.start, pattern(UNTOUCHED.start, len(UNTOUCHED), 1))
        self.area = read(spare, 0, SMALLEST_AREA)
        self.first_mib = read(disk, 0, DATA)
        options = f"6 main_start {DATA} remap_rate 0 uuid {superblock.uuid}"
        size = sectors(disk) - DATA
        self.line = f"0 {size} remap {main.path} {spare} 0 {SMALLEST_AREA} {options}"
        self.path = Path("/dev/mapper", NAME)

    def put(self) -> None:
        """Have the first epoch on both, and nothing mapped."""
        for path, blocks, data in (
            (self.spare, (*SUPER_HOMES, HEAD_BLOCKS, HEAD_BLOCKS + 2), self.area),
            (self.disk, TAG_BLOCKS, self.first_mib),
        ):
            with Device(path) as device:
                for block in blocks:
                    device.write(block * BLOCK_SECTORS, data[block * BLOCK : (block + 1) * BLOCK])

    def fail(self, row: Row, how: str) -> None:
        for first, last in runs_of(row.blocks):
            for direction in HOW[how]:
                count = (last - first + 1) * BLOCK_SECTORS
                self.main.add(first * BLOCK_SECTORS, count, direction, "medium")

    def refuse(self) -> None:
        self.main.add(DATA + REFUSED.start, len(REFUSED), "write", "medium")

    def end(self) -> None:
        if NAME in dm_names():
            dm_remove(NAME)
        self.main.clear()

    def load(self, row: Row, turn: int) -> str:
        """Start the set and have units written; return what became of it, as the page says it."""
        self.main.reset()
        with KernelLog() as log:
            try:
                dm_create(NAME, self.line)
            except CommandError:
                return refused(log.read())
        assert self.main.counters()["writes"] <= len(TAG_BLOCKS)
        now = status(NAME)
        assert (now.mode, now.identity) == ("rw", "tag")
        return self.said(now.tag or 0, maps=self.use(row, turn))

    def use(self, row: Row, turn: int) -> bool:
        """Have main refuse a write, and units written in bad blocks; return if it is mapped."""
        data = [block - HEAD_BLOCKS for block in row.blocks if block >= HEAD_BLOCKS]
        units = [REFUSED[turn], *(block * BLOCK_SECTORS + turn for block in data)]
        wrote = [try_write(self.path, unit, pattern(unit, 1, 2)) for unit in units]
        assert len(set(wrote)) == 1
        gone = set(mapped(NAME)) & set(units)
        assert (REFUSED[turn] in gone) == (wrote[0] == "OK"), wrote
        for unit in gone:
            assert held(self.path, unit) == texts(unit, 1, 2)
        assert held(self.path, UNTOUCHED.start, 8) == texts(UNTOUCHED.start, 8, 1)
        return wrote[0] == "OK"

    def stop(self) -> int:
        """Have an epoch begin while the set is in use, and stop it; return who says so."""
        dm_suspend(NAME)
        epoch, tag = dm_message(NAME, "stop").split()[1::2]
        dm_remove(NAME)
        with opened(str(self.disk)) as disk:
            copies = read_tags(View(disk, 0)).values()
        assert sum(copy.epoch.number == int(epoch) for copy in copies) == int(tag)
        return int(tag)

    def said(self, tag: int, *, maps: bool) -> str:
        words = [f"tag {tag}"] * (tag < len(TAG_BLOCKS)) + ["maps nothing"] * (not maps)
        return ", ".join(["rw", *words])

    def loads(self, row: Row, how: str) -> str:
        self.put()
        self.fail(row, how)
        self.refuse()
        return self.load(row, 0)

    def runs(self, row: Row, how: str) -> str:
        self.put()
        dm_create(NAME, self.line)
        self.fail(row, how)
        self.refuse()
        maps = self.use(row, 0)
        now = self.said(self.stop(), maps=maps)
        again = self.load(row, 1)
        return now if again == now else f"{now}; {again}"


def runs_of(blocks: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return the first and last of each run of neighbours.

    >>> runs_of((1, 63, 64))
    [(1, 1), (63, 64)]
    """
    firsts = [block for block in blocks if block - 1 not in blocks]
    return list(zip(firsts, [block for block in blocks if block + 1 not in blocks], strict=True))


@pytest.fixture(scope="module")
def tagged() -> Iterator[TaggedMain]:
    with (
        loop_device(MAIN_BLOCKS * BLOCK) as disk,
        loop_device(SMALLEST_AREA * SECTOR) as spare,
        fault_device(disk, name="tagged-main") as main,
    ):
        made = TaggedMain(main, disk, spare)
        try:
            yield made
        finally:
            made.end()


@pytest.mark.parametrize("row", MAIN_ROWS, ids=lambda row: row.name)
def test_a_row_of_main(row: Row, tagged: TaggedMain) -> None:
    """Loads, then runs: blocks that cannot be read, cannot be written, neither."""
    found = []
    for run in (tagged.loads, tagged.runs):
        for how in HOW:
            try:
                found.append(run(row, how))
            finally:
                tagged.end()
    print(row.name, *found, sep=" | ")
    assert found == list(row.cells)


def test_a_raise_begins_with_copies_that_have_not_failed(tagged: TaggedMain) -> None:
    """Two that fail end one raise; that they are the first two must not end all of them."""
    tagged.put()
    for block in TAG_BLOCKS[:2]:
        tagged.main.add(block * BLOCK_SECTORS, BLOCK_SECTORS, "write", "medium")
    try:
        dm_create(NAME, tagged.line)
        assert status(NAME).tag == 0
        assert tagged.stop() == len(TAG_BLOCKS) - 2
    finally:
        tagged.end()
