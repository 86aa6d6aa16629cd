# SPDX-License-Identifier: GPL-2.0-only
"""Layers above a set that have their own idea of a failing disk: md, btrfs raid1, LVM.

A mirror answers a read error with the other leg's data and writes it back. On a set that write
succeeds, so what was lost is whole again and the leg stays. Run by tests/vm/test_filesystems.py
inside a guest, as root, with the disks `main`, `spare` and `well`.
"""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from guest.lib import MIB, describe, pattern, read, run, sectors, wait_for, write
from guest.remapset import remap_set, texts
from guest.wear import blank, disk, mounted, nothing_logged, worn_set
from guest.workloads import checksums, real_files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from guest.remapset import RemapSet

pytestmark = [pytest.mark.guest, pytest.mark.module]

LOST = 12
"""Sectors that cannot be read: md gives up a leg after 20 corrected errors an hour."""
MOUNT = Path("/mnt/above")


@contextmanager
def leg(name: str = "set") -> Iterator[RemapSet]:
    """Have a set on the disks `main` and `spare` where nothing fails yet."""
    with remap_set(
        main_disk=blank(disk("main")), spare_disk=blank(disk("spare")), name=name
    ) as made:
        yield made


def lose(made: RemapSet, places: list[int]) -> None:
    """Make sectors fail for good: what they hold is lost, and they take nothing new."""
    for sector in places:
        for direction in ("read", "write"):
            made.main.add(sector, 1, direction, "medium")


# md

MD = Path("/dev/md127")
MD_SECTORS = 8 * MIB // 512


def md(attribute: str) -> Path:
    return Path("/sys/block", MD.name, "md", attribute)


def md_is_idle() -> bool:
    return md("sync_action").read_text().strip() == "idle"


def act(action: str) -> None:
    """Have md read both legs throughout, and wait for the end."""
    md("sync_action").write_text(action)
    wait_for(md_is_idle, f"md to {action}", 120)


def assemble(made: RemapSet, well: Path) -> None:
    run("mdadm", "--assemble", "--run", MD, made.path, well)
    wait_for(md_is_idle, "md to be idle", 120)


@contextmanager
def mirror(made: RemapSet) -> Iterator[Path]:
    """Have an array over a set and a disk that is well, which is only read where it must be."""
    well = blank(disk("well"))
    run("modprobe", "raid1")
    options = ["--run", "--metadata=1.2", "--bitmap=none", "--level=1", "--raid-devices=2"]
    size = f"--size={MD_SECTORS // 2}"
    run("mdadm", "--create", MD, *options, size, made.path, "--write-mostly", well)
    try:
        wait_for(md_is_idle, "the first resync", 120)
        yield well
    finally:
        run("mdadm", "--stop", MD)


def assert_whole() -> None:
    """Neither leg was given up, and md found nothing that it could not mend."""
    assert md("degraded").read_text().strip() == "0"
    states = [path.read_text().strip() for path in md("").glob("dev-*/state")]
    assert sorted(states) == ["in_sync", "in_sync,write_mostly"]


def on_leg(offset: int, places: list[int]) -> list[int]:
    return [offset + place for place in places]


@pytest.mark.parametrize("how", ["read", "check"])
def test_md_mends_a_leg_on_a_set(how: str) -> None:
    """A read, or a check, meets lost sectors: md writes them, and they are mapped."""
    with leg() as made, mirror(made) as well:
        write(MD, 0, pattern(0, 4096))
        offset = int(next(path for path in md("").glob("dev-dm-*/offset")).read_text())
        places = [100 + 300 * number for number in range(LOST)]
        lose(made, on_leg(offset, places))
        if how == "read":
            for first in range(0, 4096, 64):
                assert describe(read(MD, first, 64)) == texts(first, 64)
        else:
            act("check")
        assert made.pending == []
        assert made.mapped == on_leg(offset, places)
        assert made.status.lost == 0
        assert_whole()
        run("mdadm", "--stop", MD)
        made.recreate()
        assemble(made, well)
        assert describe(read(made.path, offset, 4096)) == texts(0, 4096)
        act("check")
        assert md("mismatch_cnt").read_text().strip() == "0"
        assert_whole()


def test_md_writes_through_failing_blocks() -> None:
    """Blocks that only refuse writes are no errors to md at all."""
    with leg() as made, mirror(made):
        offset = int(next(path for path in md("").glob("dev-dm-*/offset")).read_text())
        places = list(range(7, 4096, 61))  # many more than md would forgive
        for place in places:
            made.main.add(offset + place, 1, "write", "medium")
        for first in range(0, 4096, 512):
            write(MD, first, pattern(first, 512, 1))
        assert made.mapped == on_leg(offset, places)
        assert describe(read(made.path, offset, 4096)) == texts(0, 4096, 1)
        act("check")
        assert md("mismatch_cnt").read_text().strip() == "0"
        assert_whole()


# btrfs


def stats(where: Path) -> dict[str, int]:
    """Return what btrfs has counted: '/dev/dm-2.read_io_errs' and the like."""
    lines = (line.split() for line in run("btrfs", "device", "stats", where).splitlines())
    return {name.replace("[", "").replace("]", ""): int(count) for name, count in lines}


