# SPDX-License-Identifier: GPL-2.0-only
"""A set's metadata in a file, and from the file onto a spare.

The file has the newest state of every block once. What the slots hold is not in it. The format
is described in docs/format.md, and versioned apart from that of the disk.

    offset 0   16 bytes  "dm-remap backup" and a newline
    16         le32      version: 1
    20         le32      number of blocks: the superblock and every table block
    24         16 bytes  the set's uuid
    40         le64      when it was made, seconds since 1970
    48         16 bytes  zero
    64                   zlib stream: the blocks, 4096 bytes each, as copy A at its home
    end - 32   32 bytes  SHA-256 of all that is before
"""

import hashlib
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Final
from uuid import UUID

from dmremap.errors import Failure, Refused
from dmremap.ondisk._format import lib
from dmremap.ondisk.area import table_homes
from dmremap.ondisk.epoch import Raise, with_epoch
from dmremap.ondisk.head import HEADER, Head, choose_super
from dmremap.ondisk.layout import (
    BLOCK,
    BLOCK_SECTORS,
    REFUGES,
    SUPER_HOMES,
    Invalid,
    SlotState,
    Superblock,
    check_table,
    header,
    parse_super,
)
from dmremap.ondisk.load import Block, Load, View, body_of, judge, kept, lookup, table_of, words
from dmremap.ondisk.mend import Write, Writer, mend, sealed, with_names, with_state

MAGIC: Final = b"dm-remap backup\n"
VERSION: Final = 1
_FIXED: Final = struct.Struct("<16sII16sQ16x")
_DIGEST: Final = 32
_PIECE: Final = 512  # bytes that are unpacked at once, to a thousand times as many
# Two table blocks for every 252 slots, 16777216 slots at most, in 32 segments.
_MAX_BLOCKS: Final = 1 + lib.DMR_MAX_SLOTS // lib.DMR_ENTRIES + 1 + lib.DMR_MAX_SEGMENTS
OUTRANK: Final = 1 << 32
"""Added to a sequence where a copy that is gone may have held any newer one."""


@dataclass(frozen=True, slots=True)
class Backup:
    """The content of a backup. `states` has sequence and body of each block."""

    uuid: UUID
    created: int
    superblock: Superblock
    states: tuple[tuple[int, bytes], ...]


@dataclass(frozen=True, slots=True)
class Import:
    """What an import would do, before it is written.

    `load` is to be given to mend(). `taken` and `kept` count blocks of which the backup, or the
    device, has the newest state. `risky` are the homes of blocks of which a newer state may have
    existed. In a `blank` area every mapped block becomes lost: its content is not in the backup.
    """

    load: Load
    taken: int
    kept: int
    risky: tuple[int, ...]
    blank: bool


def encode(load: Load, now: int) -> bytes:
    """Return the backup of a set whose load is accepted."""
    if load.uuid is None or not load.accepted:
        raise ValueError("only of a set that can be started")
    blocks = zlib.compressobj(6)
    out = bytearray(_FIXED.pack(MAGIC, VERSION, len(load.blocks), load.uuid.bytes, now))
    for block in load.blocks:
        home = block.homes[0]
        out += blocks.compress(sealed(load, block, block.body, block.seq, home, home))
    out += blocks.flush()
    return bytes(out) + hashlib.sha256(out).digest()


def _bad(what: str) -> Refused:
    return Refused("DMR-E523", f"the backup cannot be used: {what}")


