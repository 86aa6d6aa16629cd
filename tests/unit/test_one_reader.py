# SPDX-License-Identifier: GPL-2.0-only
"""Whoever reads a set takes the superblock that the kernel would take, or none.

Heads of areas are damaged at random, and are given to look() and find(), on which list, assemble,
grow and create stand, to examine(), on which check, examine, repair and export stand, and to the
kernel's own load, with the table line that assemble would make. All must find the same set: its
uuid, every byte of its superblock, and whether it is refused and why.

DM_REMAP_FUZZ_SEED and DM_REMAP_FUZZ_HEADS are for longer runs with other seeds; --long damages a
hundred thousand heads.
"""

import errno
import os
from collections import Counter
from random import Random
from uuid import UUID

import pytest
from unit.areas import OTHER, SB, SET, Disk, superblock
from unit.heads import HeadDisk
from unit.kernelload import KernelLoad

from dmremap.ondisk import BLOCK, Load, View, find, look, read_tag
from dmremap.ondisk.check import examine
from dmremap.ondisk.head import HEADER, READ
from dmremap.ondisk.layout import pack_super
from dmremap.ondisk.load import read_set

SEED = int(os.environ.get("DM_REMAP_FUZZ_SEED", "1"))
HEADS = os.environ.get("DM_REMAP_FUZZ_HEADS")

CODES = (301, 302, 303, 304, 305, 306, 307, 308, 311, 312, 313, 314, 315)
"""What a head is refused for, each of which is met: tables of two slots a unit are elsewhere."""
TABLE_CODES = {"DMR-C306", "DMR-C307", "DMR-C309", "DMR-C310", "DMR-C313"}
"""What a table may be refused for, which is not seen by whoever reads the first MiB alone."""


def agree(light: Load, full: Load) -> None:
    """What is said of a set from the first MiB is said of it in the end."""
    assert (light.uuid, light.superblock) == (full.uuid, full.superblock)
    assert light.blocks[:1] == full.blocks[:1]
    more = full.refusals[len(light.refusals) :]
    assert light.refusals == full.refusals[: len(light.refusals)]
    assert {one.code for one in more} <= TABLE_CODES
    assert not any("block 0 " in one.reason for one in more)


def as_the_kernel(by_kernel: KernelLoad, disk: HeadDisk, uuid: UUID | None, load: Load) -> None:
    """The kernel accepts it or not, for the same reason, and takes the same superblock."""
    sb = load.superblock or SB
    if sb.area_blocks > disk.size // BLOCK:
        # ctr, which is not asked here, knows the size of the spare before anything is read.
        assert load.refusals
        return
    before, bad = {place: disk[place] for place in disk.touched}, set(disk.bad)
    code, result = by_kernel(disk, uuid=uuid, sb=sb)
    disk.put_back(result.place[: result.writes], before)
    disk.bad = bad
    if uuid is None:
        # Not told which set is meant, the kernel refuses whatever another one has left.
        assert code or result.format or load.accepted
        assert not load.accepted or not code or len(load.head.uuids) > 1
    elif not load.accepted:
        assert code == (load.refusals[0].errno if load.refusals else errno.ENODATA)
    else:
        assert code == 0, result.why
    if load.accepted and not code:
        chosen = bytes(result.super)
        assert load.uuid
        assert chosen[16:40] == load.uuid.bytes + load.blocks[0].seq.to_bytes(8, "little")
        assert chosen[HEADER:] == load.blocks[0].body
        assert result.away == load.away


@pytest.mark.timeout(1200)
def test_every_reader_says_what_the_kernel_says(by_kernel: KernelLoad, long: bool) -> None:
    heads = int(HEADS or (100_000 if long else 10_000))
    random, disk, seen = Random(SEED), HeadDisk(), Counter[str]()
    for number in range(heads):
        disk.damage(random)
        try:
            seen[one_head(by_kernel, disk)] += 1
        except AssertionError as wrong:
            raise AssertionError(f"seed {SEED}, head {number}: {wrong}") from wrong
    print(f"seed {SEED}: {seen.most_common()}")
    # One that only refuses, or only accepts, proves nothing.
    kinds = ("accepted", *(f"DMR-C{number}" for number in CODES))
    assert min(seen[kind] for kind in kinds) > heads / 1000, seen


def one_head(by_kernel: KernelLoad, disk: HeadDisk) -> str:
    """Compare all that there is to be said of a head; return what it is."""
    view, full = View(disk, 0), examine(disk)
    found = find(view)
    if len(found) == 1:
        agree(found[0], full)
    else:
        # Which set is meant nobody knows.
        assert [one.code for one in full.refusals] == ["DMR-C303"]
        assert all(load.refusals for load in found)
        assert [load.uuid for load in found] == full.head.uuids
    as_the_kernel(by_kernel, disk, None, full)
    for uuid in {SET, full.uuid or OTHER, *full.head.uuids}:
        told = read_set(view, uuid)
        agree(look(view, uuid), told)
        as_the_kernel(by_kernel, disk, uuid, told)
        if uuid == full.uuid:
            assert (told.refusals, told.blocks) == (full.refusals, full.blocks)
    return full.refusals[0].code if full.refusals else "accepted" if full.accepted else "nothing"


class CountedDisk(Disk):
    """Remembers what was read."""

    def __init__(self) -> None:
        """Begin with nothing."""
        super().__init__()
        self.reads: list[tuple[int, int]] = []

    def read(self, offset: int, length: int) -> bytes | None:
        """Read, and remember it."""
        self.reads.append((offset, length))
        return super().read(offset, length)


@pytest.mark.parametrize("supers", [{}, {0: SET}, {0: SET, 255: OTHER}])
def test_a_place_is_read_once(supers: dict[int, UUID]) -> None:
    """Whoever looks for sets and for tags on many devices reads the first MiB of each, no more."""
    disk = CountedDisk()
    for home, uuid in supers.items():
        disk[home] = pack_super(superblock(uuid=uuid), home)
    view = View(disk, 0)
    assert {load.uuid for load in find(view)} == {*supers.values()} or not supers
    assert read_tag(view) is None
    assert disk.reads == [(0, READ * BLOCK)]
