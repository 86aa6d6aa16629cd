# SPDX-License-Identifier: GPL-2.0-only
"""The area on a spare, and the tag on a main: read, format, wipe.

Reading never guesses: of all valid candidates for a block the highest sequence wins, and equal
sequences with different bodies are a problem that is reported, not resolved.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
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
    STANDINS,
    SUPER_HOMES,
    TAG_BLOCKS,
    Entry,
    Header,
    Invalid,
    Segment,
    SetState,
    Superblock,
    Tag,
    check_table,
    header,
    is_zero,
    pack_empty_table,
    pack_super,
    pack_tag,
    parse_entries,
    parse_super,
    parse_tag,
    same_body,
)

_BATCH: Final = 256  # blocks read or written in one call


@dataclass(frozen=True, slots=True)
class Candidate:
    """A valid metadata block, and where it was found."""

    place: int
    head: Header
    block: bytes


@dataclass(frozen=True, slots=True)
class Head:
    """What the first MiB of an area says.

    `superblocks` has the winner of each uuid found; more than one means that an area was formatted
    over another without being cleared. `problems` are sentences for people.
    """

    superblocks: tuple[Superblock, ...]
    problems: tuple[str, ...]
    unreadable: tuple[int, ...]

    @property
    def superblock(self) -> Superblock | None:
        """The superblock, if there is exactly one set."""
        return self.superblocks[0] if len(self.superblocks) == 1 else None

    def of(self, uuid: UUID) -> Superblock | None:
        """Return the superblock of one set."""
        return next((sb for sb in self.superblocks if sb.uuid == uuid), None)


@dataclass(frozen=True, slots=True)
class Tables:
    """The entries of all segments, as far as they could be read."""

    entries: tuple[Entry, ...]
    problems: tuple[str, ...]


def _blocks(device: BlockDevice, start: int, places: Iterable[int]) -> dict[int, bytes | None]:
    """Read blocks of the head: all at once, and one by one where that fails."""
    whole = device.read(start * 512, HEAD_BLOCKS * BLOCK)
    if whole is not None:
        return {place: whole[place * BLOCK : (place + 1) * BLOCK] for place in places}
    return {place: device.read_block(start, place) for place in places}


def choose(candidates: Iterable[Candidate]) -> tuple[Candidate | None, bool]:
    """Return the winner, and whether another contradicts it."""
    best: Candidate | None = None
    conflict = False
    for candidate in candidates:
        if best is None or candidate.head.seq > best.head.seq:
            best, conflict = candidate, False
        elif candidate.head.seq == best.head.seq and not same_body(candidate.block, best.block):
            conflict = True
    return best, conflict


def read_head(device: BlockDevice, start: int = 0) -> Head:
    """Read the superblocks of an area that starts at sector `start`."""
    blocks = _blocks(device, start, (*SUPER_HOMES, *STANDINS))
    problems: list[str] = []
    unreadable = tuple(place for place, block in blocks.items() if block is None)
    found: dict[UUID, list[Candidate]] = {}
    for place, block in blocks.items():
        head = header(block, lib.DMR_TYPE_SUPER, place) if block is not None else None
        if block is not None and head is not None and head.home in SUPER_HOMES:
            found.setdefault(head.uuid, []).append(Candidate(place, head, block))

    superblocks: list[Superblock] = []
    for uuid, candidates in found.items():
        usable: list[tuple[Candidate, Superblock]] = []
        for candidate in candidates:
            try:
                sb = parse_super(candidate.block, candidate.place)
            except Invalid as wrong:
                problems.append(f"set {uuid}, block {candidate.place}: {wrong}")
            else:
                if sb is not None:
                    usable.append((candidate, sb))
        # FORMATTING counts only where no valid READY superblock is found.
        ready = [pair for pair in usable if pair[1].state is SetState.READY]
        of = dict(ready or usable)
        best, conflict = choose(of)
        if conflict:
            problems.append(f"set {uuid}: superblocks of equal sequence contradict each other")
        elif best is not None:
            superblocks.append(of[best])
    if len(superblocks) > 1:
        problems.append(
            "superblocks of several sets: " + ", ".join(str(sb.uuid) for sb in superblocks)
        )
    return Head(tuple(superblocks), tuple(problems), unreadable)


def first_super(
    device: BlockDevice, offset: int, length: int, progress: Progress | None = None
) -> int | None:
    """Return the offset in bytes of a superblock anywhere in a range, whatever area it is of."""
    for at, block in device.blocks_with(MAGIC, offset, length, progress):
        if any(header(block, lib.DMR_TYPE_SUPER, home) for home in SUPER_HOMES):
            return at
    return None


def _standins(device: BlockDevice, start: int, uuid: UUID) -> dict[int, list[Candidate]]:
    """Return the stand-ins for table blocks, by the home that each names."""
    out: dict[int, list[Candidate]] = {}
    for place, block in _blocks(device, start, STANDINS).items():
        head = header(block, lib.DMR_TYPE_TABLE, place) if block is not None else None
        if block is not None and head is not None and head.uuid == uuid:
            out.setdefault(head.home, []).append(Candidate(place, head, block))
    return out


def read_tables(device: BlockDevice, sb: Superblock, start: int = 0) -> Tables:
    """Read every table block of a set. Of a live set this is a snapshot that may be torn."""
    standins = _standins(device, start, sb.uuid)
    entries: list[Entry] = []
    problems: list[str] = []
    first = 0
    for segment in sb.segments:
        for index in range(segment.table_blocks):
            homes = (segment.copy_a + index, segment.copy_b + index)
            candidates = [c for home in homes for c in standins.get(home, ())]
            for home in homes:
                block = device.read_block(start, home)
                head = header(block, lib.DMR_TYPE_TABLE, home) if block is not None else None
                if block is not None and head is not None and head.uuid == sb.uuid:
                    candidates.append(Candidate(home, head, block))
            best, conflict = choose(candidates)
            used = segment.used(index)
            if best is None:
                problems.append(f"table block {homes[0]}: no copy is left")
            elif conflict:
                problems.append(f"table block {homes[0]}: copies of equal sequence differ")
            elif wrong := check_table(best.block, used, sb.units):
                problems.append(f"table block {homes[0]}: {wrong}")
            else:
                entries += parse_entries(best.block, used, first + index * lib.DMR_ENTRIES)
        first += segment.slots
    return Tables(tuple(entries), tuple(problems))


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


def read_tag(device: BlockDevice) -> Tag | None:
    """Return main's tag: of the copies that are good the one of the highest epoch.

    It has a fault where another one of that epoch says something else.
    """
    found: list[Tag] = []
    for place in TAG_BLOCKS:
        block = device.read_block(0, place)
        tag = parse_tag(block, place) if block is not None else None
        if tag is not None:
            found.append(tag)
    best = max(found, key=lambda tag: tag.epoch.number, default=None)
    if best and any(tag.epoch.number == best.epoch.number and tag != best for tag in found):
        return replace(best, fault="the copies of main's tag contradict each other")
    return best


def write_tag(device: BlockDevice, tag: Tag, *, clear: bool = False) -> None:
    """Tag a main device that is not in use. With `clear` its first MiB is zeroed before."""
    if clear:
        write_run(device, 0, range(HEAD_BLOCKS), lambda _: bytes(BLOCK))
        device.flush()
    for home in reversed(TAG_BLOCKS):
        device.write_block(0, home, pack_tag(tag, home))
        device.flush()
