# SPDX-License-Identifier: GPL-2.0-only
"""A power cut at any moment loses nothing that was acknowledged, and makes nothing up.

A guest writes to a set whose legs are on the power-cut server: main fails, slots and homes of the
table fail, content is given up, commits half fail, the set grows. Then the state after a cut is
rebuilt for every moment at which it changes, and read on the host; some are loaded by the kernel.
The seed is printed. POWERCUT_SEED=<n> in the environment repeats its pieces, faults and choices;
the interleaving of the guest's threads is its own. A log that was kept is judged again by
replaying it.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import time
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

import pytest
from guest.lib import pattern
from harness.paths import ROOT
from powercut.judge import Judge, not_forced
from powercut.log import SECTOR, Log, Mark
from powercut.oracle import FIRST, Oracle, generation
from powercut.reader import load
from powercut.server import Export, PowerCutServer

from dmremap.ondisk import BLOCK, BLOCK_SECTORS, HEAD_BLOCKS, Segment, segment_for
from dmremap.ondisk._format import lib
from dmremap.ondisk.layout import STANDINS

if TYPE_CHECKING:
    from pathlib import Path

    from harness.fixtures import MachineFactory
    from harness.machine import Job, Machine

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(900)]

MAIN = 4096  # sectors
BEFORE = pattern(0, MAIN, FIRST)  # on main
SPARE_BLOCKS = HEAD_BLOCKS + 180  # of the area at first
GROWN_BLOCKS = SPARE_BLOCKS + 60
SPARE_SIZE = GROWN_BLOCKS * BLOCK
PIECE = 8
NETWORK = ("-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile=")
SAMPLES = 10  # cuts that the kernel loads
ENDS = (STANDINS[0], STANDINS[-1])
HALVES = (3, 6)  # the rounds in which a commit half fails, first copy A's half, then copy B's

Piece = tuple[int, int]


@dataclass
class Round:
    """What the workload does before the test goes on to the next faults."""

    pieces: list[Piece]
    """None overlaps another: they are written to by several threads."""
    broken: set[int]
    """Sectors that main fails from now on, if they have not failed before."""
    lose: list[Piece] = field(default_factory=list)
    heal: set[int] = field(default_factory=set)
    """Sectors that main takes again."""
    half: tuple[int, ...] = ()
    """Blocks of the spare that fail in this round only."""
    whole: bool = False
    scrub: list[int] = field(default_factory=list)
    """Blocks of the spare that a scrub finds gone, and writes elsewhere, before all else."""
    reload: int = 0
    """With so many sectors of the spare."""
    prepare: list[int] = field(default_factory=list)
    """Blocks of the spare that get empty tables before."""
    worn: int = 0
    """How many of the mapped sectors in ``pieces`` have slots that fail from now on."""


class Plan:
    """What the workload writes to, and what fails.

    Round 0: main fails; then sectors that are not mapped are given up. Round 1: main fails
    elsewhere, slots fail that are in use and some that are free, and so do homes of table blocks
    and two stand-ins; one home can be neither read nor written any more, which a scrub finds out.
    What fails on the spare is done in part. Round 2: more of it, so that some sectors move twice.
    Round 3: copy A of the table can be written nowhere: what is mapped or moved is in doubt.
    Round 4: main takes again what it has refused. Round 5: the set is loaded anew, grows, and
    goes on. Rounds 6 to 8: the same with copy B, but it does not grow.
    """

    def __init__(self, seed: int) -> None:
        """Choose it all, but for the slots: which one a sector has is not known before."""
        self.seed = seed
        random = Random(seed)
        starts = [(start, PIECE) for start in random.sample(range(0, MAIN, PIECE), 328)]

        def broken(first: int, last: int) -> set[int]:
            found = set[int]()
            for start, _ in starts[first:last]:
                count = PIECE if random.random() < 0.5 else random.randint(1, 3)
                found |= set(random.sample(range(start, start + PIECE), count))
            return found

        lost = []
        for start, _ in random.sample(starts[120:140], 16):
            offset = random.randrange(PIECE)
            lost.append((start + offset, random.randint(1, PIECE - offset)))
        known = starts[:120] + starts[160:210]
        self.rounds = [
            Round(starts[:160], broken(0, 120), lose=lost),
            Round(
                starts[140:240] + random.sample(starts[:120], 40) + lost[:12],
                broken(140, 210),
                worn=80,
            ),
            Round(random.sample(known, 30) + lost[:4], set(), worn=50),
        ]
        segment = segment_for(SPARE_BLOCKS, SECTOR)
        assert segment
        tables = homes_of(segment)
        more = GROWN_BLOCKS - SPARE_BLOCKS
        slots = lib.dmr_segment_slots(more, SECTOR)
        extension = homes_of(Segment(SPARE_BLOCKS, more, slots, lib.dmr_table_blocks(slots)))
        # Both homes of a table block, one of another, and the stand-ins that each copy tries first.
        homes = [tables[0][2], tables[1][2], random.choice(tables)[1]]
        self.bad_spare = {sector_in(block, random) for block in (*homes, *ENDS)}
        taken = random.sample(homes, 2)
        for copy, first in enumerate((240, 284)):
            half = tables[copy] + (extension[copy] if copy else [])
            taken += random.sample(half, len(half) // 2)
            heal = broken(first, first + 24)
            pieces = starts[first : first + 24] + random.sample(known, 10) + starts[210:216]
            new = starts[first + 24 : first + 44] + random.sample(known, 10)
            self.rounds += [
                Round(pieces, heal, half=(*half, *STANDINS), worn=20),
                Round(pieces, set(), heal=heal, half=(*half, *STANDINS), whole=True),
                Round(list(dict.fromkeys(pieces + new)), broken(first + 24, first + 44), worn=10),
            ]
            self.rounds[-1].reload = GROWN_BLOCKS * BLOCK_SECTORS
        self.rounds[HALVES[0] + 2].prepare = extension[0] + extension[1]
        self.taken = {sector for block in taken for sector in sectors_of(block)}
        """Sectors of the spare that are changed by a write although it fails.

        Of what else fails some sectors are changed: it is torn.
        """
        self.dead = random.choice(tables)[0]
        """The home of a copy that can be neither read nor written from round 1 on.

        Until somebody has noticed the other copy is the only one, and a write to that one that is
        torn leaves none. So nothing is written before the scrub.
        """
        self.rounds[1].scrub = [self.dead]


def homes_of(segment: Segment) -> list[list[int]]:
    """Return the blocks that hold copy A of a segment's table, and those for copy B."""
    return [
        [first + index for index in range(segment.table_blocks)]
        for first in (segment.copy_a, segment.copy_b)
    ]


