# SPDX-License-Identifier: GPL-2.0-only
"""Everything at once, on a set whose disks outlive the machine, from one kernel to the next.

tests/guest/everything.py is what a machine does from one boot to the next. The kernels take turns
on the same disks: the test's own, another one, the test's own again. It takes two minutes, and an
hour with ``--long``, each few minutes with a new set. EVERYTHING_SEED=<n> in the environment
repeats the choices of the set that printed it, EVERYTHING_SECONDS=<n> goes on for so long.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from guest.everything_plan import DECK, STEPS, Choice, choose
from harness import kernels
from harness.disks import Disk
from harness.errors import MachineFailure
from harness.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from harness.fixtures import MachineFactory
    from harness.kernels import Kernel
    from harness.machine import Machine

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(900)]

LONG_SECONDS = 3600
LONG_STRETCHES = 3 * DECK
STRETCH_SECONDS = 400
"""When a stretch counts as hung."""

HAPPENED = (
    *(f"step {name}" for name in STEPS),
    *("loads", "power cuts", "remapped", "moved", "transient", "grows", "faults"),
    *("read_errors", "write_errors", "events heard", "seq", "mappings listed"),
    *(
        "units judged",
        "units judged after a cut",
        "durable by a slot",
        "units lost",
    ),
    *("units mapped by hand", "write done", "fua done", "write_zeroes done", "discard done"),
    *("flush done", "flush failed", "cached done", "write failed", "reads failed"),
    *("fio bytes verified", "fio bytes written", "files of sysfs read", "growths cut off"),
    *("changes of the kernel", "promises by a slot"),
)
"""What must not be missing when each step was done: a test of nothing finds nothing."""
RARELY = ("lost units filled",)
"""What takes a write to just these few blocks: in a short run chance may leave it out."""


@dataclass(frozen=True)
class One:
    """What became of a set."""

    machine: Machine
    done: Counter[str]


def disks(choice: Choice, home: Path) -> list[Disk]:
    """Return the legs; their files are there for all machines of a set."""
    return [
        Disk(
            name=name,
            size=size,
            kind=choice.bus,
            logical_block=choice.logical,
            physical_block=choice.physical if name == "main" else choice.logical,
            image=home / f"{name}.img",
        )
        for name, size in (("main", choice.main_size), ("spare", choice.spare_size))
    ]


def take_turns(home: Kernel, seed: int) -> list[Kernel]:
    """Return the kernels that a set meets, one after the other, again and again."""
    others = [kernels.find(series) for series in kernels.SERIES if series != home.series]
    first = seed % len(others)
    return [kernel for other in others[first:] + others[:first] for kernel in (home, other)]


def stretch(vm: Machine, given: dict[str, Any]) -> dict[str, Any]:
    """Have a machine do one stretch; return its answer."""
    vm.insmod("dm_remap", "dm_fault")
    given |= {"disks": {name: vm.device(name) for name in ("main", "spare")}}
    given |= {"answer": "/run/everything-answer.json"}
    vm.write_file("/run/everything.json", json.dumps(given).encode())
    script = [
        str(vm.kernel.python),
        "-B",
        str(ROOT / "tests/guest/everything.py"),
        "/run/everything.json",
    ]
    env = {"PYTHONPATH": f"{ROOT}/tests"}
    job = vm.start(script, env=env)
    try:
        result = job.wait(timeout=STRETCH_SECONDS, check=False)
    except MachineFailure:
        print(job.output)
        raise
    where = f"{vm.kernel.series}, EVERYTHING_SEED={given['seed']}"
    assert result.status == 0, f"{where}\n{result.output}"
    answer: dict[str, Any] = json.loads(vm.read_file(given["answer"]))
    return answer


def one_set(machine: MachineFactory, home: Kernel, choice: Choice, place: Path) -> One:
    """Take one set through all stretches; the machine of the last one still runs."""
    turns, done = take_turns(home, choice.seed), Counter[str]()
    before: dict[str, Any] | None = None
    vm: Machine | None = None
    for number in range(len(choice.stretches)):
        if vm is not None:
            end(vm, orderly=before is not None and before["digests"] is not None)
            done["changes of the kernel"] += 1
        kernel = turns[number % len(turns)]
        begin = time.monotonic()
        vm = machine(disks(choice, place), kernel=kernel)
        booted = time.monotonic()
        given = {"seed": choice.seed, "stretches": len(choice.stretches), "number": number}
        answer = stretch(vm, {**given, "before": before})
        done += Counter(answer["done"])
        before = answer["left"]
        print(
            f"  {kernel.series}, stretch {number}: boot {booted - begin:.0f} s, "
            f"work {time.monotonic() - booted:.0f} s, {done['loads']} loads so far",
            flush=True,
        )
    assert vm is not None
    return One(vm, done)


def end(vm: Machine, *, orderly: bool) -> None:
    """End a machine: what is in caches is lost, or nothing."""
    if orderly:
        vm.shutdown()
    else:
        vm.kill()
    vm.close()


@pytest.mark.usually(kernels.SERIES[-1])
def test_everything(machine: MachineFactory, kernel: Kernel, long: bool, tmp_path: Path) -> None:
    """Nothing is made up, nothing acknowledged is lost, and no error comes without a reason."""
    given = os.environ.get("EVERYTHING_SEED")
    seconds = int(os.environ.get("EVERYTHING_SECONDS") or (LONG_SECONDS if long else 0))
    seed = int(given or random.randrange(1 << 30))
    begin, total = time.monotonic(), Counter[str]()
    while True:
        choice = choose(seed, LONG_STRETCHES if long else DECK)
        print(f"EVERYTHING_SEED={seed}: {choice}", flush=True)
        place = tmp_path / str(seed)
        place.mkdir()
        one = one_set(machine, kernel, choice, place)
        total += one.done
        spent = time.monotonic() - begin
        counts = json.dumps(dict(sorted(one.done.items())))
        print(f"{kernel.series}: {spent:.0f} s, {counts}", flush=True)
        if spent >= seconds:
            break  # with a machine that runs, for kmemleak to look at
        end(one.machine, orderly=True)
        shutil.rmtree(place)
        seed += 1
    missing = [name for name in (*HAPPENED, *(RARELY if long else ())) if not total[name]]
    assert not missing, f"never happened: {missing}"
