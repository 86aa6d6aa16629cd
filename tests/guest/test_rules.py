# SPDX-License-Identifier: GPL-2.0-only
"""What the kernel does to a bio on the way, and what must not be lost by it: each rule is pinned.

FUA that submission strips, partitions, splits at discards and one NOWAIT write are in test_io.py.
Runs inside a guest, as root.
"""

from __future__ import annotations

import errno
import os
import random
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from guest import dmioctl
from guest.lib import (
    MIB,
    SECTOR,
    AlignedBuffer,
    Device,
    background,
    describe,
    dm_device,
    dm_load,
    dm_message,
    dm_reload,
    dm_resume,
    dm_suspend,
    null_block,
    outcome,
    pattern,
    queue,
    read,
    run,
    try_read,
    try_write,
    wait_for,
    write,
)
from guest.remapset import entries, held, mapped, pending, segment_of, texts

if TYPE_CHECKING:
    from guest.remapset import RemapSet

pytestmark = [pytest.mark.guest, pytest.mark.module]


# NOWAIT and polling


@pytest.mark.parametrize(("status", "ends"), [("again", "EAGAIN"), ("notsupp", "EOPNOTSUPP")])
@pytest.mark.parametrize("flags", [0, os.RWF_NOWAIT], ids=["plain", "nowait"])
def test_a_disk_that_asks_to_come_again_is_not_repaired(
    status: str, ends: str, flags: int, small: RemapSet
) -> None:
    small.main.add(8, 1, "any", status)
    small.reset()
    with Device(small.path) as device:
        assert outcome(device.write, 8, pattern(8), flags=flags) == ends
        assert outcome(device.read, 8, flags=flags) == ends
    counters = small.main.counters()
    assert (counters["writes"], counters["reads"]) == (1, 1)
    now = small.status
    assert (now.mapped, now.pending, now.write_errors, now.read_errors) == (0, 0, 0, 0)


@pytest.mark.parametrize("status", ["medium", "ioerr"])
def test_every_other_failure_of_a_nowait_bio_is_handled(status: str, small: RemapSet) -> None:
    small.main.add(8, 2, "write", status)
    small.main.add(20, 1, "read", status, 1)
    with Device(small.path) as device:
        device.write(0, pattern(0, 64), flags=os.RWF_NOWAIT)
        assert small.mapped == [8, 9]
        device.write(8, pattern(8, 2, 1), flags=os.RWF_NOWAIT)  # by now on the spare
        assert describe(device.read(0, 64, flags=os.RWF_NOWAIT)) == texts(0, 64, g1=[8, 9])
    now = small.status
    assert (now.write_errors, now.read_errors, now.transient) == (1, 1, 1)


@pytest.mark.parametrize(("status", "ends"), [("again", "EAGAIN"), ("notsupp", "EOPNOTSUPP")])
def test_a_slot_that_asks_to_come_again_has_not_failed(
    status: str, ends: str, small: RemapSet
) -> None:
    small.main.add(8, 1, "write", "medium")
    write(small.path, 8, pattern(8))
    before = small.status
    small.spare.add(segment_of(small).data * 8, 1, "any", status)
    with Device(small.path) as device:
        assert outcome(device.write, 8, pattern(8, 1, 1), flags=os.RWF_NOWAIT) == ends
        assert outcome(device.read, 8, flags=os.RWF_NOWAIT) == ends
        now = small.status
        assert (now.write_errors, now.read_errors) == (before.write_errors, before.read_errors)
        assert (now.moved, now.bad) == (0, 0)
        small.spare.clear()
        assert describe(device.read(8)) == texts(8, 1)


def test_a_nowait_write_to_a_lost_block_waits_for_its_commit(small: RemapSet) -> None:
    dm_suspend(small.name)
    dm_message(small.name, "remap", 8, 2, "lost")
    dm_resume(small.name)
    with Device(small.path) as device:
        assert outcome(device.read, 8, flags=os.RWF_NOWAIT) == "ENODATA"
        device.write(8, pattern(8), flags=os.RWF_NOWAIT)
    assert [row.state for row in entries(small.name)] == ["mapped", "lost"]
    small.recreate()
    assert held(small.path, 8) == ["8/0"]


