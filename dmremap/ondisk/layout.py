# SPDX-License-Identifier: GPL-2.0-only
"""Metadata blocks as Python records, and back. Pure: bytes in, records out."""

import enum
import secrets
import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from dmremap.ondisk._format import ffi, lib

FORMAT_VERSION: Final[int] = lib.DMR_VERSION
BLOCK: Final[int] = lib.DMR_BLOCK_SIZE
BLOCK_SECTORS: Final[int] = lib.DMR_BLOCK_SECTORS
HEAD_BLOCKS: Final[int] = lib.DMR_HEAD_BLOCKS
MIN_AREA_BLOCKS: Final[int] = lib.DMR_MIN_AREA_BLOCKS
MAX_SEGMENTS: Final[int] = lib.DMR_MAX_SEGMENTS
MAX_SLOTS: Final[int] = lib.DMR_MAX_SLOTS
TAG_SECTORS: Final[int] = lib.DMR_TAG_SECTORS
TAG_BLOCKS: Final[tuple[int, ...]] = tuple(map(lib.dmr_tag_block, range(lib.DMR_NR_TAGS)))
SCRATCH_BLOCKS: Final[tuple[int, ...]] = tuple(
    map(lib.dmr_scratch_block, range(lib.DMR_NR_SCRATCH))
)
SUPER_HOMES: Final[tuple[int, int]] = (lib.DMR_SB0_BLOCK, lib.DMR_SB1_BLOCK)
OWN_BLOCKS: Final[range] = range(lib.DMR_OWN_FIRST, lib.DMR_OWN_LAST + 1)
STANDINS: Final[range] = range(lib.DMR_STANDIN_FIRST, lib.DMR_STANDIN_LAST + 1)
REFUGES: Final[range] = STANDINS[lib.DMR_REFUGE_FIRST - STANDINS[0] :: lib.DMR_REFUGE_STEP]
"""The stand-ins that only superblocks use."""
ENTRIES: Final[int] = lib.DMR_ENTRIES
NAME_MAX: Final[int] = lib.DMR_NAME_SIZE - 1
SERIAL_MAX: Final[int] = lib.DMR_SERIAL_SIZE - 1


class SetState(enum.IntEnum):
    """How far a set's format came."""

    FORMATTING = lib.DMR_FORMATTING
    READY = lib.DMR_READY


class SlotState(enum.IntEnum):
    """What a slot holds."""

    FREE = lib.DMR_FREE
    MAPPED = lib.DMR_MAPPED
    LOST = lib.DMR_LOST
    BAD = lib.DMR_BAD


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a valid metadata block."""

    uuid: UUID
    seq: int
    home: int
    version: int


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of the area, in blocks from the area's start."""

    start: int
    blocks: int
    slots: int
    table_blocks: int

    @property
    def copy_a(self) -> int:
        """The first block of table copy A."""
        return self.start

    @property
    def copy_b(self) -> int:
        """The first block of table copy B."""
        return self.start + self.blocks - self.table_blocks

    @property
    def data(self) -> int:
        """The first block of the slots."""
        return self.start + self.table_blocks

    def used(self, index: int) -> int:
        """Return how many entries of table block `index` stand for a slot."""
        return min(ENTRIES, self.slots - index * ENTRIES)


class Errors(enum.IntEnum):
    """What a person chose for the option errors."""

    CONFIRM = lib.DMR_CHOSE_CONFIRM
    MEDIUM = lib.DMR_CHOSE_MEDIUM


class History(enum.IntEnum):
    """What main's tag says of the spare that it is looked at with."""

    SAME = lib.DMR_SAME_HISTORY
    OLDER_SPARE = lib.DMR_OLDER_SPARE
    PARTED = lib.DMR_PARTED


@dataclass(frozen=True, slots=True)
class Epoch:
    """A stretch of a set's history: numbers count up, and the id is random, never 0.

    Number 0, with id 0, stands for none.
    """

    number: int
    id: int

    @classmethod
    def new(cls, number: int = 1) -> "Epoch":
        """Begin one: nobody else has its id."""
        return cls(number, secrets.randbelow(2**64 - 1) + 1)


NO_EPOCH: Final = Epoch(0, 0)


