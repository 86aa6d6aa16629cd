# SPDX-License-Identifier: GPL-2.0-only
"""ext4, XFS and btrfs on a set that wears out: no program sees an error, and nothing is lost.

Run by tests/vm/test_filesystems.py inside a guest, as root, with the disks `main` and `spare`.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from guest.lib import run
from guest.wear import mounted, nothing_logged, worn_set
from guest.workloads import WORKLOADS, checksums, timed

if TYPE_CHECKING:
    from guest.remapset import RemapSet

pytestmark = [pytest.mark.guest, pytest.mark.module]

MOUNT = Path("/mnt/set")


@dataclass(frozen=True)
class Kind:
    """A file system, and what is done on it unless --long is given."""

    make: tuple[str, ...]
    check: tuple[str, ...]
    geometry: str
    workloads: tuple[str, ...]
    complaints: str
    """What it says in the kernel's log when something is wrong."""


MKFS_EXT4 = ("mkfs.ext4", "-q", "-F", "-b", "4096")
"""Smaller blocks would be written by way of pages, of which the rest, never written, is read."""

GEOMETRIES = {
    "512": (),
    "512e": ("physical", "4096"),
    "4096": ("logical", "4096"),
}
"""Main's blocks: options of the fault device."""

KINDS = {
    "ext4": Kind(
        MKFS_EXT4,
        ("e2fsck", "-f", "-n"),
        "512e",
        ("files", "postgres"),
        "EXT4-fs error",
    ),
    "xfs": Kind(
        ("mkfs.xfs", "-q", "-f"),
        ("xfs_repair", "-n"),
        "512e",  # its log is 64 MiB, which would be tried sector by sector
        ("files", "build"),
        r"XFS \(dm-\d+\): (?!Mounting|Ending clean mount|Unmounting)",
    ),
    "btrfs": Kind(
        ("mkfs.btrfs", "-q", "-f"),
        ("btrfs", "check", "--readonly"),
        "4096",
        ("files", "sqlite"),
        "BTRFS (error|critical)",
    ),
}


def scrub(made: RemapSet, where: Path) -> None:
    """Read all copies of everything and compare the checksums (btrfs).

    Linux 6.12 reads 64 KiB at a time for it, with the gaps between what is allocated, and counts
    what cannot be read there as errors (scrub_submit_initial_read() in fs/btrfs/scrub.c). So main
    serves all reads by now: what was written to its bad blocks is on the spare.
    """
    made.main.clear()
    begin = time.monotonic()
    with mounted(made.path, where):
        assert "no errors found" in run("btrfs", "scrub", "start", "-B", where)
    timed("scrub", begin)


def used_by_files(top: Path) -> int:
    """Return how many bytes the files' own blocks take."""
    return sum(os.lstat(path).st_blocks * 512 for path in top.rglob("*"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """With --long take every kind of blocks for each file system."""
    long = "DMREMAP_LONG" in os.environ
    cases = [
        (name, g) for name, kind in KINDS.items() for g in (GEOMETRIES if long else [kind.geometry])
    ]
    metafunc.parametrize(("name", "geometry"), cases)


def test_file_system(name: str, geometry: str, long: bool) -> None:
    """Make, use, check, and use again, with blocks going bad all the time."""
    scale = 3 if long else 1
    kind = KINDS[name]
    workloads = tuple(WORKLOADS) if long else kind.workloads
    log = nothing_logged(kind.complaints)
    with worn_set(*GEOMETRIES[geometry]) as (made, wear), log:
        begin = time.monotonic()
        run("modprobe", name)
        run(*kind.make, made.path)
        timed("mkfs", begin)
        works = [(work, WORKLOADS[work]()) for work in workloads]
        with wear, mounted(made.path, MOUNT):
            for title, work in works:
                begin = time.monotonic()
                (MOUNT / title).mkdir()
                work.work(MOUNT / title, scale)
                timed(title, begin, f"{made.status.mapped} mapped")
            run("sync", "-f", MOUNT)
            sums = checksums(MOUNT)
            written = used_by_files(MOUNT)
        begin = time.monotonic()
        now = made.status
        count = wear.judge(written)
        print(f"{name} {geometry}: {written >> 20} MiB in {len(sums)} files, {count} mapped,")
        print(
            f"  {now.remapped} this load, {now.moved} moved, {now.bad} slots bad, {now.copies} away"
        )
        # From here on only what the disks hold counts.
        made.recreate()
        assert made.status.mapped == count
        run(*kind.check, made.path, timeout=300)
        timed("check", begin)
        with wear, mounted(made.path, MOUNT):
            begin = time.monotonic()
            assert checksums(MOUNT) == sums
            timed("checksums", begin)
            for title, work in works:
                begin = time.monotonic()
                work.verify(MOUNT / title)
                timed(f"{title} again", begin)
        if name == "btrfs":
            scrub(made, MOUNT)
        run(*kind.check, made.path, timeout=300)
        wear.judge(written)
