"""The fault device, tested in a guest by tests/guest/test_fault_device.py."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from harness.paths import ROOT

if TYPE_CHECKING:
    from harness.fixtures import MachineFactory

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(900)]


def test_the_fault_device(machine: MachineFactory) -> None:
    script = ROOT / "tests/guest/test_fault_device.py"
    command = [sys.executable, "-B", "-m", "pytest", "-p", "no:cacheprovider", "-q"]
    result = machine().run([*command, str(script)], cwd=ROOT, timeout=600, check=False)
    assert result.status == 0, result.output
