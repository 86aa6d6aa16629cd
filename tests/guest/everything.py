# SPDX-License-Identifier: GPL-2.0-only
"""One stretch of an hour of everything, in a guest: a set on two of the machine's disks.

fio verifies what it writes in four ranges; threads of our own write, read, discard and flush in a
fifth one, beside an oracle that knows what each unit may hold, also after a power cut. Meanwhile
faults come and go on both legs, and one step after the other is taken: see everything_plan.STEPS.
The disks outlive the machine, so the next stretch may be on another kernel.

The argument is a file of JSON: the choices, which stretch this is, the names of the disks, and what
the stretch before has left. Its answer, with what this one has left, goes into the file that it
names. What a stretch does in which order follows from the seed; how threads meet does not.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter, deque
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any
from uuid import UUID

from guest.concurrency import ENGINES, Fio, global_options
from guest.everything_oracle import LOST, ZERO, Oracle, Wrong, data_of, found_in
from guest.everything_plan import CHUNK, GROWTHS, JOB, JOBS, UNITS, Choice, choose
from guest.everything_weather import NOT_MEDIA, Leg, Rule, Weather
from guest.lib import (
    SECTOR,
    SLOW_KERNEL,
    CommandError,
    Device,
    background,
    dm_create,
    dm_lines,
    dm_load,
    dm_message,
    dm_names,
    dm_remove,
    dm_resume,
    dm_suspend,
    errno_name,
    fault_device,
    load_module,
    run,
    sectors,
)
from guest.remapset import (
    entries,
    format_set,
    new_superblock,
    scrub,
    status,
    table,
    tag_main,
    write_extension,
)

from dmremap.dm.events import EventPoller
from dmremap.dm.messages import parse_remap, remap_message
from dmremap.ondisk import BLOCK_SECTORS, Superblock, extension_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

NAME = "everything"
PATIENCE = 8 if SLOW_KERNEL else 1
WRITERS, READERS = 3, 1
CHUNKS = UNITS // CHUNK
BLKFLSBUF = 0x1261
EIO = 5
EILSEQ = 84
"""What a job of fio ends with that has read something else than it has written."""
MOST_RULES = 40
"""Ranges of main that refuse writes at one time."""
FEW_FREE = 0.15
"""Of the slots: nothing more fails then, until the set has grown."""
FIRST_VALUE = 1
"""What is on an adopted disk."""


class Gate:
    """Lets threads use the device, or keeps them out and waits until nobody does."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._changed = threading.Condition()
        self._inside = 0
        self.ended = False

    def open(self) -> None:
        """Let them in."""
        self._open.set()

    def close(self, timeout: float = 60.0 * PATIENCE) -> None:
        """Keep them out; return when the last one has left."""
        self._open.clear()
        with self._changed:
            if not self._changed.wait_for(lambda: not self._inside, timeout):
                raise Wrong(f"{self._inside} threads wait for I/O for {timeout:g} s")

    def end(self) -> None:
        """Send them home."""
        self.ended = True
        self._open.set()

    @property
    def is_open(self) -> bool:
        """Whether one may go on."""
        return self._open.is_set() and not self.ended

    @contextmanager
    def inside(self) -> Iterator[bool]:
        """Wait to be let in; False when it is over."""
        while True:
            self._open.wait()
            with self._changed:
                if self.ended or self._open.is_set():
                    self._inside += 1
                    break
        try:
            yield not self.ended
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()


def stacks(pid: int) -> list[str]:
    """Return of each thread of a program and its children its number, its state and its stack."""
    said = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it may end meanwhile
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            if str(pid) not in (process.name, fields[1]):
                continue
            for thread in (process / "task").iterdir():
                state = (thread / "stat").read_text().rpartition(")")[2].split()[0]
                said.append(f"{thread.name} {state}\n{(thread / 'stack').read_text()}")
    return said


def in_flight() -> dict[str, str]:
    """Return by disk how many reads and writes it has not answered, as sysfs says it."""
    files = Path("/sys/block").glob("*/inflight")
    return {file.parent.name: file.read_text().strip() for file in files}


def page_write_failed() -> bool:
    """Say whether the page cache could not write a page.

    It tells whoever comes by the device next, which may be a direct write to another place.
    """
    return "lost async page write" in run("dmesg")


class Jobs(Fio):
    """fio, for as long as it is let."""

    def stop(self, *, excused: bool) -> Counter[str]:
        """End it; return what it has read and compared. Errors must be ``excused``."""
        interrupted = self.process.poll() is None
        if interrupted:
            self.process.send_signal(signal.SIGINT)
        counted = Counter[str]()
        try:
            self.process.wait(120 * PATIENCE)
        except subprocess.TimeoutExpired as late:
            threads = stacks(self.process.pid)
            requests = [f"{disk}: {counts}" for disk, counts in in_flight().items()]
            waits = "\n".join([*threads, *requests])
            # fio 3.33 was seen to wait in a futex for itself: then no I/O of its is missing. What
            # is under way is that of our own threads. Who waits for I/O waits elsewhere, and a
            # child that was killed ends only when its I/O has.
            if not interrupted or not all("futex_wait" in one for one in threads):
                raise Wrong(f"fio does not end:\n{waits}") from late
            print(f"fio does not end, and waits for itself:\n{waits}", flush=True)
            self.process.kill()
            self.process.wait(60 * PATIENCE)
            counted["fio that did not end by itself"] += 1
        log = self._log.read_text()
        # It may have been interrupted before it had begun.
        text = self._answer.read_text() if self._answer.exists() else ""
        start = text.find("{")
        if start < 0:
            return counted
        # What it says of signals stands before it, or behind.
        try:
            answer, _ = json.JSONDecoder().raw_decode(text, start)
        except json.JSONDecodeError as error:
            # Seen with its first 4096 bytes only. What it has to say of wrong data is in the log.
            if not interrupted:
                ended = f"fio ended with {self.process.returncode} in the middle of its answer"
                raise Wrong(f"{ended}:\n{log}") from error
            counted["fio answers cut off"] += 1
            answer = {"jobs": []}
        for job in answer["jobs"]:
            number = job["error"]
            counted["fio bytes verified"] += job["read"]["io_bytes"]
            counted["fio bytes written"] += job["write"]["io_bytes"]
            if number:
                counted["fio errors"] += 1
            if number == EIO and page_write_failed():
                continue
            if number == EILSEQ or (number and not excused):
                raise Wrong(f"fio, {job['jobname']}: {errno_name(number)}\n{log}")
        if "verify" in log:
            raise Wrong(f"fio:\n{log}")
        return counted


