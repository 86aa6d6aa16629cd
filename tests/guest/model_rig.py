# SPDX-License-Identifier: GPL-2.0-only
"""The disks of the model test: small ones, made once, and put back to the same start each time.

To put them back is to write an image into the file below; formatting a set anew, and making its
legs, would take most of the time. The set has two segments from the start, so that a unit may move
from one block of its table to another.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from guest import model
from guest.lib import (
    SECTOR,
    Device,
    Fault,
    dm_create,
    dm_lines,
    dm_message,
    dm_names,
    dm_reload,
    dm_remove,
    fault_device,
    loop_device,
)
from guest.remapset import read_superblock, write_extension

from dmremap.ondisk import (
    BLOCK,
    BLOCK_SECTORS,
    Segment,
    extension_for,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

UNITS = 80
"""Of the mapped device. The first one and the last one never fail, so that every probe finds a
place to read: the only errors are those of the medium."""
NAME = "model"
GARBAGE = b"\xee"
"""What is in slots that nobody has written."""


@dataclass(frozen=True)
class Kind:
    """A kind of disk."""

    unit: int
    """Bytes of a logical block."""
    physical: int
    start: int
    """Units of main before the first one of the set. One that is no multiple of a physical block
    has the borders of pieces where a mistake would show."""
    areas: tuple[int, ...]
    """Blocks of the area, when it is made and when it grows; the first two belong to the start."""


KINDS = {
    "512": Kind(512, 512, 0, (259, 266, 271, 275)),
    "512e": Kind(512, 4096, 5, (260, 267, 272, 276)),
    "4k": Kind(4096, 4096, 0, (262, 274, 280, 284)),
}


class Rig:
    """One kind of disk, as two legs, and the set that is made of them again and again."""

    def __init__(self, kind: Kind, main: Fault, spare: Fault, files: tuple[Path, Path]) -> None:
        self.kind = kind
        self.main = main
        self.spare = spare
        self.files = files
        self.sectors = kind.unit // SECTOR
        self.grown = 0
        self.device: Device | None = None
        self.off = False
        self.rules: dict[str, list[tuple[str | int, ...]]] = {main.name: [], spare.name: []}
        """Messages that make a leg fail as it does now: a table forgets them."""
        self.tables = {leg.name: dm_lines(leg.name, table=True)[0] for leg in (main, spare)}
        self._make()

    @property
    def line(self) -> str:
        """The table."""
        length = UNITS * self.sectors
        area = self.kind.areas[self.grown] * BLOCK_SECTORS
        return (
            f"0 {length} remap {self.main.path} {self.spare.path} 0 {area}"
            f" 4 main_start {self.kind.start * self.sectors} remap_rate 0"
        )

    def _make(self) -> None:
        """Have the kernel format the set and grow it once; remember what the disks hold then."""
        self.create()
        self.superblock = read_superblock(self.spare.path)
        self.grow()
        self.remove()
        with Device(self.spare.path) as device:
            device.flush()
            spare = bytearray(device.read(0, self.kind.areas[-1] * BLOCK_SECTORS))
        for segment in self.superblock.segments:
            first, end = segment.data * BLOCK, segment.copy_b * BLOCK
            spare[first:end] = GARBAGE * (end - first)
        unit = self.kind.unit
        data = (model.data_of(number, model.FIRST, unit) for number in range(UNITS))
        main = bytes(self.kind.start * unit) + b"".join(data)
        self.images = (main, bytes(spare))
        """What main and the spare hold at the start."""
        self.started = self.superblock

    def reset(self) -> None:
        """Have the disks as they were at the start, without faults, and the set running."""
        self.heal()
        for leg, file, image in zip((self.main, self.spare), self.files, self.images, strict=True):
            with Device(leg.path) as device:
                device.flush()  # nothing stays in its cache
            with file.open("r+b") as stream:
                stream.write(image)
        self.superblock = self.started
        self.grown = 1
        self.create()

    def create(self) -> None:
        """Create the device."""
        self.device = Device(dm_create(NAME, self.line))

    def remove(self) -> None:
        """Remove the device, if it is there."""
        if self.device:
            self.device.close()
            self.device = None
        if NAME in dm_names():
            dm_remove(NAME)

    def fail(self, leg: Fault, sector: int, count: int, directions: str, *rule: str | int) -> None:
        """Fail bios of these directions, now and after a power cut."""
        for direction in directions.split():
            self._rule(leg, "add", sector, count, direction, *rule)

    def heal(self, leg: Fault | None = None, sector: int = 0, count: int = 0) -> None:
        """End what fails in a part of a leg, in all of it, or in both."""
        for healed in (leg,) if leg else (self.main, self.spare):
            self._rule(healed, "clear", *([sector, count] if count else []))

    def _rule(self, leg: Fault, *words: str | int) -> None:
        dm_message(leg.name, *words)
        if words == ("clear",):
            self.rules[leg.name] = []
        else:
            self.rules[leg.name].append(words)

    def power_off(self, seed: int) -> None:
        """Cut both legs off, in the middle of whatever the set does.

        What is in their caches is lost, all of it (0) or a part that the seed chooses.
        """
        self.off = True
        for leg in (self.main, self.spare):
            dm_message(leg.name, "powercut", *([seed] if seed else []))

    def power_on(self) -> None:
        """Start again with what the cut has left. After power_off()."""
        self.close()
        self.create()

    def grow(self) -> None:
        """Let the set grow by one segment, as dmremapctl does it."""
        superblock = self.superblock
        segment = extension_for(superblock, self.kind.areas[self.grown + 1])
        assert segment is not None
        write_extension(self.spare.path, superblock, segment)
        self.grown += 1
        dm_reload(NAME, self.line)
        self.superblock = read_superblock(self.spare.path)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The segments of the set."""
        return tuple(self.superblock.segments)

    @property
    def slots(self) -> int:
        """How many slots the set has."""
        return self.superblock.slots

    def main_sector(self, unit: int) -> int:
        """Return where a unit is on main."""
        return (self.kind.start + unit) * self.sectors

    def slot_sector(self, slot: int) -> int:
        """Return where a slot is on the spare."""
        for segment in self.segments:
            if slot < segment.slots:
                return segment.data * BLOCK_SECTORS + slot * self.sectors
            slot -= segment.slots
        raise ValueError(f"no slot {slot}")

    def close(self) -> None:
        """Take the set apart, whatever state it is in, and have legs that answer."""
        for leg in (self.main, self.spare):
            leg.release()
        self.remove()
        for leg in (self.main, self.spare):
            leg.dead()
            if self.off:
                dm_reload(leg.name, self.tables[leg.name])
                for words in self.rules[leg.name]:
                    dm_message(leg.name, *words)
        self.off = False


@contextmanager
def rigs() -> Iterator[dict[str, Rig]]:
    """Have one of each kind."""
    with ExitStack() as stack:
        made = {}
        for name, kind in KINDS.items():
            sizes = ((kind.start + UNITS) * kind.unit, kind.areas[-1] * BLOCK)
            legs, files = [], []
            for leg, size in zip(("main", "spare"), sizes, strict=True):
                file = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm")), leg)
                file.touch()
                os.truncate(file, -(-size // BLOCK) * BLOCK)
                # Of main's block size both, or a cut could tear a unit, which is no disk's fault.
                disk = stack.enter_context(loop_device(image=file, sector_size=kind.unit))
                words = ("cache", *(("physical", str(kind.physical)) if leg == "main" else ()))
                fault = fault_device(disk, *words, name=f"{name}-{leg}")
                legs.append(stack.enter_context(fault))
                files.append(file)
            made[name] = rig = Rig(kind, legs[0], legs[1], (files[0], files[1]))
            stack.callback(rig.close)
        yield made
