# SPDX-License-Identifier: GPL-2.0-only
"""What a load by the kernel would make of an area, found out without the kernel. Writes nothing.

The rules are those of kernel/dm-remap-load.c, in its order, because between stand-ins of one
sequence the last one that is met decides where a copy lives. What the kernel asks of main (tag,
id, size) is not looked at: units are checked against the size that the superblock has recorded.
"""

import errno
import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol
from uuid import UUID

from dmremap.ondisk._format import ffi, lib
from dmremap.ondisk.device import CHUNK, Progress
from dmremap.ondisk.findings import Finding, Severity
from dmremap.ondisk.layout import (
    BLOCK,
    BLOCK_SECTORS,
    HEAD_BLOCKS,
    OWN_BLOCKS,
    STANDINS,
    SUPER_HOMES,
    Header,
    Invalid,
    SetState,
    SlotState,
    Superblock,
    check_table,
    header,
    is_zero,
    parse_super,
)

HEADER: Final[int] = ffi.sizeof("struct dmr_header")
_KINDS: Final = {
    lib.DMR_TYPE_SUPER: "a superblock",
    lib.DMR_TYPE_TABLE: "a table block",
    lib.DMR_TYPE_TAG: "a tag",
    lib.DMR_TYPE_OWN: "a block of the control plane",
}
_EMPTY: Final = bytes(BLOCK - HEADER)
_MAGIC: Final = b"dm-remap"
SECTOR: Final = 512  # what a disk writes in whole or not at all
_SHOWN: Final = 8  # blocks named in a message


class Source(Protocol):
    """A device or an image, as far as it is read."""

    @property
    def size(self) -> int:
        """The size in bytes."""

    def read(self, offset: int, length: int) -> bytes | None:
        """Return bytes, None where the medium does not give them all."""


class View:
    """The blocks of an area. What lies behind the device's end cannot be read."""

    def __init__(self, source: Source, start: int) -> None:
        """Look at the area that begins at sector `start`."""
        self.source = source
        self.start = start
        self.count = max(source.size - start * 512, 0) // BLOCK
        """Whole blocks from the start of the area to the end of the device."""

    def block(self, number: int) -> bytes | None:
        """Return one block."""
        if number >= self.count:
            return None
        return self.source.read(self.start * 512 + number * BLOCK, BLOCK)

    def blocks(self, first: int, count: int) -> Iterator[tuple[int, bytes | None]]:
        """Yield consecutive blocks, read in pieces, and one by one where that fails."""
        step = CHUNK // BLOCK
        for at in range(first, first + count, step):
            n = min(step, first + count - at)
            whole = None
            if at + n <= self.count:
                whole = self.source.read(self.start * 512 + at * BLOCK, n * BLOCK)
            for i in range(n):
                if whole is None:
                    yield at + i, self.block(at + i)
                else:
                    yield at + i, whole[i * BLOCK : (i + 1) * BLOCK]


class Overlay:
    """A source in which some blocks of an area are other ones: what a repair would make of it."""

    def __init__(self, view: View, changed: Mapping[int, bytes]) -> None:
        """Show `changed`, by the number of the block, in place of what is there."""
        self._view = view
        self._changed = changed
        self.size = view.source.size

    def read(self, offset: int, length: int) -> bytes | None:
        """Return bytes, None where the medium does not give them all."""
        first, end = (offset - self._view.start * 512) // BLOCK, length // BLOCK
        out = bytearray()
        for number in range(first, first + end):
            block = self._changed.get(number)
            if block is None:
                block = self._view.block(number)
            if block is None:
                return None
            out += block
        return bytes(out)


def note(
    seqs: list[int],
    places: list[int],
    older: list[int],
    copy: int,
    seq: int,
    place: int,
    home: int,
) -> None:
    """Remember where the newest candidate of a copy is; note_copy() in the kernel.

    At the same sequence a copy lives on its stand-in: a home may hold what it refused.
    """
    if seq > seqs[copy] or (seq == seqs[copy] and place != home):
        if seqs[copy] and places[copy] in STANDINS:
            older.append(places[copy])
        seqs[copy], places[copy] = seq, place
    elif place in STANDINS:
        older.append(place)


