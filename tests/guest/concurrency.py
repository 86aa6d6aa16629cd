# SPDX-License-Identifier: GPL-2.0-only
"""Everything at once, in a guest: verified and unverified I/O, faults that come and go, suspends.

The arguments are the seconds to work and the seed of all choices. Eight jobs of fio write and
verify, each in a range of its own; others write over each other in a shared range, read it and
discard it. Meanwhile blocks of both disks fail and heal, and twice a second the table is
suspended and resumed, or loaded again. Then the eight write once more, the device is removed and
created, and all is read again. Prints what happened as JSON.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from guest.lib import (
    MIB,
    SECTOR,
    Device,
    background,
    dm_load,
    dm_message,
    dm_resume,
    dm_suspend,
    null_block,
    sectors,
)
from guest.remapset import entries, remap_set, segment_of, status

if TYPE_CHECKING:
    from guest.remapset import RemapSet

JOBS = 8
SIZE = MIB // 2
"""Of each job's own range: small, so that a job often comes round and meets its mappings."""
OWN = JOBS * SIZE // SECTOR
SHARED = range(OWN, OWN + 4 * MIB // SECTOR)
MAIN = 9 * MIB
"""Behind the shared range is room that never fails, where main can be probed."""
SPARE = 64 * MIB
PERIOD, PAUSE = 0.5, 0.1
"""Seconds from a suspend to the next, and at least from a resume to the next suspend."""
COUNTED = ("remapped", "moved", "transient", "read_errors", "write_errors")

# Each of a bio's ways into the target: NOWAIT, polled completions, FUA, several at a time. Without
# force_async a bio that was split and of which a part meets a suspend ends with EAGAIN, which
# dm-linear does, too: two jobs of random 64 KiB writes on linear targets of 32 KiB that are
# suspended twice a second ended so within 13 seconds. (In the shared range it is forgiven.)
ENGINES = (
    "ioengine=libaio\niodepth=4",
    "ioengine=io_uring\niodepth=4\nforce_async=1",
    "ioengine=psync\nsync=dsync",
    "ioengine=libaio\niodepth=8\nfsync=16",
)

FORGIVEN = {"reader": (errno.EIO, errno.ENODATA), "writer1": (errno.EAGAIN,)}
"""Errors after which jobs of the shared range go on."""


def global_options(path: Path, seed: int, *options: str) -> str:
    """Return what fio's jobs have in common."""
    common = (f"filename={path}", "direct=1", "thread=1", f"randseed={seed}")
    sizes = "bssplit=4k/40:8k/20:16k/15:64k/15:128k/10"
    return "\n".join(("[global]", *common, sizes, *options))


def own_jobs(*options: str) -> str:
    """Return the jobs that verify."""
    lines = []
    for number in range(JOBS):
        lines += [f"[own{number}]", f"offset={number * SIZE}", f"size={SIZE}", "rw=randwrite"]
        lines += ["verify=crc32c", "verify_fatal=1", ENGINES[number % len(ENGINES)], *options]
    return "\n".join(lines)


def shared_jobs() -> str:
    """Return the jobs that write over each other; what is read there may have failed."""
    crowded = ("iodepth=16", "zonemode=strided", "zonerange=64k", "zonesize=512k")
    lines = []
    for name, options in {
        # Many at a time in a place that is new to them, so that they meet where nothing is mapped
        # yet; then in the next. (The last of them is the room behind.)
        "writer0": ("rw=randwrite", "ioengine=libaio", *crowded),
        "writer1": ("rw=randwrite", "ioengine=io_uring", *crowded),
        "reader": ("rw=randread", ENGINES[0]),
        "discarder": ("rw=randtrim", "ioengine=psync", "thinktime=50000"),
    }.items():
        lines += [f"[{name}]", f"offset={SHARED.start * SECTOR}", f"size={len(SHARED) * SECTOR}"]
        lines += ["norandommap", *options]
        if name in FORGIVEN:
            errors = ":".join(map(str, FORGIVEN[name]))
            lines += ["continue_on_error=io", f"ignore_error={errors},{errors}"]
    return "\n".join(lines)


class Fio:
    """A run of fio."""

    def __init__(self, home: Path, name: str, jobs: str) -> None:
        """Start it; its files are in a directory."""
        self._answer, self._log = home / f"{name}.json", home / f"{name}.log"
        job = home / f"{name}.fio"
        job.write_text(jobs)
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                # Or whoever makes the faults would hardly get a turn.
                [
                    "nice",
                    "-n",
                    "10",
                    "fio",
                    "--output-format=json",
                    f"--output={self._answer}",
                    job,
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait(self, seconds: float) -> bool:
        """Say whether it has ended within that time."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def result(self) -> dict[str, dict[str, Any]]:
        """Wait for the end; return its jobs by name, none of which has failed."""
        code = self.process.wait(300)
        text = self._answer.read_text()
        complaint = f"fio: exit status {code}\n{self._log.read_text()}"
        start = text.find("{")
        assert start >= 0, complaint + text
        jobs = {job["jobname"]: job for job in json.loads(text[start:])["jobs"]}
        # What was forgiven stands there all the same.
        failed = {
            name: job["error"]
            for name, job in jobs.items()
            if job["error"] and job["error"] not in FORGIVEN.get(name, ())
        }
        assert not code, f"{complaint}{text[:start]}{failed}"
        assert not failed, failed
        return jobs


class Faults:
    """Blocks of both disks that fail and heal, at random."""

    def __init__(self, made: RemapSet, seed: int) -> None:
        """Start."""
        self.made = made
        self.random = Random(f"faults {seed}")
        self.done = Counter[str]()
        self.stop = threading.Event()
        self._slots = segment_of(made).data * 8
        self._bad: list[tuple[int, int]] = []
        self._worn: tuple[int, int] | None = None
        self.future = background(self._work)

    def _work(self) -> None:
        actions = {
            self.refuse: 40,
            self.refuse_for_a_while: 20,
            self.spoil: 10,
            self.wear_out: 10,
            self.hesitate: 5,
            self.heal: 35,
        }
        while not self.stop.wait(self.random.uniform(0.01, 0.04)):
            (action,) = self.random.choices(list(actions), list(actions.values()))
            action()
            self.done[action.__name__] += 1

    def finish(self) -> None:
        """Stop, and raise what it met."""
        self.stop.set()
        self.future.result(60)

    def _place(self, first: int, end: int) -> tuple[int, int]:
        count = self.random.choice((1, 3, 8, 16, 64))
        return self.random.randrange(first, end - count), count

    def refuse(self) -> None:
        """Have main refuse writes until it heals."""
        place = self._place(0, SHARED.stop)
        self.made.main.add(*place, "write", self.random.choice(("medium", "medium", "ioerr")))
        self._bad.append(place)

    def refuse_for_a_while(self) -> None:
        """Have main refuse some writes."""
        self.made.main.add(
            *self._place(0, SHARED.stop), "write", "medium", self.random.randint(1, 4)
        )

    def spoil(self) -> None:
        """Have main lose what nobody relies on."""
        times = self.random.choice((1, 2, "until_written"))
        self.made.main.add(*self._place(SHARED.start, SHARED.stop), "read", "medium", times)

    def wear_out(self) -> None:
        """Have a few slots that are in use refuse writes, and those before them no more."""
        used = self.made.status.mapped
        if self._worn is not None:
            self.made.spare.clear(*self._worn)
        self._worn = self._slots + self.random.randrange(used + 1), 4
        self.made.spare.add(*self._worn, "write", "medium")

    def hesitate(self) -> None:
        """Let failures take some time, or none."""
        self.made.main.delay(self.random.choice((0, 0, 0.003, 0.02)))

    def heal(self) -> None:
        """Have main take writes again somewhere."""
        if self._bad:
            self.made.main.clear(*self._bad.pop(self.random.randrange(len(self._bad))))


class Table:
    """The table, which is suspended, resumed and loaded anew."""

    def __init__(self, made: RemapSet, seed: int) -> None:
        self.made = made
        self.random = Random(f"table {seed}")
        self.done = Counter[str]()
        self.counted = Counter[str]()
        self.seconds = 0.0
        """For how long it was disturbed."""
        self._fleeting: list[int] = []

    def add_up(self) -> None:
        """Add the counters of a load that is about to end."""
        now = self.made.status
        assert (now.mode, now.doubt, now.breaker) == ("rw", 0, "closed"), now
        self.counted.update({key: getattr(now, key) for key in COUNTED})

    def disturb(self, fio: Fio) -> None:
        """Do a step twice a second until fio ends; where a step takes longer, fio has a pause."""
        due = begin = time.monotonic()
        while True:
            due = max(due + PERIOD, time.monotonic() + PAUSE)
            if fio.wait(due - time.monotonic()):
                self.seconds += time.monotonic() - begin
                return
            self.step()

    def step(self) -> None:
        """Suspend and resume, with or without a flush, with the same table or with a new one."""
        flush = self.random.random() < 0.5
        fresh = self.random.random() < 0.25
        if fresh:
            dm_load(self.made.name, self.made.line)
        dm_suspend(self.made.name, flush=flush)
        if fresh:
            self.add_up()
        # No bio is on its way to main now, so none can meet two of these: a read that fails
        # again when it is tried again would be an error.
        for sector in self._fleeting:
            self.made.main.clear(sector)
        each = SIZE // SECTOR
        self._fleeting = [n * each + self.random.randrange(each) for n in range(JOBS)]
        for sector in self._fleeting:
            self.made.main.add(sector, 1, "read", "medium", 1)
        dm_resume(self.made.name)
        self.done["flush" if flush else "noflush"] += 1
        self.done["reload"] += fresh


class Looker:
    """A thread that asks how it is."""

    def __init__(self, made: RemapSet, seed: int) -> None:
        """Start."""
        self.made = made
        self.random = Random(f"looks {seed}")
        self.rounds = 0
        self.files = 0
        self.stop = threading.Event()
        self.future = background(self._work)

    def _work(self) -> None:
        device = self.made.path.stat().st_rdev
        group = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/remap-0")
        while not self.stop.wait(0.1):
            used = status(self.made.name).mapped
            # One page: all of them take longer than a second.
            dm_message(self.made.name, "list", self.random.randrange(used + 1), 50)
            dm_message(self.made.name, "pending", 0, 50)
            for name in ("mode", "mapped", "seq"):
                with suppress(OSError):  # not there while it is suspended
                    (group / name).read_text()
                    self.files += 1
            self.rounds += 1

    def finish(self) -> None:
        """Stop, and raise what it met."""
        self.stop.set()
        self.future.result(60)


def digest(path: Path) -> str:
    """Return a sum of all that a device holds."""
    found = hashlib.sha256()
    step = MIB // SECTOR
    with Device(path, writable=False) as device:
        for sector in range(0, sectors(path), step):
            found.update(device.read(sector, step))
    return found.hexdigest()


def work(home: Path, made: RemapSet, seconds: int, seed: int) -> dict[str, Any]:
    """Do it all; return what was done."""
    table, faults, looker = Table(made, seed), Faults(made, seed), Looker(made, seed)
    for_long = global_options(made.path, seed, "loops=1000000", f"runtime={seconds}")
    fio = Fio(home, "long", "\n".join((for_long, own_jobs("verify_backlog=16"), shared_jobs())))
    table.disturb(fio)
    answer = fio.result()
    once = global_options(made.path, seed + 1)
    last = Fio(home, "last", "\n".join((once, own_jobs("do_verify=0"))))
    table.disturb(last)
    last.result()
    faults.finish()
    looker.finish()
    table.add_up()

    made.heal()
    before, known = digest(made.path), entries(made.name)
    # No unit was mapped twice: one that overtakes another would look like a move, but for this.
    units = [entry for entry in known if entry.state == "mapped"]
    assert len(units) == table.counted["remapped"]
    assert sum(unit.generation for unit in units) == table.counted["moved"]
    made.recreate()
    assert entries(made.name) == known
    assert digest(made.path) == before
    again = Fio(home, "again", "\n".join((once, own_jobs("verify_only=1")))).result()
    table.add_up()
    return {
        "written": {name: job["write"]["io_bytes"] for name, job in answer.items()},
        "read": {name: job["read"]["io_bytes"] for name, job in answer.items()},
        "trimmed": {name: job["trim"]["io_bytes"] for name, job in answer.items()},
        "again": {name: job["read"]["io_bytes"] for name, job in again.items()},
        "table": dict(table.done),
        "suspends_a_second": (table.done["flush"] + table.done["noflush"]) / table.seconds,
        "faults": dict(faults.done),
        "counted": dict(table.counted),
        "mapped": made.status.mapped,
        "bad": made.status.bad,
        "looks": [looker.rounds, looker.files],
    }


def main() -> None:
    """Make a set, work on it, and say what happened."""
    seconds, seed = map(int, sys.argv[1:])
    with ExitStack() as stack:
        main_disk = stack.enter_context(null_block(MAIN, cache=MIB, discard=1))
        spare_disk = stack.enter_context(null_block(SPARE, cache=MIB, discard=1))
        made = stack.enter_context(
            remap_set(
                *("remap_rate", "0"),
                main_disk=main_disk,
                spare_disk=spare_disk,
                main_options=("physical", "4096"),
            )
        )
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        print(json.dumps(work(home, made, seconds, seed)))


if __name__ == "__main__":
    main()
