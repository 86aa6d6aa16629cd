# SPDX-License-Identifier: GPL-2.0-only
"""A disk that fails faster than anybody can look, slower than anybody can wait, or altogether.

Runs inside a guest, as root.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from guest import dmioctl
from guest.lib import (
    MIB,
    SECTOR,
    SLOW_KERNEL,
    AlignedBuffer,
    Device,
    background,
    describe,
    dm_names,
    dm_remove,
    dm_resume,
    dm_suspend,
    errno_name,
    loop_device,
    outcome,
    pattern,
    try_read,
    try_write,
    wait_for,
    write,
)
from guest.remapset import (
    by_hand,
    format_set,
    held,
    new_superblock,
    remap_set,
    segment_of,
    tag_main,
    texts,
)

from dmremap.dm.messages import RemapReply
from dmremap.ondisk import segment_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from guest.remapset import RemapSet

pytestmark = [pytest.mark.guest, pytest.mark.module]

THREADS = 16
DATA = 2048
"""Where the data of a tagged main begins."""


@contextmanager
def stormy_set(
    *, main_size: int = 16 * MIB, spare_size: int = 8 * MIB, name: str = "set"
) -> Iterator[RemapSet]:
    """Have a set with a tagged main and without a rate; both disks have all their memory."""
    with ExitStack() as stack:
        main = stack.enter_context(loop_device(main_size))
        spare = stack.enter_context(loop_device(spare_size))
        for disk, size in ((main, main_size), (spare, spare_size)):
            write(disk, 0, bytes(size))
        superblock = new_superblock(main, spare_size // SECTOR, tagged=True, data_start=DATA)
        format_set(spare, superblock)
        tag_main(main, superblock)
        options = ("main_start", str(DATA), "uuid", str(superblock.uuid), "remap_rate", "0")
        yield stack.enter_context(remap_set(*options, main_disk=main, spare_disk=spare, name=name))


# Thousands of failures a second


class Bystander:
    """A thread that writes, reads and compares where nothing fails, and notes how it goes on."""

    def __init__(self, path: Path, first: int, count: int) -> None:
        self.done = 0
        self.longest = 0.0
        self.stop = threading.Event()
        self._future = background(self._work, path, first, count)

    def _work(self, path: Path, first: int, count: int) -> None:
        data = [pattern(first, count, generation) for generation in range(2)]
        with Device(path) as device:
            while not self.stop.is_set():
                begin = time.monotonic()
                device.write(first, data[self.done % 2])
                assert device.read(first, count) == data[self.done % 2]
                self.longest = max(self.longest, time.monotonic() - begin)
                self.done += 1

    def rate(self, begin: tuple[int, float]) -> float:
        """Return rounds a second since a mark."""
        done, when = begin
        return (self.done - done) / (time.monotonic() - when)

    def mark(self) -> tuple[int, float]:
        """Return what rate() needs; the longest wait is counted from here."""
        self.longest = 0.0
        return self.done, time.monotonic()

    def finish(self) -> None:
        """Stop and raise what it met."""
        self.stop.set()
        self._future.result(60)


def write_all(path: Path, first: int, count: int, size: int) -> None:
    """Write sectors in bios of a size, all of which must be acknowledged."""
    data = pattern(first, count)
    with Device(path) as device, AlignedBuffer(len(data)) as memory, memoryview(memory) as view:
        view[: len(data)] = data
        for at in range(0, len(data), size * SECTOR):
            with view[at : at + size * SECTOR] as part:
                written = os.pwritev(device.fd, [part], first * SECTOR + at)
            assert written == size * SECTOR


def storm(path: Path, first: int, each: int, size: int) -> float:
    """Write with all threads, `each` sectors apiece; return how long it took."""
    begin = time.monotonic()
    writers = [
        background(write_all, path, first + number * each, each, size) for number in range(THREADS)
    ]
    for writer in writers:
        writer.result(120)
    return time.monotonic() - begin


def meminfo() -> dict[str, int]:
    """Return /proc/meminfo in KiB."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return {line.split(":")[0]: int(line.split()[1]) for line in lines}