@dataclass(slots=True)
class Block:
    """A block of the metadata: what its candidates say. Number 0 is the superblock.

    `seqs` and `places` are of the newest candidate for copy A and copy B; sequence 0: there is
    none. `torn` is the highest sequence that a torn stand-in names for each. `body` is what follows
    the header of the winner. `base` is what a new sequence has to exceed; it is the winner's unless
    somebody raises it. `rewrite` asks for both copies to be written again although they are equal.
    `faults` says of a place why it does not count.
    """

    number: int
    homes: tuple[int, int]
    first_slot: int = 0
    used: int = 0
    seqs: list[int] = field(default_factory=lambda: [0, 0])
    places: list[int] = field(default_factory=lambda: [0, 0])
    torn: list[int] = field(default_factory=lambda: [0, 0])
    body: bytes = _EMPTY
    ambiguous: bool = False
    base: int = 0
    rewrite: bool = False
    faults: dict[int, str] = field(default_factory=dict)
    older: list[int] = field(default_factory=list)

    @property
    def seq(self) -> int:
        """The sequence of the winner."""
        return max(self.seqs)

    @property
    def known(self) -> int:
        """How many copies are the newest of their own, as far as torn stand-ins can tell."""
        return sum(seq >= max(torn, 1) for seq, torn in zip(self.seqs, self.torn, strict=True))

    @property
    def settled(self) -> bool:
        """Whether both copies say the same."""
        return self.seqs[0] == self.seqs[1] > 0 and not self.rewrite

    @property
    def kind(self) -> int:
        """The type in the header."""
        return lib.DMR_TYPE_TABLE if self.number else lib.DMR_TYPE_SUPER

    def place(self, copy: int) -> int:
        """Return where a copy lives: at home, unless its newest candidate is on a stand-in.

        Also if that is not current: a copy does not go home while its stand-in can be read.
        """
        return self.places[copy] if self.seqs[copy] else self.homes[copy]

    def offer(self, copy: int, place: int, seq: int, body: bytes) -> None:
        """Take a valid candidate into account; load_candidate() in the kernel."""
        if seq == self.seq and body != self.body:
            self.ambiguous = True
        if seq > self.seq:
            self.body, self.base = _EMPTY if body == _EMPTY else body, seq
            self.ambiguous = False
        note(self.seqs, self.places, self.older, copy, seq, place, self.homes[copy])


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a load ends, as the kernel's errno and a sentence."""

    errno: int
    reason: str
    code: str

    @property
    def name(self) -> str:
        """The errno's name."""
        return errno.errorcode[self.errno]


@dataclass(frozen=True, slots=True)
class Counts:
    """Slots by what they hold. `mapped` includes the lost ones, as in the status line."""

    slots: int = 0
    mapped: int = 0
    lost: int = 0
    bad: int = 0
    free: int = 0


@dataclass(frozen=True, slots=True)
class _Super:
    """A valid superblock in the head, not yet chosen."""

    place: int
    head: Header
    state: int
    block: bytes

    @property
    def ready(self) -> bool:
        return self.state == SetState.READY


@dataclass(frozen=True, slots=True)
class Torn:
    """The header of a torn stand-in: of what the last write was that reached its first sector."""

    kind: int
    home: int
    seq: int
    uuid: UUID


@dataclass(slots=True)
class Head:
    """The first MiB: every superblock, and what the stand-ins hold.

    `names` has the home that each valid table block on a stand-in names; `bad` are the stand-ins
    that cannot be read or are torn. `owners` has the set of each block in `names`. `torn` has what
    the first sector of those torn ones says that are not all of zeroes there.
    """

    supers: list[_Super] = field(default_factory=list)
    names: dict[int, int] = field(default_factory=dict)
    bad: dict[int, str] = field(default_factory=dict)
    torn: dict[int, Torn | None] = field(default_factory=dict)
    owners: dict[int, UUID] = field(default_factory=dict)
    faults: dict[int, str] = field(default_factory=dict)
    unreadable: list[int] = field(default_factory=list)
    reserved: list[int] = field(default_factory=list)
    ours: bool = False

    @property
    def uuids(self) -> list[UUID]:
        """The sets that have a superblock here."""
        return list(dict.fromkeys(one.head.uuid for one in self.supers))


