# SPDX-License-Identifier: GPL-2.0-only
"""What is said to the target to do harm is refused; what fails under it leaves nothing.

The seed is printed; HOSTILE_SEED=<n> in the environment repeats what was made of it. By default it
is always the same one, under --long another one each time.
"""

from __future__ import annotations

import json
import os
import sys
from random import SystemRandom
from typing import TYPE_CHECKING

import pytest
from harness import kernels
from harness.paths import ROOT
from vm import hostile

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.fixtures import MachineFactory
    from harness.machine import Machine

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(900)]


def chosen_seed(*, long: bool) -> int:
    """Return the seed, and print it."""
    number = os.environ.get("HOSTILE_SEED") or (SystemRandom().randrange(1 << 32) if long else 1)
    print(f"HOSTILE_SEED={number}")
    return int(number)


def run_script(
    vm: Machine, name: str, *arguments: str, timeout: float, env: Mapping[str, str] | None = None
) -> None:
    """Run a script of tests/guest to its end, which must be a good one."""
    command = [sys.executable, "-B", str(ROOT / "tests/guest" / name), *arguments]
    environment = {"PYTHONPATH": str(ROOT / "tests"), **(env or {})}
    result = vm.run(command, env=environment, timeout=timeout, check=False)
    print(f"{name} on {vm.kernel.series}:\n{result.output}")
    assert result.status == 0, result.output
    vm.run(["sh", "-c", "! grep -q '^dm_remap ' /proc/modules"])


@pytest.mark.debug
def test_hostile_input(machine: MachineFactory, long: bool) -> None:
    number = chosen_seed(long=long)
    vm = machine()
    many = 40 if long else 1
    if vm.kernel.series == kernels.DEBUG:
        many = max(many // 4, 1)
    cases = {
        "messages": hostile.messages(number, 25 * many),
        "lines": hostile.lines(number, 80 * many),
        "accesses": hostile.accesses(number, 30 * many),
    }
    vm.write_file("/tmp/cases.json", json.dumps(cases).encode())
    env = {"DMREMAP_LONG": "1"} if long else {}
    run_script(vm, "hostile.py", "/tmp/cases.json", timeout=600 * many, env=env)


def test_devices_that_fail_at_load_and_resume(machine: MachineFactory, long: bool) -> None:
    number = chosen_seed(long=long)
    vm = machine()
    slow = vm.kernel.series == kernels.DEBUG
    share = (0.1 if slow else 1) if long else 0.02
    arguments = (str(number), str(share), *(["all"] if long and not slow else []))
    run_script(vm, "failing_devices.py", *arguments, timeout=7200 if long else 600)


@pytest.mark.debug
@pytest.mark.kernels("debug")
def test_memory_that_fails(machine: MachineFactory, long: bool) -> None:
    number = chosen_seed(long=long)
    # What is scanned for leaks is all of it.
    vm = machine(memory_mib=512)
    arguments = (str(number), *(["all"] if long else []))
    run_script(vm, "failing_memory.py", *arguments, timeout=7200 if long else 600)
