# SPDX-License-Identifier: GPL-2.0-only
"""What a set of dm-remap says about its blocks, read from the images of its two legs.

The superblock is chosen by dmremap.ondisk. The tables are read here once more, by the plain rule
that of all valid candidates, at home and on stand-ins named for it, the highest sequence wins:
judge.py compares that with the check.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from dmremap.ondisk import (
    BLOCK,
    BlockDevice,
    Entry,
    SlotState,
    Superblock,
    View,
    look,
)
from dmremap.ondisk._format import lib
from dmremap.ondisk.head import HEADER
from dmremap.ondisk.layout import STANDINS, check_table, header, parse_entries

if TYPE_CHECKING:
    from collections.abc import Iterator
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
        with memoryview(self.image) as view:
            data = bytes(view[offset : offset + length])
        return data if len(data) == length else None


@dataclass(frozen=True)
class Loaded:
    """A set as a load finds it."""

    superblock: Superblock
    lookup: dict[int, Entry]
    """The live entry of each unit that has one."""
    shadowed: tuple[int, ...] = ()
    """Slots with a live entry of a unit that has a newer one."""

    @cached_property
    def places(self) -> dict[int, int | None]:
        """Where the units that have an entry are on the spare, in bytes; None is an error."""
        return {
            unit: self.place(entry.slot) if entry.state is SlotState.MAPPED else None
            for unit, entry in self.lookup.items()
        }

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
        size = self.superblock.unit
        if unit not in self.lookup:
            return bytes(main[unit * size : (unit + 1) * size])
        place = self.places[unit]
        return None if place is None else bytes(spare[place : place + size])


def load(spare: bytes | bytearray | mmap) -> Loaded:
    """Load the set whose area is the whole spare; raise Refused where the kernel would refuse."""
    device = ImageDevice(spare)
    head = look(View(device, 0))
    superblock = head.superblock
    if superblock is None or head.refusals:
        raise Refused("; ".join(one.reason for one in head.refusals) or "no set")
    lookup: dict[int, Entry] = {}
    shadowed: list[int] = []
    for entry in _entries(device, superblock):
        if entry.state is SlotState.BAD:
            continue
        other = lookup.get(entry.unit)
        if other and other.generation == entry.generation:
            raise Refused(f"unit {entry.unit} has two live slots, {other.slot} and {entry.slot}")
        if other is None or other.generation < entry.generation:
            lookup[entry.unit] = entry
        if other:
            shadowed.append(min(entry, other, key=lambda e: e.generation).slot)
    return Loaded(superblock, lookup, tuple(shadowed))


def _homes(superblock: Superblock) -> list[tuple[int, int, int]]:
    return [
        (segment.copy_a + index, segment.copy_b + index, segment.used(index))
        for segment in superblock.segments
        for index in range(segment.table_blocks)
    ]


def _places(superblock: Superblock) -> Iterator[tuple[int, int]]:
    """Yield where copies of table blocks may be, and the home of the only one that counts there."""
    yield from superblock.standins
    for a, b, _ in _homes(superblock):
        yield a, a
        yield b, b


def _entries(device: ImageDevice, superblock: Superblock) -> Iterator[Entry]:
    """Yield what the newest version of each table block says."""
    versions: dict[int, list[tuple[int, bytes]]] = {}
    homes = _homes(superblock)
    for place, home in _places(superblock):
        block = device.read_block(0, place)
        found = header(block, lib.DMR_TYPE_TABLE, place) if block else None
        if block and found and (found.uuid, found.home) == (superblock.uuid, home):
            versions.setdefault(found.home, []).append((found.seq, block))
    first = 0
    for a, b, used in homes:
        both = versions.get(a, []) + versions.get(b, [])
        top = max((seq for seq, _ in both), default=0)
        newest = {block[HEADER:]: block for seq, block in both if seq == top}
        if len(newest) != 1:
            raise Refused(f"table block {a}: {'copies differ' if newest else 'no copy is left'}")
        (block,) = newest.values()
        if wrong := check_table(block, used, superblock.units):
            raise Refused(f"table block {a}: {wrong}")
        yield from parse_entries(block, used, first)
        first += used


@dataclass(frozen=True)
class Copies:
    """What the two copies of the table say, each for itself."""

    unequal: int
    """How many blocks have copies of different sequence."""
    away: int
    """How many stand-ins hold a table block."""
    both: dict[int, tuple[int, bool]]
    """The units that have an entry in both copies: the generation, and whether it holds data.

    A copy does not count that a refused write, or the medium, has destroyed.
    """
    torn: int = 0
    """How many stand-ins of table blocks are torn."""


def copies(spare: bytes | bytearray | mmap, superblock: Superblock) -> Copies:
    """Look at the newest candidate of every copy of every table block."""
    device = ImageDevice(spare)
    homes = _homes(superblock)
    newest: dict[int, tuple[int, bytes]] = {}
    away = torn = 0
    damaged: dict[int, int] = {}
    for place, home in _places(superblock):
        block = device.read_block(0, place)
        found = header(block, lib.DMR_TYPE_TABLE, place) if block else None
        if block and found and (found.uuid, found.home) == (superblock.uuid, home):
            newest[home] = max((found.seq, block), newest.get(home, (0, b"")))
            away += place in STANDINS
        elif block and any(block):
            torn += place in STANDINS
            seq = int.from_bytes(block[32:40], "little")
            damaged[home] = max(damaged.get(home, 0), seq if place in STANDINS else 1)
    units: tuple[dict[int, tuple[int, bool]], ...] = ({}, {})
    for *pair, used in homes:
        whole = [h for h in pair if damaged.get(h, 0) <= newest.get(h, (0, b""))[0]]
        for home, known in zip(whole * 2 if len(whole) == 1 else pair, units, strict=True):
            for entry in parse_entries(newest[home][1], used, 0) if home in newest else ():
                if entry.state is not SlotState.BAD:
                    state = (entry.generation, entry.state is SlotState.MAPPED)
                    known[entry.unit] = max(state, known.get(entry.unit, state))
    seqs = [[newest.get(home, (0, b""))[0] for home in (a, b)] for a, b, _ in homes]
    both = {unit: min(units[0][unit], units[1][unit]) for unit in units[0].keys() & units[1]}
    return Copies(sum(a != b for a, b in seqs), away, both, torn)