@dataclass(slots=True)
class _Choice:
    """The superblock that wins for one set; what head_candidate() leaves."""

    winner: _Super | None = None
    seqs: list[int] = field(default_factory=lambda: [0, 0])
    places: list[int] = field(default_factory=lambda: [0, 0])
    older: list[int] = field(default_factory=list)
    ambiguous: bool = False
    overwritten: bool = False

    @property
    def usable(self) -> bool:
        return bool(
            self.winner and self.winner.ready and not self.ambiguous and not self.overwritten
        )


@dataclass(slots=True)
class Load:
    """What a load of an area would find, and what it would do.

    `superblock` may be there although the load is refused. `blocks` has the superblock first, then
    the table blocks in the order of their slots; it is empty where the load does not come so far.
    `changed` has new bodies of blocks of which an entry becomes bad once everything is mended.
    """

    start: int
    uuid: UUID | None = None
    superblock: Superblock | None = None
    ours: bool = False
    blocks: list[Block] = field(default_factory=list)
    bad_standins: tuple[int, ...] = ()
    refusals: list[Refusal] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    counts: Counts = Counts()
    changed: dict[int, bytes] = field(default_factory=dict)
    names: dict[int, int] = field(default_factory=dict)

    @property
    def accepted(self) -> bool:
        """Whether the kernel would start the set."""
        return self.superblock is not None and not self.refusals

    @property
    def stale(self) -> bool:
        """Whether a read-only table with accept_stale would start it nevertheless."""
        return bool(self.refusals) and all(one.errno == errno.EIO for one in self.refusals)

    @property
    def severity(self) -> Severity:
        """The worst finding."""
        return max((one.severity for one in self.findings), default=Severity.INFO)

    @property
    def away(self) -> int:
        """Copies that live on a stand-in."""
        return sum(block.place(c) != block.homes[c] for block in self.blocks for c in (0, 1))

    def refuse(self, number: int, code: str, reason: str, blocks: Iterable[int] = ()) -> None:
        """Note that the load ends here."""
        self.refusals.append(Refusal(number, reason, code))
        self.findings.append(Finding(code, reason, tuple(blocks)))


# --------------------------------------------------------------------- head


def fault(block: bytes | None, kind: int, place: int, home: int, uuid: UUID | None) -> str | None:
    """Return why a block at a place is no candidate for a copy, None if it is one."""
    if block is None:
        return "cannot be read"
    if is_zero(block):
        return "is blank"
    head = header(block, kind, place)
    if head is None:
        return _not_a_block(block, place)
    if uuid is not None and head.uuid != uuid:
        return f"belongs to set {head.uuid}"
    if head.home != home:
        return f"is a copy of block {head.home}"
    return None


def _not_a_block(block: bytes, place: int) -> str:
    if not block.startswith(_MAGIC):
        return "holds something that is not ours"
    raw = ffi.from_buffer("struct dmr_header *", block)
    home = lib.dmr_h64(raw.home)
    for kind, name in _KINDS.items():
        if header(block, kind, home):
            where = "" if home == place else f" of block {home}"
            return f"holds {name}{where}"
    return "has a wrong checksum"


def _torn(block: bytes) -> Torn | None:
    """Return the header of a block with a wrong checksum, None if it is not one of ours."""
    if not block.startswith(_MAGIC):
        return None
    raw = ffi.from_buffer("struct dmr_header *", block)
    seq = lib.dmr_h64(raw.seq)
    if not 0 < seq <= lib.DMR_SEQ_MAX:
        return None
    uuid = UUID(bytes=bytes(ffi.buffer(raw.uuid)))
    return Torn(int.from_bytes(block[12:14], "little"), lib.dmr_h64(raw.home), seq, uuid)


