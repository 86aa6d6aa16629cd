# SPDX-License-Identifier: GPL-2.0-only
"""A leg that is unplugged in the middle of I/O costs errors, and nothing else.

Each of a set's disks in turn, on every kind of bus, by the machine and by Linux. What was
acknowledged is there when the disk has come back.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
from guest.unplug import bad_read, bad_write
from harness.disks import Disk, Kind, device
from harness.paths import ROOT
from harness.qmp import QmpError

if TYPE_CHECKING:
    from harness.fixtures import MachineFactory
    from harness.machine import Machine

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(600)]

KINDS: dict[Kind, int] = {"virtio": 5, "scsi": 61, "nvme": 5}
"""And the errno that main fails with: see harness.disks."""
CASES = [
    {"name": f"{kind} {leg} {how}", "main": f"{kind}main", "spare": f"{kind}spare"}
    | {"leg": leg, "how": how}
    for kind in KINDS
    for how in (("qmp", "delete") if kind == "scsi" else ("qmp",))
    for leg in ("main", "spare")
]


def make_disk(kind: Kind, leg: str) -> Disk:
    """Return a disk; QEMU unplugs those that are SCSI's or behind a port of their own."""
    name = f"{kind}{leg}"
    cases = [number for number, case in enumerate(CASES) if case["main"] == name]
    return Disk(
        name=name,
        kind=kind,
        size=16 << 20,
        errno=KINDS[kind],
        bad_write=frozenset().union(*map(bad_write, cases)),
        bad_read=frozenset(map(bad_read, cases)),
        options={} if kind == "scsi" else {"bus": f"{name}-port"},
    )


def plug(vm: Machine, disk: Disk) -> None:
    """Plug a disk in again, as soon as QEMU has done with its removal."""
    # In QMP's words a number's underscore is a minus, and these are what they are by default.
    properties = {key: value for key, value in device(disk).items() if "block_size" not in key}
    deadline = time.monotonic() + 30
    while True:
        try:
            vm.qmp.execute("device_add", **properties)
            return
        except QmpError:
            if time.monotonic() > deadline:
                raise
            vm.watch(0.1)


def test_unplugged_disks(machine: MachineFactory) -> None:
    disks = {
        disk.name: disk
        for disk in (make_disk(kind, leg) for kind in KINDS for leg in ("main", "spare"))
    }
    ports = [disk.options["bus"] for disk in disks.values() if disk.options]
    arguments = [
        word
        for number, port in enumerate(ports, 1)
        # Not as JSON, like the disks: QEMU makes all that is not JSON first.
        for word in ("-device", f"pcie-root-port,id={port},chassis={number},slot={number}")
    ]
    vm = machine(list(disks.values()), extra_args=arguments)
    vm.insmod("dm_remap")
    job = vm.start(
        [str(vm.kernel.python), "-B", str(ROOT / "tests/guest/unplug.py"), json.dumps(CASES)],
        env={"PYTHONPATH": f"{ROOT}/tests:{ROOT}/tools:{ROOT}"},
    )
    deadline, handled = time.monotonic() + 500 * vm.kernel.patience, 0
    while job.running() and time.monotonic() < deadline:
        lines = job.output.split("\n")[:-1]
        for line in lines[handled:]:
            word, _, name = line.partition(" ")
            if word == "unplug":
                vm.qmp.execute("device_del", id=f"{name}-device")
            elif word == "plug":
                plug(vm, disks[name])
        handled = len(lines)
        vm.watch(0.05)
    result = job.wait(timeout=1, check=False)
    print(f"{vm.kernel.series}:\n{result.output}")
    assert result.status == 0, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("[")]
    assert [row[0] for row in rows] == [case["name"] for case in CASES]
