# SPDX-License-Identifier: GPL-2.0-only
"""Each allocation and each request of construction, of use and of destruction fails in turn.

Arguments: a seed, and `all` for every failure of them. What fails is counted with fail-nth, a
single one or all from it on: loads, resumes, messages, suspends, status, removals, insmod and
rmmod. Each ends well or with a clean errno, leaves what was before, and can be repeated. Then
allocations of the works fail at random while errors are repaired: no I/O fails for it. At the end
kmemleak has found nothing. Runs inside a guest with the debug kernel.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from guest import dmioctl, injected
from guest.lib import (
    SECTOR,
    Device,
    Fault,
    background,
    describe,
    dm_create,
    dm_device,
    dm_names,
    dm_remove,
    dm_resume,
    fault_device,
    load_module,
    loop_device,
    module_file,
    module_loaded,
    pattern,
    read,
    unload_module,
    wait_for,
    write,
)
from guest.remapset import SMALLEST_AREA, entries, status, texts

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

NAME = "failing"
KEPT = "kept"
MAIN = 4096
MAPPED = [7, 8]
CLEAN = ("ENOMEM", "EIO", "EBUSY", "EINVAL", "ENODATA", "EINTR", "EAGAIN", "ENFILE")
"""A load that gets no memory for a check refuses with that check's errno."""
ALLOCATIONS = ("failslab", "fail_page_alloc")


@dataclass(frozen=True)
class Operation:
    """What is tried: made ready, done, looked at, and brought back to what was before."""

    name: str
    ready: Callable[[], object]
    do: Callable[[], object]
    unchanged: Callable[[], object]
    """After a failure."""
    undo: Callable[[], object]
    """After success."""
    first: int = 12
    last: int = 12
    between: int = 8
    fails: bool = True
    """It can fail."""


def nothing() -> None:
    """Is enough where there is nothing to do."""


def references() -> int:
    """Return how many users the module has, but for the device that is kept."""
    return int(Path("/sys/module/dm_remap/refcnt").read_text()) - (KEPT in dm_names())


@contextmanager
def kept_device() -> Iterator[None]:
    """Have a set that nothing happens to, whose bios come from the same slab.

    A slab that cannot be shown in sysfs leaks its name, in Linux's sysfs_slab_add(), and a table
    makes one where no other has the same.
    """
    with (
        loop_device(MAIN * SECTOR) as main,
        loop_device(SMALLEST_AREA * SECTOR) as spare,
        dm_device(KEPT, f"0 {MAIN} remap {main} {spare} 0 {SMALLEST_AREA}"),
    ):
        yield


class Sweep:
    """Fails operations at one place after the other."""

    def __init__(self, seed: int, *, everything: bool) -> None:
        self.chosen = Random(seed)
        self.everything = everything

    def run(self, operation: Operation) -> None:
        """Fail it where it was chosen to, once and from there on."""
        begin = time.monotonic()
        operation.ready()
        points = injected.needed(operation.do)
        operation.undo()
        tries = refused = 0
        for on in (False, True):
            for number in self._numbers(operation, points, few=on):
                tries += 1
                refused += self._once(operation, number, on=on)
        seconds = time.monotonic() - begin
        print(f"{operation.name}: {points}, tried {tries}, refused {refused}, {seconds:.1f} s")
        sys.stdout.flush()
        if self.everything or not operation.fails:
            assert bool(refused) == operation.fails, operation.name

    def _numbers(self, operation: Operation, points: int, *, few: bool) -> list[int]:
        if self.everything:
            return list(range(1, points + 8))
        middle = range(operation.first + 1, points - operation.last)
        numbers = {
            *range(1, operation.first + 1),
            *range(points - operation.last, points + 1),
            *self.chosen.sample(middle, min(operation.between, len(middle))),
        }
        ordered = sorted(number for number in numbers if number > 0)
        return ordered[:: 3 if few else 1]

    def _once(self, operation: Operation, number: int, *, on: bool) -> bool:
        operation.ready()
        result = injected.inject(number, operation.do, on=on)
        if result.error != "OK":
            where = f"{operation.name}, failure {number}{' and on' * on}: {result.error}"
            assert result.reached, where
            assert result.error in CLEAN, where
            try:
                operation.unchanged()
                operation.do()
            except Exception:
                print(where, flush=True)
                raise
        operation.undo()
        return result.error != "OK"


