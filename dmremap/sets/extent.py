# SPDX-License-Identifier: GPL-2.0-only
"""How much of its spare a set takes, and what that costs.

A spare may be far larger than what a set needs of it. Every slot costs memory for as long as the
set runs, and all of an area is read before anything is written there. So what nobody asked for is
not taken: a set begins with DEFAULT_SLOTS, and grows by as many.
"""

from dataclasses import dataclass
from typing import Final, Literal

from dmremap.host.sizes import binary_size
from dmremap.ondisk import (
    BLOCK,
    BLOCK_SECTORS,
    HEAD_BLOCKS,
    MAX_SEGMENTS,
    MAX_SLOTS,
    Segment,
    Superblock,
    extension_for,
    largest_area,
    segment_blocks,
)

DEFAULT_SLOTS: Final = 1 << 20
"""The slots that a set gets where nobody says how many.

They hold 512 MiB of blocks of 512 bytes, 4 GiB of blocks of 4 KiB. A disk with a thousand bad
blocks is worn out, and a spare is to last for many times that; a million is more than any disk
reaches that still does its work. They cost 24 MiB of memory and half a GiB to be read first, which
even a small machine has and does in seconds.
"""

SLOT_MEMORY: Final = 24
"""Bytes of kernel memory for each slot of a set that runs, mapped or not.

Its entry, its share of the heads of the lookup's chains and of what is known of its table block:
slots_create() and remap_ctr(). The allocator's rounding is in it, so it is a little more than they
ask for.
"""

Size = int | Literal["all"] | None
"""What somebody asks for, in sectors; None: nobody did."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What slots cost. `reads` and `writes` are bytes of the spare, before the set has them."""

    slots: int
    reads: int
    writes: int

    @property
    def memory(self) -> int:
        """Bytes of kernel memory while the set runs."""
        return self.slots * SLOT_MEMORY

    @property
    def words(self) -> str:
        """What the slots take, for people."""
        return f"{binary_size(self.memory)} of memory while the set runs"


def metadata(segment: Segment) -> int:
    """Return how many bytes both tables of a segment have."""
    return 2 * segment.table_blocks * BLOCK


def first_area(room: int, unit: int, asked: Size) -> int:
    """Return how many sectors a new set takes of so many that the spare has for it.

    All of them are as many as slots can be made of. What is asked for is taken, also if it is
    not there.
    """
    if isinstance(asked, int):
        return asked // BLOCK_SECTORS * BLOCK_SECTORS
    slots = MAX_SLOTS if asked else DEFAULT_SLOTS
    blocks = HEAD_BLOCKS + segment_blocks(slots, unit)
    return min(room // BLOCK_SECTORS, blocks) * BLOCK_SECTORS


def next_area(sb: Superblock, room: int, *, everything: bool) -> int:
    """Return to how many blocks a set grows, of so many that the spare has from its start on."""
    blocks = largest_area(sb)
    if not everything:
        blocks = min(blocks, sb.end + segment_blocks(DEFAULT_SLOTS, sb.unit))
    return min(room, blocks)


def left_over(sb: Superblock, sectors: int, path: str) -> str | None:
    """Say what of a spare with so many sectors from the area's start on is not taken, if any."""
    left = sectors - sb.area_sectors
    if left < BLOCK_SECTORS:
        return None
    words = f"leave {left} sectors of {path} as they are"
    if sb.slots >= MAX_SLOTS:
        return f"{words}: no set has more than {MAX_SLOTS} slots"
    if extension_for(sb, sectors // BLOCK_SECTORS) is None or len(sb.segments) >= MAX_SEGMENTS:
        return words
    return f"{words}: 'dmremapctl grow' can take them later"
