# SPDX-License-Identifier: GPL-2.0-only
"""The control plane in a guest with udevd; tests/vm/test_guest.py runs the same without."""

import sys

import pytest
from harness.fixtures import MachineFactory
from harness.paths import ROOT

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("script", ["test_dm.py", "test_control_plane.py"])
def test_with_udevd(machine: MachineFactory, script: str) -> None:
    command = [sys.executable, "-B", "-m", "pytest", "-p", "no:cacheprovider", "-q"]
    vm = machine(udev=True)
    vm.insmod("dm_remap")
    result = vm.run(
        [*command, str(ROOT / "tests/guest" / script)], cwd=ROOT, timeout=1200, check=False
    )
    assert result.status == 0, result.output
