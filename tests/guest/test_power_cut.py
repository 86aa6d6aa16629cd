# SPDX-License-Identifier: GPL-2.0-only
"""Power cuts of both legs at once, in the middle of I/O: what was promised is there afterwards.

Both legs have a volatile write cache (see tests/kernel/dm-fault.c), of which a cut loses a random
half, sector by sector, with the commands that are under way. What is durable must therefore have
been flushed, or have been written with FUA, on the right leg and in the right order. tests/powercut
replays a log of writes up to every single point, without losing a part of a cache; this here loses
parts, at random points, and goes on with the same set, cut after cut.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from threading import Lock
from typing import TYPE_CHECKING

import pytest
from guest.lib import (
    CommandError,
    Device,
    background,
    describe,
    dm_names,
    outcome,
    pattern,
    wait_for,
)
from guest.remapset import RemapSet, entries, remap_set, segment_of

if TYPE_CHECKING:
    from concurrent.futures import Future

pytestmark = [pytest.mark.guest, pytest.mark.module]

CUTS = 32
THREADS = 3
PIECE = 8  # sectors
PIECES = 96
GAP = 3  # pieces are that far apart: what lies between them is never bad
NEVER = "zero"


def piece_start(number: int) -> int:
    """Return the first sector of a piece."""
    return number * PIECE * GAP


SECTORS = [piece_start(number) + n for number in range(PIECES) for n in range(PIECE)]


@dataclass
class Promises:
    """What may be in each sector after a cut: a generation 0 is what was never written, zeroes."""

    begun: dict[int, list[int]] = field(default_factory=lambda: {n: [] for n in SECTORS})
    """Generations, since the one that is durable, in the order they were written."""
    durable: dict[int, int] = field(default_factory=lambda: dict.fromkeys(SECTORS, 0))
    needs_slot: set[int] = field(default_factory=set)
    """Sectors whose next write needs a slot: once acknowledged it is durable, and mapped."""
    has_slot: set[int] = field(default_factory=set)
    """Those of them whose write was acknowledged."""
    generation: int = 0
    lock: Lock = field(default_factory=Lock)
    done: Counter[str] = field(default_factory=Counter)

    def begin(self, first: int, count: int) -> int:
        """Note a write before it is sent; return its generation."""
        with self.lock:
            self.generation += 1
            for sector in range(first, first + count):
                self.begun[sector].append(self.generation)
            return self.generation

    def wait(self, count: int) -> None:
        """Wait until so many writes more were sent."""
        last = self.generation + count
        wait_for(lambda: self.generation >= last, f"{count} writes", 120)

    def written(self, first: int, count: int, generation: int, *, fua: bool) -> None:
        """Note that a write was acknowledged."""
        with self.lock:
            self.done["fua" if fua else "write"] += 1
            for sector in range(first, first + count):
                if sector in self.needs_slot:
                    self.needs_slot.discard(sector)
                    self.has_slot.add(sector)
                    self.settle(sector, generation)
                elif fua:
                    self.settle(sector, generation)

    def settle(self, sector: int, generation: int) -> None:
        """Note that nothing older than a generation may be in a sector any more."""
        if generation > self.durable[sector]:
            self.durable[sector] = generation
            begun = self.begun[sector]
            self.begun[sector] = [later for later in begun if later > generation]

    def acknowledged(self, last: dict[int, int]) -> None:
        """Note that a flush was acknowledged, which began after these writes were."""
        with self.lock:
            self.done["flush"] += 1
            for sector, generation in last.items():
                self.settle(sector, generation)

    def wrong(self, sector: int, found: str) -> bool:
        """Say whether a sector must not hold this."""
        allowed = {self.durable[sector], *self.begun[sector]}
        return found not in {f"{sector}/{number}" if number else NEVER for number in allowed}

    def restart(self, sector: int, found: str) -> None:
        """Take what a cut has left for what is durable."""
        self.durable[sector] = 0 if found == NEVER else int(found.split("/")[1])
        self.begun[sector] = []


class Writer:
    """A thread that writes to pieces of its own, until something fails."""

    def __init__(self, made: RemapSet, promises: Promises, own: list[int], seed: int) -> None:
        self.made = made
        self.promises = promises
        self.own = own
        self.random = Random(seed)
        self.acknowledged: dict[int, int] = {}
        self.future: Future[str] = background(self.work)

    def work(self) -> str:
        """Write and flush; return the errno that ended it."""
        with Device(self.made.path) as device:
            while True:
                step = self.flush if self.random.random() < 0.1 else self.write
                end = outcome(step, device)
                if end != "OK":
                    return end

    def write(self, device: Device) -> None:
        """Write a part of a piece."""
        fua = self.random.random() < 0.2
        offset = self.random.choice((0, 0, self.random.randrange(PIECE)))
        count = self.random.randint(1, PIECE - offset) if offset else PIECE
        first = piece_start(self.random.choice(self.own)) + offset
        generation = self.promises.begin(first, count)
        device.write(first, pattern(first, count, generation), fua=fua)
        self.promises.written(first, count, generation, fua=fua)
        self.acknowledged |= dict.fromkeys(range(first, first + count), generation)

    def flush(self, device: Device) -> None:
        """Flush: it promises at least what this thread has been told is written."""
        last, self.acknowledged = self.acknowledged, {}
        device.flush()
        self.promises.acknowledged(last)


@dataclass
class Wear:
    """What of the disks fails, more with each cut; the power's return does not mend it."""

    made: RemapSet
    random: Random
    writes: set[int] = field(default_factory=set)
    """Sectors of main that take no write."""
    reads: set[int] = field(default_factory=set)
    """Those of them that cannot be read either."""
    spare: list[tuple[int, int]] = field(default_factory=list)
    """Ranges of the spare that take no write."""

    def more(self) -> None:
        """Let some sectors of main fail, a slot that is in use, and rarely a copy of a table."""
        for _ in range(self.random.randint(2, 8)):
            count = self.random.choice((1, 2, PIECE))
            piece = piece_start(self.random.randrange(PIECES))
            first = piece + self.random.randrange(PIECE - count + 1)
            self.writes |= set(range(first, first + count))
            if self.random.random() < 0.25:
                self.reads |= set(range(first, first + count))
        segment = segment_of(self.made)
        slots = [entry.slot for entry in entries(self.made.name) if entry.state == "mapped"]
        if slots and self.random.random() < 0.5:
            self.spare.append((segment.data * 8 + self.random.choice(slots), 1))
        if self.random.random() < 0.1:
            self.spare.append((self.random.choice((segment.copy_a, segment.copy_b)) * 8, 8))
        self.apply()

    def apply(self) -> None:
        """Tell the fault devices, in place of what they know."""
        self.made.main.clear()
        self.made.spare.clear()
        for direction, sectors in (("write", self.writes), ("read", self.reads)):
            for first, count in runs(sectors):
                self.made.main.add(first, count, direction, "medium")
        for first, count in self.spare:
            self.made.spare.add(first, count, "write", "medium")


