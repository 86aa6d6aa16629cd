# SPDX-License-Identifier: GPL-2.0-only
"""The same failing sectors on every kind of disk, error and block size: the same mappings."""

from __future__ import annotations

import dataclasses
import errno
import json
from typing import TYPE_CHECKING, Any, get_args

import pytest
from harness import kernels
from harness.disks import Disk, Kind
from harness.paths import ROOT

if TYPE_CHECKING:
    from harness.fixtures import MachineFactory
    from harness.kernels import Kernel
    from harness.machine import Machine

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.debug, pytest.mark.timeout(1500)]

ERRNOS = {"eio": errno.EIO, "enodata": errno.ENODATA}
"""What QEMU's disk is told by the file below it."""
BLOCKS = {"n512": (512, 512), "e512": (512, 4096), "n4096": (4096, 4096)}
"""Logical and physical block, by name."""
STATUS = {"EIO": "ioerr", "ENODATA": "medium"}
"""What the guest's kernel makes of it, for reads and writes."""
FOREIGN = {("virtio", errno.ENODATA), ("nvme", errno.EIO)}
"""What an emulated disk cannot say: virtio has one error only, a plain I/O error, and NVMe has an
unrecovered read and a write fault, both medium errors. (SCSI has an aborted command, an I/O error,
and a medium error.)"""
MAIN = 4 << 20
AREA = (256 + 64) * 8  # sectors
WRITTEN = (960, 2048)  # first sector, sectors
READ = (4096, 128)
BAD = {1000, 1001, 1016, *range(2000, 2015), 2999, 3007}
BAD_UNWRITTEN = {4100, *range(4110, 4120), 4223}


def fails_by_itself(disk: Disk) -> bool:
    """Say whether the emulated disk fails; if it cannot, the fault device over it does."""
    # QEMU's NVMe does not tell a physical block, so the fault device has to.
    told = disk.kind != "nvme" or disk.physical_block == disk.logical_block
    return told and (disk.kind, disk.errno) not in FOREIGN


def made(disk: Disk) -> Disk:
    """Return it with its bad sectors, if it has them itself."""
    bad = frozenset(BAD | BAD_UNWRITTEN) if fails_by_itself(disk) else frozenset()
    return dataclasses.replace(disk, bad_read=bad, bad_write=bad)


MAINS = [
    made(
        Disk(
            name=f"{kind}{error}{block}",
            size=MAIN,
            kind=kind,
            errno=number,
            logical_block=logical,
            physical_block=physical,
        )
    )
    for kind in get_args(Kind)
    for error, number in ERRNOS.items()
    for block, (logical, physical) in BLOCKS.items()
]


def blocks(bad: set[int], size: int) -> list[int]:
    """Return the sectors of the blocks of a size, in bytes, that these are in."""
    step = size // 512
    return sorted(
        {n for sector in bad for n in range(sector - sector % step, sector // step * step + step)}
    )


def ranges(numbers: list[int]) -> list[list[int]]:
    """Return runs of numbers, each as its first and how many."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == sum(found[-1]):
            found[-1][1] += 1
        else:
            found.append([number, 1])
    return found


def expected(disk: Disk) -> dict[str, Any]:
    """Return what the guest has to answer for a disk."""
    logical = disk.logical_block
    physical = disk.physical_block
    assert physical is not None
    unwritten = blocks(BAD_UNWRITTEN, logical)
    seen = errno.errorcode[disk.errno]
    return {
        "physical": physical,
        "mapped": blocks(BAD, physical),
        "pending": unwritten,
        "failures": {str(n): "ENODATA" for n in unwritten if n % (logical // 512) == 0},
        "bare": {"read": seen, "write": seen},
    }


def fault(disk: Disk) -> dict[str, Any] | None:
    """Return what the fault device over a disk has to do, if there is one."""
    if fails_by_itself(disk):
        return None
    return {
        "physical": disk.physical_block,
        "status": STATUS[errno.errorcode[disk.errno]],
        "bad": ranges(sorted(BAD | BAD_UNWRITTEN)),
    }


def do(vm: Machine, mains: list[Disk], step: str) -> dict[str, dict[str, Any]]:
    """Fill or check all sets; return what the guest answers for each disk."""
    vm.insmod("dm_remap", "dm_fault")
    plan = {
        "spare": vm.device("spare"),
        "area": AREA,
        "write": WRITTEN,
        "read": READ,
        "bad": min(BAD),
        "mains": {
            disk.name: {"disk": vm.device(disk.name), "fault": fault(disk)} for disk in mains
        },
    }
    command = [
        str(vm.kernel.python),
        "-B",
        str(ROOT / "tests/guest/disks.py"),
        step,
        json.dumps(plan),
    ]
    result = vm.run(command, env={"PYTHONPATH": str(ROOT / "tests")}, timeout=600, check=False)
    assert result.status == 0, result.output
    answer: dict[str, dict[str, Any]] = json.loads(result.stdout)
    return answer


def row(vm: Machine, disk: Disk, answers: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the result for one disk, for a program to read; `answers` are by step."""
    found = answers["check"]
    wanted = expected(disk)
    return {
        "kernel": vm.kernel.release,
        "series": vm.kernel.series,
        "kind": disk.kind,
        "errno": disk.errno,
        "logical": disk.logical_block,
        "physical": disk.physical_block,
        "physical_seen": found["physical"],
        "fails": "itself" if fails_by_itself(disk) else "by the fault device",
        "status": {how: STATUS.get(word, word) for how, word in found["bare"].items()},
        "failing": ranges(sorted(BAD)),
        "mapped": ranges(found["mapped"]),
        "pending": ranges(found["pending"]),
        "wrong": [
            f"{step}: {key} is {answer[key]} instead of {value}"
            for step, answer in answers.items()
            for key, value in wanted.items()
            if answer[key] != value
        ],
    }


def test_every_kind_of_disk(machine: MachineFactory, kernel: Kernel, long: bool) -> None:
    """The whole product of kinds, errors and block sizes; the result is also in matrix.json.

    On the debug kernel it takes minutes, so a few must do there, with each kind, error and size.
    """
    mains = MAINS[::5] if kernel.series == kernels.DEBUG and not long else MAINS
    vm = machine([*mains, Disk(name="spare", size=len(mains) * AREA * 512)])
    filled = do(vm, mains, "fill")
    vm.reboot()
    checked = do(vm, mains, "check")
    rows = [
        row(vm, disk, {"fill": filled[disk.name], "check": checked[disk.name]}) for disk in mains
    ]
    result = [{**each, "ok": not each["wrong"]} for each in rows]
    (vm.workdir.parent / "matrix.json").write_text(json.dumps(result, indent=1) + "\n")
    print(f"{len(mains)} disks, {sum(len(each['mapped']) for each in checked.values())} mapped")
    assert [each for each in result if not each["ok"]] == []
