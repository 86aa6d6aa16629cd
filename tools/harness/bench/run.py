# SPDX-License-Identifier: GPL-2.0-only
"""Everything that is measured of one kernel: two guests, one after the other.

The control plane is the same on all of them, and is measured on the newest.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING

from harness import kernels
from harness.accel import TCG
from harness.bench import bios, control, cost, load, plan
from harness.bench.devices import null_block
from harness.bench.rows import missed
from harness.machine import Machine

if TYPE_CHECKING:
    from pathlib import Path

    from harness.bench.rows import Row
    from harness.kernels import Kernel

Say = Callable[[str], object]
"""Is told what comes next."""
BOOTS = 3
"""In how many at most instructions are counted; of each row the best counts."""


def prepare_inputs(directory: Path) -> None:
    """Make what the guests read: the images of both sets, the positions, the program."""
    directory.mkdir(parents=True)
    for name in plan.UUIDS:
        plan.write_image(name, directory / f"{name}.img")
    plan.write_positions(directory)
    cost.build_iocost(directory)


def measure_disks(kernel: Kernel, workdir: Path, inputs: Path) -> list[Row]:
    """Measure in a guest whose clock shows time."""
    disks = [*bios.DISKS, load.slow_disk(inputs)]
    with Machine(kernel, disks, workdir=workdir, accel=TCG) as vm:
        vm.insmod("dm_remap", "dm_fault")
        main = null_block(vm, "main0", plan.MAIN_BYTES)
        return [load.measure(vm, main), *bios.measure(vm)]


def measure(kernel: Kernel, directory: Path, *, quick: bool = False, say: Say = str) -> list[Row]:
    """Return all rows of a kernel; ``directory`` is emptied, and gets what the guests leave."""
    # Of the run before: a disk that is there is used as it is.
    shutil.rmtree(directory, ignore_errors=True)
    inputs = directory / "inputs"
    say("writing the images of two sets")
    prepare_inputs(inputs)
    say("counting instructions")
    counted = cost.measure(kernel, directory / "cost", inputs, quick=quick)
    for boot in range(2, BOOTS + 1):
        if not missed(counted):
            break
        # How a boot has laid out memory costs up to 150 instructions of a large read.
        say(f"counting instructions in boot {boot}, because a row has missed its bar")
        again = cost.measure(kernel, directory / f"cost{boot}", inputs, quick=quick)
        pairs = zip(counted, again, strict=True)
        counted = [min(pair, key=lambda row: row.value) for pair in pairs]
    say("timing a load, counting bios")
    rows = counted + measure_disks(kernel, directory / "disks", inputs)
    if kernel.series == kernels.NEWEST:
        say("counting what dmremapctl takes")
        rows += control.measure(kernel, directory / "control")
    # 3.9 GiB each, though hardly anything of it takes space.
    for name in plan.UUIDS:
        (inputs / f"{name}.img").unlink()
    return rows