def runs(numbers: set[int]) -> list[tuple[int, int]]:
    """Return the runs of numbers, each as its first and how many."""
    starts = sorted(number for number in numbers if number - 1 not in numbers)
    ends = sorted(number for number in numbers if number + 1 not in numbers)
    return [(first, last - first + 1) for first, last in zip(starts, ends, strict=True)]


def look(device: Device, first: int, count: int) -> list[str]:
    """Read sectors, all at once if they can be; return what is in each, or an errno."""
    found: list[str] = []
    end = outcome(lambda: found.extend(describe(device.read(first, count))))
    if end == "OK":
        return found
    if count == 1:
        return [end]
    part = PIECE if count > PIECE else 1
    return [word for n in range(first, first + count, part) for word in look(device, n, part)]


def check(made: RemapSet, promises: Promises, wear: Wear) -> None:
    """Compare every sector with what was promised, and go on from there."""
    mapped = set(made.mapped)
    wrong = [f"{sector} is not mapped" for sector in promises.has_slot - mapped]
    # Of these main alone has what was promised, and keeps it to itself.
    kept = wear.reads - mapped
    words: dict[int, str] = {}
    with Device(made.path) as device:
        for sector in sorted(kept)[:2]:
            assert look(device, sector, 1) == ["ENODATA"], sector
        for first, count in runs(set(range(piece_start(PIECES))) - kept):
            words |= dict(enumerate(look(device, first, count), first))
    for sector in SECTORS:
        if sector in kept:
            continue
        found = words[sector]
        if promises.wrong(sector, found):
            allowed = (promises.durable[sector], promises.begun[sector])
            wrong.append(f"{sector}: {found} instead of {allowed}")
        else:
            promises.restart(sector, found)
    assert wrong == []


def cut(made: RemapSet, random: Random) -> None:
    """Take the power from both legs."""
    legs = [made.main, made.spare]
    random.shuffle(legs)
    for leg in legs:
        leg.powercut(None if random.random() < 0.2 else random.getrandbits(32))


def restore(made: RemapSet, wear: Wear) -> None:
    """Give the power back."""
    for leg in (made.main, made.spare):
        leg.reload()
    wear.apply()


def outcome_of_create(made: RemapSet) -> str:
    """Create the device; return how that ended."""
    try:
        made.create()
    except CommandError:
        return "failed"
    return "started"


@pytest.mark.parametrize("physical", [512, 4096])
def test_what_was_promised_survives_every_power_cut(physical: int) -> None:
    seed = int(os.environ.get("POWERCUT_SEED") or int.from_bytes(os.urandom(4), "little"))
    print(f"POWERCUT_SEED={seed}")
    random = Random(seed)
    promises, in_load = Promises(), Counter[str]()
    begin = time.monotonic()
    with remap_set(
        "remap_rate",
        "0",
        main_size=2 << 20,
        spare_size=2 << 20,
        main_options=("physical", str(physical), "cache"),
        spare_options=("cache",),
    ) as made:
        wear = Wear(made, random)
        for number in range(CUTS // 2):
            wear.more()
            promises.needs_slot = wear.writes - set(made.mapped)
            writers = [
                Writer(made, promises, list(range(n, PIECES, THREADS)), random.getrandbits(32))
                for n in range(THREADS)
            ]
            # So many writes, and not so much time: what a busy machine does in that differs.
            promises.wait(random.randint(2, 60))
            time.sleep(random.uniform(0, 0.02))
            cut(made, random)
            ends = {writer.future.result(120) for writer in writers}
            assert ends <= {"ENODEV", "EIO", "ENODATA"}, number
            made.remove()
            restore(made, wear)
            if random.random() < 0.3:
                start = background(outcome_of_create, made)
                time.sleep(random.uniform(0, 0.1))
                cut(made, random)
                in_load[start.result(120)] += 1
                if made.name in dm_names():
                    made.remove()
                restore(made, wear)
            made.create()
            now = made.status
            assert (now.mode, now.doubt, now.lost) == ("rw", 0, 0), number
            check(made, promises, wear)
        print(
            f"{CUTS // 2} cuts in {time.monotonic() - begin:.1f} s: {dict(promises.done)}, "
            f"{in_load.total()} more in a load ({in_load['failed']} failed), "
            f"{now.mapped} mapped, {now.bad} slots bad, {now.copies} copies moved"
        )
        assert now.mapped > CUTS // 2
