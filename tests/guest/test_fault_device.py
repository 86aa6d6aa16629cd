# SPDX-License-Identifier: GPL-2.0-only
"""The fault device does what its opening comment says.

Every test of the remap target believes the fault device, so each of its features is checked here.
Runs inside a guest, as root.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import TimeoutError as FutureTimeout
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING

import pytest
from guest.lib import (
    MIB,
    CommandError,
    Device,
    Fault,
    background,
    describe,
    dm_create,
    dm_message,
    dm_remove,
    dm_resume,
    dm_status,
    dm_suspend,
    dm_table,
    fault_device,
    load_module,
    loop_device,
    null_block,
    outcome,
    pattern,
    queue,
    ram_disks,
    read,
    run,
    sectors,
    try_read,
    try_write,
    unload_module,
    wait_for,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.guest

ERRNO_OF_STATUS = {
    "medium": "ENODATA",
    "ioerr": "EIO",
    "target": "EREMOTEIO",
    "transport": "ENOLINK",
    "timeout": "ETIMEDOUT",
    "offline": "ENODEV",
    "notsupp": "EOPNOTSUPP",
    "nospc": "ENOSPC",
    "resource": "ENOMEM",
    "again": "EAGAIN",
    "protection": "EILSEQ",
}


@pytest.fixture
def disk() -> Iterator[Path]:
    with loop_device() as path:
        yield path


@pytest.fixture
def fault(disk: Path) -> Iterator[Fault]:
    with fault_device(disk) as device:
        yield device


def do(device: Device, operation: str, sector: int = 0, count: int = 8) -> str:
    """Do one operation and return OK or its errno."""
    match operation:
        case "read":
            return outcome(device.read, sector, count)
        case "write":
            return outcome(device.write, sector, pattern(sector, count))
        case "flush":
            return outcome(device.flush)
        case "discard":
            return outcome(device.discard, sector, count)
        case "write_zeroes":
            return outcome(device.write_zeroes, sector, count)
    raise ValueError(operation)


OPERATIONS = ("read", "write", "flush", "discard", "write_zeroes")


def test_passes_everything_when_nothing_is_asked(fault: Fault) -> None:
    with Device(fault.path) as device:
        assert {operation: do(device, operation) for operation in OPERATIONS} == dict.fromkeys(
            OPERATIONS, "OK"
        )
        device.write(8, pattern(8, 16))
        device.write_zeroes(16, 4)
        assert describe(device.read(8, 16)) == [
            *(f"{n}/0" for n in range(8, 16)),
            *["zero"] * 4,
            *(f"{n}/0" for n in range(20, 24)),
        ]


def test_maps_a_part_of_the_lower_device(disk: Path) -> None:
    with fault_device(disk, start=100, length=1000) as fault:
        assert sectors(fault.path) == 1000
        write(fault.path, 7, pattern(7))
        fault.add(8, 1, "read", "medium")
        assert [try_read(fault.path, n) for n in (7, 8, 9)] == ["OK", "ENODATA", "OK"]
    assert describe(read(disk, 107)) == ["7/0"]


def test_sectors_count_from_the_target_not_from_the_device(disk: Path) -> None:
    dm_create("fault", f"0 100 linear {disk} 0\n100 100 fault {disk} 100\n")
    try:
        dm_message("fault", "add", 3, 1, "write", "medium", sector=100)
        results = [try_write("/dev/mapper/fault", n, pattern(n)) for n in (3, 102, 103, 104)]
        assert results == ["OK", "OK", "ENODATA", "OK"]
    finally:
        dm_remove("fault")


@pytest.mark.parametrize(("status", "name"), ERRNO_OF_STATUS.items())
def test_status(fault: Fault, status: str, name: str) -> None:
    fault.add(8, 1, "any", status)
    assert try_read(fault.path, 8) == name
    assert try_write(fault.path, 8, pattern(8)) == name


@pytest.mark.parametrize("direction", OPERATIONS)
def test_direction(fault: Fault, direction: str) -> None:
    fault.add(*((0, 0) if direction == "flush" else (0, 8)), direction, "transport")
    with Device(fault.path) as device:
        for operation in OPERATIONS:
            assert do(device, operation) == ("ENOLINK" if operation == direction else "OK"), (
                operation
            )


def test_any_is_all_that_has_a_range(fault: Fault) -> None:
    fault.add(0, 8, "any", "transport")
    with Device(fault.path) as device:
        results = {operation: do(device, operation) for operation in OPERATIONS}
    assert results == {**dict.fromkeys(OPERATIONS, "ENOLINK"), "flush": "OK"}


def test_a_bio_fails_whole_and_nothing_of_it_is_executed(fault: Fault, disk: Path) -> None:
    write(fault.path, 0, pattern(0, 16, generation=1))
    fault.add(11, 1, "write", "medium")
    assert try_write(fault.path, 8, pattern(8, 8, generation=2)) == "ENODATA"
    assert describe(read(disk, 8, 8)) == [f"{n}/1" for n in range(8, 16)]
    for sector, count, result in (
        (0, 11, "OK"),
        (11, 1, "ENODATA"),
        (12, 4, "OK"),
        (4, 8, "ENODATA"),
    ):
        assert try_write(fault.path, sector, pattern(sector, count)) == result, (sector, count)
    assert fault.counters()["failed"] == 3


def test_a_range_has_exact_ends(fault: Fault) -> None:
    fault.add(100, 24, "read", "medium")
    bad = [n for n in range(90, 140) if try_read(fault.path, n) != "OK"]
    assert bad == list(range(100, 124))


def test_times(fault: Fault) -> None:
    fault.add(8, 1, "write", "medium", 3)
    assert try_read(fault.path, 8) == "OK"
    assert fault.rules() == 1
    assert [try_write(fault.path, 8, pattern(8)) for _ in range(5)] == ["ENODATA"] * 3 + ["OK"] * 2
    assert fault.rules() == 0


def test_some_pass_first(fault: Fault) -> None:
    fault.add(8, 1, "write", "medium", 2, after=3)
    ends = [try_write(fault.path, 8, pattern(8)) for _ in range(6)]
    assert ends == ["OK"] * 3 + ["ENODATA"] * 2 + ["OK"]


def test_times_of_a_flush(fault: Fault) -> None:
    fault.add(0, 0, "flush", "ioerr", 1)
    with Device(fault.path) as device:
        assert [do(device, "flush") for _ in range(2)] == ["EIO", "OK"]


def test_the_first_rule_that_matches_decides(fault: Fault) -> None:
    fault.add(8, 1, "read", "timeout", 1)
    fault.add(0, 16, "read", "medium")
    assert [try_read(fault.path, 8) for _ in range(2)] == ["ETIMEDOUT", "ENODATA"]


def test_until_written(fault: Fault) -> None:
    write(fault.path, 0, pattern(0, 64))
    fault.add(16, 16, "read", "medium", "until_written")

    def bad() -> list[int]:
        return [n for n in range(10, 40) if try_read(fault.path, n) != "OK"]

    assert bad() == list(range(16, 32))
    write(fault.path, 20, pattern(20, 1, generation=1))
    assert bad() == [n for n in range(16, 32) if n != 20]
    write(fault.path, 28, pattern(28, 8, generation=1))
    assert bad() == [n for n in range(16, 28) if n != 20]
    write(fault.path, 12, pattern(12, 5, generation=1))
    assert bad() == [n for n in range(17, 28) if n != 20]
    with Device(fault.path) as device:
        device.write_zeroes(16, 8)
        assert bad() == [24, 25, 26, 27]
        device.discard(24, 2)
        assert bad() == [24, 25, 26, 27]
        device.write(16, pattern(16, 16))
        assert bad() == []
        assert describe(device.read(16, 16)) == [f"{n}/0" for n in range(16, 32)]
    assert fault.rules() == 0


def test_a_write_that_fails_does_not_heal(fault: Fault) -> None:
    fault.add(8, 2, "read", "medium", "until_written")
    fault.add(9, 1, "write", "medium", 1)
    assert try_write(fault.path, 8, pattern(8, 2)) == "ENODATA"
    assert [try_read(fault.path, n) for n in (8, 9)] == ["ENODATA"] * 2
    assert try_write(fault.path, 8, pattern(8, 2)) == "OK"
    assert [try_read(fault.path, n) for n in (8, 9)] == ["OK"] * 2


def test_a_rule_that_is_not_until_written_does_not_heal(fault: Fault) -> None:
    fault.add(8, 1, "read", "medium")
    write(fault.path, 8, pattern(8))
    assert try_read(fault.path, 8) == "ENODATA"


def test_clear(fault: Fault) -> None:
    fault.add(8, 8, "any", "medium")
    fault.add(10, 1, "read", "timeout")
    fault.add(0, 0, "flush", "ioerr")
    fault.clear(9, 3)
    assert [n for n in range(20) if try_read(fault.path, n) != "OK"] == [8, 12, 13, 14, 15]
    assert fault.rules() == 2
    with Device(fault.path) as device:
        assert do(device, "flush") == "EIO"
        fault.clear()
        assert fault.rules() == 0
        assert do(device, "flush") == "OK"
    assert try_read(fault.path, 8, 8) == "OK"


def test_dead(fault: Fault) -> None:
    with Device(fault.path) as device:
        fault.dead("offline")
        assert [do(device, operation) for operation in OPERATIONS] == ["ENODEV"] * 5
        fault.dead("off")
        assert [do(device, operation) for operation in OPERATIONS] == ["OK"] * 5


def test_readonly(fault: Fault) -> None:
    with Device(fault.path) as device:
        fault.readonly("target")
        results = {operation: do(device, operation) for operation in OPERATIONS}
        assert results == {**dict.fromkeys(OPERATIONS, "EREMOTEIO"), "read": "OK", "flush": "OK"}
        fault.readonly("off")
        assert [do(device, operation) for operation in OPERATIONS] == ["OK"] * 5


def test_read_only_from_the_table(disk: Path) -> None:
    with fault_device(disk, "read_only") as fault:
        assert try_write(fault.path, 0, pattern(0)) == "EREMOTEIO"
        assert try_read(fault.path, 0) == "OK"
        fault.readonly("off")
        assert try_write(fault.path, 0, pattern(0)) == "OK"


def held_write(fault: Fault, sector: int, generation: int = 1) -> tuple[str, float]:
    result = try_write(fault.path, sector, pattern(sector, 1, generation))
    return result, time.monotonic()


def test_hold(fault: Fault, disk: Path) -> None:
    fault.hold("write")
    first = background(held_write, fault, 8)
    fault.wait_held(1)
    second = background(held_write, fault, 9)
    fault.wait_held(2)
    assert try_read(fault.path, 8) == "OK"
    with pytest.raises(FutureTimeout):
        first.result(timeout=0.5)
    assert describe(read(disk, 8, 2)) == ["zero"] * 2
    fault.release()
    assert (first.result(10)[0], second.result(10)[0]) == ("OK", "OK")
    assert describe(read(fault.path, 8, 2)) == ["8/1", "9/1"]
    assert fault.counters()["held"] == 0
    assert try_write(fault.path, 8, pattern(8)) == "OK"


def test_hold_of_a_range(fault: Fault) -> None:
    fault.hold("any", 8, 8)
    assert try_write(fault.path, 7, pattern(7)) == "OK"
    assert try_read(fault.path, 16) == "OK"
    inside = background(try_read, fault.path, 15, 4)
    fault.wait_held()
    with Device(fault.path) as device:  # 'any' has flushes too, whatever the range
        flush = background(do, device, "flush")
        fault.wait_held(2)
        fault.release()
        assert (inside.result(10), flush.result(10)) == ("OK", "OK")


def test_what_is_held_is_judged_when_it_goes(fault: Fault, disk: Path) -> None:
    fault.hold("write")
    waiting = background(held_write, fault, 8)
    fault.wait_held()
    fault.add(8, 1, "write", "medium")
    fault.release()
    assert waiting.result(10)[0] == "ENODATA"
    assert describe(read(disk, 8)) == ["zero"]


def test_held_bios_can_be_failed(fault: Fault, disk: Path) -> None:
    fault.hold("write")
    waiting = background(held_write, fault, 8)
    fault.wait_held()
    fault.release("transport")
    assert waiting.result(10)[0] == "ENOLINK"
    assert describe(read(disk, 8)) == ["zero"]


def test_suspend_fails_what_is_held(fault: Fault) -> None:
    fault.hold("write")
    waiting = background(held_write, fault, 8)
    fault.wait_held()
    dm_suspend(fault.name)
    dm_resume(fault.name)
    assert waiting.result(10)[0] == "EIO"
    assert try_write(fault.path, 8, pattern(8)) == "OK"


def test_delay(fault: Fault) -> None:
    fault.add(8, 1, "write", "medium")
    fault.delay(0.5)
    before = time.monotonic()
    late = [background(held_write, fault, 8) for _ in range(3)]
    assert try_write(fault.path, 9, pattern(9)) == "OK"
    assert time.monotonic() - before < 0.5
    for future in late:
        result, at = future.result(10)
        assert result == "ENODATA"
        assert 0.45 < at - before < 3
    fault.delay(3600)
    late = [background(held_write, fault, 8)]
    with pytest.raises(FutureTimeout):
        late[0].result(0.3)
    fault.delay(0)  # lets go what waits
    assert late[0].result(10)[0] == "ENODATA"


def test_a_torn_write_is_executed_up_to_the_bad_sector(fault: Fault, disk: Path) -> None:
    write(fault.path, 0, pattern(0, 24, generation=1))
    fault.add(11, 2, "write", "medium", torn=True)
    assert try_write(fault.path, 8, pattern(8, 8, generation=2)) == "ENODATA"
    assert describe(read(disk, 8, 8)) == [
        *(f"{n}/2" for n in (8, 9, 10)),
        *(f"{n}/1" for n in range(11, 16)),
    ]
    # Nothing of this one comes before it, and this one does not touch it.
    assert try_write(fault.path, 12, pattern(12, 4, generation=3)) == "ENODATA"
    assert describe(read(disk, 12, 4)) == [f"{n}/1" for n in range(12, 16)]
    assert try_write(fault.path, 16, pattern(16, 8, generation=3)) == "OK"
    counters = fault.counters()
    assert (counters["writes"], counters["failed"]) == (4, 2)


def test_a_torn_write_tears_as_often_as_it_is_told_and_heals_what_it_wrote(fault: Fault) -> None:
    fault.add(8, 8, "read", "medium", "until_written")
    fault.add(10, 1, "write", "ioerr", 1, torn=True)
    assert try_write(fault.path, 8, pattern(8, 8), fua=True) == "EIO"
    assert [n for n in range(8, 16) if try_read(fault.path, n) != "OK"] == list(range(10, 16))
    assert try_write(fault.path, 8, pattern(8, 8)) == "OK"
    assert describe(read(fault.path, 8, 8)) == [f"{n}/0" for n in range(8, 16)]


def test_a_torn_write_keeps_to_the_blocks_of_the_lower_device() -> None:
    with loop_device(sector_size=4096) as disk, fault_device(disk) as fault:
        fault.add(13, 1, "write", "medium", torn=True)
        assert try_write(fault.path, 0, pattern(0, 24)) == "ENODATA"
        assert describe(read(disk, 0, 24)) == [*(f"{n}/0" for n in range(8)), *["zero"] * 16]


# The volatile cache


@pytest.fixture
def cached(disk: Path) -> Iterator[Fault]:
    with fault_device(disk, "cache") as device:
        yield device


def endangered(fault: Fault) -> int:
    """Return how many blocks are in memory only."""
    return fault.counters()["cached"]


def unflushed(device: Device, first: int, count: int, generation: int = 0) -> None:
    """Write without the flush that the kernel sends when a device is closed."""
    device.write(first, pattern(first, count, generation))


def test_a_write_stays_in_the_cache_until_it_is_flushed(cached: Fault, disk: Path) -> None:
    assert queue(cached.path, "write_cache") == "write back"
    with Device(cached.path) as device:
        unflushed(device, 8, 8, 1)
        unflushed(device, 12, 8, 2)
        assert endangered(cached) == 12
        seen = [*(f"{n}/1" for n in range(8, 12)), *(f"{n}/2" for n in range(12, 20))]
        assert describe(device.read(8, 12)) == seen
        assert describe(device.read(10, 1)) == ["10/1"]
        assert describe(device.read(4, 8)) == [*["zero"] * 4, *seen[:4]]
        assert describe(device.read(24, 4)) == ["zero"] * 4
        assert describe(read(disk, 8, 12)) == ["zero"] * 12
        device.flush()
        assert endangered(cached) == 0
        assert describe(read(disk, 8, 12)) == seen
        assert describe(device.read(8, 12)) == seen


def test_fua_goes_through_the_cache_and_takes_nothing_with_it(cached: Fault, disk: Path) -> None:
    with Device(cached.path) as device:
        unflushed(device, 8, 8, 1)
        # A synchronous write is FUA and a flush, so that flush must fail.
        cached.add(0, 0, "flush", "ioerr")
        assert outcome(device.write, 12, pattern(12, 8, 2), fua=True) == "EIO"
        assert endangered(cached) == 4
        assert describe(read(disk, 8, 12)) == [
            *["zero"] * 4,
            *(f"{n}/2" for n in range(12, 20)),
        ]
        assert describe(device.read(8, 12)) == [
            *(f"{n}/1" for n in range(8, 12)),
            *(f"{n}/2" for n in range(12, 20)),
        ]
        cached.clear()


def test_write_zeroes_and_discards_meet_the_cache(cached: Fault, disk: Path) -> None:
    with Device(cached.path) as device:
        device.write(0, pattern(0, 24))
        device.flush()
        unflushed(device, 0, 24, 1)
        # fallocate() flushes by itself.
        cached.add(0, 0, "flush", "ioerr")
        device.write_zeroes(4, 4)
        assert describe(device.read(0, 8)) == [*(f"{n}/1" for n in range(4)), *["zero"] * 4]
        assert describe(read(disk, 0, 8)) == [f"{n}/0" for n in range(8)]
        device.discard(8, 8)
        assert describe(device.read(8, 8)) == ["zero"] * 8
        assert endangered(cached) == 16
        assert describe(read(disk, 16, 8)) == [f"{n}/0" for n in range(16, 24)]
        cached.clear()


def test_rules_are_asked_before_the_cache(cached: Fault) -> None:
    cached.add(9, 1, "write", "medium")
    cached.add(20, 1, "write", "medium", torn=True)
    with Device(cached.path) as device:
        assert do(device, "write", 8, 8) == "ENODATA"
        assert endangered(cached) == 0
        assert do(device, "write", 16, 8) == "ENODATA"
        assert endangered(cached) == 4
        assert describe(device.read(16, 8)) == [*(f"{n}/0" for n in range(16, 20)), *["zero"] * 4]
        cached.add(17, 1, "read", "medium")
        assert do(device, "read", 16, 4) == "ENODATA"


def cut(fault: Fault, disk: Path, seed: int | None) -> list[str]:
    """Write old, durable data and new data that is not, cut the power; return what is left."""
    with Device(fault.path) as device:
        device.write(0, pattern(0, 400, generation=1))
        device.flush()
        unflushed(device, 0, 400, 2)
        fault.powercut(seed)
    fault.reload()
    return describe(read(disk, 0, 400))


def test_a_power_cut_loses_what_was_not_flushed(cached: Fault, disk: Path) -> None:
    assert cut(cached, disk, None) == [f"{n}/1" for n in range(400)]


def test_a_power_cut_loses_a_random_part(cached: Fault, disk: Path) -> None:
    seeds = (1, 2, 1 << 40)
    left = [cut(cached, disk, seed) for seed in seeds]
    for words in left:
        assert {word.split("/")[0] for word in words} <= {str(n) for n in range(400)}
        new = [word.endswith("/2") for word in words]
        assert 140 < sum(new) < 260
        # Each sector on its own: the next one has the same fate in about half of the cases.
        assert 140 < sum(one == other for one, other in pairwise(new)) < 260
    assert len({tuple(words) for words in left}) == len(seeds)
    assert cut(cached, disk, seeds[0]) == left[0], "the same seed, the same loss"


def test_after_a_power_cut_everything_fails_until_a_table_is_loaded(cached: Fault) -> None:
    with Device(cached.path) as device:
        cached.powercut(1)
        cached.dead("off")
        assert [do(device, operation) for operation in OPERATIONS] == ["ENODEV"] * 5
        dm_suspend(cached.name)
        dm_resume(cached.name)
        assert do(device, "read") == "ENODEV"
        with pytest.raises(CommandError, match="busy"):
            cached.powercut(2)
        cached.reload()
        assert [do(device, operation) for operation in OPERATIONS] == ["OK"] * 5


def test_a_power_cut_meets_writes_that_are_under_way(cached: Fault, disk: Path) -> None:
    cached.hold("write")
    # With RWF_DSYNC it is FUA, and still not acknowledged.
    waiting = [
        background(try_write, cached.path, n * 64, pattern(n * 64, 64), fua=bool(n % 2))
        for n in range(4)
    ]
    cached.wait_held(4)
    cached.powercut(7)
    assert [future.result(10) for future in waiting] == ["ENODEV"] * 4
    cached.reload()
    words = describe(read(disk, 0, 256))
    assert set(words) <= {"zero", *(f"{n}/0" for n in range(256))}
    for n in range(4):
        assert 8 < words[n * 64 : n * 64 + 64].count("zero") < 56, n


def test_a_power_cut_meets_a_flush(cached: Fault, disk: Path) -> None:
    with Device(cached.path) as device:
        unflushed(device, 0, 8000)
        flush = background(do, device, "flush")
        wait_for(lambda: 0 < endangered(cached) < 7900, "a part to be written down")
        cached.powercut()
        assert flush.result(10) == "ENODEV"
    cached.reload()
    words = describe(read(disk, 0, 8000))
    done = words.index("zero")
    print(f"{done} of 8000 sectors were written down")
    assert words == [*(f"{n}/0" for n in range(done)), *["zero"] * (8000 - done)]
    assert done >= 100


def test_an_orderly_end_loses_nothing(cached: Fault, disk: Path) -> None:
    with Device(cached.path) as device:
        unflushed(device, 0, 8)
        dm_suspend(cached.name, lockfs=False)
        assert describe(read(disk, 0, 8)) == [f"{n}/0" for n in range(8)]
        dm_resume(cached.name)
        unflushed(device, 8, 8)
        cached.reload()
        assert describe(device.read(0, 16)) == [f"{n}/0" for n in range(16)]


def test_the_cache_of_a_disk_with_large_blocks() -> None:
    with loop_device(sector_size=4096) as disk, fault_device(disk, "cache") as cached:
        words = cut(cached, disk, 5)
        blocks = [{word.split("/")[1] for word in words[n : n + 8]} for n in range(0, 400, 8)]
        assert all(len(found) == 1 for found in blocks), "no block is torn"
        assert 10 < blocks.count({"2"}) < 40


def test_the_cache_agrees_with_a_model(cached: Fault, disk: Path) -> None:
    seed = int.from_bytes(os.urandom(4), "little")
    print(f"seed {seed}")
    random = Random(seed)
    seen = ["zero"] * 256
    with Device(cached.path) as device:
        for number in range(1, 150):
            first = random.randrange(256)
            count = random.randint(1, min(24, 256 - first))
            match random.choice(("write", "write", "read", "zeroes", "flush", "fua")):
                case "write":
                    unflushed(device, first, count, number)
                    seen[first : first + count] = [
                        f"{n}/{number}" for n in range(first, first + count)
                    ]
                case "fua":
                    device.write(first, pattern(first, count, number), fua=True)
                    seen[first : first + count] = [
                        f"{n}/{number}" for n in range(first, first + count)
                    ]
                case "zeroes":
                    device.write_zeroes(first, count)
                    seen[first : first + count] = ["zero"] * count
                case "flush":
                    device.flush()
                    assert describe(read(disk, 0, 256)) == seen
            assert describe(device.read(first, count)) == seen[first : first + count]
        assert describe(device.read(0, 256)) == seen


def test_counts(fault: Fault) -> None:
    fault.add(8, 1, "read", "medium")
    fault.reset()
    with Device(fault.path) as device:
        device.read(0, 4)
        do(device, "read", 8, 1)
        device.write(0, pattern(0, 8))
        device.write(8, pattern(8, 2), fua=True)
        device.flush()
        device.discard(16, 8)
        device.write_zeroes(24, 8)
        counters = fault.counters()
    assert counters == {
        "reads": 2,
        "writes": 2,
        "flushes": 2,  # the kernel's own after a synchronous write, and the fsync
        "fua": 1,
        "discards": 1,
        "write_zeroes": 1,
        "failed": 1,
        "read_sectors": 5,
        "write_sectors": 10,
        "held": 0,
    }
    fault.reset()
    assert set(fault.counters().values()) == {0}


def test_flush_and_fua_arrive_though_the_lower_device_has_no_cache() -> None:
    with ram_disks() as (disk,), fault_device(disk) as fault, Device(fault.path) as device:
        assert queue(disk, "write_cache") == "write through"
        assert queue(fault.path, "write_cache") == "write back"
        fault.reset()
        device.write(0, pattern(0), fua=True)
        device.flush()
        counters = fault.counters()
        assert (counters["fua"], counters["flushes"]) == (1, 2)  # as in test_counts


def test_nowait(fault: Fault) -> None:
    with Device(fault.path) as device:
        device.read(0, 8, flags=os.RWF_NOWAIT)
        device.write(0, pattern(0, 8), flags=os.RWF_NOWAIT)
        fault.add(0, 8, "write", "medium")
        assert outcome(device.write, 0, pattern(0, 8), flags=os.RWF_NOWAIT) == "ENODATA"


def test_block_sizes(disk: Path) -> None:
    with fault_device(disk, "physical", "4096") as fault:
        assert queue(fault.path, "logical_block_size") == "512"
        assert queue(fault.path, "physical_block_size") == "4096"
        assert try_write(fault.path, 1, pattern(1)) == "OK"
    with fault_device(disk, "logical", "4096") as fault:
        assert queue(fault.path, "logical_block_size") == "4096"
        assert queue(fault.path, "physical_block_size") == "4096"
        assert try_write(fault.path, 1, pattern(1)) == "EINVAL"
        assert try_write(fault.path, 8, pattern(8, 8)) == "OK"
    with loop_device(sector_size=4096) as large, fault_device(large, "physical", "8192") as fault:
        assert queue(fault.path, "logical_block_size") == "4096"
        assert queue(fault.path, "physical_block_size") == "8192"


def test_over_null_blk() -> None:
    with null_block(8 * MIB, block_size=4096, cache=MIB) as disk, fault_device(disk) as fault:
        assert sectors(fault.path) == 8 * MIB // 512
        fault.add(12, 1, "write", "medium")
        assert try_write(fault.path, 8, pattern(8, 8)) == "ENODATA"
        assert try_write(fault.path, 16, pattern(16, 8)) == "OK"
        assert describe(read(disk, 8, 16)) == [*["zero"] * 8, *(f"{n}/0" for n in range(16, 24))]


def test_table_and_status_lines(disk: Path) -> None:
    options = ("read_only", "logical", "1024", "physical", "4096", "cache")
    with fault_device(disk, *options, start=8, length=1024) as fault:
        words = dm_table(fault.name).split()
        assert words[1:] == ["8", *options]
        fault.dead("timeout")
        fault.add(0, 2, "read", "medium")
        assert dm_status(fault.name).split()[:3] == ["1", "timeout", "target"]


WRONG_MESSAGES = [
    "add",
    "add 0 8 read",
    "add 0 8 read nonsense",
    "add 0 8 sideways medium",
    "add 0 8 read off",
    "add 0 0 read medium",
    "add 0 99999999 read medium",
    "add 32768 1 read medium",
    "add 18446744073709551615 2 read medium",
    "add -1 1 read medium",
    "add 0x 1 read medium",
    "add 0 8 flush medium",
    "add 0 8 write medium until_written",
    "add 0 8 read medium sometimes",
    "add 0 8 read medium sometimes torn",
    "add 0 8 read medium torn",
    "add 0 8 any medium 1 torn",
    "add 0 8 write medium 1 torn torn",
    "add 0 8 write medium after",
    "add 0 8 write medium after some",
    "add 0 8 write medium 1 torn after 1 1",
    "clear 1",
    "clear 0 0",
    "dead",
    "dead nonsense",
    "readonly nonsense",
    "hold",
    "hold nonsense",
    "hold read 1",
    "hold read 0 0",
    "hold off nonsense",
    "hold off medium 1",
    "delay",
    "delay soon",
    "delay 3600001",
    "powercut",
    "powercut 1",
    "count nonsense",
    "nonsense",
]


def test_a_wrong_message_is_refused_and_changes_nothing(fault: Fault) -> None:
    before = dm_status(fault.name)
    for message in WRONG_MESSAGES:
        with pytest.raises(CommandError, match="Invalid argument"):
            dm_message(fault.name, *message.split())
        assert dm_status(fault.name) == before, message


def test_a_wrong_power_cut_is_refused(cached: Fault) -> None:
    for words in (("x",), ("-1",), ("1", "2")):
        with pytest.raises(CommandError, match="Invalid argument"):
            dm_message(cached.name, "powercut", *words)
    assert try_read(cached.path, 0) == "OK"


def test_a_wrong_table_is_refused(disk: Path) -> None:
    load_module("dm_fault")
    for arguments in (
        "",
        f"{disk}",
        f"{disk} x",
        "/dev/nothing 0",
        f"{disk} 99999999",
        f"{disk} 0 nonsense",
        f"{disk} 0 physical",
        f"{disk} 0 physical 1000",
        f"{disk} 0 logical 256",
        f"{disk} 0 logical 8192",
    ):
        with pytest.raises(CommandError):
            dm_create("fault", f"0 1024 fault {arguments}")
        assert "fault" not in run("dmsetup", "ls"), arguments


def test_many_rules(fault: Fault) -> None:
    bad = range(0, 600, 10)
    for sector in bad:
        fault.add(sector, 1, "read", "medium", "until_written")
    assert fault.rules() == len(bad)
    with Device(fault.path) as device:
        found = [n for n in range(600) if outcome(device.read, n) != "OK"]
        assert found == list(bad)
        device.write(0, pattern(0, 600))
        assert outcome(device.read, 0, 600) == "OK"
    assert fault.rules() == 0


def test_comes_apart_with_rules_left(disk: Path) -> None:
    with fault_device(disk) as fault:
        fault.add(0, 32768, "any", "medium")
        fault.dead("ioerr")
        fault.hold("read")
        fault.delay(1)
    unload_module("dm_fault")
