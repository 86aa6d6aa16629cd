# SPDX-License-Identifier: GPL-2.0-only
"""What people put on a disk, on a set whose disks go bad meanwhile; the tests run in the guest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from guest.filesystems import GEOMETRIES, KINDS
from harness.disks import Disk
from vm.inside import run_tests

if TYPE_CHECKING:
    from harness.fixtures import MachineFactory

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(1200)]

MIB = 1 << 20


SWAP_TABLE = r"page allocation failure: order:0, mode:\S*GFP_KERNEL\|\S*__GFP_NOMEMALLOC\b"
"""What Linux 7.3 logs when it finds no memory for a table of its own while it swaps out. It asks
without the reserves and goes on without it. Nothing of ours asks so: what is short of memory below
a set takes it from a pool and logs nothing."""


def run_in_guest(
    machine: MachineFactory, name: str, long: bool, memory: int = 1536, expected: str = ""
) -> None:
    """Run a file of tests/guest in a machine with disks to wear out, and one that is well."""
    disks = [
        Disk(name="main", size=320 * MIB),
        Disk(name="spare", size=32 * MIB),
        Disk(name="well", size=320 * MIB),
    ]
    vm = machine(disks, memory_mib=memory)
    if expected:
        vm.expect_log(expected)
    limit = 3600 if long else 1100
    run_tests(vm, name, "-o", f"timeout={limit}", timeout=limit, show=True, long=long)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """With --long give each file system on each kind of disk a machine: one takes long enough."""
    if "case" in metafunc.fixturenames:
        long = metafunc.config.getoption("--long")
        each = [f"{name}-{blocks}" for name in KINDS for blocks in GEOMETRIES]
        metafunc.parametrize("case", each if long else ["all"])


def test_file_systems(case: str, machine: MachineFactory, long: bool) -> None:
    """ext4, XFS, btrfs; PostgreSQL, SQLite, a build."""
    chosen = "" if case == "all" else f"::test_file_system[{case}]"
    run_in_guest(machine, f"filesystems.py{chosen}", long)


def test_arrays(machine: MachineFactory, long: bool) -> None:
    """md, btrfs raid1, LVM."""
    run_in_guest(machine, "arrays.py", long)


def test_swap(machine: MachineFactory, long: bool) -> None:
    """Swap, with little memory."""
    run_in_guest(machine, "swapping.py", long, memory=512, expected=SWAP_TABLE)
