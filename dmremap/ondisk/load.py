# SPDX-License-Identifier: GPL-2.0-only
"""What a load by the kernel would make of an area, found out without the kernel. Writes nothing.

There is one reader, and it is here and in head.py. look() goes as far as the first MiB tells, for
whoever has many devices to look at, and read_set() reads the table too: what look() says of a set
read_set() says as well. The rules are those of kernel/dm-remap-load.c. What the kernel asks of main
(tag, id, size) is not looked at: units are checked against the size that the superblock has
recorded.
"""

import errno
import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, Protocol
from uuid import UUID

from dmremap.errors import DmRemapError, error
from dmremap.ondisk._format import lib
from dmremap.ondisk.device import CHUNK, Progress
from dmremap.ondisk.findings import CODES, Finding, Severity
from dmremap.ondisk.head import (
    BLANK,
    HEADER,
    READ,
    Blocks,
    Choice,
    Head,
    Super,
    choose_super,
    not_a_block,
    note,
    scan_head,
    which_set,
)
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
    is_zero,
    parse_super,
)

_EMPTY: Final = bytes(BLOCK - HEADER)
_SHOWN: Final = 8  # blocks named in a message
_PIECE: Final = 16  # blocks, where not all of them can be read at once


def kept(body: bytes) -> bytes:
    """Return the body of a table block for keeping: all in which every slot is free are one."""
    return _EMPTY if body == _EMPTY else body


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

    @cached_property
    def first(self) -> Blocks:
        """The blocks that head.py looks at: read once, and in pieces where that fails.

        A disk may take seconds for each read that fails, so not all of them are read one by one.
        """
        count = min(READ, self.count)
        return self._first(0, count, (_PIECE, 1)) if count else []

    def _first(self, start: int, count: int, pieces: Sequence[int]) -> list[bytes | None]:
        whole = self.source.read(self.start * 512 + start * BLOCK, count * BLOCK)
        if whole is not None and is_zero(whole):
            return [BLANK] * count
        if whole is not None:
            return [whole[at : at + BLOCK] for at in range(0, len(whole), BLOCK)]
        if count == 1:
            return [None]
        out: list[bytes | None] = []
        for at in range(start, start + count, pieces[0]):
            out += self._first(at, min(pieces[0], start + count - at), pieces[1:])
        return out

    @cached_property
    def head(self) -> Head:
        """What the first MiB says."""
        return scan_head(self.first)

    def block(self, number: int) -> bytes | None:
        """Return one block; of the first MiB what was read before, if it was."""
        first: Blocks = self.__dict__.get("first", ())
        if number < len(first):
            return first[number]
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
        whole = self._view.source.read(offset, length)
        if whole is not None:
            out = bytearray(whole)
            for number in self._changed.keys() & range(first, first + end):
                at = (number - first) * BLOCK
                out[at : at + BLOCK] = self._changed[number]
            return bytes(out)
        out = bytearray()
        for number in range(first, first + end):
            block = self._changed.get(number)
            if block is None:
                block = self._view.block(number)
            if block is None:
                return None
            out += block
        return bytes(out)


@dataclass(slots=True)
class Block:
    """A block of the metadata: what its candidates say. Number 0 is the superblock.

    `seqs` and `places` are of the newest candidate for copy A and copy B; sequence 0: there is
    none. `torn` is the highest sequence that a torn stand-in names for each, and `unseen` says
    whether one that is named for it cannot be read. `body` is what follows the header of the
    winner. `base` is what a new sequence has to exceed; it is the winner's unless
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
    unseen: list[bool] = field(default_factory=lambda: [False, False])
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
        """How many copies are the newest of their own, as far as their stand-ins can tell."""
        return sum(
            seq >= max(torn, 1) and not unseen
            for seq, torn, unseen in zip(self.seqs, self.torn, self.unseen, strict=True)
        )

    @property
    def settled(self) -> bool:
        """Whether both copies say the same, and nothing is left that they have to outrank."""
        return self.seqs[0] == self.seqs[1] > 0 and not self.rewrite and not any(self.unseen)

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
            self.body, self.base = kept(body), seq
            self.ambiguous = False
        note(self.seqs, self.places, self.older, copy, seq, place, self.homes[copy])


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a load ends, as the kernel's errno and a sentence. `hint` is as in Finding.

    Without an errno, 0, the kernel would go on, and the control plane refuses.
    """

    errno: int
    reason: str
    code: str
    hint: str = ""

    @property
    def name(self) -> str:
        """The errno's name, "" if there is none."""
        return errno.errorcode[self.errno] if self.errno else ""