@dataclass(frozen=True, slots=True)
class Superblock:
    """All that a set knows about itself."""

    uuid: UUID
    name: str
    state: SetState
    unit: int
    area_blocks: int
    segments: tuple[Segment, ...]
    tagged: bool
    main_sectors: int
    data_start: int
    data_sectors: int
    main_offset: int = 0
    created: int = 0
    main_id_type: int = 0
    main_id: bytes = b""
    main_serial: str = ""
    seq: int = 1
    compat: int = 0
    ro_compat: int = 0
    incompat: int = 0
    epoch: Epoch = field(default_factory=Epoch.new)
    before: Epoch = NO_EPOCH
    predecessor: UUID | None = None
    predecessor_epoch: Epoch = NO_EPOCH
    content_tag: UUID | None = None
    standins: tuple[tuple[int, int], ...] = ()
    """Stand-ins with a name, and the home of the table copy that each stands for, in blocks."""
    spare_serial: int = 1
    errors: Errors | None = None
    remap_rate: int | None = None
    """Pieces in a minute, as a person chose; None: nobody did."""

    @property
    def superseded(self) -> bool:
        """Whether the set has gone on elsewhere."""
        return bool(self.incompat & lib.DMR_INCOMPAT_SUPERSEDED)

    @property
    def slots(self) -> int:
        """The number of slots in all segments."""
        return sum(segment.slots for segment in self.segments)

    @property
    def area_sectors(self) -> int:
        """The size of the area in sectors."""
        return self.area_blocks * BLOCK_SECTORS

    @property
    def end(self) -> int:
        """The block behind the last segment."""
        return HEAD_BLOCKS + sum(segment.blocks for segment in self.segments)

    @property
    def units(self) -> int:
        """The number of main's units."""
        return self.main_sectors * 512 // self.unit

    def table_copy(self, home: int) -> tuple[int, int] | None:
        """Return the table block, counted from 1, and the copy whose home a block is."""
        number = 1
        for segment in self.segments:
            for copy, first in enumerate((segment.copy_a, segment.copy_b)):
                if first <= home < first + segment.table_blocks:
                    return number + home - first, copy
            number += segment.table_blocks
        return None