def test_polled_requests_that_fail_are_repaired() -> None:
    """A replay that were polled would wait for ever: nobody polls for it."""
    bad = list(range(40, 1024, 96))
    with (
        null_block(8 * MIB, poll_queues=1, badblocks=f"+{bad[0]}-{bad[0] + 1}") as main,
        null_block(4 * MIB, poll_queues=1) as spare,
        dm_device("set", f"0 16384 remap {main} {spare} 0 8192") as path,
    ):
        homes = Path("/sys/kernel/config/nullb").glob("*/badblocks")
        home = next(file for file in homes if file.read_text().strip())
        for number in [*bad[1:], *range(1100, 2048, 100)]:
            home.write_text(f"+{number}-{number + 1}\n")
        assert queue(main, "io_poll") == queue(path, "io_poll") == "1"
        run("modprobe", "-a", "crc32c")
        options = ("--ioengine=io_uring", "--hipri", f"--filename={path}", "--direct=1")
        run(
            "fio",
            "--name=verify",
            *options,
            "--rw=randwrite",
            "--bsrange=512-16k",
            "--blockalign=512",
            "--size=512k",
            "--iodepth=8",
            "--verify=crc32c",
            "--verify_fatal=1",
            "--randseed=1",
            timeout=60,
        )
        found = mapped("set")
        assert found
        assert set(found) <= {n + k for n in bad for k in (0, 1)}
        run(
            "fio",
            "--name=read",
            *options,
            "--rw=read",
            "--bs=8k",
            "--offset=512k",
            "--size=512k",
            "--iodepth=8",
            f"--ignore_error={errno.ENODATA}",
            timeout=60,
        )
        assert set(pending("set")) == {n + k for n in range(1100, 2048, 100) for k in (0, 1)}


# Read-ahead