def sectors_of(block: int) -> range:
    """Return the sectors of a block of the spare."""
    return range(block * BLOCK_SECTORS, (block + 1) * BLOCK_SECTORS)


def sector_in(block: int, random: Random) -> int:
    """Return one of the sectors of a block of the spare."""
    return random.choice(sectors_of(block))


class Faults:
    """Has the disks fail as a plan says. The workload waits meanwhile."""

    def __init__(self, plan: Plan, server: PowerCutServer) -> None:
        self.plan = plan
        self.server = server
        self.main: set[int] = set()
        self.spare: set[int] = set()
        self.free: set[int] = set()

    def mark(self, word: str, sectors: set[int]) -> None:
        """Tell the oracle."""
        self.server.mark(" ".join(map(str, (word, *sorted(sectors)))))

    def before(self, number: int) -> None:
        """Make the faults of a round."""
        plan, task = self.plan, self.plan.rounds[number]
        random = Random(f"{plan.seed} {number}")
        if task.heal:
            self.main -= task.heal
            self.mark("heal", task.heal)
        self.main |= task.broken
        self.mark("bad", task.broken)
        self.server.set_bad("main", writes=self.main)
        if number == 1:
            self.spare |= plan.bad_spare | {sector_in(plan.dead, random)}
            # To a load it is the same if it cannot be read or has a wrong checksum.
            self.server.destroy("spare", plan.dead * BLOCK, random.randbytes(BLOCK))
            self.server.set_bad("spare", reads=sectors_of(plan.dead))
        if number:
            self.wear(task, random)
        # A slot that refuses its first data would be the first to be committed.
        more = {sector_in(block, random) for block in task.half} or self.free
        self.server.set_bad("spare", writes=self.spare | more, taken=plan.taken)

    def wear(self, task: Round, random: Random) -> None:
        """Have slots fail: some in use, rather those of sectors that have moved, and free ones."""
        loaded = load(self.server.legs["spare"].image.read_bytes())
        written = {n for first, count in task.pieces for n in range(first, first + count)}
        usable = sorted(written & loaded.lookup.keys())
        moved = [n for n in usable if loaded.lookup[n].generation]
        worn = set(random.sample(moved, min(len(moved), task.worn // 2)))
        rest = [n for n in usable if n not in worn]
        worn |= set(random.sample(rest, min(len(rest), task.worn - len(worn))))
        self.spare |= {loaded.place(loaded.lookup[n].slot) // SECTOR for n in worn}
        self.mark("worn", worn)
        if task.worn and loaded.lookup:
            top = max(entry.slot for entry in loaded.lookup.values()) + 1
            last = sum(segment.slots for segment in loaded.superblock.segments)
            free = range(top, min(top + 250, last))
            self.free |= {
                loaded.place(slot) // SECTOR for slot in random.sample(free, len(free) // 10)
            }


def command(vm: Machine, script: str, argument: object) -> list[str]:
    """Return the command for a script of tests/powercut, in the guest."""
    return [
        str(vm.kernel.python),
        "-B",
        str(ROOT / "tests/powercut" / script),
        json.dumps(argument),
    ]


ENVIRONMENT = {"PYTHONPATH": f"{ROOT}/tests:{ROOT}"}


def ends_round(vm: Machine, job: Job, number: int) -> None:
    """Wait for the end of a round."""
    word = f"round {number}:"
    vm.wait_for(lambda: word in job.output or not job.running(), 240, word)
    assert word in job.output, job.output


def run_workload(vm: Machine, plan: Plan, directory: Path) -> Path:
    """Have the guest do the workload and return the log."""
    images = {"main": BEFORE, "spare": bytes(SPARE_SIZE)}
    legs = []
    for name, image in images.items():
        (directory / name).write_bytes(image)
        legs.append(Export(name, directory / name))
    legs[1].partly = Random(plan.seed)
    log = directory / "log"
    with PowerCutServer(directory / "nbd", log, legs) as server:
        faults = Faults(plan, server)
        faults.before(0)
        argument = {
            "port": server.port,
            "seed": plan.seed,
            "main": MAIN,
            "spare": SPARE_BLOCKS * BLOCK_SECTORS,
            "rounds": [
                {
                    "pieces": task.pieces,
                    "lose": task.lose,
                    "whole": task.whole,
                    "scrub": task.scrub,
                    "reload": task.reload,
                    "prepare": task.prepare,
                }
                for task in plan.rounds
            ],
        }
        job = vm.start(command(vm, "workload.py", argument), env=ENVIRONMENT)
        for number in range(1, len(plan.rounds)):
            ends_round(vm, job, number - 1)
            faults.before(number)
            vm.write_file(f"/run/round-{number}", b"")
        result = job.wait(timeout=240, check=False)
        print(result.output.rstrip())
        assert result.status == 0, result.output
        failed = re.findall(r"^round \d+: (\d+) writes", result.output, re.MULTILINE)
        assert [n for n, count in enumerate(failed) if int(count)] == [
            m for n in HALVES for m in (n, n + 1)
        ]
        assert len(re.findall(r" doubt=[1-9]", result.output)) == 2 * len(HALVES)
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
        uuid = str(loaded.superblock.uuid) if loaded else ""
        length = (loaded.superblock.area_blocks if loaded else SPARE_BLOCKS) * BLOCK_SECTORS
        cases.append((*map(str, images.values()), uuid, length))
        expected.append(
            [generation(n, loaded.content(n, main, spare)) for n in range(MAIN)]
            if loaded
            else [FIRST] * MAIN
        )
        mapped = (
            sorted((n, e.state.name.lower()) for n, e in loaded.lookup.items()) if loaded else []
        )
        promises.append(
            (mapped, set(oracle.mapped), set(oracle.losing), dict(oracle.durable)),
        )
    shown = vm.run(command(vm, "verify.py", cases), env=ENVIRONMENT, timeout=240).stdout
    for cut, answer, content, (mapped, must, losing, durable) in zip(
        sorted(cuts), json.loads(shown), expected, promises, strict=True
    ):
        print(f"cut {cut} in the kernel: {answer['status']}")
        assert [tuple(pair) for pair in answer["mapped"]] == mapped, f"cut {cut}"
        assert answer["read"] == content, f"cut {cut}"
        assert must <= {sector for sector, _ in mapped}
        for sector, number in durable.items():
            found = answer["read"][sector]
            assert found >= number if found is not None else sector in losing, f"cut {cut}"


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
            f"{len(log)} entries, {len(judge.oracle.mapped)} remaps, "
            f"{judge.cuts} cuts, {judge.states} states: "
            f"{len(judge.formatting)} cuts before there is a set, {len(judge.between)} between "
            f"copy A and B, {len(judge.away)} with a stand-in, {len(judge.torn)} with a torn one, "
            f"{len(judge.moving)} in a move, "
            f"{len(judge.losing)} with lost sectors, {len(judge.problems)} problems; "
            f"{len(judge.oracle.moved)} sectors have moved, "
            f"{sum(n > 1 for n in judge.oracle.moved.values())} twice; "
            f"{len(judge.oracle.filled)} of {len(judge.oracle.filled | judge.oracle.lost)} lost "
            "ones are written"
        )
        judged = time.monotonic()
        assert not judge.problems, "\n".join(judge.problems[:20])
        assert not not_forced(log)
        assert len(judge.oracle.mapped) >= 500
        assert len(judge.oracle.moved) >= 50
        assert judge.oracle.filled
        assert judge.oracle.lost
        assert judge.cuts >= 2000
        healed = next(
            n for n, e in enumerate(log) if isinstance(e, Mark) and e.text.startswith("heal ")
        )
        assert judge.grown
        growing = [cut for cut in judge.away if -20 < cut - judge.grown < 5]
        doubtful = [cut for cut in judge.away if cut > healed][:20]
        kinds = (
            judge.between,
            judge.away,
            judge.torn,
            judge.moving,
            judge.losing,
            doubtful,
            growing,
        )
        for cuts in (judge.formatting, *kinds):
            assert cuts, "no such cut: the workload does not do what it should"
        random = Random(plan.seed)
        sample = {judge.formatting[len(judge.formatting) // 2], len(log)}
        for cuts in itertools.cycle(kinds):
            sample.add(random.choice(cuts))
            if len(sample) >= SAMPLES:
                break
        have_the_kernel_load(vm, judge, sorted(sample), tmp_path)
    print(
        f"workload {worked - begin:.0f} s, replay {judged - worked:.0f} s, "
        f"kernel {time.monotonic() - judged:.0f} s"
    )
