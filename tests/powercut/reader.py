# SPDX-License-Identifier: GPL-2.0-only
"""What a set of dm-remap says about its blocks, read from the images of its two legs.

The reading is dmremap.ondisk's; added are the rules of a load that go beyond single blocks: two
live entries of one unit, and what it takes to be loaded at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dmremap.ondisk import (
    BLOCK,
    BlockDevice,
    Entry,
    SetState,
    SlotState,
    Superblock,
    read_head,
    read_tables,
)
from dmremap.ondisk._format import lib
from dmremap.ondisk.layout import STANDINS, header, parse_entries

if TYPE_CHECKING:
    from mmap import mmap


class Refused(Exception):
    """The set cannot be loaded."""


class ImageDevice(BlockDevice):
    """An image in memory, as dmremap.ondisk reads it."""

    def __init__(self, image: bytes | bytearray | mmap) -> None:
        super().__init__(-1, "image")
        self.image = image

    @property
    def size(self) -> int:
        return len(self.image)

    def read(self, offset: int, length: int) -> bytes | None:
        data = bytes(self.image[offset : offset + length])
        return data if len(data) == length else None


@dataclass(frozen=True)
class Loaded:
    """A set as a load finds it."""

    superblock: Superblock
    lookup: dict[int, Entry]
    """The live entry of each unit that has one."""

    def place(self, slot: int) -> int:
        """Return where a slot is on the spare, in bytes."""
        for segment in self.superblock.segments:
            if slot < segment.slots:
                return segment.data * BLOCK + slot * self.superblock.unit
            slot -= segment.slots
        raise ValueError("no such slot")

    def content(
        self, unit: int, main: bytes | bytearray | mmap, spare: bytes | bytearray | mmap
    ) -> bytes | None:
        """Return what a unit reads as, None for an error."""
        entry, size = self.lookup.get(unit), self.superblock.unit
        if entry is None:
            return bytes(main[unit * size : (unit + 1) * size])
        if entry.state is not SlotState.MAPPED:
            return None
        place = self.place(entry.slot)
        return bytes(spare[place : place + size])


def load(spare: bytes | bytearray | mmap) -> Loaded:
    """Load the set whose area is the whole spare; raise Refused where the kernel would refuse."""
    device = ImageDevice(spare)
    head = read_head(device)
    superblock = head.superblock
    if superblock is None or superblock.state is not SetState.READY:
        raise Refused("; ".join(head.problems) or "no set")
    tables = read_tables(device, superblock)
    if tables.problems:
        raise Refused("; ".join(tables.problems))
    lookup: dict[int, Entry] = {}
    for entry in tables.entries:
        if entry.state is SlotState.BAD:
            continue
        other = lookup.get(entry.unit)
        if other and other.generation == entry.generation:
            raise Refused(f"unit {entry.unit} has two live slots, {other.slot} and {entry.slot}")
        if other is None or other.generation < entry.generation:
            lookup[entry.unit] = entry
    return Loaded(superblock, lookup)


@dataclass(frozen=True)
class Copies:
    """What the two copies of the table say, each for itself."""

    unequal: int
    """How many blocks have copies of different sequence."""
    away: int
    """How many stand-ins hold a block."""
    both: set[int]
    """The units that have an entry in both copies."""


def copies(spare: bytes | bytearray | mmap, superblock: Superblock) -> Copies:
    """Look at the newest candidate of every copy of every table block."""
    device = ImageDevice(spare)
    homes = [
        (segment.copy_a + index, segment.copy_b + index, segment.used(index))
        for segment in superblock.segments
        for index in range(segment.table_blocks)
    ]
    newest: dict[int, tuple[int, bytes]] = {}
    away = 0
    for place in (*STANDINS, *(home for a, b, _ in homes for home in (a, b))):
        block = device.read_block(0, place)
        found = header(block, lib.DMR_TYPE_TABLE, place) if block else None
        if block and found and found.uuid == superblock.uuid:
            newest[found.home] = max((found.seq, block), newest.get(found.home, (0, b"")))
            away += place in STANDINS
    units: tuple[set[int], set[int]] = (set(), set())
    for *pair, used in homes:
        for home, known in zip(pair, units, strict=True):
            if home in newest:
                known |= {entry.unit for entry in parse_entries(newest[home][1], used, 0)}
    seqs = [[newest.get(home, (0, b""))[0] for home in (a, b)] for a, b, _ in homes]
    return Copies(sum(a != b for a, b in seqs), away, units[0] & units[1])