def scan_head(view: View) -> Head:
    """Read the first MiB; head_block() in the kernel."""
    out = Head()
    for place, block in view.blocks(0, HEAD_BLOCKS):
        if block is None:
            out.unreadable.append(place)
            if place in STANDINS:
                out.bad[place] = "cannot be read"
            continue
        if is_zero(block):
            continue
        found = header(block, lib.DMR_TYPE_SUPER, place)
        table = None
        if found is not None:
            out.ours = True
            raw = ffi.from_buffer("struct dmr_super *", block)
            out.supers.append(_Super(place, found, lib.dmr_h32(raw.state), block))
        elif place in STANDINS:
            table = header(block, lib.DMR_TYPE_TABLE, place)
            if table is None:
                out.bad[place] = _not_a_block(block, place)
                if not is_zero(block[:SECTOR]):
                    out.torn[place] = _torn(block)
            else:
                out.ours = True
                out.names[place] = table.home
                out.owners[place] = table.uuid
        elif place not in SUPER_HOMES and place not in OWN_BLOCKS:
            out.reserved.append(place)
        if place in SUPER_HOMES and found is None:
            out.faults[place] = _not_a_block(block, place)
            out.ours |= block.startswith(b"dm-remap") and "tag" not in out.faults[place]
    return out


def choose_super(head: Head, uuid: UUID) -> _Choice:
    """Choose the superblock of a set; head_candidate() in the kernel, with a uuid."""
    out = _Choice()
    for one in head.supers:
        home = one.head.home
        if home not in SUPER_HOMES or (home != one.place and one.place not in STANDINS):
            continue
        if one.head.uuid != uuid:
            out.overwritten |= one.ready and home == one.place
            continue
        best = out.winner
        if best and best.ready and not one.ready:
            continue
        if best and best.ready == one.ready:
            if one.head.seq == best.head.seq and one.block[HEADER:] != best.block[HEADER:]:
                out.ambiguous = True
            if one.head.seq > best.head.seq:
                out.winner, out.ambiguous = one, False
        else:
            # The first one, or the first READY one.
            out.winner, out.ambiguous = one, False
            out.seqs, out.places = [0, 0], [0, 0]
        copy = SUPER_HOMES.index(home)
        note(out.seqs, out.places, out.older, copy, one.head.seq, one.place, home)
    return out


# --------------------------------------------------------------------- load


def table_of(sb: Superblock, winner: Block) -> list[Block]:
    """Return the superblock's block and one for each table block, with nothing known of these."""
    out = [winner]
    first = 0
    for segment in sb.segments:
        for index in range(segment.table_blocks):
            homes = (segment.copy_a + index, segment.copy_b + index)
            used = segment.used(index)
            out.append(Block(len(out), homes, first, used))
            first += used
    return out


def _candidate(
    load: Load, sb: Superblock, block: Block, copy: int, place: int, data: bytes | None
) -> None:
    """Look at what may be a copy of a table block."""
    home = block.homes[copy]
    why = fault(data, lib.DMR_TYPE_TABLE, place, home, load.uuid)
    if why is None and data is not None:
        why = check_table(data, block.used, sb.units)
        why = why and f"is whole and says what cannot be ({why})"
    if why is not None or data is None:
        block.faults[place] = why or "cannot be read"
        return
    head = header(data, lib.DMR_TYPE_TABLE, place)
    if head is not None:
        block.offer(copy, place, head.seq, data[HEADER:])