def places_of_files(disk_path: Path, size: int) -> list[int]:
    """Find the blocks of 4 KiB that hold nothing but pattern, by their first sectors on a disk."""
    found = []
    for start in range(0, size, 2048):
        data = read(disk_path, start, 2048)
        for sector in range(0, 2048, 8):
            block = data[sector * 512 : sector * 512 + 4096]
            if block.startswith(b"pattern\0"):
                found.append(start + sector)
    return found


def test_btrfs_mends_a_leg_on_a_set() -> None:
    """A scrub finds what cannot be read, writes it from the other leg, and it is mapped."""
    with leg() as made:
        well = blank(disk("well"))
        run("modprobe", "btrfs")
        run("mkfs.btrfs", "-q", "-f", "-m", "raid1", "-d", "raid1", made.path, well)
        with mounted(made.path, MOUNT, "-o", f"device={well}"):
            (MOUNT / "file").write_bytes(pattern(0, 8192))
        places = places_of_files(made.main_disk, 160 * MIB // 512)
        assert len(places) >= 8192 // 8
        lost = sorted({place + 3 for place in places[:: len(places) // LOST]})
        lose(made, lost)
        with mounted(made.path, MOUNT, "-o", f"device={well}"):
            report = run("btrfs", "scrub", "start", "-B", MOUNT)
            assert "Uncorrectable:  0" in report, report
            assert made.pending == []
            # btrfs writes whole blocks of 4 KiB, of which the other sectors stay on main.
            assert made.mapped == lost
            counted = stats(MOUNT)
            assert sum(count for name, count in counted.items() if "read_io" in name) >= len(lost)
            assert not any(count for name, count in counted.items() if "read_io" not in name)
            assert "no errors found" in run("btrfs", "scrub", "start", "-B", MOUNT)
        made.recreate()
        run("btrfs", "check", "--readonly", made.path)
        # By itself the leg has everything.
        run("wipefs", "-aq", well)
        with mounted(made.path, MOUNT, "-o", "degraded,ro"):
            assert describe((MOUNT / "file").read_bytes()) == texts(0, 8192)


# LVM

LVM_CONFIG = """\
devices {
	dir = "/dev"
	use_devicesfile = 0
	obtain_device_list_from_udev = 0
	external_device_info_source = "none"
	# The fault devices below the set have the same label.
	global_filter = ["a|^/dev/mapper/set$|", "r|.*|"]
}
activation {
	udev_sync = 0
	udev_rules = 0
	monitoring = 0
}
global {
	locking_dir = "/run/lvm-test/lock"
	use_lvmpolld = 0
}
backup {
	backup = 0
	archive = 0
}
"""


@pytest.fixture
def lvm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have LVM look at the set and at nothing else."""
    home = Path("/run/lvm-test")
    home.mkdir(exist_ok=True)
    (home / "lvm.conf").write_text(LVM_CONFIG)
    monkeypatch.setenv("LVM_SYSTEM_DIR", os.fspath(home))


@contextmanager
def volume_group(made: RemapSet) -> Iterator[str]:
    """Have a volume group on a set, which is not in use at the end."""
    run("pvcreate", "-q", made.path)
    run("vgcreate", "-q", "group", made.path)
    try:
        yield "group"
    finally:
        run("vgchange", "-q", "-an", "group")


@pytest.mark.usefixtures("lvm")
def test_lvm_on_a_set() -> None:
    """Two volumes, one of them grown in use, on a set that wears out."""
    with worn_set() as (made, wear), nothing_logged("EXT4-fs error"), volume_group(made) as group:
        sums = {}
        with wear:
            for volume in ("one", "two"):
                device = Path("/dev", group, volume)
                run("lvcreate", "-q", "-W", "n", "-n", volume, "-L", "24M", group)
                blank_ends(device)
                run("mkfs.ext4", "-q", "-b", "4096", device)
                with mounted(device, MOUNT, "-t", "ext4"):
                    copy_in(4 * MIB)
                    if volume == "two":
                        run("lvextend", "-q", "-L", "+24M", f"{group}/{volume}")
                        run("resize2fs", device)
                        copy_in(12 * MIB)
                    run("sync", "-f", MOUNT)
                    sums[volume] = checksums(MOUNT)
        # Nothing goes bad meanwhile: who does that asks a set that is there.
        for _ in range(2):
            run("vgchange", "-q", "-an", group)
            made.recreate()
            run("vgchange", "-q", "-ay", group)
        for volume, expected in sums.items():
            device = Path("/dev", group, volume)
            run("e2fsck", "-f", "-n", device)
            with mounted(device, MOUNT, "-t", "ext4"):
                assert checksums(MOUNT) == expected
        run("vgck", group)
        print(f"lvm: {wear.judge(12 * MIB)} mapped")


def blank_ends(device: Path) -> None:
    """Write where mkfs and mount look for what was there before, and would meet an error."""
    for sector in (0, sectors(device) - 512):
        write(device, sector, bytes(512 * 512))


def copy_in(size: int) -> None:
    """Copy so many bytes of real files."""
    for path in real_files(size):
        shutil.copyfile(path, MOUNT / path.name)