@dataclass(frozen=True, slots=True)
class Counts:
    """Slots by what they hold. `mapped` includes the lost ones, as in the status line."""

    slots: int = 0
    mapped: int = 0
    lost: int = 0
    bad: int = 0
    free: int = 0


@dataclass(slots=True)
class Load:
    """What a load of an area would find, and what it would do.

    `superblock` may be there although the load is refused. `blocks` has the superblock first, then
    the table blocks in the order of their slots; it is shorter where the load does not come so far,
    or was not meant to. `changed` has new bodies of blocks of which an entry becomes bad once
    everything is mended.
    """

    start: int
    head: Head
    uuid: UUID | None = None
    superblock: Superblock | None = None
    blocks: list[Block] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    counts: Counts = Counts()
    changed: dict[int, bytes] = field(default_factory=dict)

    @property
    def accepted(self) -> bool:
        """Whether the kernel would start the set."""
        return self.superblock is not None and not self.refusals

    @property
    def stale(self) -> bool:
        """Whether a read-only table with accept_stale would start it nevertheless."""
        return bool(self.refusals) and all(refusal.errno == errno.EIO for refusal in self.refusals)

    @property
    def severity(self) -> Severity:
        """The worst finding."""
        return max((finding.severity for finding in self.findings), default=Severity.INFO)

    @property
    def away(self) -> int:
        """Copies that live on a stand-in."""
        return sum(block.place(c) != block.homes[c] for block in self.blocks for c in (0, 1))

    @property
    def names(self) -> dict[int, int]:
        """The stand-ins that were ever used, and the home of the table copy each stands for."""
        return dict(self.superblock.standins) if self.superblock else {}

    @property
    def bad_standins(self) -> list[int]:
        """The stand-ins that were ever used and cannot be read, or are torn: a load erases them."""
        return sorted(place for place in self.head.bad if place in self.names or place in REFUGES)

    @property
    def refuges(self) -> list[int]:
        """The superblock's own stand-ins that may hide any of its copies."""
        head = self.head
        return [
            place
            for place in REFUGES
            if place in head.bad and head.hides(place) and head.torn_of(place, self.uuid) is None
        ]

    def refuse(self, number: int, code: str, reason: str, blocks: Iterable[int] = ()) -> None:
        """Note that the load ends here."""
        self.refusals.append(Refusal(number, reason, code))
        self.findings.append(Finding(code, reason, tuple(blocks)))


def listed(numbers: Sequence[int]) -> str:
    """Return numbers for a message: the first few, and how many more."""
    shown = ", ".join(str(number) for number in numbers[:_SHOWN])
    more = len(numbers) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def _counted(what: str, numbers: Sequence[int]) -> str:
    """Return what there is, and its numbers."""
    return f"{what}{'s' if len(numbers) > 1 else ''} {listed(numbers)}"


# --------------------------------------------------------------- superblock


def _begin(view: View, uuid: UUID | None) -> Load:
    """Choose the superblock, and see whether there is a set to be loaded."""
    head = view.head
    load = Load(view.start, head)
    if not head.supers:
        _no_super(load)
        return load
    load.uuid = uuid or which_set(head)
    if load.uuid is None:
        _several(load)
        return load
    sb = _take_super(load, load.uuid)
    if sb is not None and view.count < sb.area_blocks:
        load.refuse(
            errno.EINVAL,
            "DMR-C311",
            f"the area has {sb.area_blocks * BLOCK_SECTORS} sectors, and from its start to the "
            f"end of the device there are {max(view.source.size // 512 - view.start, 0)}",
        )
        load.blocks = []
    return load


