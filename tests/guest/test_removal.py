# SPDX-License-Identifier: GPL-2.0-only
"""A device is removed while it repairs, flushes, answers and is listened to.

A removal waits for what a disk holds on to, for a message that is being handled, and for nobody
else. Afterwards nothing is left, and the data is there. Runs inside a guest, as root.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from guest import dmioctl
from guest.lib import (
    CommandError,
    Device,
    background,
    dm_message,
    dm_names,
    dm_remove,
    dm_resume,
    dm_suspend,
    load_module,
    outcome,
    pattern,
    run,
    try_write,
    unload_module,
    wait_for,
    write,
)
from guest.remapset import entries, held, segment_of, texts

if TYPE_CHECKING:
    from concurrent.futures import Future

    from guest.remapset import RemapSet

pytestmark = [pytest.mark.guest, pytest.mark.module]


def group(made: RemapSet) -> Path:
    """Return the target's directory in sysfs, which a suspend and a removal begin with."""
    device = made.path.stat().st_rdev
    return Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/remap-0")


def rescuers() -> list[str]:
    """Return the threads of the targets' own workqueues."""
    names = []
    for path in Path("/proc").glob("[0-9]*/comm"):
        with suppress(OSError):  # it has ended
            names.append(path.read_text().strip())
    return [name for name in names if name.startswith(("remap-", "kworker/R-remap"))]


def assert_nothing_left(made: RemapSet) -> None:
    assert made.name not in dm_names()
    assert rescuers() == []
    assert Path("/sys/module/dm_remap/refcnt").read_text() == "0\n"
    for leg in (made.main, made.spare):
        os.close(os.open(leg.path, os.O_RDWR | os.O_EXCL))  # nobody holds it
    unload_module("dm_remap")
    load_module("dm_remap")


def start_removal(made: RemapSet, *, force: bool) -> Future[None]:
    """Begin to remove; return when the kernel has begun to."""
    files = group(made)
    wait_for(files.exists, "the files in sysfs")
    removal = background(dm_remove, made.name, force=force)
    wait_for(lambda: not files.exists() or removal.done(), "the removal to begin")
    return removal


# What is busy


def hold_probe(made: RemapSet) -> None:
    made.main.hold("read")


def hold_data(made: RemapSet) -> None:
    made.spare.hold("write", segment_of(made).data * 8, 1024)


def hold_copy_a(made: RemapSet) -> None:
    made.spare.hold("write", segment_of(made).copy_a * 8, 8)


def hold_copy_b(made: RemapSet) -> None:
    made.spare.hold("write", segment_of(made).copy_b * 8, 8)


@pytest.mark.parametrize("hold", [hold_probe, hold_data, hold_copy_a, hold_copy_b])
@pytest.mark.parametrize("status", ["off", "ioerr"])
def test_a_repair(hold: object, status: str, small: RemapSet) -> None:
    assert callable(hold)
    assert rescuers() != []
    small.main.add(8, 1, "write", "medium")
    hold(small)
    leg = small.main if hold is hold_probe else small.spare
    repair = background(try_write, small.path, 8, pattern(8))
    leg.wait_held()
    with pytest.raises(CommandError, match="busy"):
        run("dmsetup", "remove", small.name)
    removal = start_removal(small, force=True)
    assert not removal.done()
    leg.release(status)
    removal.result(30)
    end = repair.result(30)
    assert end in ("OK", "ENODATA", "EIO")
    # One place that fails is nothing that a repair cannot do without.
    assert status != "off" or end == "OK"
    assert_nothing_left(small)
    small.heal()
    small.create()
    if end == "OK":
        assert small.mapped == [8]
        assert held(small.path, 8) == ["8/0"]


