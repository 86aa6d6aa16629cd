# SPDX-License-Identifier: GPL-2.0-only
"""What each unit of a set may hold, from what was acknowledged: the oracle of everything.py.

Pure: it does no I/O and knows no device. A *value* is what a unit holds: 0 for zeroes, a positive
number for the write that it comes from, LOST for content that was given up. Writes to one unit
follow each other; reads meet them at any time.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LOST = -1
ZERO = 0

UNDER_WAY, DONE, PERHAPS = "under way", "done", "perhaps"
"""What became of a write; the last one: it has failed, or is a discard, so it is there or not."""

_WORDS = struct.Struct("<IIQ")


class Wrong(AssertionError):
    """The set did what it has promised not to do, to one unit or in general."""

    def __init__(self, text: str, units: range = range(0)) -> None:
        super().__init__(text)
        self.units = units


def data_of(unit: int, value: int, seed: int, size: int) -> bytes:
    """Return the bytes of a unit, which name the unit, the write and the run all through."""
    if value == ZERO:
        return bytes(size)
    return _WORDS.pack(unit, value, seed) * (size // _WORDS.size)


def found_in(unit: int, data: bytes, seed: int) -> int | str:
    """Return the value that the bytes of a unit stand for; a text if they are not its own.

    >>> found_in(7, data_of(7, 3, 5, 512), 5), found_in(7, bytes(512), 5)
    (3, 0)
    >>> found_in(8, data_of(7, 3, 5, 512), 5)
    'unit 7, write 3, seed 5'
    """
    number, value, of = _WORDS.unpack_from(data)
    if not any(data):
        return ZERO
    if data != data_of(number, value, of, len(data)):
        return f"bytes of more than one write, the first is {data[:16].hex()}"
    if (number, of) != (unit, seed):
        return f"unit {number}, write {value}, seed {of}"
    return int(value)


@dataclass
class Write:
    """Something that was written to a unit."""

    value: int
    state: str
    ended: int = 0
    """The time of the acknowledgement, or of the failure."""
    settled: bool = False
    """A flush that began after its end has succeeded: if it is there, it is durable."""


@dataclass
class Unit:
    """The writes that matter, in their order; the first one is the oldest that a cut may leave."""

    writes: list[Write]
    changes: int = 0
    """How many writes began, and how many ended."""

    @property
    def now(self) -> set[int]:
        """The values that a read may return."""
        return {write.value for write in self.writes[self._last_done() :]}

    @property
    def after_cut(self) -> set[int]:
        """The values that may be left by a power cut."""
        return {write.value for write in self.writes}

    @property
    def busy(self) -> bool:
        """Whether a write is under way."""
        return self.writes[-1].state == UNDER_WAY

    def _last_done(self, before: int | None = None) -> int:
        for index in range(len(self.writes) - 1, -1, -1):
            write = self.writes[index]
            if write.state == DONE and (before is None or write.ended < before):
                return index
        return 0

    def settle(self, before: int) -> None:
        """A flush has succeeded that began at a time."""
        del self.writes[: self._last_done(before)]
        for write in self.writes:
            write.settled |= write.state != UNDER_WAY and write.ended < before

    def only_last(self) -> None:
        """Whatever a read may return now is durable."""
        del self.writes[: self._last_done()]
        for write in self.writes:
            write.settled = True

    def seen(self, value: int) -> None:
        """A read has returned this, with no write under way."""
        first = self._last_done()
        matching = [n for n in range(first, len(self.writes)) if self.writes[n].value == value]
        if len(matching) != 1:
            return  # zeroes of more than one write: any of them
        (index,) = matching
        del self.writes[index + 1 :]
        self.writes[index].state = DONE
        if self.writes[index].settled:
            del self.writes[:index]

    def cut(self, found: int | None) -> None:
        """The power was cut, and this is there now; None: it cannot be read."""
        if found is not None:
            self.writes = [Write(found, DONE, settled=True)]
        for write in self.writes[1:]:
            write.state, write.settled = PERHAPS, True


@dataclass
class Reading:
    """A read that is under way, and what it may return."""

    units: range
    allowed: list[set[int]]
    changes: list[int]


@dataclass
class Oracle:
    """All units, for threads that read and write at once."""

    count: int
    seed: int
    first: int = ZERO
    """What all units hold at the start."""
    units: list[Unit] = field(init=False)
    time: int = 0
    generation: int = 1
    readings: list[Reading] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        self.units = [Unit([Write(self.first, DONE, settled=True)]) for _ in range(self.count)]

    # Writes

    def next_value(self) -> int:
        """Return a value that no write had."""
        with self.lock:
            self.generation += 1
            return self.generation

    def begin(self, units: Iterable[int], value: int) -> None:
        """Note a write before it is sent."""
        with self.lock:
            for number in units:
                unit = self.units[number]
                if unit.busy:
                    raise RuntimeError(f"two writes to unit {number} at once")
                unit.writes.append(Write(value, UNDER_WAY))
                unit.changes += 1
                for reading in self.readings:
                    if number in reading.units:
                        reading.allowed[number - reading.units.start].add(value)

    def end(self, units: Iterable[int], *, done: bool, durable: Iterable[int] = ()) -> None:
        """Note how a write has ended; of those that are done these are durable at once."""
        with self.lock:
            self.time += 1
            for number in units:
                self.units[number].changes += 1
                write = self.units[number].writes[-1]
                write.state, write.ended = DONE if done else PERHAPS, self.time
            if done:
                for number in durable:
                    self.units[number].only_last()

    def flush_begins(self) -> int:
        """Return the time to hand to flushed()."""
        with self.lock:
            self.time += 1
            return self.time

    def flushed(self, begun: int) -> None:
        """Note a flush that has succeeded."""
        with self.lock:
            for unit in self.units:
                if len(unit.writes) > 1 or not unit.writes[0].settled:
                    unit.settle(begun)

    def lost(self, units: Iterable[int]) -> list[int]:
        """Return the units of these that have no content."""
        with self.lock:
            return [number for number in units if self.units[number].now == {LOST}]

    def durable(self, units: Iterable[int]) -> None:
        """Note that what these hold now is durable."""
        with self.lock:
            for number in units:
                self.units[number].only_last()

    # Reads

    def read_begins(self, units: range) -> Reading:
        """Note a read before it is sent."""
        with self.lock:
            one = Reading(
                units,
                [set(self.units[n].now) for n in units],
                [self.units[n].changes for n in units],
            )
            self.readings.append(one)
            return one

    def read_failed(self, reading: Reading) -> bool:
        """Note a read that has failed; say whether it had to: something of it is lost."""
        with self.lock:
            self.readings.remove(reading)
        return any(LOST in allowed for allowed in reading.allowed)

    def read_done(self, reading: Reading, data: bytes) -> None:
        """Judge what a read has returned."""
        with self.lock:
            self.readings.remove(reading)
            size = len(data) // len(reading.units)
            for index, number in enumerate(reading.units):
                found = found_in(number, data[index * size : (index + 1) * size], self.seed)
                unit = self.units[number]
                if found not in reading.allowed[index]:
                    allowed = sorted(reading.allowed[index])
                    text = f"unit {number}: {found}, and not one of {allowed}"
                    raise Wrong(text, range(number, number + 1))
                if unit.changes == reading.changes[index] and not unit.busy:
                    unit.seen(int(found))

    # Power cuts

    def after_cut(self, units: range, found: Iterable[int | str | None]) -> Iterator[str]:
        """Judge what a power cut has left, of which each wrong unit is yielded, and go on from it.

        ``found`` has None for what cannot be read.
        """
        for number, value in zip(units, found, strict=True):
            unit = self.units[number]
            if value is None:
                unit.cut(LOST if unit.after_cut == {LOST} else None)
            elif value in unit.after_cut:
                unit.cut(int(value))
            else:
                yield f"unit {number}: {value}, and not one of {sorted(unit.after_cut)}"

    # From one kernel to the next

    def dump(self) -> dict[str, Any]:
        """Return all of it for JSON; nothing is under way."""
        rows = [
            [[w.value, int(w.state == DONE), int(w.settled)] for w in unit.writes]
            for unit in self.units
        ]
        return {"seed": self.seed, "generation": self.generation, "units": rows}

    @classmethod
    def load(cls, state: dict[str, Any]) -> Oracle:
        """Return what dump() was called for."""
        made = cls(len(state["units"]), state["seed"])
        made.generation = state["generation"]
        made.units = [
            Unit([Write(v, DONE if done else PERHAPS, 0, bool(s)) for v, done, s in row])
            for row in state["units"]
        ]
        return made
