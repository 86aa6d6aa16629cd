# SPDX-License-Identifier: GPL-2.0-only
"""What a set shows of its disks, and what it does where the spare refuses a command.

Runs inside a guest, as root.
"""

from __future__ import annotations

import fcntl
import math
import os
import struct
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from guest.lib import (
    MIB,
    SECTOR,
    CommandError,
    Device,
    background,
    dm_device,
    dm_message,
    dm_resume,
    dm_suspend,
    fault_device,
    loop_device,
    null_block,
    outcome,
    pattern,
    queue,
    run,
    sectors,
    try_write,
    unload_module,
    wait_for,
    write,
)
from guest.remapset import (
    SMALLEST_AREA,
    by_hand,
    entries,
    held,
    refusal,
    remap_set,
    segment_of,
    texts,
)
from limits import FILES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from guest.remapset import RemapSet

pytestmark = [pytest.mark.guest, pytest.mark.module]

VERSION = tuple(map(int, os.uname().release.split("-")[0].split("+")[0].split(".")[:2]))
AREA = 4096
"""Sectors of the spare that a set uses here."""


@contextmanager
def scsi_disks(count: int = 1, *, size: int = 32, **parameters: int | str) -> Iterator[list[Path]]:
    """Have disks of scsi_debug, ``size`` MiB of memory that they share. One use at a time."""
    words = [f"{name}={value}" for name, value in parameters.items()]
    run("modprobe", "sd_mod")
    run("modprobe", "scsi_debug", f"dev_size_mb={size}", f"max_luns={count}", "delay=0", *words)
    home = Path("/sys/bus/pseudo/drivers/scsi_debug")

    def found() -> list[Path]:
        disks = home.glob("adapter*/host*/target*/*:*/block/*")
        return sorted(Path("/dev", path.name) for path in disks)

    try:
        wait_for(lambda: len(found()) == count, "scsi_debug's disks")
        wait_for(lambda: all(sectors(path) for path in found()), "their sizes")
        yield found()
    finally:
        deadline = time.monotonic() + 30
        while True:
            try:
                unload_module("scsi_debug")
                break
            except CommandError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)


def attributes(path: Path | str) -> Path:
    """Return the directory in sysfs of a whole disk."""
    device = os.stat(path).st_rdev
    return Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")


def shown(path: Path | str) -> dict[str, str]:
    """Return what a disk shows of its limits, by the name of the file."""
    home = attributes(path)
    files = [home / "alignment_offset", home / "discard_alignment", *(home / "queue").iterdir()]
    values = {}
    for file in files:
        try:
            if file.is_file():
                values[str(file.relative_to(home))] = file.read_text().strip()
        except OSError:
            continue  # there, and not for this kind of disk
    return values


def like(disk: Path, start: int, length: int) -> dict[str, str]:
    """Return what dm-linear over a part of a disk shows."""
    with dm_device("like", f"0 {length} linear {disk} {start}") as path:
        return shown(path)


# The table


@dataclass(frozen=True)
class Pair:
    """Two disks, as unlike each other as they can be made."""

    main: str
    spare: str
    settings: dict[str, dict[str, str]] = field(default_factory=dict)
    """What is written to files in sysfs, by "main" and "spare"."""
    scsi: dict[str, int] = field(default_factory=dict)
    null: dict[str, Any] = field(default_factory=dict)


ODD = {
    "physblk_exp": 3,
    "lowest_aligned": 7,
    "opt_blks": 96,
    "lbpu": 1,
    "lbpws": 1,
    "unmap_granularity": 64,
    "unmap_alignment": 24,
    "unmap_max_blocks": 512,
    "unmap_max_desc": 16,
}
PAIRS = {
    "null_block for main": Pair(
        "null",
        "scsi",
        {"spare": {"queue/rotational": "1", "queue/add_random": "1", "queue/stable_writes": "1"}},
        ODD,
        {"max_sectors": 128, "discard": 1},
    ),
    "null_block for spare": Pair(
        "scsi",
        "null",
        {"main": {"queue/rotational": "1", "queue/add_random": "1", "queue/nomerges": "2"}},
        ODD,
        {"max_sectors": 64, "cache": 4, "virt_boundary": 1},
    ),
    "loop for main": Pair("loop", "scsi", {"spare": {"queue/rotational": "1"}}, ODD),
    "loop for spare": Pair(
        "null", "loop", {"main": {"queue/rotational": "1"}}, {}, {"blocksize": 4096, "discard": 1}
    ),
    "aligned in another way": Pair("physical", "scsi", {}, ODD),
}
MAIN_START = 8


