# SPDX-License-Identifier: GPL-2.0-only
"""What a set may answer, kept in a dictionary: the model that model_machine.py compares it with.

Pure: it does no I/O. A *value* is what a unit holds: 0 for zeroes, a positive number for the
write that it comes from, LOST for content that was given up. Units are counted from the first
one of the mapped device.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Set as AbstractSet

    from dmremap.dm.messages import ListEntry

LOST = -1
ZERO = 0
FIRST = 1
"""What main holds from the start."""

SLOT_TRIES = 16
"""Slots that refuse in a row before a write fails: DMR_SLOT_TRIES."""

_WORD = struct.Struct("<II")


def data_of(unit: int, value: int, size: int) -> bytes:
    """Return the bytes of a unit: each word of them names the unit and the write."""
    return bytes(size) if value == ZERO else _WORD.pack(unit, value) * (size // _WORD.size)


def value_of(unit: int, data: bytes) -> int | None:
    """Return the value that a unit's bytes stand for, None if they are not its own.

    >>> value_of(7, data_of(7, 3, 512)), value_of(7, bytes(512)), value_of(8, data_of(7, 3, 512))
    (3, 0, None)
    """
    number, value = _WORD.unpack_from(data)
    if not any(data):
        return ZERO
    return value if number == unit and data == data_of(unit, value, len(data)) else None


class Wrong(AssertionError):
    """The set did what it has promised not to do."""


@dataclass
class Unit:
    """What a read of one unit may return."""

    now: set[int] = field(default_factory=lambda: {FIRST})
    """Values that it may have. {LOST}: its read must fail."""
    after_cut: set[int] = field(default_factory=lambda: {FIRST})
    """Those that it may have after a power cut."""
    dirty: bool = False
    """Something was written that no flush has covered."""
    filled: bool = False
    """The write that has ended last has ended its being LOST."""

    def wrote(self, value: int, *, durable: bool) -> None:
        """A write has succeeded."""
        self.now = {value}
        self.dirty = not durable
        self.after_cut = {value} if durable else self.after_cut | {value}

    def tried(self, value: int) -> None:
        """A write has failed: it may have been done, or not."""
        self.now = self.now | {value}
        self.after_cut = self.after_cut | {value}
        self.dirty, self.filled = True, False

    def settled(self) -> None:
        """Whatever it holds is durable."""
        self.after_cut = set(self.now)
        self.dirty = False

    def cut(self) -> None:
        """The power was cut: what is there now is all that there is."""
        self.now = set(self.after_cut)
        self.dirty = False

    def seen(self, value: int) -> None:
        """A read has returned this value, or the list says that it is LOST."""
        self.now = {value}
        if not self.dirty:
            self.after_cut = {value}

    def listed(self, *, lost: bool) -> None:
        """The list says whether it is LOST, which is durable at once."""
        if lost:
            self.now, self.after_cut, self.dirty = {LOST}, {LOST}, False
        elif LOST in self.now:
            self.now = self.now - {LOST}
            self.settled()
            self.filled = True


@dataclass
class Model:
    """All units of a set, what fails below it, and what it has mapped."""

    count: int
    piece: int
    """Units of a physical block."""
    first: int
    """Main's number of unit 0."""
    slots: int
    units: list[Unit] = field(init=False)
    refuses: dict[int, bool] = field(default_factory=dict)
    """Units that main refuses to write; True: whenever it is asked, False: perhaps."""
    unreadable: set[int] = field(default_factory=set)
    """Units that main may fail to read."""
    undiscardable: set[int] = field(default_factory=set)
    slot_refuses: dict[int, bool] = field(default_factory=dict)
    """The same of slots."""
    slot_unreadable: set[int] = field(default_factory=set)
    mapped: dict[int, ListEntry] = field(default_factory=dict)
    bad: set[int] = field(default_factory=set)
    """Slots that are listed as bad."""
    noted: set[int] = field(default_factory=set)
    """Units that may be pending."""
    remapped: int = 0
    moved: int = 0
    """Counted since the load."""
    breaker_open: bool = False

    def __post_init__(self) -> None:
        self.units = [Unit() for _ in range(self.count)]

    # Questions

    def free_slots(self) -> list[int]:
        """Return the slots that hold nothing and were not refused."""
        used = {row.slot for row in self.mapped.values()} | self.bad
        return [slot for slot in range(self.slots) if slot not in used]

    def _together(self, unit: int, units: range) -> list[int]:
        """Return the units that fail together with one, in a request for these units.

        Those of its physical block if the request covers it whole and all of it lies in one place:
        a whole block that fails is not tried in parts. Otherwise each unit is tried alone.
        """
        start = (unit + self.first) // self.piece * self.piece - self.first
        block = range(start, start + self.piece)
        covered = all(other in units for other in block)
        one_place = len({other in self.mapped for other in block}) == 1
        return list(block) if covered and one_place else [unit]

    def may_map(self, units: range) -> set[int]:
        """Return the units that a write to these may map."""
        return {
            unit
            for unit in units
            if unit not in self.mapped
            and any(other in self.refuses for other in self._together(unit, units))
        }

    def may_move(self, units: range) -> set[int]:
        """Return the units that a write to these may move."""
        return {
            unit
            for unit in units
            if unit in self.mapped
            and any(
                self.mapped[other].slot in self.slot_refuses
                for other in self._together(unit, units)
            )
        }

    def must_change(self, units: range) -> set[int]:
        """Return the units whose place must be another one if a write to these succeeds."""
        return {
            unit
            for unit in units
            if (
                self.slot_refuses.get(self.mapped[unit].slot)
                if unit in self.mapped
                else self.refuses.get(unit)
            )
        }

    def write_may_fail(self, units: range) -> bool:
        """Whether there is a reason for which a write to these may fail."""
        if not self.may_map(units) | self.may_move(units):
            return False
        free = self.free_slots()
        failing = sum(slot in self.slot_refuses for slot in free)
        # One that refuses takes its whole aligned run with it.
        room = len(free) - self.piece * failing
        return self.breaker_open or room < len(units) or failing >= SLOT_TRIES

    def read_may_fail(self, units: Iterable[int]) -> bool:
        """Whether there is a reason for which a read of these may fail."""
        return any(
            LOST in self.units[unit].now
            or (
                self.mapped[unit].slot in self.slot_unreadable
                if unit in self.mapped
                else unit in self.unreadable
            )
            for unit in units
        )

    # What has happened

    def read_failed(self, units: range) -> None:
        """A read has failed, so that some may be noted: a whole physical block, or by units."""
        self.noted |= {
            unit
            for unit in units
            if any(other in self.unreadable for other in self._together(unit, units))
        }

    def known(self, units: range) -> None:
        """A read or a write of these has succeeded."""
        self.noted -= set(units)

    def flushed(self) -> None:
        """A flush has succeeded."""
        for unit in self.units:
            unit.settled()

    def cut(self) -> None:
        """The power was cut."""
        for unit in self.units:
            unit.cut()

    def loaded(self) -> None:
        """The set was loaded anew: what is only in memory is gone."""
        self.noted.clear()
        self.bad.clear()  # a slot that refused may be free again if nothing said so on disk
        self.remapped = self.moved = 0
        self.breaker_open = False

    def look(
        self, rows: list[ListEntry], sectors: int, may: AbstractSet[int], *, counted: bool
    ) -> set[int]:
        """Take in the list; return the units that have another place than before.

        ``may``: those that may have. ``sectors``: of a unit. ``counted``: it happened in this load.
        """
        now = self._by_unit(rows, sectors)
        if len({row.slot for row in rows}) != len(rows):
            raise Wrong("a slot is listed twice")
        changed = {
            unit
            for unit in self.mapped.keys() | now.keys()
            if self._has_changed(unit, self.mapped.get(unit), now.get(unit), may)
        }
        if counted:
            self.remapped += len(changed - self.mapped.keys())
            self.moved += len(changed & self.mapped.keys())
        self.mapped = now
        bad = {row.slot for row in rows if row.state == "bad"}
        if not self.bad <= bad:
            raise Wrong(f"bad slots are no longer bad: {sorted(self.bad - bad)}")
        self.bad = bad
        for number, state in enumerate(self.units):
            lost = number in now and now[number].state == "lost"
            if lost and LOST not in state.now:
                raise Wrong(f"unit {number} is lost, and was not given up")
            if not lost and state.now == {LOST}:
                raise Wrong(f"unit {number} is no longer lost, and was not written")
            state.listed(lost=lost)
        return changed

    def _by_unit(self, rows: list[ListEntry], sectors: int) -> dict[int, ListEntry]:
        now: dict[int, ListEntry] = {}
        for row in rows:
            if row.state == "bad":
                continue
            unit = -1 if row.sector is None else row.sector // sectors
            if row.state == "doubt" or unit not in range(self.count):
                raise Wrong(f"no mapping of a unit of this device: {row.line}")
            if unit in now:
                raise Wrong(f"unit {unit} is mapped twice: {now[unit].line} and {row.line}")
            now[unit] = row
        return now

    @staticmethod
    def _has_changed(
        unit: int, before: ListEntry | None, after: ListEntry | None, may: AbstractSet[int]
    ) -> bool:
        if after is None:
            raise Wrong(f"unit {unit} was mapped and is no more")
        if before is not None and before.slot == after.slot:
            if before.generation != after.generation:
                raise Wrong(f"unit {unit} has another generation in the same slot")
            return False
        if unit not in may:
            raise Wrong(f"unit {unit} had no reason to be mapped or moved: {after.line}")
        if after.generation < (0 if before is None else before.generation + 1):
            raise Wrong(f"unit {unit} has moved to an older generation: {after.line}")
        return True
