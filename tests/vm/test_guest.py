# SPDX-License-Identifier: GPL-2.0-only
"""Runs the files of tests/guest inside a guest, one boot for each file and kernel."""

from collections.abc import Sequence

import pytest
from harness.disks import Disk
from harness.fixtures import MachineFactory
from vm.inside import GUEST, run_tests

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1500)]

# Those that need a real systemd-udevd, and those that must work with it and without: what they
# test is the control plane, which is the same on all kernels, so each way has one of them. What
# is not named here runs on the oldest kernel and on the newest.
UDEVD_ONLY = {"test_monitor_udev.py"}
UDEVD_TOO = {"test_dm.py", "test_control_plane.py", "test_cut_short.py", "test_selftest.py"}
UDEVD_ON = {False: "6.1", True: "6.12"}
# These test the control plane, or what depends on no kernel (what is read on disks, how long a bio
# is worked on, the fault device, which all others use), or what KUnit tries as well, and ask the
# kernel for little: one will do.
USUALLY_ON = {
    "test_offline.py": "6.12",
    "test_fixed_places.py": "6.12",
    "test_public.py": "7.3",
    "test_rules.py": "6.1",
    "test_monitor.py": "6.1",
    "test_monitor_udev.py": "6.12",
    "test_which_main.py": "6.12",
    "test_corruption.py": "7.3",
    "test_fault_device.py": "7.3",
    "test_storm.py": "7.3",
}
# Those that run on the debug kernel without being asked: damaged areas.
DEBUG_TOO = {"test_corruption.py"}
# Those that run on the kernel for data races under --long: most of what runs at once.
KCSAN_TOO = {"test_faults.py", "test_moves.py", "test_scrub.py", "test_storm.py"}


def marks(name: str, udev: bool) -> list[pytest.MarkDecorator]:
    """Return on which kernels a file runs when nobody asks for others."""
    usually = UDEVD_ON[udev] if name in UDEVD_TOO else USUALLY_ON.get(name)
    return [
        *[pytest.mark.debug] * (name in DEBUG_TOO),
        *[pytest.mark.kcsan] * (name in KCSAN_TOO),
        *([pytest.mark.usually(usually)] if usually else []),
    ]


CASES = [
    pytest.param(path.name, udev, id=f"{path.name}{'-udevd' * udev}", marks=marks(path.name, udev))
    for path in sorted(GUEST.glob("test_*.py"))
    for udev in (False, True)
    if path.name in UDEVD_TOO or udev == (path.name in UDEVD_ONLY)
]


@pytest.mark.parametrize(("name", "udev"), CASES)
def test_in_guest(name: str, udev: bool, machine: MachineFactory, long: bool) -> None:
    """One file, on one kernel."""
    run_tests(machine(udev=udev), name, timeout=5000 if long else 1400, long=long)


@pytest.mark.usually("6.12")
def test_links_of_adopted_disks(machine: MachineFactory) -> None:
    """Adopted disks of every kind, with udevd, and a drive."""
    disks: Sequence[Disk] = [
        Disk(name="virtio", kind="virtio"),
        Disk(name="scsi", kind="scsi", wwn=0x5000C500A1B2C3D4),
        Disk(name="nvme", kind="nvme"),
        Disk(name="spare", kind="virtio", size=8 << 20),
        Disk(name="tray", kind="scsi", read_only=True, options={"driver": "scsi-cd"}),
    ]
    run_tests(machine(disks=disks, udev=True), "adopted_disks.py")
