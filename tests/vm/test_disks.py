# SPDX-License-Identifier: GPL-2.0-only
"""The same failing sectors on every kind of disk, error and block size: the same mappings."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest
from harness.disks import Disk, Kind
from harness.paths import ROOT

if TYPE_CHECKING:
    from harness.fixtures import MachineFactory

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(600)]

KINDS: dict[str, tuple[Kind, int]] = {
    "virtio": ("virtio", 5),
    "scsiio": ("scsi", 5),
    "scsimedium": ("scsi", 61),
    "nvme": ("nvme", 5),
}
BLOCKS = {"n512": (512, 512), "e512": (512, 4096), "n4096": (4096, 4096)}
"""Logical and physical block, by name."""
MAIN = 4 << 20
AREA = (256 + 64) * 8  # sectors
WRITTEN = (960, 2048)  # first sector, sectors
READ = (4096, 128)
BAD = {1000, 1001, 1016, *range(2000, 2015), 2999, 3007}
BAD_UNWRITTEN = {4100, *range(4110, 4120), 4223}


def blocks(bad: set[int], size: int) -> list[int]:
    """Return the sectors of the blocks of a size, in bytes, that these are in."""
    step = size // 512
    return sorted(
        {n for sector in bad for n in range(sector - sector % step, sector // step * step + step)}
    )


def test_every_kind_of_disk(machine: MachineFactory) -> None:
    bad = frozenset(BAD | BAD_UNWRITTEN)
    mains = [
        Disk(
            name=kind + block,
            size=MAIN,
            kind=KINDS[kind][0],
            errno=KINDS[kind][1],
            logical_block=BLOCKS[block][0],
            physical_block=BLOCKS[block][1],
            bad_read=bad,
            bad_write=bad,
        )
        for kind in KINDS
        for block in BLOCKS
    ]
    vm = machine([*mains, Disk(name="spare", size=len(mains) * AREA * 512)])
    for step in ("fill", "check"):
        if step == "check":
            vm.reboot()
        vm.insmod("dm_remap")
        plan = {
            "spare": vm.device("spare"),
            "area": AREA,
            "write": WRITTEN,
            "read": READ,
            "mains": {disk.name: vm.device(disk.name) for disk in mains},
        }
        command = [sys.executable, "-B", str(ROOT / "tests/guest/disks.py"), step, json.dumps(plan)]
        result = vm.run(command, env={"PYTHONPATH": str(ROOT / "tests")}, timeout=240, check=False)
        assert result.status == 0, result.output
        answer = json.loads(result.stdout)
        for disk in mains:
            found = answer[disk.name]
            logical, physical = disk.logical_block, found["physical"]
            # QEMU's nvme does not tell a physical block.
            assert physical == (logical if disk.kind == "nvme" else disk.physical_block)
            unwritten = blocks(BAD_UNWRITTEN, logical)
            assert found["mapped"] == blocks(BAD, physical), (step, disk.name)
            assert found["pending"] == unwritten, (step, disk.name)
            assert found["failures"] == {
                str(n): "ENODATA" for n in unwritten if n % (logical // 512) == 0
            }, (step, disk.name)
        print(
            f"{step}: {len(mains)} disks, {sum(len(a['mapped']) for a in answer.values())} mapped"
        )