def _no_super(load: Load) -> None:
    """There is no superblock: ours all the same, or not?"""
    head = load.head
    # Behind the end nothing was ever written: a short file is not ours for that.
    gone = [home for home in SUPER_HOMES if home in head.unreadable and home < head.end]
    if head.behind is not None:
        load.uuid = head.behind.uuid
    if head.ours or gone:
        whose = f" of set {load.uuid}" if load.uuid else ""
        why = "; ".join(f"block {home} {head.fault(home)}" for home in SUPER_HOMES)
        load.refuse(errno.ENODATA, "DMR-C301", f"there is no superblock{whose}: {why}", SUPER_HOMES)


def _several(load: Load) -> None:
    sets = ", ".join(str(uuid) for uuid in load.head.uuids)
    places = tuple(superblock.place for superblock in load.head.supers)
    load.refuse(errno.EINVAL, "DMR-C303", f"superblocks of several sets: {sets}", places)


def _super_block(head: Head, choice: Choice, winner: Super) -> Block:
    """Return the superblock as a block of the metadata, and why its homes may not count."""
    faults = {home: head.fault(home) for home in SUPER_HOMES}
    for superblock in head.supers:
        if superblock.place in faults and superblock.head.uuid != winner.head.uuid:
            faults[superblock.place] = f"has the superblock of set {superblock.head.uuid}"
        elif superblock.place in faults and superblock.head.home != superblock.place:
            faults[superblock.place] = f"is a copy of block {superblock.head.home}"
        elif superblock.place in faults and winner.ready and not superblock.ready:
            faults[superblock.place] = "says FORMATTING"
    return Block(
        0,
        SUPER_HOMES,
        seqs=choice.seqs,
        places=choice.places,
        body=winner.block[HEADER:],
        ambiguous=choice.ambiguous,
        base=winner.head.seq,
        faults=faults,
        older=choice.older,
    )


def _take_super(load: Load, uuid: UUID) -> Superblock | None:
    """Choose and check the superblock; None where the load ends with it."""
    choice = choose_super(load.head, uuid)
    winner = choice.winner
    if winner is None:
        reason = f"there is no superblock of set {uuid}"
        load.refuse(errno.ENODATA, "DMR-C301", reason, SUPER_HOMES)
        return None
    load.blocks = [_super_block(load.head, choice, winner)]
    wrong = ""
    try:
        load.superblock = parse_super(winner.block, winner.place)
    except Invalid as why:
        wrong = str(why)
    if choice.ambiguous:
        load.superblock = None
        reason = "superblocks of equal sequence contradict each other"
        load.refuse(errno.EINVAL, "DMR-C302", reason, SUPER_HOMES)
    elif not winner.ready:
        load.refuse(errno.ENODATA, "DMR-C305", "the format was not completed", (winner.place,))
    elif choice.overwritten:
        others = ", ".join(str(other) for other in load.head.uuids if other != uuid)
        reason = f"set {others} left a superblock here too"
        load.refuse(errno.EINVAL, "DMR-C303", reason, SUPER_HOMES)
    elif load.superblock is None:
        code = "DMR-C315" if winner.head.version == 1 else "DMR-C304"
        load.refuse(errno.EINVAL, code, f"block {winner.place}: {wrong}", (winner.place,))
    else:
        return load.superblock
    return None


# -------------------------------------------------------------------- tables


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
    if data is None:
        block.faults[place] = "cannot be read"
        return
    head = header(data, lib.DMR_TYPE_TABLE, place)
    if head is None:
        why = "is blank" if is_zero(data) else not_a_block(data, place)
    elif head.uuid != load.uuid:
        why = f"belongs to set {head.uuid}"
    elif head.home != block.homes[copy]:
        why = f"is a copy of block {head.home}"
    elif wrong := check_table(data, block.used, sb.units):
        why = f"is whole and says what cannot be ({wrong})"
    else:
        block.offer(copy, place, head.seq, data[HEADER:])
        return
    block.faults[place] = why


