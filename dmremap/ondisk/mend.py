# SPDX-License-Identifier: GPL-2.0-only
"""Write what a load would write: load_mend() and the commit behind it, as the kernel does them.

Of a block whose copies are unequal both are written again, the lesser one first, with the winner's
sequence + 2, the superblock before all others; then stand-ins that were used and cannot be read are
erased; then entries that become bad are committed, copy A of all blocks before copy B. A copy goes
where it lives, and where that cannot be written to a stand-in, whose name is durable in both
superblocks before. What a load may change besides, the epoch and the driver's id of main, it does
not.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from dmremap.errors import Failure
from dmremap.ondisk._format import ffi, lib
from dmremap.ondisk.device import BlockDevice
from dmremap.ondisk.epoch import Raise, with_epoch
from dmremap.ondisk.head import HEADER
from dmremap.ondisk.layout import BLOCK, REFUGES, STANDINS
from dmremap.ondisk.load import Block, Load

Writer = Callable[[int, bytes], bool]
"""Writes a block of the area durably; False if the place does not take it."""

_TRIES: Final = 3


@dataclass(frozen=True, slots=True)
class Write:
    """A block that was written, or would be. `home` is None where a stand-in is erased."""

    place: int
    home: int | None
    sequence: int
    what: str
    data: bytes


def device_writer(device: BlockDevice, start: int) -> Writer:
    """Return what writes to the area that begins at sector `start` of a device."""

    def write(place: int, data: bytes) -> bool:
        try:
            device.write_block(start, place, data)
            device.flush()
        except Failure:
            return False
        return True

    return write


def sealed(load: Load, block: Block, body: bytes, seq: int, home: int, place: int) -> bytes:
    """Return a block as it stands on disk."""
    if load.uuid is None:
        raise ValueError("a block of no set")
    raw = bytearray(HEADER) + body
    if len(raw) != BLOCK:
        raise ValueError(f"a body of {len(body)} bytes")
    lib.dmr_seal(ffi.from_buffer("char[]", raw), block.kind, load.uuid.bytes, seq, home, place)
    return bytes(raw)


def with_names(body: bytes, names: Mapping[int, int]) -> bytes:
    """Return the body of a superblock in which stand-ins have these names."""
    raw = bytearray(HEADER) + body
    sb = ffi.from_buffer("struct dmr_super *", raw)
    for place, home in names.items():
        sb.standin[place - STANDINS[0]] = lib.dmr_h64(home)
    return bytes(raw[HEADER:])


def with_state(body: bytes, state: int) -> bytes:
    """Return the body of a superblock in another state."""
    raw = bytearray(HEADER) + body
    ffi.from_buffer("struct dmr_super *", raw).state = lib.dmr_h32(state)
    return bytes(raw[HEADER:])


class _Mender:
    def __init__(self, load: Load, write: Writer) -> None:
        self.load = load
        self.write = write
        self.done: list[Write] = []
        self.moved: dict[tuple[int, int], int] = {}
        self.names = dict(load.names)
        self.top = next(block for block in load.blocks if not block.number)
        self.unfinished = load.blocks[0] is not self.top
        """The superblock comes last, and what was cut before that is no set."""
        head = load.head
        self.used = head.left | set(load.bad_standins)
        self.used |= {place for place in head.unreadable if place in STANDINS}
        self.used |= {b.place(c) for b in load.blocks for c in (0, 1) if b.place(c) in STANDINS}

    def standin(self, block: Block, copy: int, *, again: bool) -> int | None:
        """Return a free stand-in for a copy; find_standin() and find_refuge() in the kernel.

        `again`: one has refused.
        """
        home = block.homes[copy]
        # From both ends, for neighbours often fail together.
        free = [place for place in STANDINS[:: -1 if copy else 1] if place not in self.used]
        if not block.number:
            return next((place for place in free if place in REFUGES), None)
        if self.load.superblock is None or self.load.superblock.table_copy(home) is None:
            return None
        named = [place for place in free if self.names.get(place) == home]
        unused = [p for p in free if p not in self.names and p not in REFUGES]
        return next(iter(unused + named if again else named + unused), None)

    def name(self, place: int, home: int) -> None:
        """Make a name durable in both superblocks, unless it is."""
        if self.names.get(place) == home:
            return
        self.names[place] = home
        self.top.body = with_names(self.top.body, {place: home})
        self.super(0, 1, f"superblock, with a name for stand-in {place}")

    def super(self, first: int, ahead: int, what: str) -> None:
        """Write both copies of the superblock; area_write_super() in the kernel."""
        body = self.top.body
        if self.unfinished:
            body = with_state(body, lib.DMR_FORMATTING)
        for copy in (first, 1 - first):
            self.copy(self.top, copy, self.top.base + ahead, body, f"{what}, copy {'AB'[copy]}")
        self.top.base += ahead

    def copy(self, block: Block, copy: int, seq: int, body: bytes, what: str) -> None:
        """Write one copy: where it lives, else on a stand-in. area_write_copy() in the kernel."""
        home = block.homes[copy]
        places = [self.moved.get((block.number, copy), block.place(copy))]
        for tries in range(1 + (_TRIES if block.number else len(REFUGES))):
            if tries:
                free = self.standin(block, copy, again=tries > 1)
                if free is None:
                    break
                self.used.add(free)
                if block.number:
                    self.name(free, home)
                places.append(free)
            data = sealed(self.load, block, body, seq, home, places[-1])
            if self.write(places[-1], data):
                self.done.append(Write(places[-1], home, seq, what, data))
                self.moved[block.number, copy] = places[-1]
                return
        raise Failure(
            "DMR-E103",
            f"a copy of metadata block {home} cannot be written anywhere: tried blocks "
            f"{', '.join(str(place) for place in places)}",
        )

    def both(self, block: Block) -> None:
        lesser = int(block.seqs[0] > block.seqs[1])
        if not block.number:
            self.unfinished = False
            self.super(lesser, 2, "superblock")
            return
        for copy in (lesser, 1 - lesser):
            # An entry that becomes bad is live here: it may be all that says that its unit is
            # mapped, if the newer one is lost before every block has two copies.
            what = f"table block, copy {'AB'[copy]}"
            self.copy(block, copy, block.base + 2, block.body, what)
        block.base += 2

    def erase(self) -> None:
        """Erase what was used and cannot be read: whether it takes that does not matter."""
        for place in self.load.bad_standins:
            if self.write(place, bytes(BLOCK)):
                self.done.append(Write(place, None, 0, "stand-in, erased", bytes(BLOCK)))


def mend(load: Load, write: Writer, epoch: Raise | None = None) -> list[Write]:
    """Make both copies of every block equal and durable. Uses the load up.

    Nothing may be written for a load that is refused: there would be something to guess. With
    `epoch` that one begins in both superblocks when everything else is done: until then the set is
    what it was to whoever compares.
    """
    if load.refusals:
        raise ValueError(f"refused: {load.refusals[0].reason}")
    work = _Mender(load, write)
    for block in load.blocks:
        if not block.settled:
            work.both(block)
    work.erase()
    # The kernel's list of dirty blocks has the one that was marked last first.
    changed = [block for block in reversed(load.blocks) if block.number in load.changed]
    for copy in (0, 1):
        for block in changed:
            what = f"table block, copy {'AB'[copy]}, with an entry that becomes bad"
            work.copy(block, copy, block.base + 1, load.changed[block.number], what)
    if epoch:
        work.top.body = with_epoch(work.top.body, epoch)
        work.super(0, 1, f"superblock, with epoch {epoch.epoch.number}")
    return work.done


def commit_super(load: Load, write: Writer, body: bytes) -> list[Write]:
    """Write another superblock, copy A before copy B. Both are equal, as mend() leaves them."""
    work = _Mender(load, write)
    work.top.body = body
    work.super(0, 1, "superblock")
    return work.done
