# SPDX-License-Identifier: GPL-2.0-only
"""Disks of a set that are unplugged in the middle of I/O and come back, in a guest.

The argument is JSON: for each case its name, the serials of main and spare, which of them goes,
and ``how``: ``qmp`` asks the host for it, by a line ``unplug <serial>``, and ``delete`` is Linux's
own way. The disk comes back by a line ``plug <serial>``, or by a scan. Main refuses to write some
sectors of each case's range and to read one behind it, so that errors are on their way. Prints
a line of JSON for each case.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from guest.lib import (
    SLOW_KERNEL,
    Device,
    background,
    describe,
    dm_create,
    dm_names,
    dm_remove,
    dm_resume,
    dm_suspend,
    load_module,
    module_loaded,
    outcome,
    pattern,
    sectors,
    try_write,
    unload_module,
    wait_for,
)
from guest.remapset import mapped, status
from harness.agent import disks

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "unplugged"
RANGE = 1024
"""Sectors that a case writes to; behind them is one that cannot be read, and room."""
STRIDE = RANGE + 1024
THREADS = 4
EACH = RANGE // THREADS
BIO = 4
STEP = 11
"""So far are the sectors apart that main refuses to write."""
FRESH = 10
"""Bad sectors at the end of each range that are first written to when the disk is gone."""


def bad_write(case: int) -> set[int]:
    """Return the sectors of a case that main refuses to write."""
    return set(range(case * STRIDE + 5, case * STRIDE + RANGE + FRESH * STEP, STEP))


def bad_read(case: int) -> int:
    """Return the sector of a case that main cannot read."""
    return case * STRIDE + RANGE + 512


def is_there(serial: str) -> bool:
    """Say whether there is a disk with this serial number."""
    with suppress(OSError):  # one that is on its way
        return serial in disks()
    return False


@dataclass
class Written:
    """What a thread has done: whole rounds, and bios of the one after it."""

    first: int
    rounds: int = 0
    bios: int = 0
    end: str = "OK"

    def expected(self) -> list[set[str]]:
        """Return what may be in each sector."""
        may = []
        for n in range(EACH):
            sector, bio = self.first + n, n // BIO
            old = f"{sector}/{self.rounds}" if self.rounds else "zero"
            new = f"{sector}/{self.rounds + 1}"
            # Of the bio that failed some sectors may have been written.
            may.append({new} if bio < self.bios else {old, new} if bio == self.bios else {old})
        return may

    def acknowledged(self) -> range:
        """Return the sectors that were acknowledged at least once."""
        return range(self.first, self.first + (EACH if self.rounds else self.bios * BIO))


@dataclass
class Case:
    """A set and what happens to it."""

    name: str
    number: int
    main: str
    spare: str
    leg: str
    how: str
    acknowledged: set[int] = field(default_factory=set)
    """Bad sectors that are on the spare, from this case and from those before it."""
    done: list[Written] = field(default_factory=list)
    uuid: str = ""
    stop: threading.Event = field(default_factory=threading.Event)
    times: dict[str, float] = field(default_factory=dict)
    address: str = ""
    """SCSI's, host:channel:target:lun."""

    @property
    def start(self) -> int:
        """The first sector of the case's range."""
        return self.number * STRIDE

    def create(self) -> Path:
        """Make the device, from the second time on of this set alone."""
        found = disks()
        main, spare = found[self.main], found[self.spare]
        line = f"0 {sectors(main)} remap {main} {spare} 0 {sectors(spare)}"
        return dm_create(NAME, f"{line} 2 uuid {self.uuid}" if self.uuid else line)

    def timed(self, what: str, function: Callable[[], object], most: float) -> None:
        """Do something that must be done in so many seconds; note the longest time."""
        begin = time.monotonic()
        function()
        took = round(time.monotonic() - begin, 2)
        self.times[what] = max(took, self.times.get(what, 0))
        assert took < most, (what, took)

    def write(self, path: Path, mine: Written) -> None:
        """Write rounds until something fails."""
        with Device(path) as device:
            while mine.end == "OK":
                sector = mine.first + mine.bios * BIO
                mine.end = outcome(device.write, sector, pattern(sector, BIO, mine.rounds + 1))
                if mine.end != "OK":
                    return
                mine.bios += 1
                if not mine.bios % 4:
                    mine.end = outcome(device.flush)
                if mine.bios == EACH // BIO:
                    mine.rounds, mine.bios = mine.rounds + 1, 0

    def read(self, path: Path) -> int:
        """Read what cannot be read until told to stop; return how often."""
        count = 0
        with Device(path, writable=False) as device:
            while not self.stop.is_set():
                assert outcome(device.read, bad_read(self.number)) in ("EIO", "ENODATA", "ENODEV")
                count += 1
        return count

    def go_away(self) -> None:
        """Have the disk unplugged."""
        serial = getattr(self, self.leg)
        disk = Path("/sys/block", Path(disks()[serial]).name)
        if self.how == "qmp":
            print(f"unplug {serial}", flush=True)
        else:
            self.address = (disk / "device").resolve().name
            (disk / "device/delete").write_text("1\n")
        wait_for(lambda: not disk.exists(), f"{serial} to go", timeout=60)

    def come_back(self) -> None:
        """Have it plugged in again."""
        serial = getattr(self, self.leg)
        if self.how == "qmp":
            print(f"plug {serial}", flush=True)
        else:
            host, *where = self.address.split(":")
            Path(f"/sys/class/scsi_host/host{host}/scan").write_text(" ".join(where) + "\n")
        wait_for(lambda: is_there(serial), f"{serial} to come back", timeout=60)

    def run(self) -> None:
        """Do it all."""
        path = self.create()
        self.uuid = status(NAME).uuid or ""
        self.done = [Written(self.start + n * EACH) for n in range(THREADS)]
        writers = [background(self.write, path, mine) for mine in self.done]
        reader = background(self.read, path)
        wait_for(lambda: status(NAME).remapped >= 20, "errors", timeout=60)
        away = background(self.timed, "away", self.go_away, 60)
        turns, deadline = 0, time.monotonic() + (240 if SLOW_KERNEL else 60)
        while not (away.done() and all(writer.done() for writer in writers)):
            self.timed("halt", partial(dm_suspend, NAME, flush=bool(turns % 2)), 10)
            dm_resume(NAME)
            turns += 1
            assert time.monotonic() < deadline, self.done
        away.result()
        for writer in writers:
            writer.result()
        self.stop.set()
        assert reader.result(60) > 0
        assert all(mine.end in ("EIO", "ENODATA", "ENODEV") for mine in self.done), self.done

        # What is mapped was acknowledged, and the disk that is gone costs no slot.
        bad = bad_write(self.number)
        self.acknowledged |= {n for mine in self.done for n in mine.acknowledged() if n in bad}
        now = status(NAME)
        assert set(mapped(NAME)) == self.acknowledged
        taken = now.slots - now.free - now.bad
        self.refuse(path, bad)
        after = status(NAME)
        assert set(mapped(NAME)) == self.acknowledged
        assert after.slots - after.free - after.bad == taken
        assert (after.bad, after.remapped) == (0, now.remapped)
        # A spare that goes leaves slots half committed, or taken by what has failed since: they
        # are nobody's any more, and free again after the next load.
        assert taken == len(self.acknowledged) or self.leg == "spare"
        assert after.doubt == 0 or self.leg == "spare"

        self.timed("suspend", lambda: dm_suspend(NAME), 10)
        self.timed("resume", lambda: dm_resume(NAME), 10)
        self.timed("remove", lambda: dm_remove(NAME), 10)
        assert NAME not in dm_names()
        unload_module("dm_remap")
        assert not module_loaded("dm_remap")
        load_module("dm_remap")

        self.timed("back", self.come_back, 60)
        path = self.create()
        self.check(path)
        self.acknowledged = set(mapped(NAME))
        dm_remove(NAME)

    def refuse(self, path: Path, bad: set[int]) -> None:
        """Write what would need a slot."""
        for sector in sorted(bad)[-FRESH:]:
            assert try_write(path, sector, pattern(sector)) != "OK"

    def check(self, path: Path) -> None:
        """Read all that was written."""
        now, known = set(mapped(NAME)), status(NAME)
        assert (known.mode, known.bad, known.doubt) == ("rw", 0, 0)
        assert known.slots - known.free == len(now)
        assert now >= self.acknowledged
        # Of what was not acknowledged only that may be mapped which was half written.
        assert len(now - self.acknowledged) <= THREADS
        with Device(path) as device:
            for mine in self.done:
                found = describe(device.read(mine.first, EACH))
                for text, may in zip(found, mine.expected(), strict=True):
                    assert text in may, (self.name, mine, text, may)


def main() -> None:
    """Do all cases."""
    before: dict[str, Case] = {}
    for number, words in enumerate(json.loads(sys.argv[1])):
        case = Case(number=number, **words)
        if case.main in before:
            case.uuid = before[case.main].uuid
            case.acknowledged = before[case.main].acknowledged
        case.run()
        before[case.main] = case
        rounds = [asdict(mine) for mine in case.done]
        mapped_now = len(case.acknowledged)
        print(json.dumps([case.name, mapped_now, case.times, rounds]), flush=True)


if __name__ == "__main__":
    main()