def test_a_storm_of_failures_is_taken_in_and_hinders_nobody() -> None:
    with stormy_set() as made, ExitStack() as stack:
        bad, elsewhere = 12288, 16384
        made.main.add(DATA, bad, "any", "medium")
        bystander = Bystander(made.path, elsewhere, 8)
        stack.callback(bystander.stop.set)
        wait_for(lambda: bystander.done > 10, "the bystander")
        mark = bystander.mark()
        time.sleep(1)
        before = bystander.rate(mark)
        memory: list[dict[str, int]] = []
        first = 0
        # The last row is like the one before it: nothing may have grown by then.
        for each, size in ((96, 1), (256, 8), (256, 8)):
            made.reset()
            known = made.status
            mark = bystander.mark()
            seconds = storm(made.path, first, each, size)
            during, longest = bystander.rate(mark), bystander.longest
            units = made.status.mapped - known.mapped
            assert units == THREADS * each
            spare = made.spare.counters()
            blocks = (spare["write_sectors"] - units) / 8
            bios = units // size
            memory.append(meminfo())
            print(
                f"{bios} bios of {size}: {units / seconds:.0f} units/s in {seconds:.1f} s, "
                f"{made.main.counters()['failed'] / seconds:.0f} failures/s, {blocks:.0f} metadata "
                f"blocks, {blocks / bios:.2f} a bio, {blocks / units:.2f} a unit; bystander "
                f"{during:.0f}/s after {before:.0f}/s, longest {longest:.3f} s; "
                f"Slab {memory[-1]['Slab']} MemAvailable {memory[-1]['MemAvailable']}"
            )
            # Two for each bio if each had a commit of its own. Small ones queue up while one is
            # being written; those of eight units take longer to be narrowed than to be committed,
            # and a few of them reach into the next block of the table. Narrowing is what a slow
            # kernel needs longest for, whatever the size.
            assert blocks < (1.6 if size == 1 and not SLOW_KERNEL else 2.1) * bios
            # One of 18 threads or more that want two processors, of which the interpreter runs
            # one at a time: a tenth of what it had is fair. A hundredth means that it waits.
            assert during > before / 100
            assert longest < 2
            first += THREADS * each
        mark = bystander.mark()
        time.sleep(1)
        print(f"bystander after the storm {bystander.rate(mark):.0f}/s")
        assert bystander.rate(mark) > before / 3
        bystander.finish()
        assert memory[2]["Slab"] < memory[1]["Slab"] + 1024
        assert memory[2]["MemAvailable"] > memory[1]["MemAvailable"] - 8192

        assert held(made.path, 0, first) == texts(0, first)
        now = made.status
        assert (now.mode, now.doubt, now.bad, now.free) == ("rw", 0, 0, now.slots - first)
        made.recreate()
        assert made.mapped == list(range(first))
        assert held(made.path, 0, first) == texts(0, first)