def read_tables(
    view: View, load: Load, sb: Superblock, head: Head, progress: Progress | None = None
) -> None:
    """Read every table block: the homes first, then the stand-ins."""
    total = 2 * (len(load.blocks) - 1)
    done = 0
    number = 1
    for segment in sb.segments:
        for copy, first in enumerate((segment.copy_a, segment.copy_b)):
            for index, (place, data) in enumerate(view.blocks(first, segment.table_blocks)):
                _candidate(load, sb, load.blocks[number + index], copy, place, data)
            done += segment.table_blocks
            if progress:
                progress(done, total)
        number += segment.table_blocks
    homes = (
        {h: (b, c) for b in load.blocks[1:] for c, h in enumerate(b.homes)} if head.names else {}
    )
    for place, home in head.names.items():
        if home not in homes:
            continue
        data = view.block(place)
        if data is None:
            head.bad[place] = "cannot be read"
        else:
            _candidate(load, sb, *homes[home], place, data)


def _vague(load: Load, head: Head) -> list[int]:
    """Note what torn stand-ins may hide; return those that may hide a copy of any block.

    standin_torn() and load_standins() in the kernel.
    """
    homes = (
        {
            (block.kind, home): (block, copy)
            for block in load.blocks
            for copy, home in enumerate(block.homes)
        }
        if head.torn
        else {}
    )
    out = []
    for place, why in head.bad.items():
        if why == "cannot be read":
            out.append(place)
        elif place in head.torn:
            torn = head.torn[place]
            found = homes.get((torn.kind, torn.home)) if torn and torn.uuid == load.uuid else None
            if torn is None or found is None:
                out.append(place)
            else:
                block, copy = found
                block.torn[copy] = max(block.torn[copy], torn.seq)
    return sorted(out)


def _check_blocks(load: Load, head: Head) -> None:
    """Is the newest state of every block known? load_check() in the kernel."""
    load.bad_standins = tuple(sorted(head.bad))
    bad = _vague(load, head)
    if len(bad) > 1:
        load.refuse(
            errno.EIO,
            "DMR-C308",
            f"stand-ins {_some(bad)} cannot be read, and may hide both copies of a block",
            bad,
        )
    gone: list[Block] = []
    for block in load.blocks:
        if block.ambiguous:
            load.refuse(
                errno.EINVAL,
                "DMR-C309",
                f"the copies of block {block.homes[0]} contradict each other",
                block.homes,
            )
        elif block.seq > lib.DMR_SEQ_MAX // 2:
            # What is written next must be valid, too, or both copies would go.
            load.refuse(
                errno.EINVAL,
                "DMR-C313",
                f"block {block.homes[0]} has sequence {block.seq}, which no set reaches",
                block.homes,
            )
        elif block.known <= bool(bad):
            gone.append(block)
            if len(gone) == 1:
                load.refusals.append(
                    Refusal(
                        errno.EIO,
                        f"both copies of block {block.homes[0]} are gone"
                        if not block.seq
                        else f"what is left of block {block.homes[0]} may be old",
                        "DMR-C306" if not block.seq else "DMR-C307",
                    )
                )
    for code, some, text in (
        ("DMR-C306", [b for b in gone if not b.seq], "no copy is left of {}"),
        (
            "DMR-C307",
            [b for b in gone if b.seq],
            "of {} what is left may be old: a bad stand-in may hide a newer copy",
        ),
    ):
        if some:
            homes = [block.homes[0] for block in some]
            places = tuple(home for block in some for home in block.homes)
            load.findings.append(Finding(code, text.format(_counted("block", homes)), places))


def words(body: bytes) -> "array[int]":
    """Return the entries of a table block, two words each: unit; state and generation."""
    out = array("Q", body)
    if sys.byteorder == "big":
        out.byteswap()
    return out


def body_of(entries: "array[int]") -> bytes:
    """Return the body of a table block that has these words."""
    if sys.byteorder == "big":
        entries = array("Q", entries)
        entries.byteswap()
    return entries.tobytes()


def _is_live(info: int) -> bool:
    return info & 0xFF in (SlotState.MAPPED, SlotState.LOST)


