# SPDX-License-Identifier: GPL-2.0-only
"""What dmremapctl takes: to start, and with many sets and devices.

The guest's clock counts instructions, and what counts is the time that a processor has worked for
the command: waiting does not count, and neither does what else the machine does. The kernel's own
work for it is in it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from harness.accel import TCG
from harness.bench.rows import Row
from harness.machine import Machine
from harness.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from harness.kernels import Kernel

SETS, IDLE = 50, 128
GUEST = ROOT / "tools/harness/bench/control_guest.py"
VERSION_BAR, STATUS_BAR = 2.0, 8.0
"""The second one is what is reached, and not what would be good: 3. Click alone takes two and a
half, and the module dataclasses one."""
MONITOR_BAR = 40.0
BARS = {"list": 4.0, "status": 4.0, "assemble": 30.0}
"""Of what it takes with one set and nothing else."""


def measure(kernel: Kernel, workdir: Path) -> list[Row]:
    """Return all rows."""
    with Machine(kernel, [], workdir=workdir, accel=TCG, icount=True, memory_mib=1024) as vm:
        vm.insmod("dm_remap")
        vm.run(["modprobe", "loop"])
        python = str(ROOT / ".venv/bin/python")
        said = vm.run([python, str(GUEST), str(SETS), str(IDLE)], timeout=400).stdout
    return rows(kernel.series, json.loads(said))


def rows(series: str, found: dict[str, object]) -> list[Row]:
    """Return the rows of what the guest has measured."""
    base = found["pass"]
    one, beside, many = found["one"], found["one beside"], found["many beside"]
    assert isinstance(base, float)
    assert isinstance(one, dict)
    assert isinstance(beside, dict)
    assert isinstance(many, dict)
    out = []
    for verb, bar in (("version", VERSION_BAR), ("status", STATUS_BAR)):
        took = found[verb]
        assert isinstance(took, float)
        name = "dmremapctl --version" if verb == "version" else "dmremapctl status of one set"
        out.append(
            Row(
                series,
                name,
                round(took / base, 2),
                "x python3 -c pass",
                bar,
                digits=2,
                details={"s": took, "pass, s": base},
            )
        )
    for verb, bar in BARS.items():
        option = " --all" if verb == "assemble" else ""
        out.append(
            Row(
                series,
                f"dmremapctl {verb}{option} of {SETS} sets beside {IDLE} loop devices",
                round(many[verb] / one[verb], 2),
                "x one set",
                bar,
                digits=2,
                details={"s": many[verb], "one set, s": one[verb]},
                more={"one set beside the devices, s": beside[verb]},
            )
        )
    held = found["monitor"]
    assert isinstance(held, int)
    name = f"dmremapctl monitor of {SETS} sets"
    out.append(Row(series, name, round(held / 1024, 1), "MiB resident", MONITOR_BAR, digits=1))
    return out