@contextmanager
def pair_of(pair: Pair) -> Iterator[tuple[Path, Path]]:
    """Have the two disks of a pair."""

    def disk(kind: str) -> Path:
        match kind:
            case "loop":
                return stack.enter_context(loop_device(8 * MIB))
            case "physical":
                lower = stack.enter_context(loop_device(8 * MIB))
                return stack.enter_context(fault_device(lower, "physical", "4096")).path
            case "scsi":
                return stack.enter_context(scsi_disks(size=8, **pair.scsi))[0]
        return stack.enter_context(null_block(8 * MIB, **pair.null))

    with ExitStack() as stack:
        disks = {"main": disk(pair.main), "spare": disk(pair.spare)}
        for leg, settings in pair.settings.items():
            for name, value in settings.items():
                (attributes(disks[leg]) / name).write_text(value)
        yield disks["main"], disks["spare"]


def number(value: str) -> int:
    """Return what a limit says as a number; no limit is the highest one there is."""
    words = {"write through": 0, "write back": 1, "none": 0, "host-aware": 1, "[none]": 0}
    return words[value] if value in words else int(value)


def expected(rule: str, main: str, spare: str, files: dict[str, tuple[str, str]]) -> set[int]:
    """Return what a set may show where its main and its spare, each alone, show this."""
    a, b = number(main), number(spare)
    zeroes = files["queue/write_zeroes_max_bytes"]
    most = min(int(zeroes[0]), MIB) if int(zeroes[1]) else 0
    match rule:
        case "main" | "dm's":
            return {a}
        case "smaller":
            return {min(filter(None, (a, b)), default=0)}
        case "larger" | "either":
            return {max(a, b)}
        case "both":
            return {min(a, b)}
        case "common":
            return {math.gcd(a, b)}
        case "zeroes":
            return {most}
        case "unmap":
            return {most if a else 0}
    return {0}


@pytest.mark.parametrize("name", PAIRS)
def test_every_limit_is_shown_as_its_row_says(name: str) -> None:
    with pair_of(PAIRS[name]) as (main, spare):
        length = sectors(main) - MAIN_START
        alone = like(main, MAIN_START, length)
        other = like(spare, 0, AREA)
        line = f"0 {length} remap {main} {spare} 0 {AREA} 2 main_start {MAIN_START}"
        with dm_device("set", line) as path:
            set_ = shown(path)
    unknown = set_.keys() - FILES.keys()
    assert not unknown, f"what does a set show in {', '.join(sorted(unknown))}? (tests/limits.py)"
    assert set_.keys() == alone.keys() == other.keys()
    both = {file: (alone[file], other[file]) for file in set_}
    wrong = {}
    for file, value in set_.items():
        row = FILES[file]
        rule = row.old if row.old and VERSION < (6, 11) else row.shows
        may = expected(rule, *both[file], both)
        if number(value) not in may:
            wrong[file] = f"{value}, but {rule} of {both[file]}: {may}"
    assert not wrong


def test_both_disks_unmap_what_they_zero() -> None:
    """From Linux 6.17 on that is a limit of its own, which must be that of write-zeroes or 0."""
    with scsi_disks(2, size=8, lbpu=1, lbpws=1, lbpws10=1, lbprz=1) as (main, spare):
        limit = "queue/write_zeroes_unmap_max_hw_bytes"
        assert (limit in shown(main)) == (VERSION >= (6, 17))
        with dm_device("set", f"0 {sectors(main)} remap {main} {spare} 0 {AREA}") as path:
            shows = shown(path)
            assert 0 < int(shows["queue/write_zeroes_max_bytes"]) <= MIB
            assert shows.get(limit, "none") in (shows["queue/write_zeroes_max_bytes"], "none")
            with Device(path) as device:
                device.write(5000, pattern(5000, 8))
                device.write_zeroes(5002, 4)
            words = texts(5000, 8)
            words[2:6] = ["zero"] * 4
            assert held(path, 5000, 8) == words


# Alignment


def alignment(path: Path) -> int:
    """Return BLKALIGNOFF, which mkfs asks: -1 where a disk is misaligned."""
    with path.open("rb") as disk:
        answer = fcntl.ioctl(disk, 0x127A, struct.pack("i", 0))
    return int(struct.unpack("i", answer)[0])


