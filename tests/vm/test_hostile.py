# SPDX-License-Identifier: GPL-2.0-only
"""What is said to the target to do harm is refused; what fails under it leaves nothing.

The seed is printed; HOSTILE_SEED=<n> in the environment repeats what was made of it. By default it
is always the same one, under --long another one each time.
"""

from __future__ import annotations

import json
import os
import shutil
from random import SystemRandom
from typing import TYPE_CHECKING

import pytest
from harness import kernels, paths
from harness.paths import ROOT
from vm import hostile

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from harness.fixtures import MachineFactory
    from harness.machine import Machine

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(900)]


def chosen_seed(*, long: bool) -> int:
    """Return the seed, and print it."""
    number = os.environ.get("HOSTILE_SEED") or (SystemRandom().randrange(1 << 32) if long else 1)
    print(f"HOSTILE_SEED={number}")
    return int(number)


def run_script(
    vm: Machine,
    name: str,
    *arguments: str,
    timeout: float,
    env: Mapping[str, str] | None = None,
    checkout: Path = ROOT,
) -> None:
    """Run a script of tests/guest to its end, which must be a good one."""
    python = checkout / vm.kernel.python.relative_to(ROOT)
    script = checkout / "tests/guest" / name
    command = [str(python), "-B", str(script), *arguments]
    environment = {"PYTHONPATH": f"{checkout / 'tests'}:{checkout}", **(env or {})}
    result = vm.run(command, env=environment, timeout=timeout, check=False)
    print(f"{name} on {vm.kernel.series}:\n{result.output}")
    assert result.status == 0, result.output
    vm.run(["sh", "-c", "! grep -q '^dm_remap ' /proc/modules"])


@pytest.mark.debug
def test_hostile_input(machine: MachineFactory, long: bool) -> None:
    number = chosen_seed(long=long)
    vm = machine()
    many = 40 if long else 1
    slow = vm.kernel.series == kernels.DEBUG
    share = many / 4 if slow and long else many / 2 if slow else many
    cases = {
        "messages": hostile.messages(number, int(25 * share)),
        "lines": hostile.lines(number, int(80 * share)),
        "accesses": hostile.accesses(number, int(30 * share)),
    }
    vm.write_file("/tmp/cases.json", json.dumps(cases).encode())
    env = {"DMREMAP_LONG": "1"} if long else {}
    run_script(vm, "hostile.py", "/tmp/cases.json", timeout=600 * many, env=env)


def private_checkout(home: Path, python: Path) -> Path:
    """Return a copy of what guests need of the checkout, where only root may enter and read."""
    home.mkdir(mode=0o700)
    for name in ("dmremap", "tests"):
        shutil.copytree(ROOT / name, home / name, ignore=shutil.ignore_patterns("__pycache__"))
    environment = python.parents[1]
    copy = home / environment.name
    shutil.copytree(environment, copy, symlinks=True, copy_function=os.link)
    for path in (home / "dmremap", *(home / "dmremap").rglob("*")):
        path.chmod(path.stat().st_mode & 0o700)  # as with a umask of 077
    return home


@pytest.mark.usually("6.12")
def test_a_user_without_rights(
    machine: MachineFactory, long: bool, request: pytest.FixtureRequest
) -> None:
    """Nobody changes nothing, in a checkout that lies where nobody may enter, too."""
    vm = machine()
    home = paths.ARTEFACTS / paths.directory_name(request.node.nodeid) / "private"
    env = {"DM_REMAP_MODULES": str(vm.kernel.build), **({"DMREMAP_LONG": "1"} if long else {})}
    try:
        checkout = private_checkout(home, vm.kernel.python)
        run_script(vm, "hostile.py", "nobody", timeout=300, env=env, checkout=checkout)
    finally:
        shutil.rmtree(home)


def test_devices_that_fail_at_load_and_resume(machine: MachineFactory, long: bool) -> None:
    number = chosen_seed(long=long)
    vm = machine()
    slow = vm.kernel.series == kernels.DEBUG
    share = (0.1 if slow else 1) if long else 0.012
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
