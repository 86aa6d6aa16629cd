# SPDX-License-Identifier: GPL-2.0-only
"""Create, suspend, resume, reload, remove, unload: they finish at any moment and leave nothing.

Runs inside a guest, as root.
"""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from guest import dmioctl
from guest.lib import (
    MIB,
    CommandError,
    Device,
    background,
    describe,
    dm_device,
    dm_lines,
    dm_load,
    dm_names,
    dm_reload,
    dm_remove,
    dm_resume,
    dm_suspend,
    dmsetup,
    load_module,
    loop_device,
    module_loaded,
    outcome,
    pattern,
    read,
    run,
    try_read,
    try_write,
    unload_module,
    wait_for,
    write,
)
from guest.remapset import (
    KernelLog,
    contents,
    entries,
    held,
    mapped,
    refusal,
    remap_set,
    segment_of,
    status,
    table,
    tagged_set,
    texts,
)

from dmremap.ondisk import BLOCK, SUPER_HOMES

if TYPE_CHECKING:
    from concurrent.futures import Future

    from guest.remapset import RemapSet

pytestmark = [pytest.mark.guest, pytest.mark.module]


def references() -> int:
    """Return how many users the module has."""
    return int(Path("/sys/module/dm_remap/refcnt").read_text())


class Writers:
    """Threads that write and verify, each its own range, until they are told to stop.

    Main refuses some of the sectors. Any error but those of `allowed` ends the test.
    """

    RANGE = 256

    def __init__(self, path: Path, count: int = 3, allowed: tuple[str, ...] = ()) -> None:
        self.path = path
        self.allowed = allowed
        self.stop = threading.Event()
        self.rounds = [0] * count
        self.futures: list[Future[None]] = [
            background(self._work, number) for number in range(count)
        ]

    def _work(self, number: int) -> None:
        first = number * self.RANGE
        with Device(self.path) as device:
            while not self.stop.is_set():
                generation = self.rounds[number] + 1
                for sector in range(first, first + self.RANGE, 32):
                    result = outcome(device.write, sector, pattern(sector, 32, generation))
                    if result in self.allowed:
                        return
                    assert result == "OK"
                try:
                    found = describe(device.read(first, self.RANGE))
                except OSError:
                    if self.allowed:
                        return
                    raise
                assert found == texts(first, self.RANGE, generation)
                self.rounds[number] = generation

    def wait_rounds(self, more: int = 1) -> None:
        """Wait until every thread has written and verified its range so many times more."""
        goals = [done + more for done in self.rounds]

        def reached() -> bool:
            for future in self.futures:
                if future.done():
                    future.result()
            return all(done >= goal for done, goal in zip(self.rounds, goals, strict=True))

        wait_for(reached, "writers to go on", timeout=120)

    def finish(self) -> None:
        """Stop and raise what any of them met."""
        self.stop.set()
        for future in self.futures:
            future.result(60)


def fail_some(made: RemapSet) -> None:
    """Have main refuse every 37th sector of what Writers write."""
    for sector in range(5, 3 * Writers.RANGE, 37):
        made.main.add(sector, 1, "write", "medium")


SOME = list(range(5, 3 * Writers.RANGE, 37))


# Mappings stay


def test_mappings_stay_after_remove_and_create(small: RemapSet) -> None:
    small.main.add(8, 3, "write", "medium")
    write(small.path, 0, pattern(0, 16))
    before = [(row.sector, row.slot) for row in entries(small.name)]
    small.main.clear()
    for _ in range(3):
        small.recreate()
        assert [(row.sector, row.slot) for row in entries(small.name)] == before
        assert held(small.path, 0, 16) == texts(0, 16)


