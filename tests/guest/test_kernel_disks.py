# SPDX-License-Identifier: GPL-2.0-only
"""The same failing bytes on the disks that the kernel itself emulates: scsi_debug and null_blk.

Their errors come up through the SCSI layer's reading of sense data and through blk-mq, and not from
a device-mapper target. tests/vm/test_disks.py does the same with QEMU's disks.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from guest.lib import (
    MIB,
    SECTOR,
    CommandError,
    Device,
    describe,
    dm_device,
    loop_device,
    null_block,
    outcome,
    pattern,
    queue,
    run,
    scsi_debug,
    sectors,
    try_read,
    try_write,
    write,
)
from guest.remapset import KernelLog, RemapSet, read_superblock, remap_set, status, texts

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.guest, pytest.mark.module]

WRITTEN = (960, 2048)  # first sector, sectors
BAD = {1000, 1001, 1016, *range(2000, 2015), 2999, 3007}
UNWRITTEN = (4096, 128)
BAD_UNWRITTEN = {4100, *range(4110, 4120), 4223}
LINUX = tuple(int(word) for word in os.uname().release.split(".")[:2])


def rounded(bad: set[int], size: int) -> list[int]:
    """Return the sectors of the blocks of a size, in bytes, that these are in."""
    step = size // SECTOR
    return sorted({n // step * step + offset for n in bad for offset in range(step)})


def sectors_of(units: list[int], size: int) -> list[int]:
    """Return all sectors of units that are named by their first."""
    return [n for unit in units for n in range(unit, unit + size // SECTOR)]


def failing(made: RemapSet, first: int, count: int, size: int) -> list[int]:
    """Read unit by unit; return the sectors that are media errors. Others must not be."""
    step = size // SECTOR
    with Device(made.path) as device:
        ends = {n: outcome(device.read, n, step) for n in range(first, first + count, step)}
    assert set(ends.values()) <= {"OK", "ENODATA"}
    return sectors_of([n for n, end in ends.items() if end != "OK"], size)


# null_blk: plain I/O errors of reads and writes


@pytest.mark.parametrize("block", [512, 4096])
def test_bad_blocks_of_null_blk(block: int) -> None:
    first, count = WRITTEN
    with null_block(4 * MIB, block_size=block) as disk:
        # Each range in the list is one write to the attribute.
        home = next(Path("/sys/kernel/config/nullb").glob("nullb*/badblocks"))
        for sector in sorted(BAD | BAD_UNWRITTEN):
            home.write_text(f"+{sector}-{sector}")
        assert try_read(disk, 1000, block // SECTOR) == "EIO"
        assert try_write(disk, 1000, pattern(1000, block // SECTOR)) == "EIO"
        with remap_set(main_disk=disk) as made:
            write(made.path, first, pattern(first, count, 5))
            for _ in range(2):
                with Device(made.path) as device:
                    assert describe(device.read(first, count)) == texts(first, count, 5)
                assert sectors_of(made.mapped, block) == rounded(BAD, block)
                assert failing(made, *UNWRITTEN, block) == rounded(BAD_UNWRITTEN, block)
                assert sectors_of(made.pending, block) == rounded(BAD_UNWRITTEN, block)
                made.recreate()


# scsi_debug: medium errors with sense data


@contextmanager
def write_errors(disk: Path) -> Iterator[bool]:
    """Let every write end with a medium error, 'write error', if this kernel's scsi_debug can.

    It can since Linux 6.7. Each rule is for one operation code; sd uses WRITE(10) on small disks.
    """
    debugfs = Path("/sys/kernel/debug")
    if not (debugfs / "block").is_dir():
        with suppress(CommandError):
            run("mount", "-t", "debugfs", "debugfs", debugfs)
    address = (Path("/sys/block") / disk.name / "device").resolve().name
    rules = debugfs / "scsi_debug" / address / "error"
    if not rules.exists():
        yield False
        return
    # Fail a command (2), always (1): status 'check condition', medium error, 0Ch/02h
    rules.write_text("2 1 0x2a 0x0 0x0 0x2 0x3 0xc 0x2\n")
    try:
        yield True
    finally:
        rules.write_text("- 2 0x2a\n")


@pytest.mark.parametrize(
    ("logical", "exponent"), [(512, 0), (512, 3), (4096, 0)], ids=["n512", "e512", "n4096"]
)
def test_medium_errors_of_scsi_debug(logical: int, exponent: int) -> None:
    first, count, unit = 2000, 16, logical // SECTOR
    everything = list(range(first, first + count))
    medium = 2
    with scsi_debug(
        f"opts={medium}",
        f"sector_size={logical}",
        f"physblk_exp={exponent}",
        f"medium_error_start={first // unit}",
        f"medium_error_count={count // unit}",
    ) as disk:
        physical = int(queue(disk, "physical_block_size"))
        assert physical == logical << exponent
        assert try_read(disk, first, unit) == "ENODATA"
        with remap_set(main_disk=disk) as made:
            for _ in range(2):
                assert failing(made, 1920, 160, logical) == everything
                assert sectors_of(made.pending, logical) == everything
                # It takes writes all the same, as a disk that reallocates does.
                write(made.path, first, pattern(first, count))
                assert made.pending == made.mapped == []
                made.recreate()
            with write_errors(disk) as broken:
                assert broken == (LINUX >= (6, 7))
                bad = {first + 4, first + 5, 3000} if broken else set()
                if broken:
                    # A medium error of a write is a plain I/O error above the SCSI layer: only
                    # three additional codes of reads (11h, 13h, 14h) become BLK_STS_MEDIUM.
                    with KernelLog() as log:
                        assert try_write(disk, 3000 // unit * unit, bytes(logical)) == "EIO"
                    assert "sense_key=0x3, asc=0xc" in log.text
                for sector in bad:
                    # Whole pieces, as a file system writes them: they are mapped whole.
                    start = sector * SECTOR // physical * physical // SECTOR
                    size = physical // SECTOR
                    write(made.path, start, pattern(start, size, 7))
                assert sectors_of(made.mapped, logical) == rounded(bad, physical)
            print(f"write errors: {broken}, {made.status.mapped} mapped")
            made.recreate()
            mapped = rounded(bad, physical)
            assert sectors_of(made.mapped, logical) == mapped
            assert failing(made, 1920, 160, logical) == [n for n in everything if n not in mapped]
            for start in mapped[:: physical // SECTOR]:
                with Device(made.path) as device:
                    words = describe(device.read(start, physical // SECTOR))
                assert words == texts(start, physical // SECTOR, 7)


# An id


def test_an_id_is_what_the_disks_own_driver_says() -> None:
    """A DM device has an id on some kernels only, and it is that of what happens to be below."""
    with scsi_debug() as disk, loop_device(2 * MIB) as spare:
        size = sectors(disk)

        def made(main: Path) -> tuple[str, int]:
            with dm_device("set", f"0 {size} remap {main} {spare} 0 4096"):
                identity = status("set").identity
            return identity, read_superblock(spare).main_id_type

        with dm_device("volume", f"0 {size} linear {disk} 0") as volume:
            assert made(volume) == ("size", 0)
        # One that is known by its size is known by its id as soon as there is one.
        assert made(disk) == ("id", 3)
        # The set has an id, this main has none.
        with dm_device("volume", f"0 {size} linear {disk} 0") as volume:
            assert made(volume) == ("size", 3)