def lookup(load: Load) -> None:
    """Count the slots and settle units that have two; load_lookup() in the kernel."""
    entries = {b.number: words(b.body) for b in load.blocks[1:] if b.body != _EMPTY}
    owner: dict[int, int] = {}
    where = {number: load.blocks[number].first_slot for number in entries}
    losers: list[tuple[int, int, int]] = []

    def place(slot: int) -> tuple[int, int]:
        # Blocks hold 252 slots but for the last one of a segment: counted, not searched for.
        number = _block_of(load.blocks, slot)
        return number, slot - load.blocks[number].first_slot

    for number, table in entries.items():
        for i, info in enumerate(table[1::2]):
            if not _is_live(info):
                continue
            unit, slot = table[2 * i], where[number] + i
            old = owner.setdefault(unit, slot)
            if old == slot:
                continue
            before = place(old)
            generation = entries[before[0]][2 * before[1] + 1] >> 8
            if generation == info >> 8:
                load.refuse(
                    errno.EINVAL,
                    "DMR-C310",
                    f"unit {unit} is mapped twice in generation {generation}, to slots {old} "
                    f"and {slot}",
                    (load.blocks[before[0]].homes[0], load.blocks[number].homes[0]),
                )
                continue
            loser = (number, i) if generation > info >> 8 else before
            if loser == before:
                owner[unit] = slot
            losers.append((unit, *loser))
    for _unit, number, i in losers:
        entries[number][2 * i], entries[number][2 * i + 1] = 0, SlotState.BAD
        load.changed[number] = b""
    load.changed = {number: body_of(entries[number]) for number in load.changed}
    if losers:
        units = [unit for unit, *_ in losers]
        load.findings.append(
            Finding(
                "DMR-C204",
                f"two slots each: {_counted('unit', units)}; the older entry becomes bad",
                tuple(load.blocks[number].homes[0] for number in sorted(load.changed)),
            )
        )
    mapped = lost = bad = 0
    for table in entries.values():
        states = [info & 0xFF for info in table[1::2]]
        lost += states.count(SlotState.LOST)
        mapped += states.count(SlotState.MAPPED)
        bad += states.count(SlotState.BAD)
    slots = load.superblock.slots if load.superblock else 0
    load.counts = Counts(slots, mapped + lost, lost, bad, slots - mapped - lost - bad)


def _block_of(blocks: Sequence[Block], slot: int) -> int:
    low, high = 1, len(blocks) - 1
    while low < high:
        middle = (low + high + 1) // 2
        if blocks[middle].first_slot <= slot:
            low = middle
        else:
            high = middle - 1
    return low


# ----------------------------------------------------------------- findings


def _some(numbers: Sequence[int]) -> str:
    shown = ", ".join(str(number) for number in numbers[:_SHOWN])
    more = len(numbers) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def _counted(what: str, numbers: Sequence[int]) -> str:
    return f"{what}{'s' if len(numbers) > 1 else ''} {_some(numbers)}"


def _copies(load: Load) -> None:
    """Say which blocks a load would write again, and where copies live."""
    grouped: dict[str, list[int]] = {}
    for block in load.blocks:
        if not block.seq or block.ambiguous:
            continue
        for copy in (0, 1):
            home = block.homes[copy]
            if not block.seqs[copy]:
                grouped.setdefault(block.faults.get(home, "is no copy"), []).append(home)
            elif block.seqs[copy] < block.seq:
                load.findings.append(
                    Finding(
                        "DMR-C202",
                        f"the copy of block {home} has sequence {block.seqs[copy]}, the other "
                        f"one {block.seq}",
                        (home,),
                    )
                )
            elif block.place(copy) != home:
                load.findings.append(
                    Finding(
                        "DMR-C101",
                        f"the copy that belongs to block {home} lives on stand-in "
                        f"{block.place(copy)}",
                        (home, block.place(copy)),
                    )
                )
        for place in block.older:
            load.findings.append(
                Finding(
                    "DMR-C107", f"stand-in {place} holds a copy that another one replaced", (place,)
                )
            )
    for why, homes in grouped.items():
        load.findings.append(
            Finding(
                "DMR-C201",
                f"block {homes[0]} {why}; its other copy is good"
                if len(homes) == 1
                else f"{len(homes)} blocks ({_some(homes)}): each {why}; the other copies are good",
                tuple(homes),
            )
        )


