# SPDX-License-Identifier: GPL-2.0-only
"""Adopted disks of every kind, in a guest with udevd."""

import sys

import pytest
from harness.disks import Disk
from harness.fixtures import MachineFactory
from harness.paths import ROOT

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(900)]


def test_links_of_adopted_disks(machine: MachineFactory) -> None:
    disks = [
        Disk(name="virtio", kind="virtio"),
        Disk(name="scsi", kind="scsi", wwn=0x5000C500A1B2C3D4),
        Disk(name="nvme", kind="nvme"),
        Disk(name="spare", kind="virtio", size=8 << 20),
    ]
    script = ROOT / "tests/guest/adopted_disks.py"
    command = [sys.executable, "-B", "-m", "pytest", "-p", "no:cacheprovider", "-q"]
    vm = machine(disks=disks, udev=True)
    vm.insmod("dm_remap")
    result = vm.run([*command, str(script)], cwd=ROOT, timeout=600, check=False)
    assert result.status == 0, result.output
