# SPDX-License-Identifier: GPL-2.0-only
"""Runs every file of tests/guest inside a guest, one boot a file and kernel.

A file that has the line ``UDEV = True`` gets a guest with a real systemd-udevd.
"""

import re
import sys

import pytest
from harness.fixtures import MachineFactory
from harness.paths import ROOT

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1200)]

FILES = sorted(path.name for path in (ROOT / "tests/guest").glob("test_*.py"))


@pytest.mark.parametrize("name", FILES)
def test_in_guest(name: str, machine: MachineFactory) -> None:
    """All tests of one file pass in the guest, and its console stays clean."""
    script = ROOT / "tests/guest" / name
    udev = bool(re.search(r"^UDEV = True$", script.read_text(), re.MULTILINE))
    command = [sys.executable, "-B", "-m", "pytest", "-p", "no:cacheprovider", "-q", str(script)]
    vm = machine(udev=udev)
    vm.insmod("dm_remap", "dm_fault")
    result = vm.run(command, cwd=ROOT, timeout=1000, check=False)
    summary = result.output.strip().splitlines()[-1]
    print(f"{name} on {vm.kernel.series}: {summary}")
    assert result.status == 0, result.output