def test_bios_that_are_ready_when_a_commit_begins_share_it() -> None:
    """Forty bios of eight blocks, which reach into a second block of the table."""
    with stormy_set() as made:
        segment = segment_for(8 * MIB // 4096, SECTOR)
        assert segment is not None
        made.main.add(DATA, 1024, "write", "medium")
        made.reset()
        made.spare.hold("write", segment.copy_a * 8, 8)
        writers = [background(write, made.path, 0, pattern(0))]
        made.spare.wait_held()
        writers += [background(write, made.path, n, pattern(n, 8)) for n in range(8, 328, 8)]
        # Narrowing goes on meanwhile: the data of all of them is on the spare.
        wait_for(lambda: made.spare.counters()["writes"] == 1 + 1 + 320, "data of forty more")
        time.sleep(0.5)  # or the last of it is on its way
        assert not any(writer.done() for writer in writers)
        made.spare.release()
        for writer in writers:
            writer.result(60)
        counters = made.spare.counters()
        # The first one's commit: one block of the table; that of the others: two. Two copies.
        assert counters["writes"] == 321 + 2 * 1 + 2 * 2
        assert counters["write_sectors"] == 321 + (2 * 1 + 2 * 2) * 8
        assert counters["fua"] == counters["writes"]
        assert held(made.path, 8, 320) == texts(8, 320)


# Seven seconds for each failure

SLOW = 7.0
BOUND = 60.0
"""What a bio may take beyond its own command, and a suspend altogether."""


@dataclass
class Crowd:
    """Writers and readers of blocks that fail slowly, each of them with one bio of 64."""

    made: RemapSet
    size: int = 64
    ends: dict[int, str] = field(default_factory=dict)
    waits: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.made.main.add(DATA, 40 * self.size, "any", "medium")
        self.made.main.delay(SLOW)
        self.begin = time.monotonic()
        self.futures = [background(self._work, number) for number in range(40)]

    def _work(self, number: int) -> None:
        # Some come together, some while others are under repair.
        time.sleep(number // 4 * 0.7)
        sector = number * self.size
        with Device(self.made.path) as device:
            begin = time.monotonic()
            if number % 2:
                end = outcome(device.read, sector, self.size)
            else:
                end = outcome(device.write, sector, pattern(sector, self.size))
        self.waits[sector] = time.monotonic() - begin
        self.ends[sector] = end

    def finish(self) -> None:
        """Wait for all of them; check that what was acknowledged is there."""
        for future in self.futures:
            future.result(120)
        self.made.main.delay(0)
        for sector, end in self.ends.items():
            if not sector // self.size % 2 and end == "OK":
                assert held(self.made.path, sector, self.size) == texts(sector, self.size)

    def ended(self, first: int) -> set[str]:
        """Return how the writes (0) or the reads (1) have ended."""
        return {end for sector, end in self.ends.items() if sector // self.size % 2 == first}

    def report(self) -> str:
        """Say how long they waited."""
        count = {end: list(self.ends.values()).count(end) for end in set(self.ends.values())}
        waits = sorted(self.waits.values())
        return (
            f"{self.made.name}: longest {waits[-1]:.1f} s, shortest {waits[0]:.1f} s, {count}, "
            f"{self.made.main.counters()['failed']} commands failed"
        )


def remove(made: RemapSet) -> float:
    """Remove a device and return how long it took."""
    begin = time.monotonic()
    dm_remove(made.name)
    assert made.name not in dm_names()
    return time.monotonic() - begin


def test_a_disk_that_takes_seven_seconds_to_fail_holds_nobody_up_for_long() -> None:
    """Two such disks at once, because it is mostly waiting: one is left alone, one suspended."""
    with stormy_set(name="alone") as alone, stormy_set(name="halted") as halted:
        crowds = Crowd(alone), Crowd(halted)
        time.sleep(12)
        begin = time.monotonic()
        assert not any(future.done() for crowd in crowds for future in crowd.futures)
        dm_suspend(halted.name)
        suspend = time.monotonic() - begin
        print(f"suspend took {suspend:.1f} s")
        assert suspend < BOUND
        halted.main.clear()
        dm_resume(halted.name)
        crowds[1].finish()
        print(crowds[1].report(), f"remove took {remove(halted):.2f} s")
        assert max(crowds[1].waits.values()) < SLOW + BOUND
        assert crowds[1].ended(0) <= {"OK", "ENODATA"}
        assert crowds[1].ended(1) <= {"ENODATA"}

        crowds[0].finish()
        print(crowds[0].report(), f"after {time.monotonic() - crowds[0].begin:.1f} s")
        assert max(crowds[0].waits.values()) < SLOW + BOUND
        assert crowds[0].ended(0) == {"OK"}
        assert crowds[0].ended(1) == {"ENODATA"}
        assert remove(alone) < 5


# Failures that are not slow one by one


def timed(function: Callable[..., str], *args: object) -> tuple[str, float]:
    """Call a function that says how something ended; return that and how long it took."""
    begin = time.monotonic()
    end = function(*args)
    return end, time.monotonic() - begin


QUICK = 0.4
"""Less than what counts as slow."""
SPENT = 4 + 3 * QUICK + (16 if SLOW_KERNEL else 4)
"""Four seconds, commands before, at and after their end, and what a busy machine adds."""


def test_failures_of_less_than_half_a_second_have_four_seconds_in_all() -> None:
    with stormy_set() as made:
        made.main.add(DATA, 1024, "any", "medium")
        made.main.delay(QUICK)
        end, seconds = timed(try_read, made.path, 0, 512)
        failed = made.main.counters()["failed"]
        print(f"read: {end} after {seconds:.1f} s, {failed} commands failed")
        assert (end, seconds < SPENT) == ("ENODATA", True)
        assert 3 < failed < 14
        assert made.pending == list(range(failed - 1))

        made.main.reset()
        end, seconds = timed(try_write, made.path, 512, pattern(512, 512))
        failed = made.main.counters()["failed"]
        print(f"write: {end} after {seconds:.1f} s, {failed} commands failed")
        assert (end, seconds < SPENT) == ("OK", True)
        assert 3 < failed < 14
        assert made.mapped == list(range(512, 1024))
        assert held(made.path, 512, 512) == texts(512, 512)


def test_lost_blocks_whose_slots_refuse_have_four_seconds_in_all() -> None:
    with stormy_set() as made:
        dm_suspend(made.name)
        reply = by_hand(made, 0, 64, lost=True)
        dm_resume(made.name)
        assert reply == RemapReply(64, 64)
        first_slot = segment_of(made).data * 8
        made.spare.add(first_slot, 64, "write", "medium")
        made.spare.delay(QUICK)
        end, seconds = timed(try_write, made.path, 0, pattern(0, 64))
        print(f"{end} after {seconds:.1f} s, {made.spare.counters()['failed']} commands failed")
        assert (end, seconds < SPENT) == ("OK", True)
        assert (made.status.lost, made.status.moved) == (0, 64)
        assert held(made.path, 0, 64) == texts(0, 64)


# Slots that take seven seconds to refuse


def test_slots_that_are_slow_to_refuse_do_not_hold_up_a_queue() -> None:
    with stormy_set() as made:
        writers = 12
        first_slot = segment_of(made).data * 8
        made.main.add(DATA, 64, "write", "medium")
        made.spare.add(first_slot, made.status.slots, "write", "medium")
        made.spare.delay(SLOW)
        begin = time.monotonic()
        ends = [background(try_write, made.path, n, pattern(n)) for n in range(writers)]
        assert [end.result(writers * 5 * SLOW) for end in ends] == ["ENODATA"] * writers
        seconds = time.monotonic() - begin
        now = made.status
        tried = made.spare.counters()["failed"]
        print(f"{writers} writes ended after {seconds:.1f} s, {tried} slots were tried")
        # The first one's slots for 15 seconds, and a slot for whoever came next in 30.
        assert seconds < 30 + 2 * SLOW
        assert (now.mode, now.mapped, now.bad) == ("rw", 0, 0)
        # Who has not waited is served, and who comes after him.
        made.spare.clear()
        for n in range(2):
            assert timed(try_write, made.path, n, pattern(n, 1, 1))[0] == "OK"
        assert held(made.path, 0, 2) == texts(0, 2, 1)


# A suspend that takes, or has lasted, more than its thirty seconds


def test_a_stand_in_is_found_however_long_a_suspend_takes_or_lasts() -> None:
    """Two sets, because it is mostly waiting: one is suspended, one has a suspend that waits."""
    with stormy_set(name="quiet") as quiet, stormy_set(name="waiting") as waiting:
        copy_a, standins = segment_of(quiet).copy_a * 8, 128 * 8
        write(quiet.path, 0, pattern(0, 8))
        for made in (quiet, waiting):
            # The home of a table block and that of a superblock.
            made.spare.add(0, 8, "write", "medium")
            made.spare.add(copy_a, 8, "write", "medium")
        # On a quiet device nobody waits: more than one stand-in may be tried.
        quiet.spare.add(standins, 8, "write", "medium")

        waiting.main.add(DATA, 8, "write", "medium")
        waiting.spare.hold("write", copy_a, 8)
        writer = background(try_write, waiting.path, 0, pattern(0, 8))
        waiting.spare.wait_held()
        suspend = background(dm_suspend, waiting.name)
        dm_suspend(quiet.name)
        try:
            time.sleep(31)
            assert not suspend.done()
            waiting.spare.release()
            assert writer.result(30) == "OK"
            suspend.result(30)
            assert by_hand(quiet, 0, 4) == RemapReply(4, 4)
            assert outcome(dmioctl.message, quiet.name, 0, "rename other") == "OK"
        finally:
            waiting.spare.release()
            suspend.result(30)
            dm_resume(quiet.name)
            dm_resume(waiting.name)
        assert (quiet.status.mode, quiet.status.copies, quiet.status.doubt) == ("rw", 2, 0)
        # The superblock had to give the stand-in its name.
        assert (waiting.status.mode, waiting.status.copies) == ("rw", 2)
        assert quiet.mapped == list(range(4))
        for made in (quiet, waiting):
            assert held(made.path, 0, 8) == texts(0, 8)
            made.recreate()
            assert held(made.path, 0, 8) == texts(0, 8)


# A disk that is gone


def write_or_error(path: Path, first: int, count: int) -> list[str]:
    """Write single sectors until one fails; return how each of them ended."""
    ends = []
    with Device(path) as device:
        for sector in range(first, first + count):
            try:
                device.write(sector, pattern(sector))
            except OSError as error:
                ends.append(errno_name(error.errno or 0))
                break
            ends.append("OK")
    return ends


def test_a_disk_that_dies_in_a_storm_takes_no_slot_any_more() -> None:
    with stormy_set() as made:
        made.main.add(DATA, 8192, "any", "medium")
        writers = [background(write_or_error, made.path, n * 512, 512) for n in range(THREADS)]
        wait_for(lambda: made.status.mapped > 200, "a storm")
        begin = time.monotonic()
        made.main.dead("ioerr")
        ends = [writer.result(30) for writer in writers]
        took = time.monotonic() - begin
        assert all(end[-1] in ("EIO", "ENODATA") for end in ends)
        acknowledged = [n * 512 + k for n, end in enumerate(ends) for k in range(len(end) - 1)]
        print(f"{len(acknowledged)} mapped, all threads have their error after {took:.2f} s")
        assert took < 5
        # What is mapped was acknowledged, and no slot is taken for anything else.
        assert made.mapped == acknowledged
        now = made.status
        assert (now.free, now.mode) == (now.slots - len(acknowledged), "rw")
        made.spare.reset()
        assert try_write(made.path, 9000, pattern(9000)) == "EIO"
        assert made.spare.counters()["writes"] == 0
        made.main.dead()
        made.recreate()
        with Device(made.path) as device:
            assert all(describe(device.read(n)) == texts(n, 1) for n in acknowledged)


def test_one_probe_speaks_for_a_batch() -> None:
    """Sixty-four bios fail together on a disk that is gone, 50 ms each."""
    with stormy_set() as made:
        count = 64
        made.main.hold("any", DATA, 8192)
        bios = [
            background(try_read, made.path, n * 64, 8)
            if n % 2
            else background(try_write, made.path, n * 64, pattern(n * 64, 8))
            for n in range(count)
        ]
        made.main.wait_held(count)
        made.main.dead("ioerr")
        made.main.delay(0.05)
        made.reset()
        begin = time.monotonic()
        made.main.release()
        assert {bio.result(60) for bio in bios} == {"EIO"}
        took = time.monotonic() - begin
        counters = made.main.counters()
        print(f"{count} bios ended after {took:.1f} s, main had {counters}")
        now = made.status
        assert (now.mapped, now.pending, now.free) == (0, 0, now.slots)
        assert made.spare.counters()["writes"] == 0
        # One command for each bio, and one probe of seven places at most; a bio that failed
        # after it may have been asked for again.
        assert counters["reads"] <= count // 2 + 2 * 7
        assert counters["writes"] <= count // 2
        assert took < 15