def test_a_clean_load_writes_an_epoch_and_nothing_else(small: RemapSet) -> None:
    small.main.add(8, 3, "write", "medium")
    write(small.path, 0, pattern(0, 16))
    small.remove()
    main, spare = contents(small.main_disk, small.spare_disk)
    small.reset()
    small.create()
    small.remove()
    main_now, spare_now = contents(small.main_disk, small.spare_disk)
    assert main_now == main
    assert {
        place
        for place in range(len(spare.data) // BLOCK)
        if spare.data[place * BLOCK : (place + 1) * BLOCK]
        != spare_now.data[place * BLOCK : (place + 1) * BLOCK]
    } == set(SUPER_HOMES)
    assert small.main.counters()["writes"] == 0
    assert small.spare.counters()["writes"] == len(SUPER_HOMES)
    small.create()


def test_a_load_flushes_the_spare(small: RemapSet) -> None:
    small.remove()
    small.spare.reset()
    small.create()
    assert small.spare.counters()["flushes"] >= 1


def test_a_load_whose_flush_fails_is_refused(small: RemapSet) -> None:
    small.remove()
    small.spare.add(0, 0, "flush", "ioerr")
    assert "the set was not started" in refusal(small.line)
    small.spare.clear()
    small.create()


def test_suspend_and_resume_keep_everything(small: RemapSet) -> None:
    small.main.add(8, 3, "write", "medium")
    write(small.path, 0, pattern(0, 16))
    before = small.status
    for _ in range(10):
        dm_suspend(small.name)
        dm_resume(small.name)
    after = small.status
    assert (after.mapped, after.remapped, after.mode) == (3, before.remapped, "rw")
    assert held(small.path, 0, 16) == texts(0, 16)
    small.main.add(20, 1, "write", "medium")
    write(small.path, 20, pattern(20))
    assert small.mapped == [8, 9, 10, 20]


def test_a_resume_does_not_read_the_metadata_again(small: RemapSet) -> None:
    dm_suspend(small.name)
    small.spare.reset()
    dm_resume(small.name)
    assert small.spare.counters()["reads"] == 0


def test_many_suspends_with_io_running(small: RemapSet) -> None:
    fail_some(small)
    writers = Writers(small.path)
    for number in range(15):
        dm_suspend(small.name, flush=number % 2 == 0)
        dm_resume(small.name)
    writers.wait_rounds()
    writers.finish()
    assert small.mapped == SOME


def test_many_reloads_with_io_running(small: RemapSet) -> None:
    fail_some(small)
    writers = Writers(small.path)
    for _ in range(10):
        dm_reload(small.name, small.line)
        writers.wait_rounds()
    writers.finish()
    assert small.mapped == SOME
    small.recreate()
    assert small.mapped == SOME


def test_a_reload_to_linear_and_back(small: RemapSet) -> None:
    small.main.add(8, 1, "write", "medium")
    write(small.path, 8, pattern(8))
    dm_reload(small.name, f"0 16384 linear {small.main.path} 0")
    assert held(small.path, 8) == ["zero"]
    assert references() == 0
    dm_reload(small.name, small.line)
    assert small.mapped == [8]
    assert held(small.path, 8) == ["8/0"]


def test_a_reload_takes_new_options(small: RemapSet) -> None:
    dm_reload(small.name, f"{small.line} 2 errors medium")
    assert table(small.name).errors == "medium"
    small.main.add(8, 1, "write", "ioerr")
    assert try_write(small.path, 8, pattern(8)) == "EIO"
    dm_reload(small.name, small.line)
    assert (table(small.name).errors, status(small.name).errors) == (None, "confirm")
    assert try_write(small.path, 8, pattern(8)) == "OK"


BAD_TABLES = {
    "malformed": "0 16384 remap {main} {spare} 0",
    "too long": "0 16392 remap {main} {spare} 0 8192",
    "missing": "0 16384 remap {main} /dev/nothing 0 8192",
    "another area": "0 16384 remap {main} {spare} 0 4096",
    "another uuid": (
        "0 16384 remap {main} {spare} 0 8192 2 uuid 01234567-89ab-cdef-0123-456789abcdef"
    ),
    "overlap": "0 16384 remap {main} {main} 0 8192",
}


def test_a_bad_new_table_is_refused_while_the_old_one_runs(small: RemapSet) -> None:
    fail_some(small)
    writers = Writers(small.path)
    before = dm_lines(small.name, table=True)
    for what, line in BAD_TABLES.items():
        bad = line.format(main=small.main.path, spare=small.spare.path)
        with pytest.raises(CommandError):
            dm_load(small.name, bad)
        assert dm_lines(small.name, table=True) == before, what
        assert dm_lines(small.name, table=True, inactive=True) == [], what
        writers.wait_rounds()
    writers.finish()
    assert small.status.mode == "rw"


def test_a_table_loaded_and_cleared_changes_nothing(small: RemapSet) -> None:
    before = dmsetup("table", small.name)
    dm_load(small.name, small.line)
    assert references() == 2
    run("dmsetup", "clear", small.name)
    assert references() == 1
    assert dmsetup("table", small.name) == before
    small.main.add(8, 1, "write", "medium")
    write(small.path, 8, pattern(8))
    assert small.mapped == [8]


def test_what_was_mapped_after_the_new_table_was_loaded_is_in_it(small: RemapSet) -> None:
    dm_load(small.name, small.line)
    small.main.add(8, 1, "write", "medium")
    write(small.path, 8, pattern(8))
    dm_suspend(small.name)
    dm_resume(small.name)
    assert small.status.remapped == 0  # it is the new table
    assert small.mapped == [8]
    assert held(small.path, 8) == ["8/0"]


# Nothing is left


def test_a_refused_create_leaves_nothing() -> None:
    with loop_device(8 * MIB) as main, loop_device(4 * MIB) as spare:
        write(spare, 5000, b"x" * 512)
        before = dmsetup("ls")
        for _ in range(5):
            refusal(f"0 16384 remap {main} {spare} 0 8192")
        assert references() == 0
        assert dmsetup("ls") == before
    # The loop devices could be taken down, so nothing holds them.


def test_a_create_that_fails_at_resume_leaves_nothing(small: RemapSet) -> None:
    small.remove()
    small.spare.add(0, 8192, "write", "ioerr")
    write(small.spare_disk, 0, bytes(4096))  # a superblock to be written again
    before = dmsetup("ls")
    log = refusal(small.line, name=small.name)
    assert "the set was not started" in log
    assert references() == 0
    assert dmsetup("ls") == before
    small.spare.clear()
    small.create()
    assert small.status.mode == "rw"


def test_a_resume_that_failed_can_be_repeated(small: RemapSet) -> None:
    small.remove()
    run("dmsetup", "create", small.name, "--notable")
    dm_load(small.name, small.line)
    small.spare.add(0, 0, "flush", "ioerr", 1)
    with pytest.raises(CommandError):
        dm_resume(small.name)
    with suppress(CommandError):  # it may have lost its table by that
        dm_load(small.name, small.line)
    dm_resume(small.name)
    assert small.status.mode == "rw"
    small.main.add(8, 1, "write", "medium")
    write(small.path, 8, pattern(8))
    assert small.mapped == [8]


def test_a_format_that_fails_can_be_repeated() -> None:
    with remap_set() as made:
        made.remove()
        write(made.spare_disk, 0, bytes(4 * MIB))
        made.spare.add(300 * 8, 8192 - 300 * 8, "write", "medium")
        assert "cannot be written" in refusal(made.line)
        made.spare.clear()
        made.create()
        assert made.status.mode == "rw"
        made.recreate()


def test_who_is_killed_while_the_area_is_formatted_leaves_the_rest_to_the_next() -> None:
    with remap_set() as made:
        made.remove()
        write(made.spare_disk, 0, bytes(4 * MIB))
        made.reset()
        made.spare.hold("write", segment_of(made).copy_a * 8, 8)
        dmioctl.create(made.name)
        dmioctl.load(made.name, made.line)
        resume = ["dmsetup", "--noudevrules", "--noudevsync", "resume", made.name]
        with KernelLog() as log:
            with subprocess.Popen(resume) as starter:
                made.spare.wait_held()
                starter.kill()
                made.spare.release()
            assert starter.returncode == -signal.SIGKILL
            wait_for(lambda: "was not started" in log.read(), "the reason")
        # A superblock and the one that was held.
        assert made.spare.counters()["writes"] == 2
        dm_resume(made.name)
        assert made.status.mode == "rw"
        made.recreate()


def test_remove_straight_after_an_error(small: RemapSet) -> None:
    for number in range(5):
        small.main.add(8 + number, 1, "write", "medium")
        write(small.path, 8 + number, pattern(8 + number))
        small.remove()
        assert references() == 0
        small.create()
    assert small.mapped == [8, 9, 10, 11, 12]


def test_remove_straight_after_a_read_error(small: RemapSet) -> None:
    small.main.add(8, 1, "read", "medium")
    for _ in range(3):
        assert try_read(small.path, 8) == "ENODATA"
        small.recreate()


def test_unload_straight_after_remove_straight_after_an_error() -> None:
    with remap_set() as made:
        for number in range(5):
            made.main.add(8 + number, 1, "write", "medium")
            write(made.path, 8 + number, pattern(8 + number))
            made.remove()
            unload_module("dm_remap")
            assert not module_loaded("dm_remap")
            load_module("dm_remap")
            made.create()
        assert made.mapped == [8, 9, 10, 11, 12]


def test_the_module_cannot_be_unloaded_in_use(small: RemapSet) -> None:
    assert references() == 1
    with pytest.raises(CommandError):
        unload_module("dm_remap")
    assert small.status.mode == "rw"


def test_thirty_cycles_of_everything() -> None:
    with remap_set() as made:
        made.remove()
        for number in range(30):
            unload_module("dm_remap")
            load_module("dm_remap")
            assert references() == 0
            made.create()
            made.main.add(number, 1, "write", "medium")
            assert try_write(made.path, number, pattern(number)) == "OK"
            made.main.add(100, 1, "read", "medium", 2)
            assert try_read(made.path, 100) == "ENODATA"
            made.remove()
        made.create()
        assert made.mapped == list(range(30))
        assert held(made.path, 0, 30) == texts(0, 30)


# With I/O under way


def test_remove_waits_for_no_one_once_it_is_closed(small: RemapSet) -> None:
    fail_some(small)
    for _ in range(3):
        writers = Writers(small.path)
        writers.wait_rounds()
        writers.finish()
        run("dmsetup", "remove", "--retry", small.name)
        assert references() == 0
        small.create()
    assert small.mapped == SOME


def test_a_device_that_is_open_is_not_removed(small: RemapSet) -> None:
    with Device(small.path), pytest.raises(CommandError, match="busy"):
        run("dmsetup", "remove", small.name)
    assert small.status.mode == "rw"


def test_remove_force_under_io(small: RemapSet) -> None:
    fail_some(small)
    writers = Writers(small.path, allowed=("EIO",))
    writers.wait_rounds()
    with suppress(CommandError):  # the writers may have it open still
        run("dmsetup", "remove", "--force", small.name, timeout=60)
    for future in writers.futures:
        future.result(60)
    if small.name in dm_names():
        dm_remove(small.name)
    assert references() == 0
    small.create()
    assert set(small.mapped) <= set(SOME)
    small.main.clear()
    for number in range(3):
        first = number * Writers.RANGE
        done = writers.rounds[number]
        found = held(small.path, first, Writers.RANGE)
        # Each sector is of the last full round or of the one that was under way.
        assert all(
            text in (f"{sector}/{done}", f"{sector}/{done + 1}")
            for sector, text in enumerate(found, first)
        )


@pytest.mark.parametrize("flush", [True, False])
def test_suspend_waits_for_a_repair_and_the_repair_ends(flush: bool, small: RemapSet) -> None:
    small.main.add(8, 1, "write", "medium")
    small.spare.hold("write")
    repair = background(write, small.path, 8, pattern(8))
    small.spare.wait_held()
    suspend = background(dm_suspend, small.name, flush=flush)
    assert not suspend.done()
    small.spare.release()
    suspend.result(60)
    assert dmioctl.info(small.name).suspended
    dm_resume(small.name)
    repair.result(30)
    assert small.mapped == [8]
    assert held(small.path, 8) == ["8/0"]


@pytest.mark.parametrize("flush", [True, False])
def test_suspend_with_an_error_on_its_way_from_main(flush: bool, small: RemapSet) -> None:
    small.main.hold("write")
    late = background(write, small.path, 8, pattern(8))
    small.main.wait_held()
    suspend = background(dm_suspend, small.name, flush=flush)
    small.main.add(8, 1, "write", "medium")
    small.main.release()
    suspend.result(60)
    dm_resume(small.name)
    late.result(30)
    assert small.mapped == [8]


def storm(made: RemapSet, bios: int, seconds: float) -> tuple[float, list[str]]:
    """Suspend while bios of 32 sectors fail so slowly; return how long it took, and their ends."""
    made.main.add(0, 32 * bios, "write", "medium")
    made.main.delay(seconds)
    writers = [background(try_write, made.path, n, pattern(n, 32)) for n in range(0, 32 * bios, 32)]
    wait_for(lambda: made.status.write_errors >= bios, "errors")
    begin = time.monotonic()
    dm_suspend(made.name)
    took = time.monotonic() - begin
    dm_resume(made.name)
    ends = [writer.result(30) for writer in writers]
    made.main.delay(0)
    return took, ends


def test_suspend_shortens_a_storm_of_slow_errors(small: RemapSet) -> None:
    took, ends = storm(small, bios=5, seconds=1)
    # Two slow tries for each bio; without the suspend it were eight each, 40 s.
    assert took < 25
    assert ends == ["OK"] * 5
    assert small.mapped == list(range(160))
    assert held(small.path, 0, 160) == texts(0, 160)


def test_what_a_suspend_cannot_wait_for_fails(small: RemapSet) -> None:
    took, ends = storm(small, bios=8, seconds=3)
    assert took < 60
    assert set(ends) == {"OK", "ENODATA"}
    done = [n for n in range(256) if ends[n // 32] == "OK"]
    assert small.mapped == done
    small.main.clear()
    assert held(small.path, 0, 256) == [f"{n}/0" if n in done else "zero" for n in range(256)]
    # The limit is for that suspend only.
    small.main.add(300, 1, "write", "medium")
    write(small.path, 300, pattern(300))
    assert small.mapped == [*done, 300]


def test_status_and_messages_answer_during_a_repair(small: RemapSet) -> None:
    small.main.add(8, 1, "write", "medium")
    small.spare.hold("write")
    repair = background(write, small.path, 8, pattern(8))
    small.spare.wait_held()
    assert small.status.write_errors == 1
    assert (small.mapped, small.pending) == ([], [])
    small.spare.release()
    repair.result(30)


def test_status_answers_while_suspended(small: RemapSet) -> None:
    dm_suspend(small.name)
    assert small.status.mode == "rw"
    assert small.mapped == []
    dm_resume(small.name)


# Read-only tables


@pytest.fixture
def fixed(small: RemapSet) -> RemapSet:
    """A set of 64 written sectors, 8 to 10 mapped, under a read-only table."""
    small.main.add(8, 3, "write", "medium")
    write(small.path, 0, pattern(0, 64))
    small.main.clear()
    small.recreate(readonly=True)
    return small


def test_a_read_only_table_reads_everything(fixed: RemapSet) -> None:
    assert fixed.status.mode == "ro"
    assert fixed.mapped == [8, 9, 10]
    assert held(fixed.path, 0, 64) == texts(0, 64)


def test_a_read_only_table_writes_to_neither_leg(fixed: RemapSet) -> None:
    fixed.remove()
    before = contents(fixed.main_disk, fixed.spare_disk)
    fixed.reset()
    fixed.create(readonly=True)
    fixed.main.add(20, 2, "read", "medium")
    assert try_read(fixed.path, 0, 64) == "ENODATA"
    with pytest.raises(OSError, match=r"Operation not permitted|Permission|Read-only"):
        write(fixed.path, 0, pattern(0))
    dm_suspend(fixed.name)
    dm_resume(fixed.name)
    fixed.remove()
    for leg in (fixed.main, fixed.spare):
        counters = leg.counters()
        assert {counters[key] for key in ("writes", "discards", "write_zeroes", "fua")} == {0}
    assert contents(fixed.main_disk, fixed.spare_disk) == before
    fixed.create(readonly=True)


def test_a_read_only_table_fails_writes_that_reach_it(fixed: RemapSet) -> None:
    """A table that is writable above a read-only one lets writes through to it."""
    fixed.reset()
    with suppress(CommandError), dm_device("above", f"0 64 linear {fixed.path} 0") as path:
        assert try_write(path, 0, pattern(0, 1, 1)) != "OK"
        assert try_write(path, 8, pattern(8, 1, 1)) != "OK"
    assert fixed.main.counters()["writes"] == 0
    assert fixed.spare.counters()["writes"] == 0


def test_a_read_only_table_mends_nothing(fixed: RemapSet) -> None:
    fixed.remove()
    write(fixed.spare_disk, 0, bytes(4096))
    before = contents(fixed.spare_disk)
    fixed.create(readonly=True)
    assert held(fixed.path, 0, 64) == texts(0, 64)
    fixed.remove()
    assert contents(fixed.spare_disk) == before
    fixed.create(readonly=True)


def test_a_read_only_table_works_on_read_only_disks() -> None:
    with loop_device(8 * MIB) as main, loop_device(4 * MIB) as spare:
        line = f"0 16384 remap {main} {spare} 0 8192"
        with dm_device("set", line) as path:
            write(path, 0, pattern(0, 8))
        for disk in (main, spare):
            run("blockdev", "--setro", disk)
        with dm_device("set", line, readonly=True) as path:
            assert held(path, 0, 8) == texts(0, 8)
        for disk in (main, spare):
            run("blockdev", "--setrw", disk)


def test_a_reload_makes_a_read_only_device_writable(fixed: RemapSet) -> None:
    dm_reload(fixed.name, fixed.line)
    assert fixed.status.mode == "rw"
    write(fixed.path, 9, pattern(9, 1, 1))
    assert held(fixed.path, 9) == ["9/1"]


# Events


def dm_events(name: str) -> int:
    """Return the number of events that DM has counted for a device."""
    return dmioctl.info(name).event_nr


def test_events_are_counted_by_dm(small: RemapSet) -> None:
    before = dm_events(small.name)
    small.main.add(8, 1, "write", "medium")
    write(small.path, 8, pattern(8))
    wait_for(lambda: dm_events(small.name) > before, "an event")


def test_dmsetup_wait_wakes_up(small: RemapSet) -> None:
    number = dm_events(small.name)
    waiting = background(run, "dmsetup", "wait", small.name, number)
    small.main.add(8, 1, "write", "medium")
    write(small.path, 8, pattern(8))
    waiting.result(30)
    assert dm_events(small.name) > number


def test_many_errors_are_few_events(small: RemapSet) -> None:
    small.main.add(0, 200, "write", "medium")
    before = dm_events(small.name)
    begin = time.monotonic()
    with Device(small.path) as device:
        for sector in range(200):
            device.write(sector, pattern(sector))
    wait_for(lambda: dm_events(small.name) > before, "an event")
    assert dm_events(small.name) - before <= time.monotonic() - begin + 3


# Two at once


def test_two_sets_do_not_disturb_each_other() -> None:
    with remap_set(name="one") as one, tagged_set() as two:
        one.main.add(8, 1, "write", "medium")
        two.main.add(2048 + 9, 1, "write", "medium")
        write(one.path, 0, pattern(0, 16, 1))
        write(two.path, 0, pattern(0, 16, 2))
        one.remove()
        assert two.mapped == [9]
        assert held(two.path, 0, 16) == texts(0, 16, 2)
        one.create()
        assert one.mapped == [8]
        assert held(one.path, 0, 16) == texts(0, 16, 1)


@pytest.mark.usefixtures("fresh_module")
def test_a_renamed_device_logs_its_new_name(small: RemapSet) -> None:
    run("dmsetup", "rename", small.name, "renamed")
    try:
        run("dmsetup", "mknodes")
        assert status("renamed").mode == "rw"
        small.main.add(8, 1, "write", "medium")
        with KernelLog() as log:
            write("/dev/mapper/renamed", 8, pattern(8))
        assert mapped("renamed") == [8]
        assert "mapped 1 blocks" in log.text
        assert not any(read(small.main_disk, 8))
    finally:
        run("dmsetup", "rename", "renamed", small.name)
        run("dmsetup", "mknodes")
