# SPDX-License-Identifier: GPL-2.0-only
"""The first MiB of an area: its superblocks, and what the stand-ins hold. Pure: blocks in.

All that reads a set begins here, so that nothing can take another superblock than a load would:
the rules are those of kernel/dm-remap-load.c, in its order, because between stand-ins of one
sequence the last one that is met decides where a copy lives.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from dmremap.ondisk._format import ffi, lib
from dmremap.ondisk.layout import (
    BLOCK,
    HEAD_BLOCKS,
    MAGIC,
    OWN_BLOCKS,
    REFUGES,
    STANDINS,
    SUPER_HOMES,
    Header,
    SetState,
    header,
    is_zero,
)

HEADER: Final[int] = ffi.sizeof("struct dmr_header")
SECTOR: Final = 512  # what a disk writes in whole or not at all
BLANK: Final = bytes(BLOCK)
_KINDS: Final = {
    lib.DMR_TYPE_SUPER: "a superblock",
    lib.DMR_TYPE_TABLE: "a table block",
    lib.DMR_TYPE_TAG: "a tag",
    lib.DMR_TYPE_OWN: "a block of the control plane",
}

Blocks = Sequence[bytes | None]
"""Blocks from the start of an area or a disk; None where one cannot be read."""

READ: Final[int] = HEAD_BLOCKS + 1
"""How many blocks are looked at: with the first one of a table, which says whose area it is."""


@dataclass(frozen=True, slots=True)
class Super:
    """A valid superblock, not yet chosen."""

    place: int
    head: Header
    ready: bool
    block: bytes


@dataclass(frozen=True, slots=True)
class Torn:
    """The header of a torn stand-in: of what the last write was that reached its first sector."""

    kind: int
    home: int
    seq: int
    uuid: UUID


@dataclass(slots=True)
class Head:
    """Every superblock, and what the stand-ins hold.

    `tables` are the stand-ins with a valid table block: its header, and the block. `bad` are those
    that cannot be read or are torn, and `torn` has what the first sector of those torn ones says
    that are not all of zeroes there: None if nothing that a stand-in may say. `end` is where the
    device ends, if it does here, and `behind` the header of the first table block.
    """

    end: int = 0
    behind: Header | None = None
    supers: list[Super] = field(default_factory=list)
    tables: dict[int, tuple[Header, bytes]] = field(default_factory=dict)
    bad: dict[int, str] = field(default_factory=dict)
    torn: dict[int, Torn | None] = field(default_factory=dict)
    faults: dict[int, str] = field(default_factory=dict)
    unreadable: list[int] = field(default_factory=list)
    reserved: list[int] = field(default_factory=list)
    ours: bool = False

    @property
    def uuids(self) -> list[UUID]:
        """The sets that have a superblock here."""
        return list(dict.fromkeys(superblock.head.uuid for superblock in self.supers))

    @property
    def left(self) -> set[int]:
        """The superblock's own stand-ins that are not blank: none of them is used again."""
        taken = (
            {superblock.place for superblock in self.supers} | self.bad.keys() | self.tables.keys()
        )
        return taken.intersection(REFUGES)

    def torn_of(self, place: int, uuid: UUID | None) -> Torn | None:
        """Return what a torn stand-in was of this set; standin_torn() in the kernel."""
        torn = self.torn.get(place)
        if torn is None or torn.uuid != uuid:
            return None
        if place in REFUGES:
            fits = torn.kind == lib.DMR_TYPE_SUPER and torn.home in SUPER_HOMES
        else:
            fits = torn.kind == lib.DMR_TYPE_TABLE
        return torn if fits else None

    def hides(self, place: int) -> bool:
        """Whether a bad stand-in may hide something. One that begins with zeroes does not."""
        return place in self.unreadable or place in self.torn

    def fault(self, home: int) -> str:
        """Return why the home of a superblock has none."""
        if home in self.unreadable:
            return "cannot be read" if home < self.end else "lies behind the end of the device"
        return self.faults.get(home, "is blank")


@dataclass(slots=True)
class Choice:
    """The superblock that wins for one set; what head_candidate() leaves.

    `seqs` and `places` are of the newest candidate for copy A and copy B.
    """

    winner: Super | None = None
    seqs: list[int] = field(default_factory=lambda: [0, 0])
    places: list[int] = field(default_factory=lambda: [0, 0])
    older: list[int] = field(default_factory=list)
    ambiguous: bool = False
    overwritten: bool = False

    @property
    def usable(self) -> bool:
        """Whether it may be a set that can be started."""
        return bool(
            self.winner and self.winner.ready and not self.ambiguous and not self.overwritten
        )


