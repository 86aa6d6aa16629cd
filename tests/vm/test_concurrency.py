# SPDX-License-Identifier: GPL-2.0-only
"""Verified I/O survives everything at once: overlapping writers, faults, healing, suspends.

One minute, or with ``--long`` half an hour of them, each with a new set. The seed of each
round is printed; CONCURRENCY_SEED=<n> in the environment repeats its choices, the interleaving is
its own.
"""

from __future__ import annotations

import json
import os
import random
from typing import TYPE_CHECKING, Any

import pytest
from guest.concurrency import SIZE
from harness.paths import ROOT

if TYPE_CHECKING:
    from harness.fixtures import MachineFactory

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(600)]

SECONDS = 50
"""Of fio at full work; the last writes and the check of a set take the rest of a minute."""
ROUNDS = 36
"""With ``--long``: half an hour of fio."""


def judge(found: dict[str, Any], patience: int) -> None:
    """It has happened, and not too little of it: a busy host is many times slower."""
    own = [name for name in found["written"] if name.startswith("own")]
    assert len(own) == 8
    for name in own:
        assert found["written"][name] > 0
        assert found["read"][name] > 0  # by fio, which compares it
        assert found["again"][name] == SIZE
    assert found["written"]["writer0"] > 0
    assert found["written"]["writer1"] > 0
    assert found["read"]["reader"] > 0
    assert found["mapped"] > 100
    assert found["trimmed"]["discarder"] > 0
    assert all(found["table"][kind] > 0 for kind in ("flush", "noflush", "reload"))
    # Twice a second where nothing hinders it; emulated it takes a part of that second itself.
    assert found["suspends_a_second"] > (0.5 if patience == 1 else 0.1), found["suspends_a_second"]
    assert all(count > 0 for count in found["counted"].values()), found["counted"]
    assert all(count > 0 for count in found["faults"].values()), found["faults"]
    assert all(count > 0 for count in found["looks"])


@pytest.mark.kcsan
def test_everything_at_once(machine: MachineFactory, long: bool) -> None:
    first = int(os.environ.get("CONCURRENCY_SEED") or random.randrange(1 << 30))
    vm = machine(thread="multi")
    vm.insmod("dm_remap", "dm_fault")
    script = [str(vm.kernel.python), "-B", str(ROOT / "tests/guest/concurrency.py")]
    # Where everything is slower rounds are longer, and fewer: as much happens in each.
    patience = round(vm.kernel.patience)
    for seed in range(first, first + (-(-ROUNDS // patience) if long else 1)):
        print(f"CONCURRENCY_SEED={seed}", flush=True)
        command = [*script, str(SECONDS * patience), str(seed)]
        result = vm.run(command, env={"PYTHONPATH": str(ROOT / "tests")}, timeout=500, check=False)
        assert result.status == 0, result.output
        found = json.loads(result.stdout)
        print(vm.kernel.series, result.stdout, flush=True)
        judge(found, patience)