def _read_tables(view: View, load: Load, sb: Superblock, progress: Progress | None) -> None:
    """Read every table block: the homes first, then the stand-ins."""
    total = 2 * (len(load.blocks) - 1) * BLOCK
    done = 0
    number = 1
    for segment in sb.segments:
        for copy, first in enumerate((segment.copy_a, segment.copy_b)):
            for index, (place, data) in enumerate(view.blocks(first, segment.table_blocks)):
                _candidate(load, sb, load.blocks[number + index], copy, place, data)
            done += segment.table_blocks * BLOCK
            if progress:
                progress(done, total)
        number += segment.table_blocks
    names = dict(sb.standins)
    for place, (head, block) in load.head.tables.items():
        if names.get(place) == head.home and (copy_of := sb.table_copy(head.home)):
            _candidate(load, sb, load.blocks[copy_of[0]], copy_of[1], place, block)


def _hidden(load: Load, sb: Superblock) -> None:
    """Note what stand-ins that are torn or cannot be read may hide, by their names.

    standin_torn() and load_standin() in the kernel. One that was never named hides nothing.
    """
    head, names = load.head, dict(sb.standins)
    for place in filter(head.hides, head.bad):
        torn = head.torn_of(place, load.uuid)
        if torn and place in REFUGES:
            top = load.blocks[0].torn
            copy = SUPER_HOMES.index(torn.home)
            top[copy] = max(top[copy], torn.seq)
        elif (copy_of := sb.table_copy(names.get(place, 0))) and copy_of[0] < len(load.blocks):
            block, copy = load.blocks[copy_of[0]], copy_of[1]
            if torn and torn.home == names[place]:
                block.torn[copy] = max(block.torn[copy], torn.seq)
            else:
                block.unseen[copy] = True