def decode(data: bytes) -> Backup:
    """Return the content of a backup, or raise."""
    if data[: len(MAGIC)] != MAGIC:
        raise _bad("this is no backup of dm-remap's metadata")
    if len(data) < _FIXED.size + _DIGEST:
        raise _bad("it is cut off")
    _, version, count, raw_uuid, created = _FIXED.unpack_from(data)
    if version != VERSION:
        raise _bad(f"it is of version {version}, and this program knows version {VERSION}")
    if hashlib.sha256(data[:-_DIGEST]).digest() != data[-_DIGEST:]:
        raise _bad("its checksum is wrong")
    if not 2 <= count <= _MAX_BLOCKS:
        raise _bad(f"it has {count} blocks")
    uuid = UUID(bytes=raw_uuid)
    blocks = _blocks(data[_FIXED.size : -_DIGEST], count)
    first = next(blocks)
    sb = _superblock(first, uuid)
    table = table_of(sb, Block(0, SUPER_HOMES))
    if len(table) != count:
        raise _bad("its superblock names another number of table blocks")
    states = tuple(
        _state(raw, block, sb) for block, raw in zip(table, chain([first], blocks), strict=True)
    )
    return Backup(uuid, created, sb, states)


def _blocks(data: bytes, count: int) -> Iterator[bytes]:
    """Yield so many blocks of a stream, or raise. Never are all of them in memory at once."""
    stream = zlib.decompressobj()
    held, left = b"", count
    for at in range(0, len(data), _PIECE):
        try:
            held += stream.decompress(data[at : at + _PIECE])
        except zlib.error as err:
            raise _bad(str(err)) from None
        whole = len(held) // BLOCK
        left -= whole
        if left < 0:
            break
        for i in range(whole):
            yield held[i * BLOCK : (i + 1) * BLOCK]
        held = held[whole * BLOCK :]
    if left or held or not stream.eof:
        raise _bad("it does not have as many blocks as it says")


def _state(raw: bytes, block: Block, sb: Superblock) -> tuple[int, bytes]:
    """Return sequence and body of a block of a backup, or raise if it is another one."""
    head = header(raw, block.kind, block.homes[0])
    if head is None or head.uuid != sb.uuid or head.home != block.homes[0]:
        raise _bad(f"what stands for block {block.homes[0]} is another block")
    wrong = check_table(raw, block.used, sb.units) if block.number else None
    if wrong:
        raise _bad(f"block {block.homes[0]}: {wrong}")
    return head.seq, kept(raw[HEADER:])


def _superblock(block: bytes, uuid: UUID) -> Superblock:
    try:
        sb = parse_super(block, SUPER_HOMES[0])
    except Invalid as err:
        raise _bad(str(err)) from None
    if sb is None or sb.uuid != uuid:
        raise _bad("it does not begin with the superblock of its set")
    if sb.ro_compat & ~lib.DMR_RO_COMPAT_KNOWN:
        raise _bad("the set needs a newer dm-remap to be written (ro_compat)")
    return sb


# ------------------------------------------------------------------- import


def _geometry(sb: Superblock) -> tuple[object, ...]:
    return (
        sb.unit,
        sb.area_blocks,
        sb.segments,
        sb.main_sectors,
        sb.data_start,
        sb.data_sectors,
        sb.tagged,
    )