def test_errors_that_take_their_time(small: RemapSet) -> None:
    """Six bios, each of which asks main for eight slow answers if it is left alone."""
    size, count = 32, 6
    small.main.add(0, size * count, "write", "medium")
    small.main.delay(0.6)
    writers = [
        background(try_write, small.path, n * size, pattern(n * size, size)) for n in range(count)
    ]
    wait_for(lambda: small.status.write_errors == count, "errors")
    begin = time.monotonic()
    dm_remove(small.name, force=True)
    took = time.monotonic() - begin
    print(f"removed after {took:.1f} s")
    # Two for each, and the eight of the one that was not told in time.
    assert took < 22
    ends = [writer.result(30) for writer in writers]
    assert_nothing_left(small)
    small.heal()
    small.create()
    for n, end in enumerate(ends):
        if end == "OK":
            assert held(small.path, n * size, size) == texts(n * size, size)


@pytest.mark.parametrize("leg", ["main", "spare"])
@pytest.mark.parametrize("status", ["off", "ioerr"])
def test_a_flush(leg: str, status: str, small: RemapSet) -> None:
    small.main.add(8, 1, "write", "medium")
    write(small.path, 8, pattern(8))
    with Device(small.path) as device:
        device.write(8, pattern(8, 1, 1))  # the spare has something to flush
        fault = small.main if leg == "main" else small.spare
        fault.hold("flush")
        flush = background(outcome, device.flush)
        fault.wait_held()
        removal = start_removal(small, force=True)
        assert not removal.done()
        fault.release(status)
        assert flush.result(30) == ("OK" if status == "off" else "EIO")
    removal.result(30)
    assert_nothing_left(small)
    small.create()
    assert held(small.path, 8) == ["8/1"]


@pytest.mark.parametrize(
    ("words", "direction"), [(("rename", "other"), "write"), (("scrub", "0", "100"), "read")]
)
def test_a_message_that_waits_for_the_disk(
    small: RemapSet, words: tuple[str, ...], direction: str
) -> None:
    small.spare.hold(direction)
    message = background(dm_message, small.name, *words)
    small.spare.wait_held()
    removal = start_removal(small, force=False)
    assert not removal.done()
    assert not message.done()
    small.spare.release()
    message.result(30)
    removal.result(30)
    assert_nothing_left(small)
    small.create()


def test_a_message_to_a_suspended_device(small: RemapSet) -> None:
    write(small.path, 0, pattern(0, 16))
    dm_suspend(small.name)
    small.main.hold("read")
    message = background(dm_message, small.name, "remap", 0, 16)
    small.main.wait_held()
    removal = background(dm_remove, small.name)
    wait_for(lambda: small.name not in dm_names(), "the removal to begin")
    assert not removal.done()
    small.main.release()
    assert message.result(30) == "done 16 of 16"
    removal.result(30)
    assert_nothing_left(small)
    small.create()
    assert small.mapped == list(range(16))
    assert held(small.path, 0, 16) == texts(0, 16)


# A slot that fails: its unit has moved and the write has its answer before the slot is given up


@pytest.fixture
def unfinished(small: RemapSet) -> None:
    """A write whose unit has moved, out of a block of the table that cannot be written now."""
    for first in (0, 200):  # more than a block of the table has entries
        small.main.add(first, 190, "write", "medium")
        write(small.path, first, pattern(first, 190))
        write(small.path, 1000, pattern(1000))  # main takes writes
    (slot,) = [row.slot for row in entries(small.name) if row.sector == 0]
    small.spare.add(segment_of(small).data * 8 + slot, 1, "write", "medium")
    small.spare.hold("write", segment_of(small).copy_a * 8, 8)
    write(small.path, 0, pattern(0, 1, 1))
    small.spare.wait_held()


@pytest.mark.usefixtures("unfinished")
def test_a_suspend_waits_for_what_comes_after_the_answer(small: RemapSet) -> None:
    suspend = background(dm_suspend, small.name)
    wait_for(lambda: not group(small).exists(), "the suspend to begin")
    with pytest.raises(TimeoutError):
        suspend.result(1)  # for what must not happen
    small.spare.release()
    suspend.result(30)
    # The message and the works use the same memory, so the works must be idle.
    assert dm_message(small.name, "remap", 2000, 1) == "done 1 of 1"
    dm_resume(small.name)
    assert (small.status.bad, small.status.moved) == (1, 1)