def test_xfs_is_made_on_a_set_whose_spare_is_misaligned() -> None:
    big = 320 * MIB  # XFS takes no less
    with (
        scsi_disks(size=8, physblk_exp=3, lowest_aligned=7) as (spare,),
        null_block(big, memory=True) as disk,
        fault_device(disk, "physical", "4096") as main,
    ):
        with dm_device("bare", f"0 {AREA} linear {spare} 0") as path:
            assert alignment(path) == 7 * SECTOR
        line = f"0 {sectors(main.path)} remap {main.path} {spare} 0 {AREA}"
        with dm_device("set", line) as path:
            assert alignment(path) == 0
            run("mkfs.xfs", "-K", path)


@pytest.mark.parametrize("start", [0, 3])
def test_pieces_begin_where_the_disks_physical_blocks_do(start: int) -> None:
    """A 512e disk whose physical blocks begin at its sectors 7, 15, ..., and main is a part of it.

    One bad physical block is one failing piece: nothing beside it is mapped, and no part of
    another one is written alone, which the disk would have to read for.
    """
    with (
        scsi_disks(size=8, physblk_exp=3, lowest_aligned=7) as (disk,),
        dm_device("part", f"0 8000 linear {disk} {start}") as part,
        remap_set(main_disk=part) as made,
    ):
        first = 7 - start
        assert alignment(made.path) == first * SECTOR
        made.main.add(first + 8, 8, "write", "medium")
        made.reset()
        write(made.path, first, pattern(first, 32))
        assert made.mapped == list(range(first + 8, first + 16))
        # all at once; the first piece, the bad one, the last two
        assert made.main.counters()["writes"] == 1 + 4
        assert held(made.path, first, 32) == texts(first, 32)


def given_back(path: Path, first: int, count: int, disk: Path) -> set[int]:
    """Write all of a disk, discard a range of a device over it; return what lost its data."""
    size = sectors(disk)
    for sector in range(0, size, 1024):
        write(disk, sector, b"\xff" * (min(1024, size - sector) * SECTOR))
    with Device(path) as device:
        device.discard(first, count)
    (mapped,) = [p.read_text() for p in Path("/sys/bus/pseudo/drivers/scsi_debug").glob("map")]
    there: set[int] = set()
    for word in filter(None, mapped.strip().strip("\0").split(",")):
        low, _, high = word.partition("-")
        there |= set(range(int(low), int(high or low) + 1))
    return set(range(size)) - there


def test_all_that_linear_gives_back_is_given_back_with_main_start() -> None:
    with (
        scsi_disks(
            size=4, lbpu=1, unmap_granularity=64, unmap_alignment=24, unmap_max_blocks=200
        ) as (disk,),
        loop_device(4 * MIB) as spare,
    ):
        start = 8
        length = sectors(disk) - start
        with dm_device("bare", f"0 {length} linear {disk} {start}") as path:
            wanted = given_back(path, 0, length, disk)
        line = f"0 {length} remap {disk} {spare} 0 {AREA} 2 main_start {start}"
        with dm_device("set", line) as path:
            got = given_back(path, 0, length, disk)
    assert len(wanted) > length * 9 // 10
    assert got == wanted


# A spare that refuses commands


def map_sectors(made: RemapSet, numbers: Sequence[int]) -> None:
    """Have main refuse one write to each sector."""
    for sector in numbers:
        made.main.add(sector, 1, "write", "medium")
        write(made.path, sector, pattern(sector))
    made.main.clear()
    assert made.mapped == list(numbers)


def well(made: RemapSet) -> None:
    """Nothing was held against the spare."""
    now = made.status
    assert (now.mode, now.bad, now.doubt, now.lost) == ("rw", 0, 0, 0)


@pytest.mark.parametrize("status", ["target", "notsupp"])
def test_a_spare_that_refuses_discards_fails_none(status: str, small: RemapSet) -> None:
    map_sectors(small, [10])
    small.spare.add(0, sectors(small.spare.path), "discard", status)
    small.reset()
    with Device(small.path) as device:
        device.write(0, pattern(0, 32))
        assert outcome(device.discard, 0, 32) == "OK"
        assert outcome(device.discard, 10, 1) == "OK"
        assert held(small.path, 9, 3) in (["zero", word, "zero"] for word in ("10/0", "zero"))
    assert small.spare.counters()["discards"] == 0
    assert int(queue(small.path, "discard_max_bytes")) > 0
    assert small.mapped == [10]
    well(small)


