# SPDX-License-Identifier: GPL-2.0-only
"""Small areas in memory, whose blocks can be damaged one by one."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from uuid import UUID

from dmremap.ondisk import BLOCK, Entry, Epoch, Load, SetState, SlotState, Superblock, segment_for
from dmremap.ondisk._format import ffi, lib
from dmremap.ondisk.head import HEADER
from dmremap.ondisk.layout import pack_super, pack_table, parse_entries

GOLDEN = Path(__file__).parent / "golden"
SET = UUID("0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0")
OTHER = UUID("11111111-2222-3333-4444-555555555555")
AREA_BLOCKS = 340  # one segment with three table blocks
MAIN_SECTORS = 1 << 20
JUNK = b"\x5a" * BLOCK


def superblock(**changes: object) -> Superblock:
    segment = segment_for(AREA_BLOCKS, 512)
    assert segment is not None
    assert segment.table_blocks == 3
    plain = Superblock(
        uuid=SET,
        name="attic",
        state=SetState.READY,
        unit=512,
        area_blocks=AREA_BLOCKS,
        segments=(segment,),
        tagged=False,
        main_sectors=MAIN_SECTORS,
        data_start=0,
        data_sectors=MAIN_SECTORS,
        created=1_700_000_000,
        seq=2,
        epoch=Epoch(3, 0x0123456789ABCDEF),
        before=Epoch(2, 0xFEDCBA9876543210),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


SB = superblock()
SEGMENT = SB.segments[0]
HOMES = tuple((SEGMENT.copy_a + i, SEGMENT.copy_b + i) for i in range(SEGMENT.table_blocks))


def reseal(block: bytes, home: int, place: int) -> bytes:
    """Write a block's header again, for another home or place."""
    raw = bytearray(block)
    head = ffi.from_buffer("struct dmr_header *", raw)
    uuid, seq, kind = bytes(ffi.buffer(head.uuid)), lib.dmr_h64(head.seq), lib.dmr_h16(head.type)
    lib.dmr_seal(head, kind, uuid, seq, home, place)
    return bytes(raw)


def table(
    index: int,
    copy: int,
    entries: Iterable[Entry] = (),
    seq: int = 1,
    *,
    place: int | None = None,
    uuid: UUID = SET,
) -> bytes:
    """Return a copy of a table block; with `place` as a stand-in for it."""
    home = HOMES[index][copy]
    block = pack_table(uuid, list(entries), index * 252, home, seq)
    return block if place is None else reseal(block, home, place)


def give_names(disk: "Disk", names: Mapping[int, int], ahead: int = 0) -> None:
    """Say in both superblocks what stand-ins are for: the home of a table copy.

    `ahead` is added to their sequence.
    """
    for home in (0, 255):
        raw = bytearray(disk[home])
        sb = ffi.from_buffer("struct dmr_super *", raw)
        for place, stands_for in names.items():
            sb.standin[place - lib.DMR_STANDIN_FIRST] = lib.dmr_h64(stands_for)
        sb.h.seq = lib.dmr_h64(lib.dmr_h64(sb.h.seq) + ahead)
        disk[home] = reseal(bytes(raw), home, home)


def entries_of(load: Load) -> list[Entry]:
    """Return the entries of a load that are not free."""
    return [
        entry
        for block in load.blocks[1:]
        for entry in parse_entries(bytes(HEADER) + block.body, block.used, block.first_slot)
    ]


def mapped(slot: int, unit: int, generation: int = 0) -> Entry:
    return Entry(slot, SlotState.MAPPED, unit, generation)


class Disk:
    """An area in memory. `bad` blocks cannot be read, `stuck` ones cannot be written."""

    def __init__(self, blocks: int = AREA_BLOCKS) -> None:
        self.data = bytearray(blocks * BLOCK)
        self.bad: set[int] = set()
        self.stuck: set[int] = set()
        self.log: list[tuple[int, bytes]] = []

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes | None:
        first, end = offset // BLOCK, -(-(offset + length) // BLOCK)
        if offset + length > len(self.data) or any(first <= bad < end for bad in self.bad):
            return None
        return bytes(memoryview(self.data)[offset : offset + length])

    def __getitem__(self, number: int) -> bytes:
        return bytes(self.data[number * BLOCK : (number + 1) * BLOCK])

    def __setitem__(self, number: int, block: bytes) -> None:
        assert len(block) == BLOCK
        self.data[number * BLOCK : (number + 1) * BLOCK] = block
        self.bad.discard(number)

    def write(self, number: int, block: bytes) -> bool:
        """Write as a mender does: a block that could not be read is good afterwards."""
        if number in self.stuck:
            return False
        self.log.append((number, block))
        self[number] = block
        return True


def fresh(entries: Iterable[Entry] = (), sb: Superblock = SB, seq: int = 1) -> Disk:
    """Return an area with a READY set and these entries in it."""
    disk = Disk()
    for home in (0, 255):
        disk[home] = pack_super(sb, home)
    every = list(entries)
    for index, homes in enumerate(HOMES):
        some = [entry for entry in every if entry.slot // 252 == index]
        for copy in (0, 1):
            disk[homes[copy]] = table(index, copy, some, seq, uuid=sb.uuid)
    return disk