def _check_blocks(load: Load, sb: Superblock) -> None:
    """Is the newest state of every block known? load_check() in the kernel."""
    if sb.superseded:
        load.refuse(errno.EINVAL, "DMR-C314", "the set has gone on elsewhere")
    if sb.ro_compat & ~lib.DMR_RO_COMPAT_KNOWN:
        reason = "the metadata needs a newer dm-remap to be written (ro_compat)"
        load.refuse(errno.EINVAL, "DMR-C312", reason)
    _hidden(load, sb)
    bad = load.refuges
    load.blocks[0].rewrite |= bool(bad)
    if len(bad) > 1:
        load.refuse(
            errno.EIO,
            "DMR-C308",
            f"the superblock's stand-ins {listed(bad)} cannot be read, and may hide both copies "
            "of it",
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
        elif block.known <= (not block.number and bool(bad)):
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
    for code, blocks, text in (
        ("DMR-C306", [b for b in gone if not b.seq], "no copy is left of {}"),
        (
            "DMR-C307",
            [b for b in gone if b.seq],
            "of {} what is left may be old: a bad stand-in may hide a newer copy",
        ),
    ):
        if blocks:
            homes = [block.homes[0] for block in blocks]
            places = tuple(home for block in blocks for home in block.homes)
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


_LIVE: Final = frozenset({SlotState.MAPPED, SlotState.LOST})
_HEAPS: Final = 251
"""A prime, so that no pattern in which units are mapped puts all of them on one heap."""


def _states(body: bytes) -> bytes:
    """Return the states of a table block's entries."""
    return body[8::16]


def _live(body: bytes) -> Iterator[tuple[int, int]]:
    """Yield entry and unit of what is mapped or lost in a table block."""
    for i, (unit, state) in enumerate(zip(words(body)[::2], _states(body), strict=True)):
        if state in _LIVE:
            yield i, unit


def _twice(used: Iterable[Block]) -> set[int]:
    """Return the units that more than one slot holds.

    One dictionary of all units would take a hundred bytes for each: they are looked at a heap at a
    time, of as many numbers as the table has entries.
    """
    heaps = [array("Q") for _ in range(_HEAPS)]
    for block in used:
        for _, unit in _live(block.body):
            heaps[unit % _HEAPS].append(unit)
    twice: set[int] = set()
    for heap in heaps:
        seen = set(heap)
        if len(seen) < len(heap):
            twice.update(unit for unit, count in Counter(heap).items() if count > 1)
    return twice


def lookup(load: Load) -> None:
    """Count the slots and settle units that have two; load_lookup() in the kernel."""
    used = [block for block in load.blocks[1:] if block.body != _EMPTY]
    twice = _twice(used)
    if twice:
        _settle(load, used, twice)
    count = dict.fromkeys((SlotState.MAPPED, SlotState.LOST, SlotState.BAD), 0)
    for block in used:
        states = _states(load.changed.get(block.number, block.body))
        for state in count:
            count[state] += states.count(state)
    mapped, lost, bad = count.values()
    slots = load.superblock.slots if load.superblock else 0
    load.counts = Counts(slots, mapped + lost, lost, bad, slots - mapped - lost - bad)


def _settle(load: Load, used: Iterable[Block], twice: set[int]) -> None:
    """Have the older entry of each unit that two slots hold become bad, or refuse."""
    entries: dict[int, array[int]] = {}
    owner: dict[int, int] = {}
    losers: list[tuple[int, int, int]] = []

    def place(slot: int) -> tuple[int, int]:
        # Blocks hold 252 slots but for the last one of a segment: counted, not searched for.
        number = _block_of(load.blocks, slot)
        return number, slot - load.blocks[number].first_slot

    for block in used:
        for i, unit in _live(block.body):
            if unit not in twice:
                continue
            if block.number not in entries:
                entries[block.number] = words(block.body)
            slot = block.first_slot + i
            old = owner.setdefault(unit, slot)
            if old == slot:
                continue
            before = place(old)
            now = entries[block.number][2 * i + 1] >> 8
            generation = entries[before[0]][2 * before[1] + 1] >> 8
            if generation == now:
                load.refuse(
                    errno.EINVAL,
                    "DMR-C310",
                    f"unit {unit} is mapped twice in generation {generation}, to slots {old} "
                    f"and {slot}",
                    (load.blocks[before[0]].homes[0], block.homes[0]),
                )
                continue
            loser = (block.number, i) if generation > now else before
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


def _block_of(blocks: Sequence[Block], slot: int) -> int:
    low, high = 1, len(blocks) - 1
    while low < high:
        middle = (low + high + 1) // 2
        if blocks[middle].first_slot <= slot:
            low = middle
        else:
            high = middle - 1
    return low


# ------------------------------------------------------------------- public


def look(view: View, uuid: UUID | None = None) -> Load:
    """Find out what a load would do, as far as the first MiB tells: nothing else is read.

    With `uuid` only that set counts, as for the kernel; without it the set is the one whose
    superblock is there.
    """
    load = _begin(view, uuid)
    if load.accepted and load.superblock:
        _check_blocks(load, load.superblock)
    return load


def find(view: View) -> tuple[Load, ...]:
    """Look for sets in an area: the one that it belongs to, or all where that is in doubt.

    Where it is, none of them may be started: each load is refused. What is no set, and is not
    nothing either, is a load without a superblock.
    """
    if which_set(view.head) or not view.head.supers:
        return (look(view),)
    found = tuple(look(view, uuid) for uuid in view.head.uuids)
    for load in found:
        if not load.refusals:
            _several(load)
    return found


def read_set(view: View, uuid: UUID | None, progress: Progress | None = None) -> Load:
    """Find out what a load would do. Reading is all that is done."""
    load = _begin(view, uuid)
    if load.accepted and load.superblock:
        judge(view, load, load.superblock, progress)
    return load


def judge(view: View, load: Load, sb: Superblock, progress: Progress | None = None) -> None:
    """Read the table of a set whose superblock stands first in `load.blocks`, and judge it."""
    load.superblock = sb
    load.blocks = table_of(sb, load.blocks[0])
    _read_tables(view, load, sb, progress)
    _check_blocks(load, sb)
    lookup(load)


_ERRORS: Final = {
    "DMR-C305": "DMR-E515",
    "DMR-C311": "DMR-E511",
    "DMR-C314": "DMR-E530",
    "DMR-C316": "DMR-E531",
    "DMR-C317": "DMR-E531",
    "DMR-C319": "DMR-E534",
}


def refused(what: str, refusals: Sequence[Refusal]) -> DmRemapError:
    """Return the error for a set that no load accepts."""
    first = refusals[0]
    err = error(
        _ERRORS.get(first.code, "DMR-E514"),
        f"{what}: {first.reason}",
        hint=first.hint or CODES[first.code].next_step,
    )
    for other in refusals[1:]:
        err.add_note(f"also: {other.reason} [{other.code}]")
    return err