def _leftovers(load: Load, head: Head) -> None:
    """Say what in the head belongs to nothing."""
    if not any(one.code == "DMR-C308" for one in load.refusals):
        for place, why in head.bad.items():
            load.findings.append(Finding("DMR-C203", f"stand-in {place} {why}", (place,)))
    for one in head.supers:
        if one.head.uuid != load.uuid:
            load.findings.append(
                Finding(
                    "DMR-C102",
                    f"block {one.place} has a superblock of set {one.head.uuid}",
                    (one.place,),
                )
            )
    homes = {home for block in load.blocks for home in block.homes} if head.names else set()
    faults = {place: why for block in load.blocks for place, why in block.faults.items()}
    for place, home in head.names.items():
        if head.owners[place] != load.uuid:
            text = f"stand-in {place} has a table block of set {head.owners[place]}"
            load.findings.append(Finding("DMR-C102", text, (place,)))
        elif home not in homes:
            text = f"stand-in {place} stands for block {home}, which no table block is at"
            load.findings.append(Finding("DMR-C108", text, (place,)))
        elif place in faults:
            text = f"stand-in {place} {faults[place]}"
            load.findings.append(Finding("DMR-C108", text, (place,)))
    if head.reserved:
        load.findings.append(
            Finding(
                "DMR-C109",
                f"reserved blocks {_some(head.reserved)} are not blank",
                tuple(head.reserved),
            )
        )


def _slots(load: Load) -> None:
    for code, number, text in (
        ("DMR-C103", load.counts.lost, "mapped blocks whose content is lost: {}"),
        ("DMR-C104", load.counts.bad, "slots that are bad: {}"),
    ):
        if number:
            load.findings.append(Finding(code, text.format(number)))


# ------------------------------------------------------------------- public


def which_set(head: Head) -> UUID | None:
    """Return the set that an area belongs to, where that is beyond doubt."""
    uuids = head.uuids
    if len(uuids) == 1:
        return uuids[0]
    usable = [uuid for uuid in uuids if choose_super(head, uuid).usable]
    return usable[0] if len(usable) == 1 else None


def _no_super(view: View, head: Head, load: Load) -> None:
    """There is no superblock: ours all the same, or not?"""
    # Behind the end nothing was ever written: a short file is not ours for that.
    gone = [home for home in SUPER_HOMES if home in head.unreadable and home < view.count]
    first = view.block(HEAD_BLOCKS)
    table = header(first, lib.DMR_TYPE_TABLE, HEAD_BLOCKS) if first is not None else None
    load.ours = head.ours or table is not None
    if table is not None:
        load.uuid = table.uuid
    if load.ours or gone:
        whose = f" of set {load.uuid}" if load.uuid else ""
        why = "; ".join(
            f"block {h} "
            + (_super_fault(head, h) if h < view.count else "lies behind the end of the device")
            for h in SUPER_HOMES
        )
        load.refuse(errno.ENODATA, "DMR-C301", f"there is no superblock{whose}: {why}", SUPER_HOMES)


def _super_fault(head: Head, home: int) -> str:
    if home in head.unreadable:
        return "cannot be read"
    return head.faults.get(home, "is blank")


