# SPDX-License-Identifier: GPL-2.0-only
"""Judges a log of a set of dm-remap at every cut, on the host.

At each cut: the durable state; what a write that was under way may have left of itself; and twice
what else may have survived. Each state is read twice, by reader.py and by the check, which has all
the rules of the kernel's load; they must agree. The generators are seeded with ``seed`` and the
cut.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from dmremap.ondisk import BLOCK, HEAD_BLOCKS, SlotState
from dmremap.ondisk.check import examine
from powercut.log import SECTOR, Entry, Image, Mark, Replay, Write, cut_points
from powercut.oracle import Oracle
from powercut.reader import Copies, ImageDevice, Loaded, Refused, copies, load

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ENOUGH = 1000  # problems, and the judge goes home


class Disagree(Exception):
    """The reader and the check make different things of a state."""


def checked(spare: Image) -> Loaded:
    """Load the set by reader.py if the check accepts it, and finds the same; else raise Refused."""
    found = examine(ImageDevice(spare))
    if found.refusals or not found.accepted:
        raise Refused("; ".join(f"{one.reason} [{one.code}]" for one in found.refusals) or "no set")
    try:
        loaded = load(spare)
    except Refused as refused:
        raise Disagree(f"the check accepts what the reader does not: {refused}") from None
    lost = sum(entry.state is SlotState.LOST for entry in loaded.lookup.values())
    mine = (loaded.superblock.slots, len(loaded.lookup), lost)
    theirs = (found.counts.slots, found.counts.mapped, found.counts.lost)
    if mine != theirs:
        raise Disagree(f"slots, mapped, lost: the reader finds {mine}, the check {theirs}")
    return loaded


@contextmanager
def torn(replay: Replay, index: int, random: Random) -> Iterator[None]:
    """Have a write in the images that was under way when the power went: some sectors of it."""
    entry = replay.log[index]
    assert isinstance(entry, Write)
    image = replay.images[entry.leg]
    end = entry.offset + len(entry.data)
    before = bytes(image[entry.offset : end])
    for start in range(0, len(entry.data), SECTOR):
        if random.random() < 0.5:
            part = entry.data[start : start + SECTOR]
            image[entry.offset + start : entry.offset + start + len(part)] = part
    try:
        yield
    finally:
        image[entry.offset : end] = before


@dataclass
class Judge:
    """Goes through a log, cut by cut."""

    log: Sequence[Entry]
    seed: int
    main: bytes
    """What main holds before the log begins."""
    spare: int
    """The size of the spare, which is blank then, in bytes."""
    oracle: Oracle = field(default_factory=Oracle)
    cuts: int = 0
    states: int = 0
    formatting: list[int] = field(default_factory=list)
    """Cuts at which there is no set yet."""
    between: list[int] = field(default_factory=list)
    """Cuts between copy A and copy B."""
    away: list[int] = field(default_factory=list)
    """Cuts at which a stand-in holds a copy."""
    torn: list[int] = field(default_factory=list)
    """Cuts at which a stand-in is torn."""
    moving: list[int] = field(default_factory=list)
    """Cuts at which a unit has two live entries, the older of which is to be bad."""
    grown: int | None = None
    """The first cut at which the set has a second segment."""
    losing: list[int] = field(default_factory=list)
    """Cuts at which some units are lost."""
    problems: list[str] = field(default_factory=list)
    _known: tuple[Loaded, dict[int, bytes]] | None = None
    """The last set, and its metadata: most states differ from the one before in data only."""
    _copies: tuple[Loaded, Copies] | None = None

    def start(self) -> Replay:
        """Return a replay of the log from its start."""
        main: Image = bytearray(self.main)
        spare: Image = bytearray(self.spare)
        return Replay(self.log, {"main": main, "spare": spare})

    def judge_all(self) -> None:
        """Judge every cut, strictly and with what else may have survived."""
        replay = self.start()
        for cut in cut_points(self.log):
            if len(self.problems) > ENOUGH:
                return
            self.cuts += 1
            random = Random(f"{self.seed} {cut}")
            entry = self.log[cut - 1]
            if isinstance(entry, Write) and len(entry.data) > SECTOR:
                replay.advance(cut - 1)
                self.oracle.follow(replay.promised())
                with torn(replay, cut - 1, random):
                    self.state(replay, f"{cut}, its last write torn")
            replay.advance(cut)
            self.oracle.follow(replay.promised())
            loaded = self.state(replay, f"{cut}")
            if loaded is None:
                self.formatting.append(cut)
            elif self.oracle.ready:
                self._judge_copies(cut, self._look(replay.images["spare"], loaded))
                if loaded.shadowed:
                    self.moving.append(cut)
                if self.grown is None and len(loaded.superblock.segments) > 1:
                    self.grown = cut
                if self.oracle.lost:
                    self.losing.append(cut)
            for tearing in (False, True):
                with replay.survivors(random, torn=tearing):
                    self.state(replay, f"{cut}, with survivors")

    def _load(self, spare: Image) -> Loaded:
        if self._known:
            loaded, metadata = self._known
            if all(spare[at : at + len(data)] == data for at, data in metadata.items()):
                return loaded
        self._known = None
        loaded = checked(spare)
        ranges = [
            (0, HEAD_BLOCKS),
            *(
                (first, segment.table_blocks)
                for segment in loaded.superblock.segments
                for first in (segment.copy_a, segment.copy_b)
            ),
        ]
        self._known = (
            loaded,
            {at * BLOCK: bytes(spare[at * BLOCK : (at + count) * BLOCK]) for at, count in ranges},
        )
        return loaded

    def _look(self, spare: Image, loaded: Loaded) -> Copies:
        if self._copies is None or self._copies[0] is not loaded:
            self._copies = (loaded, copies(spare, loaded.superblock))
        return self._copies[1]

    def _judge_copies(self, cut: int, found: Copies) -> None:
        if found.torn:
            self.torn.append(cut)
        if found.away:
            self.away.append(cut)
        elif found.unequal:
            self.between.append(cut)
        self.problems += [
            f"cut {cut}: sector {sector} was acknowledged with one copy of its mapping"
            for sector in sorted(self.oracle.mapped - found.both.keys())
        ]
        for sector in sorted((self.oracle.moved.keys() | self.oracle.filled) & found.both.keys()):
            moves, filled = self.oracle.moved.get(sector, 0), sector in self.oracle.filled
            if found.both[sector] < (moves, filled):
                self.problems.append(
                    f"cut {cut}: a copy does not know that sector {sector} has moved or is written"
                )

    def state(self, replay: Replay, name: str) -> Loaded | None:
        """Judge the images as they are."""
        self.states += 1
        main, spare = replay.images["main"], replay.images["spare"]
        try:
            loaded = self._load(spare)
        except Refused as refused:
            if self.oracle.ready:
                self.problems.append(f"cut {name}: {refused}")
            return None
        except Disagree as odd:
            self.problems.append(f"cut {name}: {odd}")
            return None
        self.problems += [f"cut {name}: {text}" for text in self.oracle.check(loaded, main, spare)]
        return loaded


def not_forced(log: Sequence[Entry]) -> list[str]:
    """Return the FUA writes that reached a disk without FUA."""
    forced: dict[tuple[int, int], bool] = {}
    for entry in log:
        if isinstance(entry, Write) and entry.data.startswith(b"pattern\0"):
            for start in range(0, len(entry.data), SECTOR):
                sector = int.from_bytes(entry.data[start + 8 : start + 16], "little")
                number = int.from_bytes(entry.data[start + 16 : start + 24], "little")
                forced[sector, number] = forced.get((sector, number), True) and entry.fua
    asked = [entry.text.split() for entry in log if isinstance(entry, Mark)]
    return [
        f"sector {sector}, generation {number}"
        for first, count, number in (
            map(int, words[1:4]) for words in asked if words[0] == "ack" and words[4] == "1"
        )
        for sector in range(first, first + count)
        if not forced.get((sector, number))
    ]