def not_a_block(block: bytes, place: int) -> str:
    """Return what a block is that is none of ours, or that belongs elsewhere."""
    if not block.startswith(MAGIC):
        return "holds something that is not ours"
    home = lib.dmr_h64(ffi.from_buffer("struct dmr_header *", block).home)
    for kind, name in _KINDS.items():
        if header(block, kind, home):
            return f"holds {name}" + ("" if home == place else f" of block {home}")
    return "has a wrong checksum"


def _torn(block: bytes) -> Torn | None:
    """Return the header of a block with a wrong checksum, None if it is not one of ours."""
    raw = ffi.from_buffer("struct dmr_header *", block)
    seq = lib.dmr_h64(raw.seq)
    if not block.startswith(MAGIC) or not 0 < seq <= lib.DMR_SEQ_MAX:
        return None
    uuid = UUID(bytes=bytes(ffi.buffer(raw.uuid)))
    return Torn(lib.dmr_h16(raw.type), lib.dmr_h64(raw.home), seq, uuid)


def scan_head(blocks: Blocks) -> Head:
    """Sort the first MiB, and the block behind it; head_block() in the kernel."""
    out = Head(len(blocks))
    if len(blocks) > HEAD_BLOCKS and (first := blocks[HEAD_BLOCKS]) is not None:
        out.behind = header(first, lib.DMR_TYPE_TABLE, HEAD_BLOCKS)
    out.ours = out.behind is not None
    for place in range(HEAD_BLOCKS):
        block = blocks[place] if place < len(blocks) else None
        if block is None:
            out.unreadable.append(place)
            if place in STANDINS:
                out.bad[place] = "cannot be read"
        elif block == BLANK or place in OWN_BLOCKS:
            continue
        elif found := header(block, lib.DMR_TYPE_SUPER, place):
            out.ours = True
            state = lib.dmr_h32(ffi.from_buffer("struct dmr_super *", block).state)
            out.supers.append(Super(place, found, state == SetState.READY, block))
        elif place in SUPER_HOMES:
            out.faults[place] = not_a_block(block, place)
            kind = lib.dmr_h16(ffi.from_buffer("struct dmr_header *", block).type)
            out.ours |= block.startswith(MAGIC) and kind != lib.DMR_TYPE_TAG
        elif place not in STANDINS:
            out.reserved.append(place)
        elif table := header(block, lib.DMR_TYPE_TABLE, place):
            out.ours = True
            out.tables[place] = table, block
        else:
            out.bad[place] = not_a_block(block, place)
            if not is_zero(block[:SECTOR]):
                out.torn[place] = _torn(block)
    return out


def note(
    seqs: list[int],
    places: list[int],
    older: list[int],
    copy: int,
    seq: int,
    place: int,
    home: int,
) -> None:
    """Remember where the newest candidate of a copy is; note_found() in the kernel.

    At the same sequence a copy lives where it looked last: a place may hold what it refused. Copy A
    counts stand-ins up, copy B down, and they are met in the order of their numbers.
    """
    settled = copy == 1 and places[copy] in STANDINS
    if seq > seqs[copy] or (seq == seqs[copy] and place != home and not settled):
        if seqs[copy] and places[copy] in STANDINS:
            older.append(places[copy])
        seqs[copy], places[copy] = seq, place
    elif place in STANDINS:
        older.append(place)


def choose_super(head: Head, uuid: UUID) -> Choice:
    """Choose the superblock of a set; head_candidate() in the kernel, with a uuid."""
    out = Choice()
    for candidate in head.supers:
        home = candidate.head.home
        if home not in SUPER_HOMES or (home != candidate.place and candidate.place not in REFUGES):
            continue
        if candidate.head.uuid != uuid:
            out.overwritten |= candidate.ready and home == candidate.place
            continue
        best = out.winner
        if best and best.ready and not candidate.ready:
            continue
        if best and best.ready == candidate.ready:
            if (
                candidate.head.seq == best.head.seq
                and candidate.block[HEADER:] != best.block[HEADER:]
            ):
                out.ambiguous = True
            if candidate.head.seq > best.head.seq:
                out.winner, out.ambiguous = candidate, False
        else:
            # The first one, or the first READY one.
            out.winner, out.ambiguous = candidate, False
            out.seqs, out.places = [0, 0], [0, 0]
        copy = SUPER_HOMES.index(home)
        note(out.seqs, out.places, out.older, copy, candidate.head.seq, candidate.place, home)
    return out


def which_set(head: Head) -> UUID | None:
    """Return the set that an area belongs to, where that is beyond doubt."""
    uuids = head.uuids
    if len(uuids) == 1:
        return uuids[0]
    usable = [uuid for uuid in uuids if choose_super(head, uuid).usable]
    return usable[0] if len(usable) == 1 else None