def plan_import(view: View, backup: Backup, path: str) -> Import | None:
    """Decide which blocks come from the backup; None where the area must be blank for that.

    Whoever gets None looks whether the area is blank and calls plan_blank().
    """
    sb = backup.superblock
    if view.count < sb.area_blocks:
        raise Refused(
            "DMR-E511",
            f"{path} has {view.count * BLOCK_SECTORS} sectors from the start of the area, and the "
            f"set's area has {sb.area_sectors}",
            hint="Give the device that the backup is of, or one that is not smaller.",
        )
    head = view.head
    for superblock in head.supers:
        if superblock.head.uuid != backup.uuid and superblock.place == superblock.head.home:
            raise Refused(
                "DMR-E504",
                f"{path} is the spare of set {superblock.head.uuid}, and the backup is of "
                f"{backup.uuid}",
                hint="Give the device that the backup is of.",
            )
    _only_ours(view, head, backup, path)
    choice = choose_super(head, backup.uuid)
    if choice.ambiguous:
        raise _contradiction(path, SUPER_HOMES[0])
    if choice.winner is not None and not choice.winner.ready:
        _never_in_use(view, head, backup, path)
        # An import into a blank area that was cut: what it left has other bodies.
        return plan_blank(view, backup, choice.winner.head.seq)
    load = Load(view.start, head, backup.uuid)
    top = Block(0, SUPER_HOMES)
    names = dict(sb.standins)
    if choice.winner is not None:
        try:
            theirs = parse_super(choice.winner.block, choice.winner.place)
        except Invalid as err:
            raise Refused("DMR-E514", f"{path}, block {choice.winner.place}: {err}") from None
        if theirs is None or _geometry(theirs) != _geometry(sb):
            raise Refused(
                "DMR-E524", f"{path} has the set in another geometry than the backup has it"
            )
        if theirs.superseded:
            raise Refused("DMR-E530", f"{path}: set {theirs.name!r} has gone on elsewhere")
        names |= theirs.standins
        top.seqs, top.places = choice.seqs, choice.places
        top.body, top.base = choice.winner.block[HEADER:], choice.winner.head.seq
    load.blocks = [top]
    sb = replace(sb, standins=tuple(sorted((_found_names(head, sb) | names).items())))
    judge(view, load, sb)
    if not any(block.seq for block in load.blocks):
        return None
    return _merge(load, backup, path, _may_have_grown(view, sb, path) if not top.seq else False)


def _found_names(head: Head, sb: Superblock) -> dict[int, int]:
    """Return what stand-ins are for by what stands there.

    A name never changes. So where the superblock that had them is gone, a copy is as good as its
    name.
    """
    whole = {place: found for place, (found, _) in head.tables.items()}
    torn = {place: found for place in head.torn if (found := head.torn_of(place, sb.uuid))}
    return {
        place: found.home
        for place, found in (torn | whole).items()
        if found.uuid == sb.uuid and place not in REFUGES and sb.table_copy(found.home)
    }


def _only_ours(view: View, head: Head, backup: Backup, path: str) -> None:
    """Refuse where another set has a table block in a place of this one's.

    That set may have been made over this one, and have lost its superblocks since. The format
    writes all places of a table, so a block of a set that was there before is in none of them.
    """
    owners = {place: found.uuid for place, (found, _) in head.tables.items()}
    for homes in table_homes(backup.superblock.segments):
        for place, block in view.blocks(homes.start, len(homes)):
            found = header(block, lib.DMR_TYPE_TABLE, place) if block is not None else None
            if found is not None:
                owners[place] = found.uuid
    for place, uuid in sorted(owners.items()):
        if uuid != backup.uuid:
            raise Refused(
                "DMR-E504",
                f"{path} has a table of set {uuid} in block {place}, and the backup is of "
                f"{backup.uuid}",
                hint="Give the device that the backup is of; 'dmremapctl check' tells what it has.",
            )


def _never_in_use(view: View, head: Head, backup: Backup, path: str) -> None:
    """Refuse an area that says FORMATTING and has data: neither format nor import maps anything.

    A superblock that stayed so when the format ended is the only one if all READY ones are gone.
    """
    load = Load(view.start, head, backup.uuid)
    load.blocks = [Block(0, SUPER_HOMES)]
    judge(view, load, backup.superblock)
    for block in load.blocks[1:]:
        if any(info & 0xFF == SlotState.MAPPED for info in words(block.body)[1::2]):
            raise Refused(
                "DMR-E514",
                f"{path}: the superblock says that the format was not completed, and the table "
                f"in block {block.homes[0]} has mapped blocks",
                hint="The set was in use, and its slots may hold data. Keep the device as it is.",
            )


def _may_have_grown(view: View, sb: Superblock, path: str) -> bool:
    """Without a superblock: may there be another segment behind those that the backup has?"""
    end = sb.segments[-1].start + sb.segments[-1].blocks
    if end >= view.count:
        return False
    block = view.block(end)
    if block is None:
        return True
    head = header(block, lib.DMR_TYPE_TABLE, end)
    if head is not None and head.uuid == sb.uuid:
        raise Refused(
            "DMR-E524",
            f"{path} has a table of the set at block {end}, behind what the backup has: the set "
            "was grown since, or was about to be",
        )
    return False


