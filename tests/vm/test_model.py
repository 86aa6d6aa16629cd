# SPDX-License-Identifier: GPL-2.0-only
"""Random steps on a set beside a model of it, in a machine: tests/guest/model_machine.py.

The examples are those of a seed, which is printed: MODEL_SEED=<n> in the environment chooses
another one. With ``--long`` it begins with a seed of the clock's and goes on with the next ones for
an hour.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest
from harness.paths import ROOT

if TYPE_CHECKING:
    from harness.fixtures import MachineFactory

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(900)]

SEED, EXAMPLES, STEPS = 1, 16, 50
LONG_SECONDS = 3600
SHRINKING = 600
"""Seconds: Hypothesis looks for a shorter script for five minutes."""


def test_random_steps(machine: MachineFactory, long: bool) -> None:
    """Nothing that a set answers is forbidden by the model."""
    vm = machine()
    vm.insmod("dm_remap", "dm_fault")
    number = int(os.environ.get("MODEL_SEED") or (time.time() if long else SEED))
    script = ROOT / "tests/guest/model_machine.py"
    words = ("--seed", number, "--examples", EXAMPLES, "--steps", STEPS)
    env = {"PYTHONPATH": str(ROOT / "tests")}
    seconds = 0
    if long:
        seconds = LONG_SECONDS
        env["DMREMAP_LONG_SECONDS"] = str(seconds)
    command = [str(vm.kernel.python), "-B", str(script), *map(str, words)]
    result = vm.run(command, env=env, timeout=seconds + SHRINKING, check=False)
    print(f"model on {vm.kernel.series}:\n{result.output}")
    assert result.status == 0, result.output