class Bench:
    """A set of the smallest size, on disks whose requests can be made to fail."""

    def __init__(self, stack: ExitStack) -> None:
        self.main_disk = stack.enter_context(loop_device(MAIN * SECTOR))
        self.spare_disk = stack.enter_context(loop_device(SMALLEST_AREA * SECTOR))
        self.main: Fault = stack.enter_context(fault_device(self.main_disk, name="main"))
        self.spare: Fault = stack.enter_context(fault_device(self.spare_disk, name="spare"))
        for disk in (self.main_disk, self.spare_disk):
            Path("/sys/block", disk.name, "make-it-fail").write_text("1\n")
        self.line = f"0 {MAIN} remap {self.main.path} {self.spare.path} 0 {SMALLEST_AREA}"
        self.path = Path("/dev/mapper", NAME)
        self.mapped: list[int] = []

    def make_set(self) -> None:
        """Have a set with two mapped blocks on the disks."""
        dm_create(NAME, self.line)
        write(self.path, 0, pattern(0, 16))
        self.main.add(MAPPED[0], len(MAPPED), "write", "medium")
        write(self.path, MAPPED[0], pattern(MAPPED[0], len(MAPPED), 1))
        self.main.clear()
        self.mapped = MAPPED
        dm_remove(NAME)

    def wipe(self) -> None:
        """Have a blank spare."""
        with Device(self.spare_disk) as device:
            device.discard(0, SMALLEST_AREA)

    def check(self, modes: Collection[str] = ("rw",)) -> None:
        """The running set says that it is well, and holds what was written."""
        told = status(NAME)
        assert told.mode in modes, told
        assert sorted(entry.sector or 0 for entry in entries(NAME)) == self.mapped
        assert describe(read(self.path, 0, 16)) == texts(0, 16, g1=self.mapped)

    # Steps

    def bare(self) -> None:
        """A device without a table."""
        dmioctl.create(NAME)

    def load(self) -> None:
        """Load the table."""
        dmioctl.load(NAME, self.line)

    def loaded(self) -> None:
        """A device with a table that was never resumed."""
        self.bare()
        self.load()

    def running(self) -> None:
        """A device at work."""
        self.loaded()
        dm_resume(NAME)

    def suspended(self) -> None:
        """A device that is suspended."""
        self.running()
        dmioctl.suspend(NAME)

    def drop(self) -> None:
        """No device."""
        dm_remove(NAME)
        assert references() == 0

    def no_table(self) -> None:
        """The failed load has left nothing."""
        assert dmioctl.lines(NAME, table=True, inactive=True) == []
        assert references() == 0

    def started(self) -> None:
        """The resume was successful; take it apart."""
        dm_resume(NAME)  # its node
        self.check(("rw", "ro"))
        served = status(NAME).mode == "rw"
        self.drop()
        # Without memory a disk refuses superblocks, and no epoch begins. The next start has it.
        if not served:
            self.running()
            self.check()
            self.drop()


def of_a_blank_spare(bench: Bench) -> list[Operation]:
    """Load and resume where the kernel formats."""

    def formatted() -> None:
        bench.started()
        bench.wipe()

    return [
        Operation("load, blank", bench.bare, bench.load, bench.no_table, bench.drop, 4, 4, 4),
        Operation(
            *("resume, blank", bench.loaded, lambda: dmioctl.resume(NAME), nothing, formatted),
            *(10, 30, 4),
        ),
    ]


def of_a_set(bench: Bench) -> list[Operation]:
    """Load and resume of a set that exists."""
    return [
        Operation("load", bench.bare, bench.load, bench.no_table, bench.drop, 16, 40, 8),
        Operation(
            *("resume", bench.loaded, lambda: dmioctl.resume(NAME), nothing, bench.started),
            *(10, 24, 8),
        ),
    ]


def of_a_running_device(bench: Bench) -> list[Operation]:
    """All that is done with a device that stays."""

    def said(text: str) -> Callable[[], object]:
        return lambda: dmioctl.message(NAME, 0, text)

    def resume() -> None:
        dmioctl.resume(NAME)
        bench.check()

    def suspend() -> None:
        dmioctl.suspend(NAME)

    def noflush() -> None:
        dmioctl.suspend(NAME, flush=False)

    def look() -> None:
        dmioctl.lines(NAME)
        dmioctl.lines(NAME, table=True)

    messages = ("list 0 10", "pending 0 10", "breaker close", "rename other", "scrub 0 10")
    return [
        *(
            Operation(f"message {text}", nothing, said(text), bench.check, nothing, 2, 2, 4)
            for text in messages
        ),
        Operation("status", nothing, look, bench.check, nothing, 2, 2, 4),
        Operation("suspend", nothing, suspend, bench.check, resume, 2, 2, 6),
        Operation("suspend, noflush", nothing, noflush, bench.check, resume, 2, 2, 6),
        Operation("resume again", suspend, lambda: dmioctl.resume(NAME), nothing, bench.check),
        Operation("message remap", suspend, said("remap 7 2"), nothing, resume, 4, 4, 4),
    ]


