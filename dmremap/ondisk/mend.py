# SPDX-License-Identifier: GPL-2.0-only
"""Write what a load would write: load_mend() and the commit behind it, as the kernel does them.

Of a block whose copies are unequal both are written again, the lesser one first, with the winner's
sequence + 2; then stand-ins that cannot be read are erased; then entries that become bad are
committed, copy A of all blocks before copy B. A copy goes where it lives, and to a free stand-in
where that cannot be written. What a load may change besides, the driver's id of main, it does not.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from dmremap.errors import Failure
from dmremap.ondisk._format import ffi, lib
from dmremap.ondisk.device import BlockDevice
from dmremap.ondisk.epoch import Raise, with_epoch
from dmremap.ondisk.head import HEADER
from dmremap.ondisk.layout import BLOCK, STANDINS
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


class _Mender:
    def __init__(self, load: Load, write: Writer) -> None:
        self.load = load
        self.write = write
        self.done: list[Write] = []
        self.moved: dict[tuple[int, int], int] = {}
        self.used = set(load.bad_standins)
        self.used |= {b.place(c) for b in load.blocks for c in (0, 1) if b.place(c) in STANDINS}

    def copy(self, block: Block, copy: int, seq: int, body: bytes, what: str) -> None:
        """Write one copy: where it lives, else on a free stand-in. write_copy() in the kernel."""
        home = block.homes[copy]
        places = [self.moved.get((block.number, copy), block.place(copy))]
        for tries in range(1 + _TRIES):
            if tries:
                free = next((place for place in STANDINS if place not in self.used), None)
                if free is None:
                    break
                self.used.add(free)
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
        for copy in (lesser, 1 - lesser):
            # An entry that becomes bad is live here: it may be all that says that its unit is
            # mapped, if the newer one is lost before every block has two copies.
            what = f"{_name(block)}, copy {'AB'[copy]}"
            self.copy(block, copy, block.base + 2, block.body, what)
        block.base += 2

    def super(self, top: Block, body: bytes, more: str = "") -> None:
        """Commit another superblock, copy A before copy B."""
        for copy in (0, 1):
            self.copy(top, copy, top.base + 1, body, f"superblock, copy {'AB'[copy]}{more}")

    def erase(self) -> bool:
        """Erase what cannot be read; False if one of them cannot be written either."""
        erased = True
        for place in self.load.bad_standins:
            if self.write(place, bytes(BLOCK)):
                self.done.append(Write(place, None, 0, "stand-in, erased", bytes(BLOCK)))
            else:
                erased = False
        return erased


def _name(block: Block) -> str:
    return "table block" if block.number else "superblock"


def mend(load: Load, write: Writer, epoch: Raise | None = None) -> list[Write]:
    """Make both copies of every block equal and durable. Uses the load up.

    Nothing may be written for a load that is refused: there would be something to guess. With
    `epoch` that one begins in both superblocks when everything else is done: until then the set is
    what it was to whoever compares.
    """
    if load.refusals:
        raise ValueError(f"refused: {load.refusals[0].reason}")
    work = _Mender(load, write)
    for settled in (False, True):
        for block in load.blocks:
            if block.settled is settled:
                work.both(block)
        # Where one cannot be erased, the blocks that were equal must outrank it too.
        if settled or work.erase():
            break
    # The kernel's list of dirty blocks has the one that was marked last first.
    changed = [block for block in reversed(load.blocks) if block.number in load.changed]
    for copy in (0, 1):
        for block in changed:
            what = f"table block, copy {'AB'[copy]}, with an entry that becomes bad"
            work.copy(block, copy, block.base + 1, load.changed[block.number], what)
    if epoch:
        top = next(block for block in load.blocks if not block.number)
        work.super(top, with_epoch(top.body, epoch), f", with epoch {epoch.epoch.number}")
    return work.done


def commit_super(load: Load, write: Writer, body: bytes) -> list[Write]:
    """Write another superblock, copy A before copy B. Both are equal, as mend() leaves them."""
    work = _Mender(load, write)
    work.super(load.blocks[0], body)
    return work.done