def _contradiction(path: str, home: int) -> Refused:
    return Refused("DMR-E514", f"{path}: candidates for block {home} have one sequence and differ")


def _merge(load: Load, backup: Backup, path: str, grown: bool) -> Import:
    """Take the newest state of each block."""
    refuges = load.refuges
    names = load.names
    hidden = len(refuges) > 1 or (
        # Nobody knows what those stand for that were named since.
        not load.blocks[0].seq
        and any(p not in names and p not in REFUGES for p in filter(load.head.hides, load.head.bad))
    )
    taken = 0
    risky: list[int] = []
    for block, (seq, body) in zip(load.blocks, backup.states, strict=True):
        if block.ambiguous or (seq == block.seq and body != block.body):
            raise _contradiction(path, block.homes[0])
        # As in a load: what is left may be the old one where a stand-in cannot be read.
        unknown = hidden or block.known <= (not block.number and bool(refuges))
        if seq > block.seq:
            block.body, block.base, block.rewrite = body, seq, True
            taken += 1
        if unknown:
            block.base += OUTRANK
            block.rewrite = True
            # An older superblock is a matter of the name, unless the set has grown.
            risky += [block.homes[0]] if block.number or grown or hidden else []
    top = load.blocks[0]
    body = with_names(top.body, names)
    top.rewrite |= body != top.body
    top.body = body
    load.superblock = replace(backup.superblock, standins=tuple(names.items()))
    _settle(load, path)
    return Import(load, taken, len(load.blocks) - taken, tuple(risky), blank=False)


def _settle(load: Load, what: str) -> None:
    """Settle units that have two slots, now that every block is known."""
    load.refusals.clear()
    load.findings.clear()
    load.changed.clear()
    lookup(load)
    if load.refusals:
        raise Refused("DMR-E514", f"{what}: {load.refusals[0].reason}")


def plan_blank(view: View, backup: Backup, above: int = 0) -> Import:
    """Return how the set comes into a blank area: with what was mapped as lost.

    Superblocks get a sequence above `above`.
    """
    load = Load(view.start, Head(), backup.uuid, backup.superblock)
    load.blocks = table_of(backup.superblock, Block(0, SUPER_HOMES))
    for block, (seq, body) in zip(load.blocks, backup.states, strict=True):
        block.body, block.base, block.rewrite = body, seq, True
        if block.number:
            block.body = _lost(body)
        else:
            block.base = max(seq, above + 1)
    _settle(load, "the backup")
    return Import(load, len(load.blocks), 0, (), blank=True)


def _lost(body: bytes) -> bytes:
    entries = words(body)
    for i, info in enumerate(entries[1::2]):
        if info & 0xFF == SlotState.MAPPED:
            entries[2 * i + 1] = info & ~0xFF | SlotState.LOST
    return body_of(entries)


def write_import(imported: Import, write: Writer, epoch: Raise | None = None) -> list[Write]:
    """Write what plan_import() or plan_blank() decided, with an epoch that begins at the end.

    While a blank area is filled its superblock says FORMATTING, and the superblocks come last: what
    is cut is no set, and the next import begins anew.
    """
    load = imported.load
    if not imported.blank:
        return mend(load, write, epoch)
    top = load.blocks[0]
    if epoch:
        top.body = with_epoch(top.body, epoch)
    home = SUPER_HOMES[0]
    body = with_state(top.body, lib.DMR_FORMATTING)
    data = sealed(load, top, body, top.base, home, home)
    if not write(home, data):
        raise Failure("DMR-E103", f"block {home} cannot be written")
    load.blocks = [*load.blocks[1:], top]
    marker = Write(home, home, top.base, "superblock, FORMATTING", data)
    return [marker, *mend(load, write)]