@dataclass(frozen=True, slots=True)
class Tag:
    """What a tagged main says about itself, and about where its set is; sizes in sectors."""

    uuid: UUID
    name: str
    main_sectors: int
    data_start: int
    unit: int
    spare_start: int = 0
    spare_len: int = 0
    epoch: Epoch = field(default_factory=Epoch.new)
    fault: str = ""
    """Why it cannot be used, although it is ours and whole; then only its set is known."""

    @property
    def set_name(self) -> str:
        """The set's name and uuid, for people."""
        return str(self.uuid) if self.fault else f"{self.name!r} ({self.uuid})"

    @classmethod
    def of(cls, sb: Superblock, spare_start: int) -> "Tag":
        """Return the tag for the main of a set whose area begins at a sector of the spare."""
        return cls(
            uuid=sb.uuid,
            name=sb.name,
            main_sectors=sb.main_sectors,
            data_start=sb.data_start,
            unit=sb.unit,
            spare_start=spare_start,
            spare_len=sb.area_sectors,
            epoch=sb.epoch,
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """One slot that is not free."""

    slot: int
    state: SlotState
    unit: int
    generation: int


class Invalid(ValueError):
    """A block that has our header and checksum but cannot be used. The text is the reason."""


def segment_for(blocks: int, unit: int) -> Segment | None:
    """Return the one segment of a fresh area of this many blocks, None if it has no room."""
    room = blocks - HEAD_BLOCKS
    slots = lib.dmr_segment_slots(max(room, 0), unit)
    if not slots:
        return None
    return Segment(HEAD_BLOCKS, room, slots, lib.dmr_table_blocks(slots))


def extension_for(sb: Superblock, area_blocks: int) -> Segment | None:
    """Return the segment by which a set grows to an area of this many blocks, None if too small.

    It begins where the last one ends, as grown_super() of the kernel has it. How many segments
    and slots a set may have is not looked at.
    """
    room = area_blocks - sb.end
    slots = lib.dmr_segment_slots(max(room, 0), sb.unit)
    if not slots or area_blocks <= sb.area_blocks:
        return None
    return Segment(sb.end, room, slots, lib.dmr_table_blocks(slots))


def segment_blocks(slots: int, unit: int) -> int:
    """Return the fewest blocks that a segment with at least so many slots has."""
    return bisect_left(
        range(2 * MAX_SLOTS), slots, key=lambda blocks: lib.dmr_segment_slots(blocks, unit)
    )


def largest_area(sb: Superblock) -> int:
    """Return the most blocks that a set's area may grow to before it has too many slots."""
    return sb.end + segment_blocks(MAX_SLOTS - sb.slots + 1, sb.unit) - 1


def header(block: bytes, kind: int, place: int) -> Header | None:
    """Return the header of a block of this kind, None if it is not one or is damaged."""
    if len(block) != BLOCK or not lib.dmr_header_ok(ffi.from_buffer("char[]", block), kind, place):
        return None
    h = ffi.from_buffer("struct dmr_header *", block)
    return Header(
        uuid=UUID(bytes=bytes(ffi.buffer(h.uuid))),
        seq=lib.dmr_h64(h.seq),
        home=lib.dmr_h64(h.home),
        version=lib.dmr_h16(h.version),
    )


def same_body(a: bytes, b: bytes) -> bool:
    """Say whether two blocks agree in all that follows the header."""
    return bool(lib.dmr_same_body(ffi.from_buffer("char[]", a), ffi.from_buffer("char[]", b)))


def is_zero(data: Any) -> bool:
    """Say whether all bytes of a buffer are zero."""
    view = ffi.from_buffer("char[]", data)
    return bool(lib.dmr_is_zero(view, len(data)))


def _text(raw: Any) -> str:
    return ffi.string(raw).decode("utf-8", "backslashreplace")


def _epoch(raw: Any) -> Epoch:
    return Epoch(lib.dmr_h64(raw.number), lib.dmr_h64(raw.id))


def put_epoch(raw: Any, epoch: Epoch) -> None:
    """Fill in a struct dmr_epoch."""
    raw.number, raw.id = lib.dmr_h64(epoch.number), lib.dmr_h64(epoch.id)


def _uuid(raw: Any) -> UUID | None:
    found = UUID(bytes=bytes(ffi.buffer(raw)))
    return found if found.int else None


def _standins(sb: Any) -> Iterator[tuple[int, int]]:
    for i, place in enumerate(STANDINS):
        if home := lib.dmr_h64(sb.standin[i]):
            yield place, home


def _bytes(text: str, limit: int, what: str) -> bytes:
    raw = text.encode()
    if len(raw) > limit or b"\0" in raw:
        raise ValueError(f"{what} is longer than {limit} bytes or has a NUL")
    return raw


def parse_super(block: bytes, place: int) -> Superblock | None:
    """Return the superblock in a block, None if there is none.

    Raises Invalid when it is ours, its checksum is right, and this version cannot use it.
    """
    head = header(block, lib.DMR_TYPE_SUPER, place)
    if head is None:
        return None
    sb = ffi.from_buffer("struct dmr_super *", block)
    wrong = lib.dmr_super_check(sb)
    if wrong:
        raise Invalid(ffi.string(wrong).decode())
    get32, get64 = lib.dmr_h32, lib.dmr_h64
    segments = tuple(
        Segment(get64(s.start), get64(s.blocks), get32(s.slots), get32(s.table_blocks))
        for s in (sb.segment[i] for i in range(get32(sb.nr_segments)))
    )
    return Superblock(
        uuid=head.uuid,
        seq=head.seq,
        name=_text(sb.name),
        state=SetState(get32(sb.state)),
        unit=get32(sb.unit),
        area_blocks=get64(sb.area_blocks),
        segments=segments,
        tagged=bool(get32(sb.main_flags) & lib.DMR_MAIN_TAGGED),
        main_sectors=get64(sb.main_sectors),
        main_offset=get64(sb.main_offset),
        data_start=get64(sb.data_start),
        data_sectors=get64(sb.data_sectors),
        created=get64(sb.created),
        main_id_type=sb.main_id_type,
        main_id=bytes(ffi.buffer(sb.main_id))[: sb.main_id_len],
        main_serial=_text(sb.main_serial),
        compat=get64(sb.compat),
        ro_compat=get64(sb.ro_compat),
        incompat=get64(sb.incompat),
        epoch=_epoch(sb.epoch),
        before=_epoch(sb.before),
        predecessor=_uuid(sb.predecessor),
        predecessor_epoch=_epoch(sb.predecessor_epoch),
        content_tag=_uuid(sb.content_tag),
        standins=tuple(_standins(sb)),
        spare_serial=get64(sb.spare_serial),
        errors=Errors(sb.chosen_errors) if sb.chosen_errors else None,
        remap_rate=get32(sb.remap_rate) if sb.chosen & lib.DMR_CHOSE_RATE else None,
    )


def pack_super(sb: Superblock, home: int, place: int | None = None) -> bytes:
    """Return the block of a superblock for its home, or for a stand-in at `place`."""
    block = bytearray(BLOCK)
    raw = ffi.from_buffer("struct dmr_super *", block)
    put32, put64 = lib.dmr_h32, lib.dmr_h64
    raw.compat = put64(sb.compat)
    raw.ro_compat = put64(sb.ro_compat)
    raw.incompat = put64(sb.incompat)
    raw.state = put32(sb.state)
    raw.unit = put32(sb.unit)
    raw.area_blocks = put64(sb.area_blocks)
    raw.nr_segments = put32(len(sb.segments))
    raw.main_flags = put32(lib.DMR_MAIN_TAGGED if sb.tagged else 0)
    raw.main_sectors = put64(sb.main_sectors)
    raw.main_offset = put64(sb.main_offset)
    raw.data_start = put64(sb.data_start)
    raw.data_sectors = put64(sb.data_sectors)
    raw.created = put64(sb.created)
    raw.main_id_type = sb.main_id_type
    raw.main_id_len = len(sb.main_id)
    for there, value in (
        (raw.main_id, sb.main_id),
        (raw.main_serial, _bytes(sb.main_serial, SERIAL_MAX, "the serial")),
        (raw.name, _bytes(sb.name, NAME_MAX, "the name")),
        (raw.predecessor, sb.predecessor.bytes if sb.predecessor else b""),
        (raw.content_tag, sb.content_tag.bytes if sb.content_tag else b""),
    ):
        ffi.buffer(there)[: len(value)] = value
    put_epoch(raw.epoch, sb.epoch)
    put_epoch(raw.before, sb.before)
    put_epoch(raw.predecessor_epoch, sb.predecessor_epoch)
    for stands, stands_for in sb.standins:
        raw.standin[stands - STANDINS[0]] = put64(stands_for)
    raw.spare_serial = put64(sb.spare_serial)
    raw.chosen_errors = sb.errors or 0
    if sb.remap_rate is not None:
        raw.chosen = lib.DMR_CHOSE_RATE
        raw.remap_rate = put32(sb.remap_rate)
    for slot, segment in zip(raw.segment, sb.segments, strict=False):
        slot.start = put64(segment.start)
        slot.blocks = put64(segment.blocks)
        slot.slots = put32(segment.slots)
        slot.table_blocks = put32(segment.table_blocks)
    wrong = lib.dmr_super_check(_sealed(raw, lib.DMR_TYPE_SUPER, sb.uuid, sb.seq, home, place))
    if wrong:
        raise ValueError(ffi.string(wrong).decode())
    return bytes(block)


def _sealed(raw: Any, kind: int, uuid: UUID, seq: int, home: int, place: int | None) -> Any:
    lib.dmr_seal(raw, kind, uuid.bytes, seq, home, home if place is None else place)
    return raw


def pack_tag(tag: Tag, home: int) -> bytes:
    """Return the block of a tag for one of its homes."""
    block = bytearray(BLOCK)
    raw = ffi.from_buffer("struct dmr_tag *", block)
    raw.main_sectors = lib.dmr_h64(tag.main_sectors)
    raw.data_start = lib.dmr_h64(tag.data_start)
    raw.spare_start = lib.dmr_h64(tag.spare_start)
    raw.spare_len = lib.dmr_h64(tag.spare_len)
    raw.unit = lib.dmr_h32(tag.unit)
    put_epoch(raw.epoch, tag.epoch)
    name = _bytes(tag.name, NAME_MAX, "the name")
    ffi.buffer(raw.name)[: len(name)] = name
    _sealed(raw, lib.DMR_TYPE_TAG, tag.uuid, tag.epoch.number, home, None)
    return bytes(block)


def parse_tag(block: bytes, place: int) -> Tag | None:
    """Return the tag in a block, None if there is none."""
    head = header(block, lib.DMR_TYPE_TAG, place)
    if head is None or head.home != place:
        return None
    raw = ffi.from_buffer("struct dmr_tag *", block)
    wrong = lib.dmr_tag_check(raw)
    if wrong:
        fault = ffi.string(wrong).decode()
        return Tag(head.uuid, "", 0, 0, 0, epoch=Epoch(head.seq, 0), fault=fault)
    return Tag(
        uuid=head.uuid,
        name=_text(raw.name),
        main_sectors=lib.dmr_h64(raw.main_sectors),
        data_start=lib.dmr_h64(raw.data_start),
        unit=lib.dmr_h32(raw.unit),
        spare_start=lib.dmr_h64(raw.spare_start),
        spare_len=lib.dmr_h64(raw.spare_len),
        epoch=_epoch(raw.epoch),
    )


def pack_empty_table(uuid: UUID, home: int, seq: int = 1) -> bytes:
    """Return a table block in which every slot is free."""
    block = bytearray(BLOCK)
    _sealed(ffi.from_buffer("struct dmr_table *", block), lib.DMR_TYPE_TABLE, uuid, seq, home, None)
    return bytes(block)


def is_empty_table(block: bytes, uuid: UUID, place: int) -> bool:
    """Say whether a block is a table block of a set, at its home, in which every slot is free."""
    head = header(block, lib.DMR_TYPE_TABLE, place)
    return (
        head is not None
        and (head.uuid, head.home, head.version) == (uuid, place, FORMAT_VERSION)
        and is_zero(block[BLOCK - 16 * ENTRIES :])
    )


MAGIC: Final = pack_empty_table(UUID(int=0), 0)[:8]
"""What every block of ours begins with, as the kernel's header has it."""


def pack_table(uuid: UUID, entries: list[Entry], first_slot: int, home: int, seq: int) -> bytes:
    """Return a table block with these entries; others are free."""
    block = bytearray(BLOCK)
    raw = ffi.from_buffer("struct dmr_table *", block)
    for entry in entries:
        slot = raw.entry[entry.slot - first_slot]
        slot.unit = lib.dmr_h64(entry.unit)
        slot.state_gen = lib.dmr_h32(entry.state | entry.generation << 8)
    _sealed(raw, lib.DMR_TYPE_TABLE, uuid, seq, home, None)
    return bytes(block)


NO_UNIT: Final = 2**64 - 1
"""Stands for a free slot where slots are given as an array of units."""


def pack_mapped_table(uuid: UUID, units: "array[int]", home: int, seq: int = 1) -> bytes:
    """Return a table block whose first slots are MAPPED to these units, in generation 0.

    `units` is an array of type Q with at most ENTRIES units or NO_UNIT. No object is made for
    an entry, so that a million of them take a second.
    """
    count = len(units)
    if count > ENTRIES:
        raise ValueError(f"{count} units for one table block: it has {ENTRIES} entries")
    # An entry is two little-endian words: unit, then state and generation.
    words = array("Q", bytes(16 * ENTRIES))
    words[0 : 2 * count : 2] = units
    words[1 : 2 * count : 2] = array("Q", [SlotState.MAPPED]) * count
    if NO_UNIT in units:
        for i, unit in enumerate(units):
            if unit == NO_UNIT:
                words[2 * i] = words[2 * i + 1] = SlotState.FREE
    if sys.byteorder == "big":
        words.byteswap()
    block = bytearray(BLOCK)
    block[BLOCK - 16 * ENTRIES :] = words.tobytes()
    _sealed(ffi.from_buffer("struct dmr_table *", block), lib.DMR_TYPE_TABLE, uuid, seq, home, None)
    return bytes(block)


def check_table(block: bytes, used: int, units: int) -> str | None:
    """Return what is wrong with the entries of a table block, None if nothing is."""
    wrong = lib.dmr_table_check(ffi.from_buffer("struct dmr_table *", block), used, units)
    return ffi.string(wrong).decode() if wrong else None


def parse_entries(block: bytes, used: int, first_slot: int) -> Iterator[Entry]:
    """Yield the entries of a checked table block that are not free."""
    raw = ffi.from_buffer("struct dmr_table *", block)
    for i in range(used):
        state_gen = lib.dmr_h32(raw.entry[i].state_gen)
        if state_gen & 0xFF != SlotState.FREE:
            yield Entry(
                slot=first_slot + i,
                state=SlotState(state_gen & 0xFF),
                unit=lib.dmr_h64(raw.entry[i].unit),
                generation=state_gen >> 8,
            )