def of_its_end(bench: Bench) -> list[Operation]:
    """Remove, of a device that runs and of one that is suspended."""

    def gone() -> None:
        bench.path.unlink(missing_ok=True)
        assert sorted(dm_names()) == [KEPT, "main", "spare"]
        assert references() == 0

    def remove() -> None:
        dmioctl.remove(NAME)

    return [
        Operation("remove", bench.running, remove, bench.check, gone, 2, 8, 8),
        Operation("remove, suspended", bench.suspended, remove, nothing, gone, 2, 6, 4),
    ]


def of_the_module() -> list[Operation]:
    """Insmod and rmmod, by their system calls."""
    libc = ctypes.CDLL(None, use_errno=True)
    file = module_file("dm_remap")
    assert file
    finit_module, delete_module = 313, 176
    fd = os.open(file, os.O_RDONLY)

    def call(number: int, *arguments: object) -> None:
        if libc.syscall(number, *arguments):
            raise OSError(ctypes.get_errno(), "module")

    def load() -> None:
        call(finit_module, fd, b"", 0)

    def unload() -> None:
        call(delete_module, b"dm_remap", os.O_NONBLOCK)

    def is_loaded() -> None:
        assert module_loaded("dm_remap")

    def is_not() -> None:
        assert not module_loaded("dm_remap")

    return [
        Operation("insmod", nothing, load, is_not, unload, 4, 16, 8),
        # What is freed needs no memory that it could not do without.
        Operation("rmmod", load, unload, is_loaded, is_not, 2, 2, 4, fails=False),
    ]


# The works


def works(bench: Bench, seconds: float) -> None:
    """Errors are repaired while what the works allocate fails."""
    bench.line += " 2 remap_rate 0"
    for probability in (10, 50, 100):
        bench.wipe()
        bench.mapped = []
        bench.running()
        write(bench.path, 0, pattern(0, 64))
        bench.main.clear()
        bench.main.add(0, 4, "write", "medium")
        with injected.below("dm_remap", ALLOCATIONS, probability):
            rounds = background(repair, bench, seconds).result(120)
        wait_for(lambda: status(NAME).seq > 0, "an event, when there is memory again")
        told = status(NAME)
        assert (told.mode, told.mapped, told.breaker) == ("rw", 4, "closed"), told
        assert describe(read(bench.path, 0, 64)) == texts(0, 64, rounds)
        print(f"works, {probability} %: {rounds} rounds", flush=True)
        bench.main.clear()
        bench.drop()


def repair(bench: Bench, seconds: float) -> int:
    """Write where main refuses and read where it fails once; no I/O fails. Return the rounds."""
    end, number = time.monotonic() + seconds, 0
    while time.monotonic() < end or number < 3:
        number += 1
        with Device(bench.path) as device:
            for first in range(0, 64, 16):
                device.write(first, pattern(first, 16, number))
            bench.main.add(20, 1, "read", "medium", 1)
            assert describe(device.read(0, 64)) == texts(0, 64, number)
    return number


def main() -> None:
    """Do it all."""
    everything = sys.argv[2:] == ["all"]
    injected.set_up()
    load_module("dm_remap")
    load_module("dm_fault")
    sweep = Sweep(int(sys.argv[1]), everything=everything)
    with kept_device(), ExitStack() as stack:
        bench = Bench(stack)
        write(bench.main_disk, 0, pattern(0, 16))
        for operation in of_a_blank_spare(bench):
            sweep.run(operation)
        bench.make_set()
        for operation in of_a_set(bench):
            sweep.run(operation)
        bench.running()
        for operation in of_a_running_device(bench):
            sweep.run(operation)
        bench.drop()
        for operation in of_its_end(bench):
            sweep.run(operation)
        works(bench, 60 if everything else 2)
    unload_module("dm_remap")
    for operation in of_the_module():
        sweep.run(operation)
    begin = time.monotonic()
    found = injected.leaks()
    print(f"kmemleak: {len(found)}, {time.monotonic() - begin:.1f} s", flush=True)
    assert not found, found[0]


if __name__ == "__main__":
    main()
