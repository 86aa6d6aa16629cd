# SPDX-License-Identifier: GPL-2.0-only
"""I/O through the `remap` target: pass-through, splits at mapped blocks, flushes, limits.

Runs inside a guest, as root.
"""

from __future__ import annotations

import os
import random
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from guest.lib import (
    MIB,
    SECTOR,
    Device,
    background,
    describe,
    dm_create,
    dm_device,
    dm_remove,
    fault_device,
    loop_device,
    null_block,
    outcome,
    pattern,
    queue,
    read,
    run,
    try_write,
    wait_for,
    write,
)
from guest.remapset import (
    entries,
    held,
    mapped,
    remap_set,
    status,
    texts,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from guest.remapset import RemapSet

pytestmark = [pytest.mark.guest, pytest.mark.module]


ODD = [0, 7, 8, 9, 63, 64, 65, 100, 127, 128, 200, *range(230, 247), 511]
"""Sectors that are mapped in `mixed`: borders of 8, of 64, runs, first and last."""
WIDTH = 512


def map_sectors(made: RemapSet, numbers: Iterable[int], generation: int = 0) -> None:
    """Have main refuse one write to each sector, which writes its pattern, and then heal."""
    for number in numbers:
        made.main.add(number, 1, "write", "medium")
        write(made.path, number, pattern(number, 1, generation))
    made.main.clear()


@pytest.fixture(scope="module")
def mixed() -> Iterator[RemapSet]:
    """A set of WIDTH sectors of which ODD are mapped."""
    with remap_set(length=WIDTH, name="mixed") as made:
        map_sectors(made, ODD)
        assert made.mapped == ODD
        yield made


# Split at mappings


@pytest.mark.parametrize("count", [1, 3, 8, 13, 64, WIDTH])
def test_pieces_of_any_size_read_back_as_written(count: int, mixed: RemapSet) -> None:
    with Device(mixed.path) as device:
        for sector in range(0, WIDTH, count):
            size = min(count, WIDTH - sector)
            device.write(sector, pattern(sector, size, generation=count))
        assert describe(device.read(0, WIDTH)) == texts(0, WIDTH, count)
        for sector in range(0, WIDTH, count):
            size = min(count, WIDTH - sector)
            assert describe(device.read(sector, size)) == texts(sector, size, count)
    assert mixed.mapped == ODD


def test_random_pieces_agree_with_a_model(mixed: RemapSet) -> None:
    chance = random.Random(1)
    with Device(mixed.path) as device:
        device.write(0, pattern(0, WIDTH, 1000))
        model = texts(0, WIDTH, 1000)
        for generation in range(1001, 1201):
            sector = chance.randrange(WIDTH)
            count = chance.randint(1, min(40, WIDTH - sector))
            if chance.random() < 0.5:
                device.write(sector, pattern(sector, count, generation))
                model[sector : sector + count] = texts(sector, count, generation)
            else:
                assert describe(device.read(sector, count)) == model[sector : sector + count]
        assert describe(device.read(0, WIDTH)) == model


def test_mapped_sectors_live_on_the_spare_and_all_others_on_main(mixed: RemapSet) -> None:
    before = describe(read(mixed.main_disk, 0, WIDTH))
    with Device(mixed.path) as device:
        device.write(0, pattern(0, WIDTH, 2000))
    after = describe(read(mixed.main_disk, 0, WIDTH))
    for sector in range(WIDTH):
        assert after[sector] == (before[sector] if sector in ODD else f"{sector}/2000")
    slots = {row.sector: row.slot for row in entries(mixed.name)}
    spare = describe(read(mixed.spare_disk, 0, 4096))
    assert sorted(slots.values()) == list(range(len(ODD)))
    assert {spare.index(f"{sector}/2000") - slots[sector] for sector in ODD} == {
        spare.index("0/2000") - slots[0]
    }


def test_a_write_between_two_mappings_leaves_them_alone(mixed: RemapSet) -> None:
    with Device(mixed.path) as device:
        device.write(0, pattern(0, WIDTH, 3000))
        device.write(66, pattern(66, 34, 3001))
        assert describe(device.read(60, 48)) == texts(60, 48, 3000, g3001=range(66, 100))


def test_clean_sectors_are_one_bio_each_way(mixed: RemapSet) -> None:
    mixed.reset()
    with Device(mixed.path) as device:
        device.read(300, 64)
        device.write(300, pattern(300, 64))
    main, spare = mixed.main.counters(), mixed.spare.counters()
    assert (main["reads"], main["read_sectors"]) == (1, 64)
    assert (main["writes"], main["write_sectors"]) == (1, 64)
    assert (spare["reads"], spare["writes"]) == (0, 0)


def test_a_run_of_mapped_sectors_is_one_bio(mixed: RemapSet) -> None:
    with Device(mixed.path) as device:
        mixed.reset()
        device.read(230, 17)
    assert mixed.main.counters()["reads"] == 0
    slots = [row.slot for row in entries(mixed.name) if row.sector in range(230, 247)]
    assert slots == list(range(min(slots), min(slots) + 17))
    assert mixed.spare.counters()["reads"] == 1


def test_a_split_bio_has_as_many_parts_as_it_needs(mixed: RemapSet) -> None:
    with Device(mixed.path) as device:
        mixed.reset()
        device.read(98, 5)
    assert (mixed.main.counters()["reads"], mixed.main.counters()["read_sectors"]) == (2, 4)
    assert (mixed.spare.counters()["reads"], mixed.spare.counters()["read_sectors"]) == (1, 1)


def test_big_bios_span_many_mappings(small: RemapSet) -> None:
    bad = range(5, 8192, 397)
    for sector in bad:
        small.main.add(sector, 1, "write", "medium")
    with Device(small.path) as device:
        data = pattern(0, 8192)
        device.write(0, data)
        assert small.mapped == list(bad)
        small.main.clear()
        assert device.read(0, 8192) == data
        data = pattern(0, 8192, 1)
        device.write(0, data)
        assert device.read(0, 8192) == data
    main = read(small.main_disk, 0, 8192)
    assert [n for n in range(8192) if not any(main[n * SECTOR : (n + 1) * SECTOR])] == list(bad)


def test_buffered_io_sees_what_direct_io_wrote(mixed: RemapSet) -> None:
    write(mixed.path, 0, pattern(0, WIDTH, 4000))
    with mixed.path.open("r+b", buffering=0) as file:
        assert file.read(WIDTH * SECTOR) == pattern(0, WIDTH, 4000)
        file.seek(60 * SECTOR)
        file.write(pattern(60, 100, 4001))
        os.fsync(file.fileno())
    assert held(mixed.path, 0, WIDTH) == texts(0, WIDTH, 4000, g4001=range(60, 160))


# Where the target and main start


def test_remap_as_the_second_target_of_a_table() -> None:
    with remap_set(name="lower") as lower, loop_device() as linear:
        lower.remove()
        table = f"0 1000 linear {linear} 0\n1000 4096 {lower.line.split(maxsplit=2)[2]}\n"
        with dm_device("upper", table) as path:
            lower.main.add(50, 2, "write", "medium")
            with Device(path) as device:
                device.write(990, pattern(990, 100))
                assert mapped("upper", sector=1000) == [1050, 1051]
                assert describe(device.read(990, 100)) == texts(990, 100)
            lower.main.add(60, 1, "read", "medium")
            assert outcome(read, path, 1060) == "ENODATA"
            assert status("upper", 1000).pending == 1
        assert held(lower.main_disk, 0, 50) == texts(1000, 50)


def test_main_start_moves_data_and_not_mappings() -> None:
    with remap_set("main_start", "24", length=1000) as made:
        made.main.add(24 + 7, 1, "write", "medium")
        write(made.path, 0, pattern(0, 16))
        assert made.mapped == [7]
        made.recreate()
        assert made.mapped == [7]
        assert held(made.path, 0, 16) == texts(0, 16)
        assert held(made.main_disk, 24, 7) == texts(0, 7)
        assert held(made.main_disk, 0, 24) == ["zero"] * 24


def test_two_sets_in_one_table_keep_apart() -> None:
    with remap_set(name="one", length=1000) as one, remap_set(name="two", length=1000) as two:
        one.remove()
        two.remove()
        second = two.line.split(maxsplit=1)[1]
        with dm_device("both", f"{one.line}\n1000 {second}\n") as path:
            one.main.add(10, 1, "write", "medium")
            two.main.add(20, 2, "write", "medium")
            with Device(path) as device:
                device.write(0, pattern(0, 2000))
                assert describe(device.read(0, 2000)) == texts(0, 2000)
                device.flush()
            assert mapped("both") == [10]
            assert mapped("both", sector=1000) == [1020, 1021]
        one.create()
        two.create()
        assert held(one.path, 10) == ["10/0"]
        assert held(two.path, 20, 2) == ["1020/0", "1021/0"]


@contextmanager
def partition(disk: Path, start: int, size: int) -> Iterator[Path]:
    """Have a partition on a disk."""
    run("addpart", disk, 1, start, size)
    try:
        yield Path(f"{disk}p1")
    finally:
        run("delpart", disk, 1)


def test_errors_on_a_partition_are_found_where_they_are() -> None:
    # null_blk counts bad blocks from the start of the disk, as a disk does
    with (
        null_block(16 * MIB, badblocks="+2148-2149") as disk,
        loop_device(4 * MIB) as spare,
        partition(disk, 2048, 8192) as main,
        dm_device("set", f"0 8192 remap {main} {spare} 0 8192") as path,
    ):
        with Device(path) as device:
            device.write(90, pattern(90, 32))
            assert describe(device.read(90, 32)) == texts(90, 32)
        assert mapped("set") == [100, 101]
        assert held(disk, 2048 + 90, 10) == texts(90, 10)
        assert held(disk, 2048 + 102, 20) == texts(102, 20)


def test_read_errors_on_a_partition_are_found_where_they_are() -> None:
    with (
        null_block(16 * MIB, badblocks="+2148-2149") as disk,
        loop_device(4 * MIB) as spare,
        partition(disk, 2048, 8192) as main,
        dm_device("set", f"0 8192 remap {main} {spare} 0 8192") as path,
        Device(path) as device,
    ):
        assert outcome(device.read, 90, 32) == "ENODATA"
        assert [n for n in range(90, 122) if outcome(device.read, n) != "OK"] == [100, 101]


# Block sizes


def test_blocks_of_4096_bytes() -> None:
    with (
        loop_device(8 * MIB, sector_size=4096) as main,
        loop_device(4 * MIB, sector_size=4096) as spare,
        remap_set(main_disk=main, spare_disk=spare) as made,
    ):
        assert made.status.unit == 4096
        assert queue(made.path, "logical_block_size") == "4096"
        made.main.add(801, 1, "write", "medium")
        made.main.add(1600, 8, "write", "medium")
        with Device(made.path) as device:
            device.write(784, pattern(784, 48))
            device.write(1584, pattern(1584, 48))
            assert made.mapped == [800, 1600]
            assert {row.sectors for row in entries(made.name)} == {8}
            assert describe(device.read(784, 48)) == texts(784, 48)
            assert describe(device.read(1584, 48)) == texts(1584, 48)
        assert try_write(made.path, 1, pattern(1)) == "EINVAL"
        made.recreate()
        assert held(made.path, 784, 48) == texts(784, 48)


def test_a_main_of_4096_and_a_spare_of_512_bytes() -> None:
    with (
        loop_device(8 * MIB, sector_size=4096) as main,
        remap_set(main_disk=main) as made,
    ):
        made.main.add(800, 8, "write", "medium")
        write(made.path, 792, pattern(792, 24))
        assert made.mapped == [800]
        assert held(made.path, 792, 24) == texts(792, 24)


def test_null_block_of_4096_bytes() -> None:
    with (
        null_block(8 * MIB, block_size=4096, badblocks="+80-87") as main,
        null_block(4 * MIB, block_size=4096) as spare,
        dm_device("set", f"0 16384 remap {main} {spare} 0 8192") as path,
    ):
        write(path, 64, pattern(64, 64))
        assert mapped("set") == [80]
        assert held(path, 64, 64) == texts(64, 64)


# Flush and FUA


def flushes(made: RemapSet) -> tuple[int, int]:
    """Return how many flushes have reached main and the spare."""
    return made.main.counters()["flushes"], made.spare.counters()["flushes"]


def test_with_a_clean_spare_only_main_is_flushed(mixed: RemapSet) -> None:
    with Device(mixed.path) as device:
        device.flush()
        mixed.reset()
        device.write(300, pattern(300))
        device.flush()
    assert flushes(mixed) == (1, 0)


def test_a_write_to_a_mapped_sector_makes_the_next_flush_reach_the_spare(
    mixed: RemapSet,
) -> None:
    with Device(mixed.path) as device:
        device.flush()
        mixed.reset()
        device.write(100, pattern(100))
        device.flush()
        assert flushes(mixed) == (1, 1)
        device.flush()
        assert flushes(mixed) == (2, 1)


def test_a_flush_of_the_spare_that_fails_is_an_error_and_repeated(mixed: RemapSet) -> None:
    with Device(mixed.path) as device:
        device.flush()
        device.write(100, pattern(100))
        mixed.spare.add(0, 0, "flush", "ioerr", 1)
        mixed.reset()
        assert outcome(device.flush) == "EIO"
        assert outcome(device.flush) == "OK"
        assert flushes(mixed) == (2, 2)
    assert mixed.mapped == ODD


def test_a_flush_of_main_that_fails_is_an_error_and_maps_nothing(mixed: RemapSet) -> None:
    with Device(mixed.path) as device:
        for name in ("medium", "ioerr"):
            mixed.main.add(0, 0, "flush", name, 1)
            assert outcome(device.flush) != "OK"
        assert outcome(device.flush) == "OK"
    assert mixed.mapped == ODD
    assert mixed.status.mode == "rw"


def test_a_flush_beside_a_running_one_still_reaches_the_spare(mixed: RemapSet) -> None:
    with Device(mixed.path) as device:
        device.write(100, pattern(100))
        mixed.reset()
        mixed.spare.hold("flush")
        first = background(device.flush)
        mixed.spare.wait_held()
        device.write(100, pattern(100, 1, 1))  # acknowledged while the first one runs
        second = background(device.flush)
        mixed.spare.wait_held(2)
        mixed.spare.release()
        first.result(30)
        second.result(30)
        assert flushes(mixed)[1] == 2
        device.flush()
        assert flushes(mixed)[1] == 2


def test_a_write_that_was_mapped_needs_no_flush(small: RemapSet) -> None:
    small.main.add(8, 1, "write", "medium")
    with Device(small.path) as device:
        device.write(8, pattern(8))
        small.reset()
        device.flush()
        assert flushes(small) == (1, 0)


def test_fua_to_a_mapped_sector_is_fua_on_the_spare(mixed: RemapSet) -> None:
    with Device(mixed.path) as device:
        device.flush()
        mixed.reset()
        device.write(100, pattern(100), fua=True)
    assert mixed.spare.counters()["fua"] == 1
    assert mixed.main.counters()["fua"] == 0
    assert flushes(mixed) == (1, 0)  # the kernel's own flush after a synchronous write


def test_fua_survives_a_replay_on_main(small: RemapSet) -> None:
    small.main.add(8, 1, "write", "medium", 1)
    small.reset()
    write(small.path, 8, pattern(8), fua=True)
    assert small.main.counters()["fua"] == 2
    assert small.mapped == []


def test_no_fua_is_invented_on_main(small: RemapSet) -> None:
    small.main.add(8, 1, "write", "medium", 1)
    small.reset()
    write(small.path, 8, pattern(8))
    counters = small.main.counters()
    assert (counters["writes"], counters["fua"]) == (2, 0)


def test_fua_is_kept_where_main_has_no_cache_and_the_spare_has_one() -> None:
    with (
        null_block(8 * MIB, badblocks="+8-8") as main,
        loop_device(4 * MIB) as disk,
        fault_device(disk) as spare,
        dm_device("set", f"0 16384 remap {main} {spare.path} 0 8192") as path,
    ):
        assert queue(main, "write_cache") == "write through"
        assert queue(path, "write_cache") == "write back"
        spare.reset()
        spare.hold("write")
        first = background(try_write, path, 8, pattern(8))
        spare.wait_held()
        # It fails on main, which has its FUA removed, and waits for the first one.
        second = background(write, path, 8, pattern(8, 1, 1), fua=True)
        wait_for(lambda: status("set").write_errors == 2, "the second one to fail")
        spare.release()
        assert first.result(30) == "OK"
        second.result(30)
        counters = spare.counters()
        # the first one's data and two metadata blocks; the second one's data
        assert (counters["writes"], counters["fua"]) == (4, 4)
        assert held(path, 8) == ["8/1"]


# Discard and write-zeroes


def test_a_discard_passes_and_mapped_neighbours_keep_their_data(mixed: RemapSet) -> None:
    with Device(mixed.path) as device:
        device.write(0, pattern(0, WIDTH, 5000))
        mixed.reset()
        device.discard(66, 34)
        device.discard(101, 26)
        assert mixed.main.counters()["discards"] >= 2
        assert mixed.spare.counters()["discards"] == 0
        expected = texts(0, WIDTH, 5000)
        expected[66:100] = ["zero"] * 34  # a loop device's discarded sectors are zero
        expected[101:127] = ["zero"] * 26
        assert describe(device.read(0, WIDTH)) == expected


def test_a_discard_is_split_at_mapped_sectors(mixed: RemapSet) -> None:
    with Device(mixed.path) as device:
        device.write(0, pattern(0, WIDTH, 5001))
        device.discard(90, 30)
        after = describe(device.read(0, WIDTH))
        assert [n for n in range(WIDTH) if after[n] != f"{n}/5001"] in (
            list(range(90, 120)),
            [n for n in range(90, 120) if n != 100],
        )
        assert after[100] in ("zero", "100/5001")
        device.write(100, pattern(100, 1, 5002))
        assert describe(device.read(99, 3)) == ["zero", "100/5002", "zero"]
    assert mixed.mapped == ODD


def test_a_discard_of_everything_touches_no_other_slot(mixed: RemapSet) -> None:
    with Device(mixed.path) as device:
        device.write(0, pattern(0, WIDTH, 5003))
        device.discard(0, WIDTH)
        assert set(describe(device.read(0, WIDTH))) <= {
            "zero",
            *(f"{n}/5003" for n in ODD),
        }
    mixed.recreate()
    assert mixed.mapped == ODD


def test_a_discard_error_maps_nothing(mixed: RemapSet) -> None:
    mixed.main.add(300, 1, "discard", "medium")
    with Device(mixed.path) as device:
        assert outcome(device.discard, 296, 16) == "ENODATA"
    mixed.main.clear()
    assert mixed.mapped == ODD


def test_write_zeroes_zero_mapped_sectors_too(mixed: RemapSet) -> None:
    with Device(mixed.path) as device:
        device.write(0, pattern(0, WIDTH, 6000))
        mixed.reset()
        device.write_zeroes(60, 100)
        expected = texts(0, WIDTH, 6000)
        expected[60:160] = ["zero"] * 100
        assert describe(device.read(0, WIDTH)) == expected
        assert mixed.main.counters()["write_zeroes"] > 0
        assert mixed.main.counters()["writes"] == 0
        device.flush()
        assert flushes(mixed)[1] == 1


def test_write_zeroes_that_fail_are_narrowed(small: RemapSet) -> None:
    small.main.add(10, 1, "any", "medium")
    small.main.add(20, 2, "any", "medium")
    with Device(small.path) as device:
        device.write(11, pattern(11, 8))
        device.write_zeroes(0, 64)
        assert small.mapped == [10, 20, 21]
        assert describe(device.read(0, 64)) == ["zero"] * 64
    small.main.clear()
    small.recreate()
    assert held(small.path, 0, 64) == ["zero"] * 64


def test_write_zeroes_that_are_not_supported_stay_so(small: RemapSet) -> None:
    small.main.add(0, 64, "write_zeroes", "notsupp")
    with Device(small.path) as device:
        assert outcome(device.write_zeroes, 0, 64) == "EOPNOTSUPP"
    assert small.mapped == []


# Limits


def test_main_alone_describes_the_disk() -> None:
    with remap_set(main_options=("physical", "4096")) as made:
        assert queue(made.path, "logical_block_size") == "512"
        for limit in (
            "physical_block_size",
            "minimum_io_size",
            "optimal_io_size",
            "discard_granularity",
            "discard_max_bytes",
        ):
            assert queue(made.path, limit) == queue(made.main.path, limit), limit


def test_a_spare_with_big_physical_blocks_changes_nothing() -> None:
    with (
        loop_device(4 * MIB) as disk,
        fault_device(disk, "physical", "4096", name="big") as big,
        remap_set(spare_disk=big.path) as made,
    ):
        assert queue(made.path, "physical_block_size") == "512"
        assert queue(made.path, "minimum_io_size") == "512"


def test_a_spare_without_discard_takes_none_from_main() -> None:
    with null_block(4 * MIB) as spare, remap_set(spare_disk=spare) as made:
        assert queue(spare, "discard_max_bytes") == "0"
        assert int(queue(made.path, "discard_max_bytes")) > 0
        map_sectors(made, [10])
        with Device(made.path) as device:
            device.write(0, pattern(0, 32))
            assert outcome(device.discard, 0, 32) == "OK"
            assert describe(device.read(9, 3)) in (
                ["zero", "10/0", "zero"],
                ["zero", "zero", "zero"],
            )


def test_a_main_without_discard_has_none() -> None:
    with (
        null_block(8 * MIB) as main,
        loop_device(4 * MIB) as spare,
        dm_device("set", f"0 16384 remap {main} {spare} 0 8192") as path,
        Device(path) as device,
    ):
        assert queue(path, "discard_max_bytes") == "0"
        assert outcome(device.discard, 0, 8) == "EOPNOTSUPP"


def test_the_smaller_bound_of_a_bio_counts() -> None:
    with null_block(4 * MIB, max_sectors=64) as spare, remap_set(spare_disk=spare) as made:
        assert int(queue(made.path, "max_hw_sectors_kb")) <= 32
        made.main.add(0, 300, "write", "medium")
        write(made.path, 0, pattern(0, 200))
        assert held(made.path, 0, 200) == texts(0, 200)


# Every way in


@pytest.fixture
def failing(small: RemapSet) -> RemapSet:
    """A set whose main refuses writes to every 100th sector and to a run of 64."""
    for sector in range(100, 2048, 100):
        small.main.add(sector, 1, "write", "medium")
    small.main.add(1000, 64, "write", "medium")
    return small


def is_bad(sector: int) -> bool:
    """Say whether main refuses this sector in `failing`."""
    return (sector % 100 == 0 and 0 < sector < 2048) or sector in range(1000, 1064)


def test_direct_writes_over_failing_sectors(failing: RemapSet) -> None:
    write(failing.path, 0, pattern(0, 2048))
    assert held(failing.path, 0, 2048) == texts(0, 2048)
    assert failing.mapped == [n for n in range(2048) if is_bad(n)]
    failing.main.clear()
    failing.recreate()
    assert held(failing.path, 0, 2048) == texts(0, 2048)


def test_buffered_writes_over_failing_sectors(failing: RemapSet) -> None:
    with failing.path.open("r+b", buffering=0) as file:
        for sector in range(0, 2048, 256):
            file.seek(sector * SECTOR)
            file.write(pattern(sector, 256))
        os.fsync(file.fileno())
    assert held(failing.path, 0, 2048) == texts(0, 2048)
    assert failing.mapped == [n for n in range(2048) if is_bad(n)]


def test_nowait_writes_over_failing_sectors(failing: RemapSet) -> None:
    with Device(failing.path) as device:
        device.write(96, pattern(96, 16), flags=os.RWF_NOWAIT)
        assert describe(device.read(96, 16, flags=os.RWF_NOWAIT)) == texts(96, 16)
    assert failing.mapped == [100]


@pytest.mark.parametrize("engine", ["io_uring", "libaio"])
def test_fio_verifies_over_failing_sectors(engine: str, failing: RemapSet) -> None:
    run("modprobe", "-a", "crc32c")
    run(
        "fio",
        "--name=verify",
        f"--ioengine={engine}",
        f"--filename={failing.path}",
        "--direct=1",
        "--rw=randwrite",
        "--bsrange=512-16k",
        "--blockalign=512",
        "--size=1m",
        "--iodepth=8",
        "--verify=crc32c",
        "--verify_fatal=1",
        "--do_verify=1",
        "--randseed=1",
    )
    found = failing.mapped
    assert found
    assert all(is_bad(sector) for sector in found)


def test_many_writers_at_once(failing: RemapSet) -> None:
    def work(number: int) -> None:
        with Device(failing.path) as device:
            for generation in range(3):
                for sector in range(number * 256, number * 256 + 256, 32):
                    device.write(sector, pattern(sector, 32, generation))

    for future in [background(work, number) for number in range(8)]:
        future.result(60)
    assert held(failing.path, 0, 2048) == texts(0, 2048, 2)
    assert failing.mapped == [n for n in range(2048) if is_bad(n)]


def test_a_stack_of_two_sets() -> None:
    with remap_set(name="lower") as lower, loop_device(4 * MIB) as spare:
        path = dm_create("upper", f"0 16384 remap {lower.path} {spare} 0 8192")
        try:
            lower.main.add(8, 1, "write", "medium")
            write(path, 0, pattern(0, 32))
            assert held(path, 0, 32) == texts(0, 32)
            assert lower.mapped == [8]
            assert mapped("upper") == []
        finally:
            dm_remove("upper")