class Stretch:
    """A set, the threads that use it, and the steps that are taken meanwhile."""

    def __init__(self, given: dict[str, Any], home: Path, stack: ExitStack) -> None:
        self.choice: Choice = choose(given["seed"], given["stretches"])
        self.number: int = given["number"]
        self.home = home
        self.begun = time.monotonic()
        self.random = Random(f"stretch {self.choice.seed} {self.number}")
        self.done = Counter[str]()
        self.script = deque[str](maxlen=400)
        self.journal = deque[tuple[float, str, int, int, int, str]](maxlen=30000)
        """I/O of the oracle's: when it ended, what, first unit, units, value, how it ended."""
        self.before: dict[str, Any] | None = given["before"]

        physical = ("physical", str(self.choice.physical))
        disks = given["disks"]
        self.main = stack.enter_context(
            fault_device(disks["main"], *physical, "cache", name=f"{NAME}-main")
        )
        self.spare = stack.enter_context(
            fault_device(disks["spare"], "cache", name=f"{NAME}-spare")
        )
        self.weather = Weather({"main": self.main, "spare": self.spare})
        self.path = Path("/dev/mapper", NAME)
        self.length = sectors(self.main.path) - self.choice.data_start
        self.first = JOBS * JOB // SECTOR
        """The oracle's first sector of the device."""
        self.each = self.choice.unit_sectors
        self.grown = 0
        self.maybe_mapped: set[int] = set()
        """Units of the oracle that may have a slot."""
        self.known_mapped: set[int] = set()
        """Those that were listed."""
        self.must_be_mapped: set[int] = set()
        """Those that main has refused, and whose write was acknowledged."""
        self.locks = [threading.Lock() for _ in range(CHUNKS)]
        """Who has one is the only one to write to that chunk."""
        self.cached_until = 0.0
        """When the last write through the page cache has ended."""
        self.synced: dict[int, float] = {}
        """When a flush of each descriptor began, that was the last one to end."""
        self.gate = Gate()
        self.excused = False
        """Something has happened that fio may have noticed."""
        self.jobs: Jobs | None = None
        self.runs = 0
        self.futures: list[Future[None]] = []

    # The set

    def _make(self) -> None:
        """Make the set, on blank disks; one that is adopted holds something."""
        seed, first = self.choice.seed, ZERO if self.choice.tagged else FIRST_VALUE
        self.oracle = Oracle(UNITS, seed, first)
        area = self.choice.area(0) * BLOCK_SECTORS
        self.superblock = new_superblock(
            self.main.path,
            area,
            tagged=self.choice.tagged,
            data_start=self.choice.data_start,
            uuid=UUID(int=Random(f"uuid {seed}").getrandbits(128), version=4),
        )
        if self.choice.tagged:
            tag_main(self.main.path, self.superblock)
        format_set(self.spare.path, self.superblock)
        with Device(self.main.path) as main, Device(self.spare.path) as spare:
            if first:
                for unit in range(0, UNITS, CHUNK):
                    main.write(self.main_sector(unit), self.data(range(unit, unit + CHUNK), first))
            main.flush()
            spare.flush()
        self._create()

    def _take_over(self, before: dict[str, Any]) -> None:
        """Start the set that the stretch before has left, and compare everything."""
        self.oracle = Oracle.load(before["oracle"])
        self.superblock = new_superblock(
            self.main.path,
            self.choice.area(0) * BLOCK_SECTORS,
            tagged=self.choice.tagged,
            data_start=self.choice.data_start,
            uuid=UUID(before["uuid"]),
        )
        for _ in range(before["grown"]):
            self._grown()
        for name in ("maybe_mapped", "known_mapped", "must_be_mapped"):
            setattr(self, name, set(before[name]))
        now = time.monotonic()
        for row in before["rules"]:
            row["directions"] = tuple(row["directions"])
            self.weather.rules.append(Rule(**{**row, "begun": now, "holds": now}))
        self.weather.again()
        self._create()
        self.verify(after_cut=before["digests"] is None)
        if before["digests"] is not None:
            self._compare(before["digests"])
            self.done["orderly changes of the kernel"] += 1
        else:
            self.done["changes of the kernel after a cut"] += 1

    @property
    def line(self) -> str:
        """The table."""
        words = ["main_start", self.choice.data_start, "uuid", self.superblock.uuid]
        words += ["errors", self.choice.errors, "remap_rate", 0]
        return (
            f"0 {self.length} remap {self.main.path} {self.spare.path} 0 "
            f"{self.superblock.area_sectors} {len(words)} {' '.join(map(str, words))}"
        )

    def _create(self) -> None:
        dm_create(NAME, self.line)
        self.done["loads"] += 1

    def _remove(self) -> None:
        if NAME in dm_names():
            self._add_up()
            dm_remove(NAME)

    def _add_up(self) -> None:
        """Add the counters of a load that is about to end."""
        if " remap " not in dm_lines(NAME)[0]:
            return
        now = status(NAME)
        for key in ("remapped", "moved", "transient", "read_errors", "write_errors", "seq"):
            self.done[key] += getattr(now, key) or 0

    def _grown(self) -> Superblock:
        """Take the set for one with a segment more; return what it was."""
        before = self.superblock
        area = self.choice.area(self.grown + 1)
        segment = extension_for(before, area)
        assert segment is not None
        self.superblock = replace(before, area_blocks=area, segments=(*before.segments, segment))
        self.grown += 1
        return before

    def main_sector(self, unit: int) -> int:
        """Return where a unit of the oracle's is on main."""
        return self.choice.data_start + self.sector(unit)

    def sector(self, unit: int) -> int:
        """Return where it is on the device."""
        return self.first + unit * self.each

    def slot_sector(self, slot: int) -> int:
        """Return where a slot is on the spare."""
        for segment in self.superblock.segments:
            if slot < segment.slots:
                return segment.data * BLOCK_SECTORS + slot * self.each
            slot -= segment.slots
        raise ValueError(f"no slot {slot}")

    def data(self, units: range, value: int) -> bytes:
        """Return what a write puts there."""
        seed, size = self.choice.seed, self.choice.logical
        return b"".join(data_of(unit, value, seed, size) for unit in units)

    # The threads

    def _work(self, step: Callable[[Device, Random], None], who: str) -> None:
        random = Random(f"{who} {self.choice.seed} {self.number}")
        while not self.gate.ended:
            with self.gate.inside() as go_on:
                if not go_on:
                    return
                with Device(self.path) as device:
                    while self.gate.is_open:
                        step(device, random)

    def _listen(self) -> None:
        """Count the events that device-mapper tells of."""
        with EventPoller() as poller:
            while not self.gate.ended:
                poller.arm()
                self.done["events heard"] += poller.wait(0.3)

    def _note(self, what: str, units: range, value: int, end: str) -> None:
        self.journal.append((time.monotonic(), what, units.start, len(units), value, end))

    def _write_step(self, device: Device, random: Random) -> None:
        if random.random() < 0.1:
            self.flush(device)
            return
        chunk = random.randrange(CHUNKS)
        start = chunk * CHUNK
        offset = random.choice((0, random.randrange(CHUNK)))
        count = min(random.choice((1, 2, 8, 8, CHUNK)), CHUNK - offset)
        units = range(start + offset, start + offset + count)
        (kind,) = random.choices(("write", "fua", "write_zeroes", "discard"), (70, 18, 8, 4))
        with self.locks[chunk]:
            self.write(device, units, kind)

    def _read_step(self, device: Device, random: Random) -> None:
        start = random.randrange(UNITS)
        self.read(device, range(start, min(UNITS, start + random.choice((1, 4, 16, 64)))))

    def write(self, device: Device, units: range, kind: str) -> None:
        """Write, write zeroes to or discard units of a chunk that the caller has locked."""
        plain = kind in ("write", "fua", "cached")
        value = self.oracle.next_value() if plain else ZERO
        first, count = self.sector(units.start), len(units) * self.each
        data = self.data(units, value) if plain else b""
        unmapped = [unit for unit in units if unit not in self.maybe_mapped]
        lost = self.oracle.lost(units)
        self.oracle.begin(units, value)
        begin = time.monotonic()
        end, number = "OK", 0
        try:
            if kind == "discard":
                device.discard(first, count)
            elif kind == "write_zeroes":
                device.write_zeroes(first, count)
            elif kind == "cached":
                self._write_cached(first, data)
            else:
                device.write(first, data, fua=kind == "fua")
        except OSError as error:
            number = error.errno or 0
            end = errno_name(number)
        now = time.monotonic()
        refused = {
            unit
            for unit in unmapped
            if plain and self.weather.refuses_write(self.main_sector(unit), self.each, begin)
        }
        # A piece may be mapped whole, and what comes after a slow failure untried.
        step = self.choice.physical // SECTOR
        low = self.main_sector(units.start) // step * step
        high = -(-self.main_sector(units.stop) // step) * step
        if self.weather.might_refuse_write(low, high - low, begin, now):
            self.maybe_mapped |= set(units)
        flushed = kind in ("fua", "cached")
        if end == "OK":
            # What needs a slot, or ends a slot's being lost, waits for a commit. A discard promises
            # nothing.
            durable = units if flushed else sorted(refused.union(lost))
            self.oracle.end(units, done=kind != "discard", durable=durable)
            self.must_be_mapped |= refused
            self.done[f"{kind} done"] += 1
            self.done["durable by a slot"] += len(refused)
            self.done["lost units filled"] += len(lost) if kind != "discard" else 0
        else:
            self.oracle.end(units, done=False)
            self.done[f"{kind} failed"] += 1
        self._note(kind, units, value, end)
        wide = "write" if plain else kind
        main = self.main_sector(units.start)
        # A write with FUA is a flush, too, and is told what one is told.
        told = kind == "fua" and self._told_of_cached(device, begin, number)
        fails = self.weather.write_may_fail(wide, main, count, begin, now, fua=flushed)
        if number and not told and not fails:
            raise Wrong(f"{kind} of {units} failed without a reason: {end}", units)

    def _write_cached(self, first: int, data: bytes) -> None:
        """Write through the page cache."""
        self.cached_until = math.inf
        fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.pwrite(fd, data, first * SECTOR)
            os.fsync(fd)
        finally:
            os.close(fd)
            self.cached_until = time.monotonic()

    def _told_of_cached(self, device: Device, begin: float, number: int) -> bool:
        """Say whether an error of a flush may be that of a write through the page cache.

        Each descriptor is told once of one that has failed.
        """
        told = number == EIO and self.cached_until > self.synced.get(device.fd, 0.0)
        self.synced[device.fd] = begin
        return told

    def flush(self, device: Device) -> None:
        """Flush."""
        begin, mark = time.monotonic(), self.oracle.flush_begins()
        try:
            device.flush()
        except OSError as error:
            end = errno_name(error.errno or 0)
            self.done["flush failed"] += 1
            self._note("flush", range(UNITS), mark, end)
            cached = self._told_of_cached(device, begin, error.errno or 0)
            if not cached and not self.weather.spell_during("flush", begin, time.monotonic()):
                raise Wrong(f"a flush failed without a reason: {end}") from error
        else:
            self.synced[device.fd] = begin
            self.oracle.flushed(mark)
            self.done["flush done"] += 1
            self._note("flush", range(UNITS), mark, "OK")

    def _excuse(self, units: range, begin: float) -> bool:
        """Whether a read of units had a reason to fail."""
        known = self.known_mapped
        where = [(self.main_sector(unit), self.each) for unit in units if unit not in known]
        slots = any(unit in self.maybe_mapped for unit in units)
        return self.weather.read_may_fail(where, begin, time.monotonic(), slots=slots)

    def read(self, device: Device, units: range) -> bool:
        """Read units, and judge what comes; say whether they could be read."""
        begin = time.monotonic()
        reading = self.oracle.read_begins(units)
        try:
            data = device.read(self.sector(units.start), len(units) * self.each)
        except OSError as error:
            end = errno_name(error.errno or 0)
            lost = self.oracle.read_failed(reading)
            self._note("read", units, 0, end)
            self.done["reads failed"] += 1
            self.done["reads of lost units"] += lost
            if not lost and not self._excuse(units, begin):
                raise Wrong(f"read of {units} failed without a reason: {end}", units) from error
            return False
        self._note("read", units, 0, "OK")
        self.oracle.read_done(reading, data)
        self.done["units judged"] += len(units)
        return True

    # Everything is compared

    def _look(self, device: Device, units: range) -> Iterator[int | str | None]:
        """Yield what is in each unit; None where it cannot be read."""
        begin = time.monotonic()
        try:
            data = device.read(self.sector(units.start), len(units) * self.each)
        except OSError as error:
            if len(units) > 1:
                for unit in units:
                    yield from self._look(device, range(unit, unit + 1))
                return
            possible = self.oracle.units[units.start]
            if LOST not in possible.after_cut and not self._excuse(units, begin):
                raise Wrong(f"{units} cannot be read: {error.strerror}", units) from error
            self.done["reads failed"] += 1
            yield None
        else:
            size = self.choice.logical
            for index, unit in enumerate(units):
                yield found_in(unit, data[index * size : (index + 1) * size], self.oracle.seed)

    def verify(self, *, after_cut: bool) -> None:
        """Compare all units, while nobody writes, and what is mapped."""
        now = status(NAME)
        if (now.mode, now.doubt, now.gone) != ("rw", 0, 0):
            raise Wrong(f"after a load: {now.params}")
        self.look_at_list(quiet=True)
        wrong: list[str] = []
        with Device(self.path) as device:
            for start in range(0, UNITS, CHUNK):
                units = range(start, start + CHUNK)
                if after_cut:
                    wrong += self.oracle.after_cut(units, self._look(device, units))
                elif not self.read(device, units):
                    for unit in units:
                        self.read(device, range(unit, unit + 1))
        if wrong:
            number = int(wrong[0].split()[1].rstrip(":"))
            raise Wrong("after a power cut: " + "; ".join(wrong), range(number, number + 1))
        self.done["units judged after a cut" if after_cut else "units judged"] += UNITS

    def look_at_list(self, *, quiet: bool) -> None:
        """Look which units are mapped; ``quiet``: nobody writes."""
        must, known = set(self.must_be_mapped), set(self.known_mapped)
        missing = must | known
        for _ in range(1 if quiet else 5):
            # One that moves between two pages may be on neither.
            mapped = self._states(quiet=quiet)
            missing -= mapped.keys()
            if not missing:
                break
        for name, units in (("acknowledged", must), ("listed before", known)):
            if found := sorted(units & missing):
                raise Wrong(f"{name}, and not mapped: {found}", range(found[0], found[0] + 1))
        ours = {unit for unit in mapped if unit in range(UNITS)}
        self.known_mapped |= ours
        self.maybe_mapped |= ours
        if quiet:
            for unit, one in enumerate(self.oracle.units):
                lost = mapped.get(unit) == "lost"
                if lost and LOST not in one.after_cut:
                    raise Wrong(f"unit {unit} is lost", range(unit, unit + 1))
                if not lost and one.after_cut == {LOST}:
                    raise Wrong(f"unit {unit} is no longer lost", range(unit, unit + 1))
        self.done["mappings listed"] += len(mapped)

    def _states(self, *, quiet: bool) -> dict[int, str]:
        """Return the states of all mapped units, counted from the oracle's first one."""
        found: dict[int, str] = {}
        for row in entries(NAME, page=self.random.choice((50, 1000))):
            if row.sector is not None and row.state != "bad":
                unit = (row.sector - self.first) // self.each
                if quiet and unit in found and unit in range(UNITS):
                    raise Wrong(f"mapped twice: {row.line}")
                found[unit] = row.state
        return found

    def _digests(self) -> list[str | None]:
        """Return a sum of each part of the device, None where it cannot be read."""
        step, found = 64 * 1024 // SECTOR, list[str | None]()
        with Device(self.path) as device:
            for sector in range(0, self.length, step):
                try:
                    data = device.read(sector, min(step, self.length - sector))
                except OSError:
                    found.append(None)
                else:
                    found.append(hashlib.sha256(data).hexdigest())
        return found

    def _compare(self, before: list[str | None]) -> None:
        now = self._digests()
        step = 64 * 1024 // SECTOR
        for index, (old, new) in enumerate(zip(before, now, strict=True)):
            if None not in (old, new) and old != new:
                raise Wrong(f"another content than before, from sector {index * step} on")
            self.done["parts compared"] += None not in (old, new)

    # From step to step

    def _start_jobs(self) -> None:
        self.runs += 1
        seed = self.random.getrandbits(30)
        options = global_options(self.path, seed, "loops=1000000", "runtime=600")
        lines = []
        for number in range(JOBS):
            lines += [f"[own{number}]", f"offset={number * JOB}", f"size={JOB}", "rw=randwrite"]
            lines += ["verify=crc32c", "verify_fatal=1", "verify_backlog=16", ENGINES[number]]
        self.excused = False
        self.jobs = Jobs(self.home, f"run{self.runs}", "\n".join((options, *lines)))

    def _stop_jobs(self) -> None:
        if self.jobs is not None:
            jobs, self.jobs = self.jobs, None
            self.done += jobs.stop(excused=self.excused)

    def go(self) -> None:
        """Let the threads and fio work."""
        if self.jobs is None:
            self._start_jobs()
        self._wait_for_jobs()
        self.gate.open()

    def _writes(self) -> int:
        """Return how many writes the device has completed."""
        device = self.path.stat().st_rdev
        stat = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat")
        return int(stat.read_text().split()[4])

    def _wait_for_jobs(self) -> None:
        """Wait until fio has begun, or has ended: nobody else writes now."""
        begun, jobs = self._writes(), self.jobs
        assert jobs is not None
        deadline = time.monotonic() + 20 * PATIENCE
        while self._writes() == begun and not jobs.wait(0) and time.monotonic() < deadline:
            time.sleep(0.02)

    def halt(self) -> None:
        """Have nobody use the device."""
        self.gate.close()
        self._stop_jobs()

    def tell(self, text: str) -> None:
        """Add a line to the script of what was done."""
        line = f"{time.monotonic() - self.begun:8.3f} {text}"
        self.script.append(line)
        print(line, flush=True)  # whoever hangs has said how far it came

    def check_threads(self) -> None:
        """Raise what a thread has met."""
        for future in self.futures:
            if future.done():
                future.result()
        if self.jobs is not None and self.jobs.wait(0) and not self.excused:
            self._stop_jobs()
            raise Wrong("fio has ended")

    def run(self) -> dict[str, Any]:
        """Take all steps; return what this stretch leaves."""
        *steps, last = self.choice.stretches[self.number]
        if self.before is None:
            self._make()
        else:
            self._take_over(self.before)
        work = [(self._write_step, f"writer {n}") for n in range(WRITERS)]
        work += [(self._read_step, f"reader {n}") for n in range(READERS)]
        self.futures = [background(self._work, *each) for each in work]
        self.futures.append(background(self._listen))
        self.go()
        for number, step in enumerate(steps):
            for _ in range(self.random.randint(2, 6)):
                self.change_weather()
                time.sleep(self.random.uniform(0, 0.03))
            time.sleep(self.random.uniform(0.05, 0.3))
            self.tell(f"step {number}: {step}")
            begin = time.monotonic()
            getattr(self, f"step_{step}")()
            self.done[f"step {step}"] += 1
            self.done[f"ms {step}"] += round((time.monotonic() - begin) * 1000)
            self.check_threads()
            if self.jobs is not None and self.excused:
                self._stop_jobs()
                self._start_jobs()
        time.sleep(0.2)
        self.tell(last)
        digests = None
        if last == "stop":
            self.halt()
            digests = self._digests()
            self._remove()
        else:
            self._power_off()
            self._remove()
        self.gate.end()
        for future in self.futures:
            future.result(60 * PATIENCE)
        return {
            "oracle": self.oracle.dump(),
            "uuid": str(self.superblock.uuid),
            "grown": self.grown,
            "digests": digests,
            "rules": [asdict(rule) for rule in self.weather.active() if not rule.times],
            "maybe_mapped": sorted(self.maybe_mapped),
            "known_mapped": sorted(self.known_mapped),
            "must_be_mapped": sorted(self.must_be_mapped),
        }

    def let_go(self) -> None:
        """After a failure: let nobody wait for a device, or the process could not end."""
        for leg in (self.main, self.spare):
            with suppress(CommandError):
                leg.dead("offline")
        with suppress(CommandError):
            dm_resume(NAME)

    # What fails

    def change_weather(self) -> None:
        """Let something fail, or fail no more."""
        now = status(NAME)
        kinds = {
            self.main_refuses: 40,
            self.main_is_unreadable: 12,
            self.slots_refuse: 12,
            self.slots_are_unreadable: 3,
            self.main_fails_otherwise: 6,
            self.heal: 25,
        }
        crowded = len(self.weather.active("main")) > MOST_RULES
        if crowded or now.free < now.slots * FEW_FREE:
            self.heal()
            return
        (kind,) = self.random.choices(list(kinds), list(kinds.values()))
        kind()

    def _add(self, rule: Rule) -> None:
        if self.weather.is_free(rule.leg, rule.first, rule.count):
            self.weather.add(rule)
            where = f"{rule.first} {rule.count} {'/'.join(rule.directions)}"
            self.tell(f"{rule.leg}: add {where} {rule.status} {rule.times}")
            self.done["faults"] += 1

    def _place(self, *, of_oracle: bool) -> tuple[int, int]:
        """Return sectors of main that may fail."""
        count = self.random.choice((1, 1, 3, 8, 16)) * self.each
        first, end = self.first, self.first + UNITS * self.each
        if not of_oracle:
            first, end = 0, self.first
        sector = self.random.randrange(first, end - count, self.each)
        return self.choice.data_start + sector, count

    def _media(self) -> str:
        if self.choice.errors == "medium":
            return "medium"
        return self.random.choice(("medium", "medium", "ioerr", "target"))

    def main_refuses(self) -> None:
        """Have main refuse writes, for some time or some times."""
        directions = ("write", "write_zeroes") if self.random.random() < 0.7 else ("write",)
        place = self._place(of_oracle=self.random.random() < 0.6)
        times = self.random.choice((0, 0, 0, 1, 3))
        self._add(Rule("main", *place, directions, self._media(), times))

    def main_is_unreadable(self) -> None:
        """Have main lose something, which only the oracle understands."""
        times = self.random.choice((0, 1, 2, "until_written"))
        status_ = self.random.choice(("medium", "medium", "ioerr"))
        self._add(Rule("main", *self._place(of_oracle=True), ("read",), status_, times))

    def main_fails_otherwise(self) -> None:
        """Have main fail for a reason that is no bad block."""
        directions = self.random.choice((("read",), ("write", "write_zeroes"), ("discard",)))
        status_ = self.random.choice(NOT_MEDIA)
        place = self._place(of_oracle=True)
        self._add(Rule("main", *place, directions, status_, self.random.choice((1, 2, 4))))

    def slots_refuse(self) -> None:
        """Have a few slots that are in use refuse writes."""
        for rule in [r for r in self.weather.active("spare") if r.directions == ("write",)][:-3]:
            self.weather.end(rule)
        used = status(NAME).mapped
        if used:
            first = self.random.randrange(used)
            end = min(used, first + 4)
            start = self.slot_sector(first)
            count = self.slot_sector(end - 1) - start + self.each
            if count == (end - first) * self.each:  # no segment ends between them
                self._add(Rule("spare", start, count, ("write",), "medium"))

    def slots_are_unreadable(self) -> None:
        """Have a slot of the oracle's fail to read, once or twice."""
        ours = range(self.first, self.first + UNITS * self.each)
        slots = [row.slot for row in entries(NAME) if row.sector in ours]
        if slots:
            start = self.slot_sector(self.random.choice(slots))
            times = self.random.choice((1, 2))
            self._add(Rule("spare", start, self.each, ("read",), "medium", times))

    def heal(self) -> None:
        """Have something work again."""
        rules = self.weather.active()
        if rules:
            rule = self.random.choice(rules)
            self.tell(f"{rule.leg}: clear {rule.first} {rule.count}")
            self.weather.end(rule)

    @contextmanager
    def spell(self, why: str, *what: str) -> Iterator[None]:
        """Have a time in which requests may fail, fio's too."""
        self.excused = True
        spell = self.weather.begin_spell(why, *what)
        try:
            yield
        finally:
            self.weather.end_spell(spell)

    def pause(self, least: float = 0.02, most: float = 0.25) -> None:
        """Let the threads meet what is the matter."""
        time.sleep(self.random.uniform(least, most))

    # Steps: the table

    def _suspend(self) -> None:
        flush, lockfs = self.random.random() < 0.5, self.random.random() < 0.5
        self.tell(f"suspend, {flush=} {lockfs=}")
        dm_suspend(NAME, flush=flush, lockfs=lockfs)

    def step_suspend(self) -> None:
        """Suspend and resume."""
        self._suspend()
        self.pause(0, 0.1)
        dm_resume(NAME)

    def step_reload(self) -> None:
        """Replace the table by one like it."""
        dm_load(NAME, self.line)
        self._suspend()
        self._add_up()
        dm_resume(NAME)
        self.done["loads"] += 1

    def step_recreate(self) -> None:
        """Remove the device and make it again."""
        self.halt()
        before = self._digests()
        self._remove()
        self._create()
        self.verify(after_cut=False)
        self._compare(before)
        self.go()

    def _write_extension(self) -> Superblock:
        """Write the empty tables of one segment more; return what the set was."""
        before = self._grown()
        segment = self.superblock.segments[-1]
        write_extension(self.spare.path, before, segment)
        return before

    def step_grow(self) -> None:
        """Let the set have more slots."""
        if self.grown == GROWTHS:
            return
        before = self._write_extension()
        dm_load(NAME, self.line)
        self._suspend()
        self._add_up()
        dm_resume(NAME)
        self.done["loads"] += 1
        self.done["grows"] += 1
        now = status(NAME)
        if now.slots != self.superblock.slots:
            raise Wrong(f"grown from {before.slots} to {now.slots} slots")

    # Steps: messages

    def step_look(self) -> None:
        """Ask for everything that a set tells."""
        now = status(NAME)
        if (now.mode, now.doubt) != ("rw", 0):
            raise Wrong(now.params)
        if table(NAME).uuid != str(self.superblock.uuid):
            raise Wrong(f"another uuid: {table(NAME)}")
        self.look_at_list(quiet=False)
        dm_message(NAME, "pending", 0, 50)
        device = self.path.stat().st_rdev
        group = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/remap-0")
        for name in ("mode", "mapped", "seq"):
            with suppress(OSError):  # it is made after a resume, by a work of its own
                (group / name).read_text()
                self.done["files of sysfs read"] += 1

    def step_scrub(self) -> None:
        """Have all metadata read."""
        for block, result in scrub(NAME, page=self.random.choice((16, 1000))):
            self.done[f"scrubbed, {result}"] += 1
            if result != "written":
                raise Wrong(f"scrub of block {block}: {result}")

    def step_wound(self) -> None:
        """Have a copy of a table block gone, and a scrub that finds it."""
        segment = self.random.choice(self.superblock.segments)
        first = self.random.choice((segment.copy_a, segment.copy_b))
        home = first + self.random.randrange(segment.table_blocks)
        rule = Rule("spare", home * BLOCK_SECTORS, 8, ("read", "write"), "medium")
        if not self.weather.is_free("spare", rule.first, rule.count):
            return
        self._add(rule)
        found = dict(scrub(NAME))
        # A commit may have been faster.
        if home not in found and not status(NAME).copies:
            raise Wrong(f"block {home} is gone, and a scrub says {found}")
        self.done["copies wounded"] += 1

    def _by_hand(self, *, lost: bool) -> None:
        chunk = self.random.randrange(CHUNKS)
        count = self.random.choice((1, 4, 8))
        start = chunk * CHUNK + self.random.randrange(CHUNK - count + 1)
        units = range(start, start + count)
        with self.locks[chunk]:
            self._suspend()
            try:
                self._map_quiet(units, self.sector(start), lost=lost)
            finally:
                dm_resume(NAME)

    def _map_quiet(self, units: range, sector: int, *, lost: bool) -> None:
        """Map units of a device that is suspended: reads that wait are judged by what is noted."""
        before = self._listed(units)
        text = remap_message(sector, len(units) * self.each, lost=lost)
        reply = parse_remap(dm_message(NAME, text))
        after = self._listed(units)
        self.tell(f"remap {units} lost={lost}: {reply}")
        new = [unit for unit in units if unit in after and unit not in before]
        done = units[: reply.done]
        if not set(done) <= set(after) or set(after) - set(before) > set(done):
            raise Wrong(f"{reply}, and mapped are {sorted(after)}", units)
        self.known_mapped |= set(after)
        self.maybe_mapped |= set(after)
        self.must_be_mapped |= set(after)
        if lost:
            if any(after[unit] != "lost" for unit in new):
                raise Wrong(f"not lost: {after}", units)
            self.oracle.begin(new, LOST)
            self.oracle.end(new, done=True, durable=new)
            self.done["units lost"] += len(new)
        else:
            self.oracle.durable(new)
            self.done["units mapped by hand"] += len(new)

    def _listed(self, units: range) -> dict[int, str]:
        """Return the states of units that are mapped, of a device that is suspended."""
        states = self._states(quiet=True)
        return {unit: states[unit] for unit in units if unit in states}

    def step_by_hand(self) -> None:
        """Move units to slots by hand."""
        self._by_hand(lost=False)

    def step_lost(self) -> None:
        """Give up units."""
        self._by_hand(lost=True)

    def step_breaker(self) -> None:
        """Have the set map nothing for a while."""
        with self.spell("the breaker is open", "remap"):
            dm_message(NAME, "breaker", "open")
            self.pause()
            dm_message(NAME, "breaker", "close")

    def step_rename(self) -> None:
        """Write both superblocks."""
        dm_message(NAME, "rename", f"name-{self.random.getrandbits(16)}")

    # Steps: what fails as a whole

    def step_flush_fails(self) -> None:
        """Have flushes of a leg fail, some or all."""
        leg = self.random.choice((self.main, self.spare))
        with self.spell("flushes fail", "flush"):
            leg.add(
                0,
                0,
                "flush",
                self.random.choice(("medium", "ioerr", "transport")),
                self.random.choice((0, 1, 3)),
            )
            self.pause()
            self._forget_flush(leg.name)

    def _forget_flush(self, name: str) -> None:
        """End the failing flushes of a leg: there is no message for that but to forget all."""
        dm_message(name, "clear")
        leg: Leg = "main" if name == self.main.name else "spare"
        for rule in self.weather.active(leg):
            rule.holds = None
            if rule.times:
                rule.ended = time.monotonic()
            else:
                self.weather.send_again(rule)

    def step_dead_main(self) -> None:
        """Have main answer nothing; that maps nothing."""
        before = status(NAME).remapped
        with self.spell("main is dead", "read", "write", "flush", "discard"):
            self.main.dead(self.random.choice(("transport", "timeout", "offline", "ioerr")))
            self.pause()
            burnt = status(NAME).remapped - before
            self.main.dead()
            self.pause(0, 0.05)
        if burnt > 256:
            raise Wrong(f"a dead main has cost {burnt} slots")

    def step_readonly_main(self) -> None:
        """Have main take no write, as a disk that is write-protected."""
        with self.spell("main is read-only", "write", "flush", "discard"):
            self.main.readonly("target")
            self.pause(0.02, 0.1)
            self.main.readonly()
            self.pause(0, 0.05)

    def step_dead_spare(self) -> None:
        """Have the spare answer nothing, and load the set again when it does."""
        with self.spell("the spare is dead", "read", "write", "flush", "discard"):
            self.spare.dead(self.random.choice(("transport", "timeout", "offline", "ioerr")))
            self.pause(0.1, 0.4)
            self.spare.dead()
            self.pause()
            self.halt()
            self.done["sets made read-only"] += status(NAME).mode == "ro"
            self._remove()
            self._create()
        self.verify(after_cut=False)
        self.go()

    def step_slow(self) -> None:
        """Have failures take their time."""
        for leg in self.weather.legs:
            self.weather.delay(leg, self.random.choice((0.05, 0.6)))
        with self.spell("failures are slow", "read", "write", "flush", "discard"):
            self.pause(0.3, 0.8)
            for leg in self.weather.legs:
                self.weather.delay(leg, 0)
            self.pause(0, 0.05)

    # Steps: other requests

    def step_discard(self) -> None:
        """Discard chunks with the program that people use, or zero them."""
        chunk = self.random.randrange(CHUNKS)
        units = range(chunk * CHUNK, (chunk + 1) * CHUNK)
        where = ("--offset", self.sector(units.start) * SECTOR)
        size = ("--length", CHUNK * self.choice.logical)
        begin = time.monotonic()
        with self.locks[chunk]:
            self.oracle.begin(units, ZERO)
            try:
                run("blkdiscard", "--force", *where, *size, self.path)
            except CommandError:
                self.oracle.end(units, done=False)
                self._note("blkdiscard", units, ZERO, "failed")
                main = self.main_sector(units.start), CHUNK * self.each
                if not self.weather.write_may_fail(
                    "discard", *main, begin, time.monotonic(), fua=False
                ):
                    raise
            else:
                self.oracle.end(units, done=False)
                self._note("blkdiscard", units, ZERO, "OK")

    def step_cached(self) -> None:
        """Write through the page cache, and read after what it has of the device was dropped."""
        chunk = self.random.randrange(CHUNKS)
        units = range(chunk * CHUNK, (chunk + 1) * CHUNK)
        with self.locks[chunk], Device(self.path) as device:
            self.write(device, units, "cached")
            fcntl.ioctl(device.fd, BLKFLSBUF, 0)
            self.read(device, units)

    def step_drop_caches(self) -> None:
        """Have the machine drop all that it can read again, our own program included."""
        Path("/proc/sys/vm/drop_caches").write_text("3\n")

    # Steps: power cuts

    def _power_off(self) -> None:
        """Take the power from both legs, and wait until nobody uses the device.

        Often that comes just after something was acknowledged that must not be lost, or while a
        disk takes its time for a part of what leads to that.
        """
        (when,) = self.random.choices(("just after", "just before", "any time"), (3, 4, 3))
        random = Random(self.random.getrandbits(32))
        with Device(self.path) as device:
            if when == "just after":
                self._be_promised(device, random)
                self._begin_power_off()
            elif when == "just before":
                self._hold_something()
                promise = background(self._be_promised, device, random)
                self.pause(0.02, 0.15)
                self._begin_power_off()
                promise.result(120 * PATIENCE)
            else:
                self._begin_power_off()
        self.halt()
        self.done[f"cuts at {when} a promise"] += 1

    def _hold_something(self) -> None:
        """Have a leg take its time for some of what it is told."""
        segment = self.random.choice(self.superblock.segments)
        tables, data = segment.table_blocks, segment.copy_b - segment.data
        first, count = self.random.choice(
            ((segment.copy_a, tables), (segment.copy_b, tables), (segment.data, data))
        )
        place = (first * BLOCK_SECTORS, count * BLOCK_SECTORS)
        self.tell(f"something is held, perhaps writes of the spare to {place}")
        match self.random.randrange(5):
            case 0:
                self.main.hold("write", self.main_sector(0), UNITS * self.each)
            case 1:
                self.random.choice((self.main, self.spare)).hold("flush")
            case _:
                self.spare.hold("write", *place)

    def _be_promised(self, device: Device, random: Random) -> None:
        """Write something that is durable as soon as it is acknowledged."""
        # In turn: few of them are made, and each kind has to be.
        made = sum(number for name, number in self.done.items() if name.startswith("promises by"))
        how = ("slot", "fua", "slot", "flush")[made % 4]
        chunk = random.randrange(CHUNKS)
        units = range(chunk * CHUNK, chunk * CHUNK + random.choice((1, 3, 8)))
        with self.locks[chunk]:
            if how == "slot":
                new = [unit for unit in units if unit not in self.maybe_mapped]
                units = range(new[0], new[0] + 1) if new else units[:1]
                self._add(Rule("main", self.main_sector(units[0]), self.each, ("write",), "medium"))
            self.write(device, units, "fua" if how == "fua" else "write")
        if how == "flush":
            self.flush(device)
        self.done[f"promises by a {how}"] += 1

    def _begin_power_off(self) -> None:
        self.excused = True
        self.power = self.weather.begin_spell("no power", "read", "write", "flush", "discard")
        self._cut_legs()
        self.done["power cuts"] += 1

    def _cut_legs(self) -> None:
        legs = [self.main, self.spare]
        self.random.shuffle(legs)
        for leg in legs:
            seed = None if self.random.random() < 0.2 else self.random.getrandbits(31)
            self.tell(f"{leg.name}: powercut {seed}")
            leg.powercut(seed)

    def _power_on(self) -> None:
        """Take the device away, and give the power back."""
        self._remove()
        for leg in (self.main, self.spare):
            leg.reload()
        self.weather.again()

    def _start_after_cut(self) -> None:
        self._create()
        self._go_on_after_cut()

    def _go_on_after_cut(self) -> None:
        self.weather.end_spell(self.power)
        self._start_jobs()  # it takes its time to begin, and writes elsewhere
        self.verify(after_cut=True)
        self.go()

    def step_cut(self) -> None:
        """Have a power cut in the middle of everything."""
        self._power_off()
        self._power_on()
        self._start_after_cut()

    def step_cut_suspended(self) -> None:
        """Have a power cut while the device is suspended, or just before it is."""
        if self.random.random() < 0.5:
            suspended = background(self._suspend)
            self.pause(0, 0.02)
        else:
            self._suspend()
            suspended = None
        self._begin_power_off()
        if suspended:
            suspended.result(120 * PATIENCE)
        dm_resume(NAME)
        self.halt()
        self._power_on()
        self._start_after_cut()

    def step_cut_in_load(self) -> None:
        """Have another power cut while the set is loaded."""
        self._power_off()
        self._power_on()
        start = background(self._try_to_create)
        self.pause(0, 0.1)
        self._cut_legs()
        self.done["loads cut off, " + start.result(120 * PATIENCE)] += 1
        self._power_on()
        self._start_after_cut()

    def _try_to_create(self) -> str:
        try:
            self._create()
        except CommandError:
            return "failed"
        return "started"

    def step_cut_in_growth(self) -> None:
        """Have a power cut while the set grows: one of the two lines starts it."""
        if self.grown == GROWTHS:
            self.step_cut()
            return
        before = self._write_extension()
        grow = background(self._reload_quietly)
        self.pause(0, 0.1)
        self._begin_power_off()
        grow.result(120 * PATIENCE)
        try:
            dm_resume(NAME)
        except CommandError:
            # It could not start the new table, and the old one is gone: have what waits fail. (Not
            # with an error target: that takes every flush for done.)
            dm_load(NAME, f"0 {self.length} linear {self.main.path} {self.choice.data_start}")
            dm_resume(NAME)
        self.halt()
        self._power_on()
        longer = self.superblock
        if self._try_to_create() == "failed":
            self._remove()
            self.superblock, self.grown = before, self.grown - 1
            self._create()
        self.tell(f"grown: {self.superblock is longer}")
        self.done["growths cut off"] += 1
        self._go_on_after_cut()

    def _reload_quietly(self) -> None:
        with suppress(CommandError):
            dm_load(NAME, self.line)
            dm_suspend(NAME)
            dm_resume(NAME)


def explain(stretch: Stretch, error: BaseException) -> None:
    """Say what was done last, and to the unit that is wrong."""
    traceback.print_exception(error)
    print(
        f"seed {stretch.choice.seed}, stretch {stretch.number}: {stretch.choice}", file=sys.stderr
    )
    print("The last steps:", *list(stretch.script)[-80:], sep="\n", file=sys.stderr)
    units = getattr(error, "units", range(0))
    rows = [row for row in stretch.journal if row[2] < units.stop and units.start < row[2] + row[3]]
    print(f"I/O that has met units {units}:", file=sys.stderr)
    for when, what, first, count, value, end in rows[-100:]:
        at = when - stretch.begun
        print(f"{at:8.3f} {what} {first}+{count} value {value}: {end}", file=sys.stderr)
    for unit in units[:4]:
        print(stretch.oracle.units[unit], file=sys.stderr)
        print(f"main's sector {stretch.main_sector(unit)}", file=sys.stderr)
    with suppress(Exception):
        print(status(NAME), file=sys.stderr)
        rows_ = [row.line for row in entries(NAME) if row.sector is not None]
        where = [stretch.sector(unit) for unit in units[:4]]
        print([line for line in rows_ if int(line.split()[0]) in where], file=sys.stderr)


def main() -> None:
    """Do one stretch."""
    given = json.loads(Path(sys.argv[1]).read_text())
    for module in ("dm_fault", "dm_remap"):
        load_module(module)
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stretch = Stretch(given, home, stack)
        try:
            left = stretch.run()
        except Exception as error:  # noqa: BLE001 - all of them need the same explanation
            explain(stretch, error)
            sys.stderr.flush()
            stretch.let_go()
            os._exit(1)  # threads may wait for each other
    answer = {"left": left, "done": dict(stretch.done)}
    Path(given["answer"]).write_text(json.dumps(answer))


if __name__ == "__main__":
    main()
