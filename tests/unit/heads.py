# SPDX-License-Identifier: GPL-2.0-only
"""Heads of areas, damaged at random: what a crash, a bad disk or somebody else may leave there."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cache
from random import Random
from typing import Final
from uuid import UUID

from unit.areas import AREA_BLOCKS, HOMES, JUNK, OTHER, SET, Disk, fresh, reseal, superblock, table

from dmremap.ondisk import BLOCK, Epoch, Errors, SetState, Superblock, Tag, segment_for
from dmremap.ondisk._format import ffi, lib
from dmremap.ondisk.layout import (
    NO_EPOCH,
    REFUGES,
    STANDINS,
    SUPER_HOMES,
    header,
    pack_super,
    pack_tag,
)

SEQ: Final = 6
"""Of the superblock before anything happens to it."""
_PLACES: Final = (0, 255, 128, 129, 136, 152, 254)


class HeadDisk(Disk):
    """An area of which few blocks are ever touched: it is whole again without being made again."""

    def __init__(self) -> None:
        """Make a set, as it is before anything happens to it."""
        super().__init__()
        self.clean = bytes(fresh(sb=superblock(seq=SEQ, name=str(SEQ))).data)
        self.data[:] = self.clean
        self.touched: set[int] = set()

    def __setitem__(self, number: int, block: bytes) -> None:
        """Remember what is not as it was."""
        super().__setitem__(number, block)
        self.touched.add(number)

    def put_back(self, places: Iterable[int], blocks: Mapping[int, bytes]) -> None:
        """Have these blocks in some places, and in others what was there at first."""
        for place in places:
            first, end = place * BLOCK, (place + 1) * BLOCK
            self.data[first:end] = blocks.get(place) or self.clean[first:end]

    def damage(self, random: Random) -> None:
        """Have an accident, or several, that happen to a whole one."""
        self.put_back(self.touched, {})
        self.touched.clear()
        self.bad.clear()
        for _ in range(random.choice((1, 1, 2, 2, 3, 4, 6))):
            random.choice(_ACCIDENTS)(random, self, random.choice(_PLACES))


@cache
def _named(uuid: UUID, seq: int, state: SetState = SetState.READY) -> Superblock:
    """Return what a set says in a version: all copies of it have one body."""
    return superblock(uuid=uuid, seq=seq, state=state, name=str(seq))


_packed = cache(pack_super)


@cache
def _variants(seq: int) -> tuple[dict[str, object], ...]:
    segment = segment_for(AREA_BLOCKS - 9, 512)
    assert segment is not None
    return (
        {"area_blocks": AREA_BLOCKS - 9, "segments": (segment,)},
        {"area_blocks": AREA_BLOCKS + 9},
        {"main_id_type": 3, "main_id": b"\5" * 8, "main_serial": "disk", "main_offset": 34},
        {"main_sectors": 4096, "data_sectors": 4000},
        {"compat": 1},
        {"ro_compat": 1},
        {"incompat": lib.DMR_INCOMPAT_SUPERSEDED},
        {"name": "odd"},
        {"epoch": Epoch(4, 1), "before": Epoch(3, 0x0123456789ABCDEF)},
        {"epoch": Epoch(1, 9), "before": NO_EPOCH},
        {"epoch": Epoch(lib.DMR_EPOCH_MAX, 7), "before": Epoch(lib.DMR_EPOCH_MAX - 1, 8)},
        {"predecessor": OTHER, "predecessor_epoch": Epoch(9, 9), "spare_serial": 2},
        {"content_tag": OTHER, "errors": Errors.MEDIUM, "remap_rate": 7},
        {"standins": ((130, HOMES[0][0]), (131, HOMES[2][1]))},
        {"seq": lib.DMR_SEQ_MAX},
        {"seq": lib.DMR_SEQ_MAX // 2 + seq % 2},
    )


def _version(random: Random, uuid: UUID) -> Superblock:
    """Return some version of a superblock."""
    state = SetState.FORMATTING if random.random() < 0.15 else SetState.READY
    sb = _named(uuid, random.randrange(SEQ - 2, SEQ + 3), state)
    if random.random() < 0.3:
        sb = replace(sb, **random.choice(_variants(sb.seq)))  # type: ignore[arg-type]
    return sb


_EPOCH: Final[int] = ffi.offsetof("struct dmr_super", "epoch")
_STANDIN: Final[int] = ffi.offsetof("struct dmr_super", "standin")

# All in the header or in the superblock: where, how long, and what this version does not know.
_UNUSABLE: Final = (
    *((ffi.offsetof("struct dmr_header", "version"), 2, 1),) * 5,
    (ffi.offsetof("struct dmr_header", "version"), 2, 3),
    (ffi.offsetof("struct dmr_super", "incompat"), 8, 2),
    (ffi.offsetof("struct dmr_super", "state"), 4, 3),
    (ffi.offsetof("struct dmr_super", "unit"), 4, 100),
    (ffi.offsetof("struct dmr_super", "nr_segments"), 4, 0),
    (_EPOCH, 8, 0),
    (_EPOCH, 8, lib.DMR_EPOCH_MAX + 1),
    (_EPOCH + 8, 8, 0),
    (ffi.offsetof("struct dmr_super", "before"), 8, 77),
    (ffi.offsetof("struct dmr_super", "before") + 8, 8, 0),
    (ffi.offsetof("struct dmr_super", "predecessor_epoch"), 8, 3),
    (ffi.offsetof("struct dmr_super", "spare_serial"), 8, 0),
    (ffi.offsetof("struct dmr_super", "chosen_errors"), 1, 3),
    (_STANDIN, 8, 1),
    (_STANDIN, 8, AREA_BLOCKS),
    (_STANDIN + 8 * (REFUGES[0] - STANDINS[0]), 8, HOMES[0][0]),
)


def _some_super(random: Random, place: int) -> bytes:
    """Return a superblock for a place: of this set or another, newer or older, usable or not."""
    home = place if place in SUPER_HOMES else random.choice(SUPER_HOMES)
    block = _packed(_version(random, OTHER if random.random() < 0.15 else SET), home, place)
    if random.random() < 0.15:
        raw = bytearray(block)
        at, size, value = random.choice(_UNUSABLE)
        raw[at : at + size] = value.to_bytes(size, "little")
        head = ffi.from_buffer("struct dmr_header *", raw)
        head.crc = lib.dmr_h32(lib.dmr_block_crc(head, place))
        block = bytes(raw)
    return block


def _superblock(random: Random, disk: Disk, place: int) -> None:
    disk[place] = _some_super(random, place)


def _unreadable(_random: Random, disk: Disk, place: int) -> None:
    disk.bad.add(place)


def _overwritten(random: Random, disk: Disk, place: int) -> None:
    disk[place] = random.choice((JUNK, bytes(BLOCK), random.randbytes(BLOCK)))


def _swapped(random: Random, disk: Disk, place: int) -> None:
    """Two blocks change places, or one of them is there twice."""
    other = random.choice(_PLACES)
    first, second = disk[place], disk[other]
    disk[other] = first
    disk[place] = random.choice((first, second))


def _cut(random: Random, disk: Disk, place: int) -> None:
    """A write reaches some sectors."""
    at = random.randrange(1, 8) * 512
    new, old = _some_super(random, place), random.choice((disk[place], bytes(BLOCK), JUNK))
    disk[place] = random.choice((new[:at] + old[at:], old[:at] + new[at:]))


def _formatted_over(random: Random, disk: Disk, _place: int) -> None:
    for home in random.choice(((0,), (255,), SUPER_HOMES)):
        disk[home] = _packed(_version(random, OTHER), home)


def _mains(random: Random, disk: Disk, _place: int) -> None:
    """It is a main, or was."""
    home = random.choice(SUPER_HOMES)
    disk[home] = pack_tag(Tag(random.choice((SET, OTHER)), "x", 1 << 20, 2048, 512), home)


def _name(random: Random, disk: Disk, place: int, stands_for: int) -> None:
    """Say what a stand-in is for, in what superblocks there are."""
    for home in SUPER_HOMES if random.random() < 0.9 else ():
        if header(disk[home], lib.DMR_TYPE_SUPER, home):
            raw = bytearray(disk[home])
            sb = ffi.from_buffer("struct dmr_super *", raw)
            sb.standin[place - STANDINS[0]] = lib.dmr_h64(stands_for)
            disk[home] = reseal(bytes(raw), home, home)


def _standin_gone(random: Random, disk: Disk, _place: int) -> None:
    """A copy was moved, and the place that it went to cannot be read any more."""
    index, copy = random.randrange(3), random.randrange(2)
    _name(random, disk, 140 + copy, HOMES[index][copy])
    disk.bad.add(140 + copy)
    if random.random() < 0.3:
        disk[HOMES[index][1 - copy]] = JUNK


def _refuge_gone(random: Random, disk: Disk, _place: int) -> None:
    """The superblock was moved, once or twice, and these places are bad, too."""
    for place in random.sample(REFUGES, random.choice((1, 2))):
        disk[place] = JUNK
        if random.random() < 0.5:
            disk.bad.add(place)


def _table_away(random: Random, disk: Disk, _place: int) -> None:
    """A table block on a stand-in, whole or torn."""
    index, copy, place = random.randrange(3), random.randrange(2), random.randrange(128, 140)
    if place not in REFUGES:
        _name(random, disk, place, HOMES[index][copy])
    uuid, seq = random.choice((SET, SET, OTHER)), random.randrange(1, 4)
    block = table(index, copy, [], seq, place=place, uuid=uuid)
    if random.random() < 0.2:
        block = reseal(block, random.choice((0, 77, 10**6)), place)
    disk[place] = random.choice((block, block[:512] + JUNK[512:], bytes(512) + block[512:]))


def _astray(random: Random, disk: Disk, place: int) -> None:
    """A superblock where none belongs, or that says so of itself."""
    at = random.choice((1, 5, 127, place))
    disk[at] = reseal(_some_super(random, 0), random.choice((at, 0, 255, 77)), at)


def _commit(random: Random, disk: Disk, _place: int) -> None:
    """Both copies are written; sometimes only one of them was, the last time."""
    seq = random.randrange(SEQ - 1, SEQ + 3)
    for home in SUPER_HOMES:
        disk[home] = _packed(_named(SET, seq + random.randrange(2)), home)


def _format(random: Random, disk: Disk, _place: int) -> None:
    """A format was cut."""
    disk[0] = _packed(_named(SET, 1, SetState.FORMATTING), 0)
    disk[255] = random.choice((bytes(BLOCK), disk[255]))


def _no_supers(random: Random, disk: Disk, _place: int) -> None:
    for home in SUPER_HOMES:
        disk[home] = random.choice((JUNK, bytes(BLOCK), bytes(BLOCK)))


def _table_home(random: Random, disk: Disk, _place: int) -> None:
    home = random.choice(HOMES[0])
    disk[home] = random.choice((JUNK, bytes(BLOCK), table(0, HOMES[0].index(home), [], 2)))


_ACCIDENTS: Final[tuple[Callable[[Random, Disk, int], None], ...]] = (
    *(_superblock,) * 5,
    *(_unreadable,) * 2,
    _overwritten,
    _swapped,
    _cut,
    _cut,
    _formatted_over,
    _mains,
    _table_away,
    _standin_gone,
    _refuge_gone,
    _astray,
    _commit,
    _format,
    _no_supers,
    _table_home,
)