@pytest.mark.parametrize("status", ["target", "notsupp"])
def test_a_spare_that_refuses_write_zeroes_zeroes_its_slots(status: str, small: RemapSet) -> None:
    map_sectors(small, [10, 11, 20])
    small.spare.add(0, sectors(small.spare.path), "write_zeroes", status)
    with Device(small.path) as device:
        device.write(0, pattern(0, 32))
        device.flush()
        small.reset()
        assert outcome(device.write_zeroes, 4, 24) == "OK"
        device.flush()
    counters = small.spare.counters()
    # three pieces, as writes that are not FUA, so the flush came here
    assert (counters["write_zeroes"], counters["writes"], counters["fua"]) == (0, 3, 0)
    assert counters["flushes"] == 1
    expected = texts(0, 32)
    expected[4:28] = ["zero"] * 24
    assert held(small.path, 0, 32) == expected
    assert small.status.transient == 0
    well(small)


def test_write_zeroes_of_slots_do_not_need_metadata(small: RemapSet) -> None:
    """They are writes to slots that are mapped: neither the mode nor the breaker stops them."""
    map_sectors(small, [10, 11])
    segment = segment_of(small)
    small.spare.add(128 * 8, 127 * 8, "write", "medium")
    small.spare.add(segment.copy_a * 8, 8, "write", "medium")
    small.main.add(30, 1, "write", "medium")
    assert try_write(small.path, 30, pattern(30)) == "EIO"
    assert small.status.mode == "ro"
    with Device(small.path) as device:
        assert outcome(device.write_zeroes, 8, 6) == "OK"
        assert held(small.path, 10, 2) == ["zero", "zero"]
        small.spare.nofua("target")
        assert outcome(device.write, 10, pattern(10, 2), fua=True) == "OK"
        assert held(small.path, 10, 2) == texts(10, 2)
        # A slot that refuses the data itself cannot be left any more.
        small.spare.add(slot_of(small, 10), 1, "write", "medium")
        assert outcome(device.write_zeroes, 10, 1) != "OK"
        assert outcome(device.write, 10, pattern(10, 1, 1), fua=True) != "OK"
    assert small.mapped == [10, 11]


def slot_of(made: RemapSet, sector: int) -> int:
    """Return where on the spare a mapped sector is."""
    (slot,) = (entry.slot for entry in entries(made.name) if entry.sector == sector)
    return segment_of(made).data * 8 + slot


REFUSALS = ["target", "notsupp"]


@pytest.mark.parametrize("status", REFUSALS)
def test_a_spare_that_refuses_fua_can_be_made_one(status: str) -> None:
    with (
        loop_device(8 * MIB) as disk,
        loop_device(4 * MIB) as lower,
        fault_device(disk, name="main") as main,
        fault_device(lower, "cache", name="spare") as spare,
    ):
        spare.nofua(status)
        line = f"0 16384 remap {main.path} {spare.path} 0 8192"
        with dm_device("set", line) as path:
            main.add(100, 8, "write", "medium")
            write(path, 96, pattern(96, 16))
            # All that was acknowledged is durable, the data and the mapping.
            spare.powercut()
        spare.reload()
        spare.nofua(status)
        with dm_device("set", line) as path:
            assert held(path, 96, 16) == texts(96, 16)


def test_a_spare_without_fua_is_clean_after_its_metadata_is_written(small: RemapSet) -> None:
    """Each metadata block has had its flush, so that a user's goes to main alone."""
    small.remove()
    small.spare.nofua("notsupp")
    small.create()
    dm_message(small.name, "rename", "other")
    small.reset()
    with Device(small.path) as device:
        device.flush()
        device.flush()
    assert small.main.counters()["flushes"] == 2
    assert small.spare.counters()["flushes"] == 0


@pytest.mark.parametrize("status", REFUSALS)
def test_a_write_without_fua_is_flushed_before_the_next_step(status: str, small: RemapSet) -> None:
    small.spare.nofua(status)
    small.main.add(8, 1, "write", "medium")
    small.reset()
    small.spare.hold("flush")
    done = background(try_write, small.path, 8, pattern(8))
    small.spare.wait_held()
    time.sleep(0.1)
    counters = small.spare.counters()
    # The data is there, twice; no metadata is written before it is durable.
    assert (counters["fua"], counters["writes"], counters["flushes"]) == (1, 2, 1)
    assert not done.done()
    assert small.mapped == []
    small.spare.release()
    assert done.result(30) == "OK"
    assert small.mapped == [8]
    # Refused once, FUA is not tried again: copy A, flush, copy B, flush.
    counters = small.spare.counters()
    assert (counters["fua"], counters["writes"], counters["flushes"]) == (1, 4, 3)
    well(small)