@pytest.mark.usefixtures("unfinished")
def test_a_removal_waits_for_what_comes_after_the_answer(small: RemapSet) -> None:
    removal = start_removal(small, force=False)
    assert not removal.done()
    small.spare.release()
    removal.result(30)
    assert_nothing_left(small)
    small.create()
    assert small.status.bad == 1
    assert held(small.path, 0) == ["0/1"]


# Who listens


def waiting() -> bool:
    """Say whether a program waits for an event of a device."""
    for path in Path("/proc").glob("[0-9]*/wchan"):
        with suppress(OSError):
            if path.read_text() == "dm_wait_event":
                return True
    return False


def test_who_listens_is_woken(small: RemapSet) -> None:
    number = dmioctl.info(small.name).event_nr
    listener = background(run, "dmsetup", "wait", small.name, number)
    wait_for(waiting, "a listener")
    wait_for(group(small).exists, "the files in sysfs")
    with (group(small) / "mapped").open("rb", buffering=0) as file:
        assert file.read() == b"0\n"
        small.remove()
        assert outcome(os.pread, file.fileno(), 16, 0) == "ENODEV"
    listener.exception(30)  # its status is dmsetup's affair
    assert_nothing_left(small)
    small.create()


def test_an_event_that_is_due_later(small: RemapSet) -> None:
    """The first is told at once, the second a second later: by then there is no module."""
    for number in range(4):
        for sector in (2 * number, 2 * number + 1):
            small.main.add(sector, 1, "write", "medium")
            write(small.path, sector, pattern(sector))
        small.remove()
        unload_module("dm_remap")
        time.sleep(1.2)  # for what must not happen
        load_module("dm_remap")
        small.create()
    assert small.mapped == list(range(8))


# All of it


ASKED = (("list", "0", "9"), ("rename", "x"), ("scrub", "0", "9"))


class Busy:
    """Threads that do something over and over until the device is gone."""

    def __init__(self, made: RemapSet) -> None:
        self.made = made
        self.gone = threading.Event()
        self.rounds = [0, 0, 0]
        self.asked = 0
        self.futures = [
            *(background(self._write, number) for number in range(3)),
            *(background(self._ask, *words) for words in ASKED),
            background(self._look),
        ]

    def at_work(self) -> bool:
        """Say whether all of them have got somewhere."""
        return all(self.rounds) and self.asked > 3 and waiting()

    def _write(self, number: int) -> None:
        first = 256 * number
        with Device(self.made.path) as device:
            while not self.gone.is_set():
                data = pattern(first, 64, self.rounds[number] + 1)
                if outcome(device.write, first, data) != "OK" or outcome(device.flush) != "OK":
                    return
                self.rounds[number] += 1

    def _ask(self, *words: str) -> None:
        with suppress(CommandError):
            while not self.gone.is_set():
                dm_message(self.made.name, *words)
                self.asked += 1

    def _look(self) -> None:
        with suppress(CommandError, OSError):
            while not self.gone.is_set():
                number = dmioctl.info(self.made.name).event_nr
                run("dmsetup", "wait", self.made.name, number)

    def finish(self) -> None:
        """Wait for their end."""
        self.gone.set()
        for future in self.futures:
            future.result(30)


def test_everything(small: RemapSet) -> None:
    for turn in range(3):
        small.main.clear()
        for sector in range(turn, 768, 17):
            small.main.add(sector, 1, "write", "medium")
        busy = Busy(small)
        wait_for(busy.at_work, "all to be busy", timeout=120)
        begin = time.monotonic()
        with suppress(CommandError):  # the writers may have it open for longer than it is tried
            dm_remove(small.name, force=True)
        busy.finish()
        if small.name in dm_names():
            dm_remove(small.name)
        print(f"removed after {time.monotonic() - begin:.2f} s")
        assert time.monotonic() - begin < 30
        assert_nothing_left(small)
        small.create()
        for number, done in enumerate(busy.rounds):
            first = 256 * number
            for sector, text in enumerate(held(small.path, first, 64), first):
                assert text in (f"{sector}/{done}", f"{sector}/{done + 1}")