def test_a_read_ahead_that_fails_is_nobodys_error(small: RemapSet) -> None:
    write(small.path, 0, pattern(0, 1024))
    small.main.add(256, 16, "read", "medium")
    small.reset()
    fd = os.open(small.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.posix_fadvise(fd, 128 * SECTOR, 256 * SECTOR, os.POSIX_FADV_WILLNEED)
        wait_for(lambda: small.main.counters()["failed"] > 0, "a read-ahead that fails")
        time.sleep(0.1)
        assert small.main.counters()["failed"] == 1  # it was not tried again either
        now = small.status
        assert (now.read_errors, now.pending, now.transient) == (0, 0, 0)
        # Who reads before the bad place has the data, whatever was read ahead for him.
        data = b"".join(os.pread(fd, 4096, n * SECTOR) for n in range(0, 256, 8))
        assert data == pattern(0, 256)
        assert (small.status.read_errors, small.pending) == (0, [])
        # Who reads the bad place has the error, and it counts.
        with pytest.raises(OSError, match="Input/output error"):
            os.pread(fd, 4096, 256 * SECTOR)
        assert small.status.read_errors > 0
        assert small.pending == list(range(256, 264))
        assert os.pread(fd, 4096, 272 * SECTOR) == pattern(272, 8)
    finally:
        os.close(fd)


# Write zeroes


def test_write_zeroes_that_fail_with_target_are_narrowed_where_the_disk_has_them(
    small: RemapSet,
) -> None:
    """As sd ends those that it has just found out not to exist, but this disk has them."""
    write(small.path, 0, pattern(0, 32))
    small.main.add(8, 8, "write_zeroes", "target")
    small.main.add(9, 1, "write", "target")
    with Device(small.path) as device:
        device.write_zeroes(0, 24)
        assert small.mapped == [9]
        assert describe(device.read(0, 32)) == ["zero"] * 24 + texts(24, 8)
        # And where a slot refuses them.
        slot = segment_of(small).data * 8
        small.spare.add(slot, 1, "write_zeroes", "target")
        small.spare.add(slot, 1, "write", "target")
        device.write_zeroes(8, 4)
        assert small.status.moved == 1
        assert describe(device.read(0, 24)) == ["zero"] * 24
        # Only what the disk refused has been written again: the command goes on being used.
        small.main.reset()
        device.write_zeroes(16, 8)
        assert small.main.counters()["write_zeroes"] == 1


# Bios of any shape


def odd_vectors(chance: random.Random, sectors: int) -> list[tuple[int, int]]:
    """Cut sectors into pieces of one to three; return where in memory each lies, and its length.

    No piece begins where the one before ended, so none of them can be merged.
    """
    found: list[tuple[int, int]] = []
    at, left = chance.randrange(8), sectors
    while left and len(found) < 1000:
        length = min(left, chance.randint(1, 3) if len(found) < 999 else left)
        found.append((at * SECTOR, length * SECTOR))
        at += length + chance.randint(1, 5)
        left -= length
    return found


def moved(
    device: Device, sector: int, vectors: list[tuple[int, int]], data: bytes | None = None
) -> bytes:
    """Write data from, or read it into, memory that is in so many pieces."""
    size = sum(length for _, length in vectors)
    with AlignedBuffer(vectors[-1][0] + vectors[-1][1]) as memory, memoryview(memory) as view:
        views = [view[at : at + length] for at, length in vectors]
        try:
            if data is None:
                count = os.preadv(device.fd, views, sector * SECTOR)
            else:
                done = 0
                for part in views:
                    part[:] = data[done : done + len(part)]
                    done += len(part)
                count = os.pwritev(device.fd, views, sector * SECTOR)
            if count != size:
                raise OSError(errno.EIO, "short", str(device.path))
            return b"".join(bytes(part) for part in views)
        finally:
            for part in views:
                part.release()


def test_requests_of_any_shape_agree_with_a_model(small: RemapSet) -> None:
    """Narrowing cuts a bio anywhere in its vectors, for reads and for writes."""
    chance = random.Random(1)
    bad = sorted(chance.sample(range(4096), 40))
    for sector in bad:
        small.main.add(sector, 1, "write", "medium")
    with Device(small.path) as device:
        device.write(0, pattern(0, 4096))  # at once: 2 MiB
        model = texts(0, 4096)
        for generation in range(1, 41):
            count = chance.choice([1, 3, 64, 256, chance.randint(1, 1500)])
            sector = chance.randrange(4096 - count)
            vectors = odd_vectors(chance, count)
            moved(device, sector, vectors, pattern(sector, count, generation))
            model[sector : sector + count] = texts(sector, count, generation)
            # The first read of this range fails somewhere, and is put together again.
            some = chance.randrange(sector, sector + count)
            small.main.add(some, 1, "read", "medium", 1)
            again = moved(device, sector, odd_vectors(chance, count))
            assert describe(again) == model[sector : sector + count]
        assert describe(device.read(0, 4096)) == model
    assert small.mapped == bad
    assert small.status.transient > 20
    small.main.clear()
    small.recreate()
    assert held(small.path, 0, 4096) == model


# Suspend and reload


@pytest.mark.parametrize("flush", [True, False], ids=["flush", "noflush"])
def test_errors_that_are_outstanding_at_a_reload_end_as_they_should(
    flush: bool, small: RemapSet
) -> None:
    small.main.add(8, 1, "write", "medium")
    small.main.add(100, 1, "read", "medium")
    small.main.delay(0.7)
    small.reset()
    writer = background(try_write, small.path, 0, pattern(0, 32))
    reader = background(try_read, small.path, 100)
    wait_for(lambda: small.main.counters()["failed"] == 2, "two commands that fail")
    dm_load(small.name, small.line)
    other = background(try_write, small.path, 200, pattern(200, 8))  # the old table goes on
    assert other.result(10) == "OK"
    dm_suspend(small.name, flush=flush)
    dm_resume(small.name)
    assert (writer.result(30), reader.result(30)) == ("OK", "ENODATA")
    assert (small.mapped, small.status.remapped) == ([8], 0)  # the new table found it
    assert held(small.path, 0, 32) == texts(0, 32)
    small.main.delay(0)
    small.recreate()
    assert held(small.path, 0, 32) == texts(0, 32)
    assert held(small.path, 200, 8) == texts(200, 8)


def test_a_read_only_table_takes_over_from_a_writable_one_and_back(small: RemapSet) -> None:
    small.main.add(8, 2, "write", "medium")
    write(small.path, 0, pattern(0, 32))
    dm_load(small.name, small.line, readonly=True)
    write(small.path, 9, pattern(9, 2, 1))  # still the old one
    dm_resume(small.name)
    assert small.status.mode == "ro"
    small.reset()
    assert held(small.path, 0, 32) == texts(0, 32, g1=[9, 10])
    assert try_write(small.path, 8, pattern(8)) != "OK"
    assert try_write(small.path, 20, pattern(20)) != "OK"
    assert small.main.counters()["writes"] == small.spare.counters()["writes"] == 0
    dm_reload(small.name, small.line)
    small.main.add(30, 1, "write", "medium")
    write(small.path, 8, pattern(8, 24, 2))
    assert small.mapped == [8, 9, 30]
    assert held(small.path, 0, 32) == texts(0, 32, g2=range(8, 32))


def suspend_and_resume(made: RemapSet) -> None:
    """Suspend and resume."""
    dm_suspend(made.name)
    dm_resume(made.name)


def suspend_and_give_up(made: RemapSet) -> None:
    """Begin to suspend, and kill who waits for it."""
    made.main.hold("write", 400, 1)
    stuck = background(write, made.path, 400, pattern(400))
    made.main.wait_held()
    child = os.fork()
    if not child:
        try:
            dmioctl.suspend(made.name)
        finally:
            os._exit(0)
    time.sleep(0.5)
    assert not dmioctl.info(made.name).suspended
    os.kill(child, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    made.main.release()
    stuck.result(30)
    assert not dmioctl.info(made.name).suspended


@pytest.mark.parametrize("how", [suspend_and_resume, suspend_and_give_up])
def test_what_a_bio_may_cost_is_short_for_that_suspend_only(how: object, small: RemapSet) -> None:
    assert callable(how)
    how(small)
    small.main.add(8, 16, "write", "medium")
    small.main.delay(0.6)
    small.reset()
    write(small.path, 8, pattern(8, 16))
    # Once as a whole, and eight slow tries; two were the limit while a suspend waits.
    assert small.main.counters()["failed"] == 1 + 8
    assert small.mapped == list(range(8, 24))
    small.main.delay(0)
    assert describe(read(small.path, 8, 16)) == texts(8, 16)