@pytest.mark.parametrize("status", REFUSALS)
def test_a_fua_write_to_a_slot_that_refuses_it_is_flushed_before_its_end(
    status: str, small: RemapSet
) -> None:
    map_sectors(small, [8, 9])
    small.spare.nofua(status)
    with Device(small.path) as device:
        device.flush()
        # By the target, and by the repair; then it is known.
        for refused in (2, 0):
            small.reset()
            small.spare.hold("flush")
            done = background(device.write, 8, pattern(8, 2, 1), fua=True)
            small.spare.wait_held()
            counters = small.spare.counters()
            assert (counters["fua"], counters["writes"]) == (refused, 1 + refused)
            assert not done.done()
            small.spare.release()
            done.result(30)
    assert held(small.path, 8, 2) == texts(8, 2, 1)
    assert small.mapped == [8, 9]
    assert small.status.transient == 0
    well(small)


def test_a_flush_in_place_of_fua_that_fails_marks_no_slot(small: RemapSet) -> None:
    map_sectors(small, [8])
    small.spare.nofua("target")
    small.spare.add(0, 0, "flush", "ioerr", 1)
    before = small.status.free
    assert try_write(small.path, 8, pattern(8, 1, 1), fua=True) != "OK"
    assert (small.status.flush_errors, small.status.spare) == (1, "failing")
    assert try_write(small.path, 8, pattern(8, 1, 2), fua=True) == "OK"
    assert small.status.spare == "ok"
    assert held(small.path, 8) == ["8/2"]
    small.main.add(20, 1, "write", "medium")
    small.spare.add(0, 0, "flush", "ioerr", 1)
    assert try_write(small.path, 20, pattern(20)) == "ENODATA"
    assert small.status.free == before
    assert try_write(small.path, 20, pattern(20)) == "OK"
    well(small)


def test_a_slot_that_is_bad_and_refuses_fua_is_left(small: RemapSet) -> None:
    """A bad block may say the same as a disk that does not know FUA."""
    map_sectors(small, [8])
    small.spare.nofua("target")
    small.spare.add(slot_of(small, 8), 1, "write", "target")
    assert try_write(small.path, 8, pattern(8, 1, 1), fua=True) == "OK"
    assert held(small.path, 8) == ["8/1"]
    now = small.status
    assert (now.mode, now.bad, now.mapped) == ("rw", 1, 1)


def test_blocks_moved_by_hand_need_no_fua(small: RemapSet) -> None:
    write(small.path, 0, pattern(0, 8))
    small.spare.nofua("notsupp")
    dm_suspend(small.name)
    reply = by_hand(small, 2, 3)
    dm_resume(small.name)
    assert reply.done == 3
    assert small.mapped == [2, 3, 4]
    assert held(small.path, 0, 8) == texts(0, 8)


def test_a_main_that_refuses_fua_has_nothing_mapped(small: RemapSet) -> None:
    small.main.nofua("target")
    assert try_write(small.path, 8, pattern(8), fua=True) == "OK"
    assert small.mapped == []
    assert held(small.path, 8) == ["8/0"]


# Zoned disks


def test_a_host_aware_disk_is_a_disk_like_any_other() -> None:
    with (
        scsi_disks(2, size=32, zbc="aware", zone_size_mb=4) as (main, spare),
        loop_device(4 * MIB) as disk,
        loop_device(4 * MIB) as other,
    ):
        # Where the kernel still tells, it is such a disk.
        model = "host-aware" if VERSION < (6, 8) else "none"
        assert queue(main, "zoned") == model
        # The two share their memory; a spare must be blank.
        for line in (
            f"0 {sectors(disk)} remap {disk} {spare} 0 {AREA}",
            f"0 {sectors(main)} remap {main} {other} 0 {AREA}",
        ):
            with dm_device("set", line) as path:
                assert queue(path, "zoned") == "none"
                assert queue(path, "nr_zones") == "0"
                write(path, 4000, pattern(4000, 8))
                assert held(path, 4000, 8) == texts(4000, 8)


def test_a_host_managed_disk_is_refused() -> None:
    with null_block(64 * MIB, zoned=1, zone_size=4) as zoned, loop_device(8 * MIB) as disk:
        assert queue(zoned, "zoned") == "host-managed"
        for main, spare in ((zoned, disk), (disk, zoned)):
            line = f"0 8192 remap {main} {spare} 0 {SMALLEST_AREA}"
            assert "zoned devices are not supported" in refusal(line)
