# SPDX-License-Identifier: GPL-2.0-only
"""`dmremapctl selftest`, as a user runs it.  In a guest, as root."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from guest import answers
from guest.lib import ROOT, dmsetup, load_module, module_file, module_loaded, run, unload_module

pytestmark = [pytest.mark.guest, pytest.mark.module]

PHASES = [
    "load",
    "devices",
    "create",
    "write and verify",
    "break main",
    "read broken blocks",
    "write broken blocks",
    "remove",
    "assemble",
    "verify again",
    "remove again",
    "unload",
]


def selftest(*args: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "dmremap", "selftest", "--directory", "/dev/shm", *args]
    return subprocess.run(
        words,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def leftovers() -> dict[str, object]:
    """Everything that a self test could leave behind."""
    return {
        "dm": dmsetup("ls"),
        "loop": run("losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE"),
        "files": sorted(path.name for path in Path("/dev/shm").iterdir()),
        "brd": module_loaded("brd"),
    }


@pytest.fixture
def nothing_left() -> Iterator[None]:
    before = leftovers()
    yield
    assert leftovers() == before


@pytest.fixture
def unloaded(nothing_left: None) -> Iterator[str]:  # noqa: ARG001
    """The module's file; the module is not loaded before and must not be after."""
    file = module_file("dm_remap")
    assert file is not None
    if was := module_loaded("dm_remap"):
        unload_module("dm_remap")
    run("modprobe", "dm_mod")
    yield str(file)
    assert not module_loaded("dm_remap")
    if was:
        load_module("dm_remap")


@pytest.fixture
def loaded(nothing_left: None) -> None:  # noqa: ARG001
    load_module("dm_remap")


def test_all_phases_with_load_and_unload(unloaded: str) -> None:
    done = selftest("--module-file", unloaded, "-o", "json")
    assert done.returncode == 0, done.stdout + done.stderr
    answer = answers.answer(done.stdout)
    assert [phase["phase"] for phase in answer["data"]["phases"]] == PHASES
    details = {phase["phase"]: phase["detail"] for phase in answer["data"]["phases"]}
    assert details["load"] == "loaded"
    assert details["unload"] == "unloaded"
    assert details["verify again"].endswith("3 fail as they should")


def test_a_module_that_was_loaded_stays(loaded: None) -> None:  # noqa: ARG001
    done = selftest("--size", "4")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "stays loaded" in done.stdout
    assert done.stdout.endswith("The self test passed.\n")
    assert module_loaded("dm_remap")


def test_on_ram_disks(loaded: None) -> None:  # noqa: ARG001
    done = selftest("--backing", "ram", "--size", "4", "-o", "jsonl")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [answers.answer(line) for line in done.stdout.splitlines()]
    assert [line["data"]["phase"] for line in lines] == PHASES


def test_a_wrong_byte_ends_it_and_nothing_is_left(loaded: None) -> None:  # noqa: ARG001
    """Main is changed behind the set's back in the middle of the test."""
    script = """
import sys
from dmremap import dm, selftest
from dmremap.ondisk import opened
phases = list(selftest.PHASES)
def spoil(bench):
    with opened(bench.disks[0], write=True) as device:
        data = device.read(0, 1 << 20), device.read(device.size // 2, 4096)
        device.write(device.size // 2, bytes([data[1][0] ^ 1]) + data[1][1:])
    return "spoiled"
phases.insert([name for name, _ in phases].index("break main"), ("spoil", spoil))
phases.insert([name for name, _ in phases].index("break main"), ("look", selftest._verify))
selftest.PHASES = tuple(phases)
try:
    plan = selftest.Plan(directory="/dev/shm", main_mib=4, spare_mib=3)
    selftest.perform(plan, lambda step: print(step.name))
except Exception as error:
    print(error, error.__notes__)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    *phases, last = done.stdout.splitlines()
    assert phases == ["load", "devices", "create", "write and verify", "spoil"]
    assert "DMR-E107" in last
    assert "holds garbage" in last
    assert "in phase 'look'" in last
