# SPDX-License-Identifier: GPL-2.0-only
"""Has pytest run a file of tests/guest inside a guest.

A processor is emulated there, and the start of pytest with all plugins that are installed takes
ten seconds more than with the one that is needed; what conftest.py above tests/guest needs to boot
machines would take two.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from harness.paths import ROOT

if TYPE_CHECKING:
    from harness.machine import Machine

GUEST = ROOT / "tests/guest"
SEEDS = ("POWERCUT_SEED",)
"""Words of the environment that repeat the choices of a test."""


def pytest_for(vm: Machine) -> list[str]:
    """Return the command of pytest in a guest, without the files."""
    plugins = ("-p", "pytest_timeout", "-p", "no:cacheprovider")
    return [str(vm.kernel.python), "-m", "pytest", *plugins, f"--confcutdir={GUEST}"]


def _show(text: str) -> None:
    """Print what the guest prints, as it comes: a test that hangs has said how far it came."""
    print(text, end="", flush=True)


def run_tests(
    vm: Machine,
    name: str,
    *options: str,
    timeout: float = 1400,
    show: bool = False,
    long: bool = False,
) -> None:
    """Load our modules and run a file, by its name; all its tests pass, and none is skipped.

    ``options`` are pytest's; ``timeout`` is in seconds, for all of it. With ``show`` the output of
    the tests is printed as it comes. ``long`` is what they find in the fixture of that name.
    """
    vm.insmod("dm_remap", "dm_fault")
    env = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **({"DMREMAP_LONG": "1"} if long else {})}
    env |= {word: os.environ[word] for word in SEEDS if word in os.environ}
    result = vm.run(
        [*pytest_for(vm), "-s" if show else "-q", *options, str(GUEST / name)],
        cwd=ROOT,
        env=env,
        timeout=timeout,
        check=False,
        echo=_show if show else None,
    )
    summary = result.output.strip().splitlines()[-1]
    print(f"{name} on {vm.kernel.series}: {summary}")
    assert result.status == 0, result.output
    assert " passed" in summary
    assert "skipped" not in summary
