# SPDX-License-Identifier: GPL-2.0-only
"""The area on a spare, and the tag on a main: find, format, wipe. load.py reads what is there."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Final
from uuid import UUID

from dmremap.errors import Busy
from dmremap.ondisk._format import lib
from dmremap.ondisk.device import BlockDevice, Progress
from dmremap.ondisk.layout import (
    BLOCK,
    HEAD_BLOCKS,
    MAGIC,
    SUPER_HOMES,
    TAG_BLOCKS,
    Segment,
    SetState,
    Superblock,
    Tag,
    header,
    is_zero,
    pack_empty_table,
    pack_super,
    pack_tag,
    parse_tag,
)
from dmremap.ondisk.load import View

_BATCH: Final = 256  # blocks read or written in one call
CONTRADICTION: Final = "the copies of main's tag contradict each other"


def first_super(
    device: BlockDevice, offset: int, length: int, progress: Progress | None = None
) -> int | None:
    """Return the offset in bytes of a superblock anywhere in a range, whatever area it is of."""
    for at, block in device.blocks_with(MAGIC, offset, length, progress):
        if any(header(block, lib.DMR_TYPE_SUPER, home) for home in SUPER_HOMES):
            return at
    return None


def table_homes(segments: Iterable[Segment]) -> Iterator[range]:
    """Return where the tables of segments are, in blocks: copy A, then copy B, of each."""
    for segment in segments:
        for start in (segment.copy_a, segment.copy_b):
            yield range(start, start + segment.table_blocks)


def batches(places: range) -> Iterator[range]:
    """Return a run of blocks in parts that are read or written in one call."""
    for i in range(0, len(places), _BATCH):
        yield places[i : i + _BATCH]


def write_run(
    device: BlockDevice,
    start: int,
    places: range,
    make: Callable[[int], bytes],
    *,
    blank: bool = False,
) -> None:
    """Write a run of blocks of the area that begins at sector `start`; `make` returns each.

    With `blank` Busy is raised where something is that is not zero, just before it is written to.
    """
    for batch in batches(places):
        at = start * 512 + batch[0] * BLOCK
        found = device.read(at, len(batch) * BLOCK) if blank else b""
        if found is None or not is_zero(found):
            raise Busy(
                "DMR-E409",
                f"{device.path} has changed while this was being decided: it was blank between "
                f"bytes {at} and {at + len(batch) * BLOCK}",
            )
        device.write(at, b"".join(make(place) for place in batch))


def format_area(
    device: BlockDevice,
    sb: Superblock,
    start: int = 0,
    *,
    clear: bool = False,
    progress: Progress | None = None,
    table: Callable[[int], bytes] | None = None,
) -> None:
    """Write a fresh set, in the order that the format asks for.

    Superblock 0 says FORMATTING; then the tables; then superblocks 1 and 0 say READY; each
    durable before the next. With `clear` the head is zeroed first, which ends whatever set was
    there; without it the caller has seen that the area is blank, and the places of the tables are
    read once more. `table` returns the table block for a home; without it every slot is free.
    """
    make = table or partial(pack_empty_table, sb.uuid)
    zero = bytes(BLOCK)
    if clear:
        write_run(device, start, range(HEAD_BLOCKS), lambda _: zero)
        device.flush()
    making = replace(sb, state=SetState.FORMATTING)
    device.write_block(start, SUPER_HOMES[0], pack_super(making, SUPER_HOMES[0]))
    device.flush()
    total = sum(len(run) for run in table_homes(sb.segments)) * BLOCK
    done = 0
    for run in table_homes(sb.segments):
        write_run(device, start, run, make, blank=not clear)
        done += len(run) * BLOCK
        if progress:
            progress(done, total)
    device.flush()
    ready = replace(sb, state=SetState.READY, seq=sb.seq + 1)
    for home in reversed(SUPER_HOMES):
        device.write_block(start, home, pack_super(ready, home))
        device.flush()


def read_tags(view: View) -> dict[int, Tag]:
    """Return the copies of main's tag that are good, by where they stand."""
    blocks = ((place, view.block(place)) for place in TAG_BLOCKS)
    found = ((place, parse_tag(block, place)) for place, block in blocks if block is not None)
    return {place: tag for place, tag in found if tag is not None}


def newest_tag(copies: Iterable[Tag]) -> Tag | None:
    """Return the tag that counts: the copy of the highest epoch.

    It has a fault where another one of that epoch says something else.
    """
    found = list(copies)
    best = max(found, key=lambda tag: tag.epoch.number, default=None)
    if best and any(tag.epoch.number == best.epoch.number and tag != best for tag in found):
        return replace(best, fault=CONTRADICTION)
    return best


def read_tag(view: View) -> Tag | None:
    """Return main's tag."""
    return newest_tag(read_tags(view).values())


def lost_tags(view: View) -> list[int]:
    """Return the places of main's tag that cannot be read."""
    return [place for place in TAG_BLOCKS if view.block(place) is None]


def _pieces(view: View, place: int, unit: int) -> Iterator[tuple[int, bytes]]:
    """Yield what can be read of a block of main, and where it is in bytes."""
    block = view.block(place)
    at = place * BLOCK
    if block is not None:
        yield at, block
    if block is not None or place:
        return
    for offset in range(at, at + BLOCK, unit):
        piece = view.source.read(offset, unit)
        if piece is not None:
            yield offset, piece


def something_else(view: View, unit: int, uuid: UUID | None = None) -> int | None:
    """Return where, in bytes, main's first MiB has anything but zeroes, None if nowhere.

    What cannot be read does not count; of the first block, if it cannot be read as a whole, each
    unit does that can be. A copy of the tag does not count either if it is of the set `uuid`, or
    cannot be read. search_main() in the kernel.
    """
    for place in range(HEAD_BLOCKS):
        block = view.block(place)
        if place in TAG_BLOCKS:
            tag = parse_tag(block, place) if block is not None else None
            if block is None or (tag and tag.uuid == uuid):
                continue
        for offset, piece in _pieces(view, place, unit):
            if not is_zero(piece):
                return offset
    return None


def write_tag(device: BlockDevice, tag: Tag, *, clear: bool = False) -> None:
    """Tag a main device that is not in use. With `clear` its first MiB is zeroed before."""
    if clear:
        write_run(device, 0, range(HEAD_BLOCKS), lambda _: bytes(BLOCK))
        device.flush()
    for home in reversed(TAG_BLOCKS):
        device.write_block(0, home, pack_tag(tag, home))
        device.flush()