def _take_super(head: Head, load: Load, uuid: UUID) -> Superblock | None:
    """Choose and check the superblock; None where the load ends with it."""
    choice = choose_super(head, uuid)
    if choice.winner is None:
        reason = f"there is no superblock of set {uuid}"
        load.refuse(errno.ENODATA, "DMR-C301", reason, SUPER_HOMES)
        return None
    super_block = Block(
        0,
        SUPER_HOMES,
        seqs=choice.seqs,
        places=choice.places,
        body=choice.winner.block[HEADER:],
        ambiguous=choice.ambiguous,
        base=choice.winner.head.seq,
        faults={home: _super_fault(head, home) for home in SUPER_HOMES},
        older=choice.older,
    )
    for one in head.supers:
        if one.place in super_block.faults and one.head.uuid != uuid:
            super_block.faults[one.place] = f"has the superblock of set {one.head.uuid}"
        elif one.place in super_block.faults and one.head.home != one.place:
            super_block.faults[one.place] = f"is a copy of block {one.head.home}"
        elif one.place in super_block.faults and choice.winner.ready and not one.ready:
            super_block.faults[one.place] = "says FORMATTING"
    load.blocks = [super_block]
    place = choice.winner.place
    sb: Superblock | None = None
    wrong = "it is no superblock"
    try:
        sb = parse_super(choice.winner.block, place)
    except Invalid as why:
        wrong = str(why)
    load.superblock = sb
    if choice.ambiguous:
        reason = "superblocks of equal sequence contradict each other"
        load.refuse(errno.EINVAL, "DMR-C302", reason, SUPER_HOMES)
    elif not choice.winner.ready:
        load.refuse(errno.ENODATA, "DMR-C305", "the format was not completed", (place,))
    elif choice.overwritten:
        others = ", ".join(str(other) for other in head.uuids if other != uuid)
        reason = f"set {others} left a superblock here too"
        load.refuse(errno.EINVAL, "DMR-C303", reason, SUPER_HOMES)
    elif sb is None:
        code = "DMR-C315" if choice.winner.head.version == 1 else "DMR-C304"
        load.refuse(errno.EINVAL, code, f"block {place}: {wrong}", (place,))
    else:
        return sb
    return None


def examine(
    source: Source, start: int = 0, uuid: UUID | None = None, progress: Progress | None = None
) -> Load:
    """Find out what a load of the area at sector `start` would do.

    With `uuid` only that set counts, as for the kernel; without it the set is the one whose
    superblock is there. Reading is all that is done.
    """
    view = View(source, start)
    head = scan_head(view)
    load = Load(start, ours=head.ours)
    if not head.supers:
        _no_super(view, head, load)
        return load
    chosen = uuid or which_set(head)
    if chosen is None:
        sets = ", ".join(str(one) for one in head.uuids)
        places = tuple(one.place for one in head.supers)
        load.refuse(errno.EINVAL, "DMR-C303", f"superblocks of several sets: {sets}", places)
        return load
    load.uuid = chosen
    sb = _take_super(head, load, chosen)
    if sb is not None:
        _body(view, head, load, sb, progress)
    return load


def _body(view: View, head: Head, load: Load, sb: Superblock, progress: Progress | None) -> None:
    if view.count < sb.area_blocks:
        load.refuse(
            errno.EINVAL,
            "DMR-C311",
            f"the area has {sb.area_blocks * BLOCK_SECTORS} sectors, and from its start to the "
            f"end of the device there are {max(view.source.size // 512 - view.start, 0)}",
        )
        load.blocks = []
        return
    if sb.superseded:
        load.refuse(errno.EINVAL, "DMR-C314", "the set has gone on elsewhere")
    if sb.ro_compat & ~lib.DMR_RO_COMPAT_KNOWN:
        reason = "the metadata needs a newer dm-remap to be written (ro_compat)"
        load.refuse(errno.EINVAL, "DMR-C312", reason)
    if sb.compat & ~lib.DMR_COMPAT_KNOWN:
        load.findings.append(Finding("DMR-C106", f"the compat word is {sb.compat:#x}"))
    judge(view, head, load, sb, progress)


def judge(
    view: View, head: Head, load: Load, sb: Superblock, progress: Progress | None = None
) -> None:
    """Read the table of a set whose superblock stands first in `load.blocks`, and judge it."""
    load.superblock = sb
    load.names = head.names
    load.blocks = table_of(sb, load.blocks[0])
    read_tables(view, load, sb, head, progress)
    _check_blocks(load, head)
    lookup(load)
    _copies(load)
    _leftovers(load, head)
    _slots(load)
    load.findings.sort(key=lambda one: -one.severity)
