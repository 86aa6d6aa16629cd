# SPDX-License-Identifier: GPL-2.0-only
"""Whole areas as they stand on people's disks: what is read from them never changes.

The images are packed with xz. SHA256SUMS has them as they are, and as a repair leaves them.
"""

import hashlib
import lzma

import pytest
from unit.areas import GOLDEN, HOMES, SB, SET, Disk, fresh, give_names, mapped, superblock, table

from dmremap.ondisk import BLOCK, Entry, SlotState
from dmremap.ondisk.backup import decode
from dmremap.ondisk.check import examine
from dmremap.ondisk.layout import pack_super
from dmremap.ondisk.load import Counts
from dmremap.ondisk.mend import mend

SUMS = dict(line.split()[::-1] for line in (GOLDEN / "SHA256SUMS").read_text().splitlines())
ENTRIES = [
    mapped(0, 4096),
    mapped(1, 4097, 2),
    Entry(2, SlotState.LOST, 4098, 1),
    Entry(3, SlotState.BAD, 0, 0),
    mapped(251, 0),
    mapped(252, 17),
    mapped(600, (1 << 20) - 1),
]


def used() -> Disk:
    """Return a set in order, with a copy on a stand-in and a superblock that was renamed."""
    disk = fresh(ENTRIES, seq=5)
    more = [mapped(252, 17), mapped(253, 18)]
    disk[HOMES[1][0]] = table(1, 0, more, 6)
    disk[129] = table(1, 1, more, 6, place=129)
    renamed = superblock(name="loft", seq=3, standins=((129, HOMES[1][1]),))
    disk[0] = pack_super(renamed, 0)
    disk[136] = pack_super(renamed, 255, 136)
    return disk


def cut() -> Disk:
    """Return a set whose commit and whose move were cut, with a torn stand-in."""
    disk = fresh([*ENTRIES, mapped(601, 4096, 1)], seq=5)
    disk[HOMES[1][0]] = table(1, 0, [mapped(252, 17), mapped(253, 18)], 6)
    give_names(disk, {201: HOMES[1][1]})
    disk[201] = b"torn" * (BLOCK // 4)
    return disk


def gone() -> Disk:
    """Return a set that lacks both copies of a table block."""
    disk = fresh(ENTRIES, seq=5)
    disk[HOMES[2][0]] = bytes(BLOCK)
    disk[HOMES[2][1]] = b"\xff" * BLOCK
    return disk


IMAGES = {"area-used": used, "area-cut": cut, "area-gone": gone}


def golden(name: str) -> Disk:
    disk = Disk()
    disk.data = bytearray(lzma.decompress((GOLDEN / f"{name}.img.xz").read_bytes()))
    return disk


@pytest.mark.parametrize("name", list(IMAGES))
def test_these_bytes_never_change(name: str) -> None:
    data = golden(name).data
    assert hashlib.sha256(data).hexdigest() == SUMS[f"{name}.img"]
    assert data == IMAGES[name]().data


@pytest.mark.parametrize(
    ("name", "codes", "counts"),
    [
        (
            "area-used",
            ["DMR-C101", "DMR-C101", "DMR-C103", "DMR-C104"],
            Counts(SB.slots, 7, 1, 1, SB.slots - 8),
        ),
        (
            "area-cut",
            ["DMR-C202", "DMR-C203", "DMR-C204", "DMR-C103", "DMR-C104"],
            Counts(SB.slots, 7, 1, 2, SB.slots - 9),
        ),
        ("area-gone", ["DMR-C306", "DMR-C103", "DMR-C104"], None),
    ],
)
def test_what_a_load_makes_of_them(name: str, codes: list[str], counts: Counts | None) -> None:
    load = examine(golden(name))
    assert load.uuid == SET
    assert sorted(one.code for one in load.findings) == sorted(codes)
    assert load.accepted is (counts is not None)
    if counts is not None:
        assert load.counts == counts


def test_what_a_repair_writes() -> None:
    disk = golden("area-cut")
    done = mend(examine(disk), disk.write)
    assert [(one.place, one.sequence) for one in done] == [
        (HOMES[1][1], 8),
        (HOMES[1][0], 8),
        (201, 0),
        (HOMES[0][0], 6),
        (HOMES[0][1], 6),
    ]
    assert hashlib.sha256(disk.data).hexdigest() == SUMS["area-cut-repaired.img"]


def test_a_backup_of_version_1_is_read() -> None:
    data = (GOLDEN / "backup-1.bin").read_bytes()
    assert hashlib.sha256(data).hexdigest() == SUMS["backup-1.bin"]
    backup = decode(data)
    assert (backup.uuid, backup.created) == (SET, 1_700_000_001)
    assert backup.superblock.name == "loft"
    load = examine(golden("area-used"))
    assert list(backup.states) == [(block.seq, block.body) for block in load.blocks]
