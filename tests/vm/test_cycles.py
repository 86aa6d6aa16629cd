# SPDX-License-Identifier: GPL-2.0-only
"""A hundred times load, create, remap, remove, unload: nothing is left behind.

With ``--long`` a thousand times create and remove, and load and unload in every fifth of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from harness.paths import ROOT

if TYPE_CHECKING:
    from harness.fixtures import MachineFactory

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(900)]

MEASURED = (10, 50, 100)  # cycles
LONG = (50, 500, 1000)


def test_cycles_leave_nothing_behind(machine: MachineFactory, long: bool) -> None:
    measured, each, timeout = (LONG, 5, 8000) if long else (MEASURED, 1, 800)
    vm = machine()
    script = ROOT / "tests/guest/cycles.py"
    command = [str(vm.kernel.python), "-B", str(script), *map(str, (each, *measured))]
    result = vm.run(command, env={"PYTHONPATH": str(ROOT / "tests")}, timeout=timeout, check=False)
    print(f"cycle, kB of slab, kB of vmalloc on {vm.kernel.series}:\n{result.output}")
    assert result.status == 0
    rows = [[int(word) for word in line.split()] for line in result.stdout.splitlines()]
    assert [row[0] for row in rows] == list(measured)
    for before, after in zip(rows[0][1:], rows[-1][1:], strict=True):
        assert after <= before * 1.01
    assert vm.run(["grep", "-c", "^dm_remap ", "/proc/modules"], check=False).stdout == "0\n"
