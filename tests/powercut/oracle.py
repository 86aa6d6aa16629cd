# SPDX-License-Identifier: GPL-2.0-only
"""What a set of dm-remap has promised, and whether the state after a cut honours it.

A workload says what it does in marks. ``begin`` and ``flush`` come before what they speak of, all
others behind it::

    ready                               the device is there
    bad SECTOR...                       main refuses writes of these, too; none is under way
    heal SECTOR...                      main takes them again
    worn SECTOR...                      these are mapped, and their slots refuse writes from now on
    losing SECTOR COUNT                 the content of these is about to be given up
    lost SECTOR COUNT                   it is; none of them was mapped before
    done                                the device is gone, and all that it had to do is done
    begin SECTOR COUNT GENERATION       a write is about to be issued
    ack SECTOR COUNT GENERATION FUA     it has succeeded; FUA is 0 or 1
    fail SECTOR COUNT GENERATION        it has failed: it promises nothing
    flush N                             a flush is about to be issued
    flushed N                           it has succeeded

Sectors hold guest.lib.pattern(), which names the sector and the generation. Generations of a
sector only grow, and its writes do not overlap each other in time. Nor do they overlap ``heal``,
``worn``, ``losing`` and ``lost`` of theirs. Generation 1 is on main before it all begins. Units are
sectors here.

The promises: an acknowledged write is durable when a flush that began later has succeeded, or at
once if it was FUA, or if main refused the sector: then it is mapped, too. So it is if the slot of a
mapped sector refused it: then the sector has moved, and its generation in the table is higher. What
is lost stays an error until a write to it was begun, and is none any more when that has succeeded,
which is durable at once. Whatever else a block reads as is a generation that was begun and is not
older than what is durable.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import TYPE_CHECKING

from guest.lib import SECTOR, pattern

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from powercut.log import Image, Mark
    from powercut.reader import Loaded

_NAMES = struct.Struct("<8sQQ")
FIRST = 1
"""The generation that main holds from the start."""


@lru_cache(maxsize=1 << 16)
def _pattern(sector: int, generation: int) -> bytes:
    return pattern(sector, 1, generation)


def generation(sector: int, data: bytes | None) -> int | None:
    """Return the generation that a sector holds, None if it is not one of its own."""
    if data is None or len(data) < _NAMES.size:
        return None
    number = int(_NAMES.unpack_from(data)[2])
    return number if data == _pattern(sector, number) else None


class Oracle:
    """The promises up to a point of the log."""

    def __init__(self) -> None:
        self.ready = False
        self.refused: set[int] = set()
        """Sectors that main refuses."""
        self.mapped: set[int] = set()
        """Sectors that must be mapped."""
        self.worn: set[int] = set()
        """Mapped sectors whose slots refuse writes."""
        self.moved: dict[int, int] = {}
        """How often a sector must have moved."""
        self.losing: set[int] = set()
        """Sectors that may be lost."""
        self.lost: set[int] = set()
        """Sectors that must be, unless a write to them was begun."""
        self.filled: set[int] = set()
        """Sectors that were lost, and have been written."""
        self.vague: set[int] = set()
        """Sectors to which a write has failed: it may have been mapped, moved, filled, or not."""
        self.done = False
        self.durable: dict[int, int] = {}
        """The oldest generation that a sector may read as."""
        self.begun: dict[int, int] = {}
        """The newest."""
        self._acked: dict[int, int] = {}
        self._flushes: dict[str, dict[int, int]] = {}
        self._seen = 0

    def follow(self, marks: list[Mark]) -> None:
        """Take in the marks that are new; the list begins with those of the call before."""
        for mark in marks[self._seen :]:
            self.take(mark.text)
        self._seen = len(marks)

    def take(self, text: str) -> None:
        """Take in one mark."""
        word, *rest = text.split()
        match word:
            case "ready":
                self.ready = True
            case "bad":
                self.refused |= {int(sector) for sector in rest}
            case "heal":
                self.refused -= {int(sector) for sector in rest}
            case "worn":
                self.worn |= {int(sector) for sector in rest}
            case "losing" | "lost":
                first, count = (int(part) for part in rest)
                self._lose(word, range(first, first + count))
            case "done":
                self.done = True
            case "flush":
                self._flushes[rest[0]] = dict(self._acked)
            case "flushed":
                for sector, number in self._flushes.pop(rest[0]).items():
                    self._settle(sector, number)
            case "begin" | "ack" | "fail":
                first, count, number = (int(part) for part in rest[:3])
                for sector in range(first, first + count):
                    self._write(word, sector, number, fua=rest[3:] == ["1"])
            case _:
                raise ValueError(f"a mark that means nothing: {text}")

    def _lose(self, word: str, sectors: range) -> None:
        self.losing |= set(sectors)
        if word == "lost":
            self.lost |= set(sectors)
            self.mapped |= set(sectors)
            for sector in sectors:
                self.durable[sector] = self.begun.get(sector, FIRST) + 1

    def _settle(self, sector: int, number: int) -> None:
        self.durable[sector] = max(number, self.durable.get(sector, FIRST))

    def _write(self, word: str, sector: int, number: int, *, fua: bool) -> None:
        if word == "begin":
            self.begun[sector] = number
            self.lost.discard(sector)
        elif word == "ack":
            self._acked[sector] = number
            sure = sector not in self.vague
            repaired = sure and sector in self.refused and sector not in self.mapped
            if repaired:
                self.mapped.add(sector)
            moved = sure and sector in self.worn
            if moved:
                self.worn.discard(sector)
                self.moved[sector] = self.moved.get(sector, 0) + 1
            filled = sector in self.losing
            if filled:
                self.losing.discard(sector)
                self.filled.add(sector)
            if repaired or moved or (sure and filled) or fua:
                self._settle(sector, number)
        else:
            self.vague.add(sector)

    def allows(self, sector: int, number: int | None) -> bool:
        """Say whether a sector may read as this generation."""
        if number is None:
            return False
        return self.durable.get(sector, FIRST) <= number <= self.begun.get(sector, FIRST)

    def judge(self, sectors: Iterable[int], found: Mapping[int, int | None]) -> list[str]:
        """Return what is wrong with what these sectors read as; None is no pattern of theirs."""
        return [
            f"sector {sector} reads as generation {found[sector]}, promised "
            f"{self.durable.get(sector, FIRST)} to {self.begun.get(sector, FIRST)}"
            for sector in sectors
            if not self.allows(sector, found[sector])
        ]

    def check(self, loaded: Loaded, main: Image, spare: Image) -> list[str]:
        """Return what is wrong with a state, one sentence each."""
        problems = [
            f"the mapping of sector {sector} is lost"
            for sector in sorted(self.mapped - loaded.lookup.keys())
        ]
        problems += [
            f"sector {sector} has moved {times} times, and its mapping has generation "
            f"{loaded.lookup[sector].generation}"
            for sector, times in sorted(self.moved.items())
            if sector in loaded.lookup and loaded.lookup[sector].generation < times
        ]
        if self.done:
            problems += [f"slot {slot} is not bad after all" for slot in loaded.shadowed]
        errors, found = set[int](), dict[int, int | None]()
        for sector in self.begun.keys() | loaded.lookup.keys():
            # What loaded.content() returns; this is where the time goes.
            place = loaded.places.get(sector, -1)
            if place is None:
                errors.add(sector)
                continue
            image, at = (spare, place) if place >= 0 else (main, sector * SECTOR)
            number = _NAMES.unpack_from(image, at)[2]
            right = image[at : at + SECTOR] == _pattern(sector, number)
            found[sector] = number if right else None
        problems += [
            *(f"sector {sector} is an error" for sector in sorted(errors - self.losing)),
            *(f"sector {sector} is no error" for sector in sorted(self.lost - errors)),
        ]
        return problems + self.judge(sorted(found), found)
