# SPDX-License-Identifier: GPL-2.0-only
"""The KUnit suites of the module's parts: loaded into the debug kernel, every case passes."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest
from harness.machine import CommandFailed
from harness.paths import ROOT

if TYPE_CHECKING:
    from harness.fixtures import MachineFactory

pytestmark = [
    pytest.mark.vm,
    pytest.mark.slow,
    pytest.mark.kernels("debug"),
    pytest.mark.debug,
    pytest.mark.timeout(300),
]

MODULE = "dm_remap_kunit"
RESULT = re.compile(r"^ *(?P<not>not )?ok \d+ (?:- )?(?P<name>\S+)(?: +# (?P<remark>.*))?$")
"""A line of KTAP: of a case or of a suite, by its name."""


def written() -> dict[str, list[str]]:
    """Return the cases of each suite as the sources list them."""
    suites = {}
    for path in sorted(ROOT.glob("tests/kernel/dm-remap-*-kunit.c")):
        text = path.read_text()
        (name,) = re.findall(r'\.name = "(dm-remap-[\w-]+)"', text)
        suites[name] = re.findall(r"\bKUNIT_CASE\((\w+)\)", text)
    return suites


def results(ktap: str) -> dict[str, str]:
    """Return how everything in it ended: ``ok``, ``not ok``, or a remark such as ``SKIP``."""
    found = {}
    for line in ktap.splitlines():
        if match := RESULT.match(line):
            found[match["name"]] = match["remark"] or f"{match['not'] or ''}ok"
    return found


def test_results_are_told_apart() -> None:
    ktap = "KTAP version 1\n    1..3\n    ok 1 a\n    not ok 2 b\n    ok 3 c # SKIP why\nnot ok 1 s"
    assert results(ktap) == {"a": "ok", "b": "not ok", "c": "SKIP why", "s": "not ok"}


def test_every_case_passes(machine: MachineFactory) -> None:
    suites = written()
    assert len(suites) == 3
    vm = machine()
    began, mark = time.monotonic(), vm.console.size()
    try:
        vm.insmod(MODULE)
    except CommandFailed as error:
        pytest.fail(f"{error}\n{vm.console.since(mark)}")
    seconds = time.monotonic() - began
    console = vm.console.since(mark)
    for suite, cases in suites.items():
        said = vm.read_file(f"/sys/kernel/debug/kunit/{suite}/results").decode()
        found = results(said)
        assert set(found.values()) == {"ok"}, f"{said}\n{console}"
        assert list(found) == [*cases, suite], f"{said}\n{console}"
        # What the console has is what debugfs has.
        assert re.search(rf"\] # {suite}: pass:{len(cases)} fail:0 skip:0", console), console
        print(f"{suite}: {len(cases)} cases passed")
    print(f"{sum(map(len, suites.values()))} cases in {seconds:.1f} s")
    # None of the suites has left anything behind that keeps the module.
    vm.run(["rmmod", MODULE])
