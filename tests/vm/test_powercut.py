# SPDX-License-Identifier: GPL-2.0-only
"""A power cut at any moment loses nothing that was acknowledged, and makes nothing up.

A guest writes to a set whose legs are on the power-cut server. Then the state after a cut is
rebuilt for every moment at which it changes, and read on the host; some are loaded by the kernel.
The seed is printed. POWERCUT_SEED=<n> in the environment repeats its pieces, faults and choices;
the interleaving of the guest's threads is its own. A log that was kept is judged again by
replaying it.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

import pytest
from guest.lib import pattern
from harness.paths import ROOT
from powercut.judge import Judge, not_forced
from powercut.log import SECTOR, Log
from powercut.oracle import FIRST, Oracle, generation
from powercut.reader import load
from powercut.server import Export, PowerCutServer

from dmremap.ondisk import BLOCK, BLOCK_SECTORS, HEAD_BLOCKS, segment_for

if TYPE_CHECKING:
    from pathlib import Path

    from harness.fixtures import MachineFactory
    from harness.machine import Machine

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(900)]

MAIN = 4096  # sectors
BEFORE = pattern(0, MAIN, FIRST)  # on main
SPARE_BLOCKS = HEAD_BLOCKS + 160
SPARE_SIZE = SPARE_BLOCKS * BLOCK
PIECE = 8
NETWORK = ("-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile=")
SAMPLES = 6  # cuts that the kernel loads


@dataclass
class Plan:
    """What the workload writes to, and what fails."""

    seed: int
    rounds: list[list[tuple[int, int]]] = field(default_factory=list)
    bad: list[set[int]] = field(default_factory=list)
    """Sectors of main that fail in each round, those of the rounds before included."""
    bad_spare: set[int] = field(default_factory=set)
    """Sectors of the spare that fail in the second round."""

    def __post_init__(self) -> None:
        random = Random(self.seed)
        starts = random.sample(range(0, MAIN, PIECE), 230)
        for first, last, broken in ((0, 140, 100), (120, 230, 170)):
            failing = set(self.bad[-1]) if self.bad else set[int]()
            for start in starts[first:broken]:
                count = PIECE if random.random() < 0.5 else random.randint(1, 3)
                failing |= set(random.sample(range(start, start + PIECE), count))
            self.bad.append(failing)
            self.rounds.append([(start, PIECE) for start in starts[first:last]])
        segment = segment_for(SPARE_BLOCKS, SECTOR)
        assert segment
        # Both homes of a table block, the first stand-in, and slots.
        for block in (segment.copy_a + 2, segment.copy_b + 2, 128):
            self.bad_spare.add(block * BLOCK_SECTORS + random.randrange(BLOCK_SECTORS))
        slots = range(segment.data * BLOCK_SECTORS, segment.copy_b * BLOCK_SECTORS)
        self.bad_spare |= set(random.sample(slots[500:], 40))


def command(script: str, argument: object) -> list[str]:
    """Return the command for a script of tests/powercut, in the guest."""
    return [sys.executable, "-B", str(ROOT / "tests/powercut" / script), json.dumps(argument)]


ENVIRONMENT = {"PYTHONPATH": f"{ROOT}/tests:{ROOT}"}


def run_workload(vm: Machine, plan: Plan, directory: Path) -> Path:
    """Have the guest do the workload and return the log."""
    images = {"main": BEFORE, "spare": bytes(SPARE_SIZE)}
    legs = []
    for name, image in images.items():
        (directory / name).write_bytes(image)
        legs.append(Export(name, directory / name))
    log = directory / "log"
    with PowerCutServer(directory / "nbd", log, legs) as server:

        def fail(number: int) -> None:
            server.set_bad("main", writes=plan.bad[number])
            server.mark("bad " + " ".join(map(str, sorted(plan.bad[number]))))

        fail(0)
        argument = {
            "port": server.port,
            "seed": plan.seed,
            "main": MAIN,
            "spare": SPARE_BLOCKS * BLOCK_SECTORS,
            "rounds": plan.rounds,
        }
        job = vm.start(command("workload.py", argument), env=ENVIRONMENT)
        vm.wait_for(lambda: "round 1" in job.output or not job.running(), 240, "the first round")
        fail(1)
        server.set_bad("spare", writes=plan.bad_spare)
        vm.write_file("/run/second-round", b"")
        result = job.wait(timeout=240, check=False)
        print(result.output.rstrip())
        assert result.status == 0
        assert "0 writes failed" in result.output
    return log


def have_the_kernel_load(vm: Machine, judge: Judge, cuts: list[int], directory: Path) -> None:
    """Have the kernel load states; it must see what the host has read, and honour the promises."""
    replay, oracle = judge.start(), Oracle()
    cases, expected, promises = [], [], []
    for cut in sorted(cuts):
        replay.advance(cut)
        oracle.follow(replay.promised())
        home = directory / f"cut{cut}"
        home.mkdir()
        images = {leg: home / leg for leg in replay.images}
        # Half of them strict, the others with survivors.
        ready = oracle.ready
        extra = Random(f"{judge.seed} {cut}") if ready and cut % 2 else ()
        replay.copies(images, extra, torn=True)
        main, spare = (images[leg].read_bytes() for leg in ("main", "spare"))
        loaded = load(spare) if ready else None
        cases.append((*map(str, images.values()), str(loaded.superblock.uuid) if loaded else ""))
        expected.append(
            [generation(n, loaded.content(n, main, spare)) for n in range(MAIN)]
            if loaded
            else [FIRST] * MAIN
        )
        mapped = (
            sorted((n, e.state.name.lower()) for n, e in loaded.lookup.items()) if loaded else []
        )
        promises.append((mapped, set(oracle.mapped), dict(oracle.durable)))
    shown = vm.run(command("verify.py", cases), env=ENVIRONMENT, timeout=240).stdout
    for cut, answer, content, (mapped, must, durable) in zip(
        sorted(cuts), json.loads(shown), expected, promises, strict=True
    ):
        print(f"cut {cut} in the kernel: {answer['status']}")
        assert [tuple(pair) for pair in answer["mapped"]] == mapped, f"cut {cut}"
        assert answer["read"] == content, f"cut {cut}"
        assert must <= {sector for sector, _ in mapped}
        assert all(answer["read"][sector] >= number for sector, number in durable.items())


def test_a_cut_at_any_moment(machine: MachineFactory, tmp_path: Path) -> None:
    plan = Plan(int(os.environ.get("POWERCUT_SEED") or Random().randrange(1 << 32)))
    print(f"POWERCUT_SEED={plan.seed}, log {tmp_path / 'log'}")
    vm = machine(extra_args=NETWORK)
    vm.insmod("dm_remap")
    begin = time.monotonic()
    path = run_workload(vm, plan, tmp_path)
    worked = time.monotonic()
    with Log(path) as log:
        judge = Judge(log, plan.seed, BEFORE, SPARE_SIZE)
        judge.judge_all()
        print(
            f"{len(log)} entries, {len(judge.oracle.mapped)} remaps, {judge.states} states: "
            f"{len(judge.formatting)} cuts before there is a set, {len(judge.between)} between "
            f"copy A and B, {len(judge.away)} with a stand-in, {len(judge.problems)} problems"
        )
        judged = time.monotonic()
        assert not judge.problems, "\n".join(judge.problems[:20])
        assert not not_forced(log)
        assert len(judge.oracle.mapped) >= 300
        for cuts in (judge.formatting, judge.between, judge.away):
            assert cuts, "no such cut: the workload does not do what it should"
        random = Random(plan.seed)
        sample = {judge.formatting[len(judge.formatting) // 2], len(log)}
        kinds = itertools.cycle((judge.between, judge.away))
        while len(sample) < SAMPLES:
            sample.add(random.choice(next(kinds)))
        have_the_kernel_load(vm, judge, sorted(sample), tmp_path)
    print(
        f"workload {worked - begin:.0f} s, replay {judged - worked:.0f} s, "
        f"kernel {time.monotonic() - judged:.0f} s"
    )
