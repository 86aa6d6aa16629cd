# SPDX-License-Identifier: GPL-2.0-only
"""What lies behind the area of a set that is to grow: looked at, and given empty tables.

All of it reads as zero, or holds what an attempt before this one has left: empty table blocks of
the set, each at its home. The tables are the word of whoever wrote them that this was so. The set
is the old one until its superblocks say otherwise, and those only the kernel writes.
"""

from dataclasses import dataclass
from functools import partial
from uuid import UUID

from dmremap.ondisk.area import batches, table_homes, write_run
from dmremap.ondisk.device import BlockDevice, Progress
from dmremap.ondisk.layout import (
    BLOCK,
    Segment,
    is_empty_table,
    is_zero,
    pack_empty_table,
)


@dataclass(frozen=True, slots=True)
class Obstacle:
    """A block that is not blank. `data` is None where it cannot be read, which is not blank."""

    block: int
    data: bytes | None


class InTheWay(Exception):
    """A block that was blank when it was looked at first."""

    def __init__(self, obstacle: Obstacle) -> None:
        """Keep what was found."""
        super().__init__(f"block {obstacle.block}")
        self.obstacle = obstacle


def _obstacle(device: BlockDevice, uuid: UUID, start: int, batch: range) -> Obstacle | None:
    whole = device.read(start * 512 + batch[0] * BLOCK, len(batch) * BLOCK)
    if whole is not None and is_zero(whole):
        return None
    for i, place in enumerate(batch):
        at = i * BLOCK
        block = device.read_block(start, place) if whole is None else whole[at : at + BLOCK]
        if block is None or not (is_zero(block) or is_empty_table(block, uuid, place)):
            return Obstacle(place, block)
    return None


def first_obstacle(
    device: BlockDevice, uuid: UUID, start: int, places: range, progress: Progress | None = None
) -> Obstacle | None:
    """Read blocks of the area that begins at sector `start`; return the first that is in use."""
    done, total = 0, len(places) * BLOCK
    for batch in batches(places):
        found = _obstacle(device, uuid, start, batch)
        if found is not None:
            return found
        done += len(batch) * BLOCK
        if progress:
            progress(done, total)
    return None


def write_tables(
    device: BlockDevice,
    uuid: UUID,
    start: int,
    segment: Segment,
    progress: Progress | None = None,
) -> None:
    """Write the empty tables of a new segment: copy A of all, then copy B, each durable.

    Every place is read once more before it is written; InTheWay is raised if it is in use by now.
    Empty tables are as good as blank: what a failure leaves does not stand in the way of another
    attempt.
    """
    done, total = 0, 2 * segment.table_blocks * BLOCK
    for homes in table_homes([segment]):
        for batch in batches(homes):
            found = _obstacle(device, uuid, start, batch)
            if found is not None:
                raise InTheWay(found)
            write_run(device, start, batch, partial(pack_empty_table, uuid))
            done += len(batch) * BLOCK
            if progress:
                progress(done, total)
        device.flush()
