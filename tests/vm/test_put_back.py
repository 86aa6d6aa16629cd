# SPDX-License-Identifier: GPL-2.0-only
"""A spare of any earlier moment is refused, or right, at any later one.

A guest uses a set whose main is tagged and wears out; it is stopped, resumed, reloaded and started
again. Every cut is judged as test_powercut.py does it. Then the spare of one moment is put beside
the main of a later one, and read on the host: if the tag has an epoch by then that the spare had
not begun it must be refused. Otherwise nobody can tell it from the right one, and it may read as
old data; docs/format.md says so. PUT_BACK_SEED=<n> in the environment repeats the choices.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from guest.lib import pattern
from harness.paths import ROOT
from powercut.judge import Judge, not_forced
from powercut.log import SECTOR, Log, Write, cut_points
from powercut.oracle import FIRST, Oracle
from powercut.reader import ImageDevice, Refused, load
from powercut.server import Export, PowerCutServer

from dmremap.ondisk import BLOCK, HEAD_BLOCKS, View
from dmremap.ondisk._format import ffi, lib
from dmremap.ondisk.area import read_tags
from dmremap.ondisk.epoch import judge_main
from dmremap.ondisk.layout import MAGIC, TAG_BLOCKS

if TYPE_CHECKING:
    from pathlib import Path

    from harness.fixtures import MachineFactory

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(900)]

START = 2048  # main's first MiB has the tag
MAIN = START + 2048  # sectors
SPARE = (HEAD_BLOCKS + 120) * BLOCK // SECTOR
BEFORE = bytes(START * SECTOR) + pattern(START, MAIN - START, FIRST)
NETWORK = ("-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile=")
PIECE = 8
STEPS = 24
THEN = ("stop", "reload", "stop and start", "start", "nothing")
PAIRS, MANY = 20, 200


def choose(random: Random) -> tuple[list[dict[str, Any]], set[int]]:
    """Return the steps, and the sectors that main refuses."""
    starts = random.sample(range(START, MAIN, PIECE), 200)
    broken = {n for first in starts[:80] for n in range(first, first + PIECE)}
    steps: list[dict[str, Any]] = []
    for number in range(STEPS):
        # Each has new ones of both sorts, and some that are mapped or written already.
        fresh = starts[number * 3 : number * 3 + 3] + starts[80 + number * 2 : 82 + number * 2]
        again = random.sample(starts[: number * 3 + 3], 3)
        pieces = [(first, PIECE) for first in dict.fromkeys(fresh + again)]
        random.shuffle(pieces)
        steps.append({"pieces": pieces, "then": THEN[number % len(THEN)]})
    return steps, broken


def use(machine: MachineFactory, seed: int, directory: Path) -> Path:
    """Have a guest use the set; return the log."""
    vm = machine(extra_args=NETWORK)
    vm.insmod("dm_remap")
    steps, broken = choose(Random(seed))
    for name, image in (("main", BEFORE), ("spare", bytes(SPARE * SECTOR))):
        (directory / name).write_bytes(image)
    log = directory / "log"
    legs = [Export(name, directory / name) for name in ("main", "spare")]
    with PowerCutServer(directory / "nbd", log, legs) as server:
        server.mark(" ".join(map(str, ("bad", *sorted(broken)))))
        server.set_bad("main", writes=broken)
        argument = {
            "port": server.port,
            "seed": seed,
            "start": START,
            "spare": SPARE,
            "steps": steps,
        }
        script = str(ROOT / "tests/powercut/putback.py")
        result = vm.run(
            [str(vm.kernel.python), "-B", script, json.dumps(argument)],
            env={"PYTHONPATH": f"{ROOT}/tests:{ROOT}"},
            timeout=400,
        )
        print(result.stdout.rstrip())
    return log


def epochs(log: Log) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return where in the log an epoch is written to the tag, and to a superblock; and which."""
    tags, supers = [], []
    for index, entry in enumerate(log):
        if not isinstance(entry, Write) or len(entry.data) != BLOCK:
            continue
        block, kind = entry.offset // BLOCK, int.from_bytes(entry.data[12:14], "little")
        if not entry.data.startswith(MAGIC):
            continue
        if entry.leg == "main" and block in TAG_BLOCKS and kind == lib.DMR_TYPE_TAG:
            tags.append((index, int.from_bytes(entry.data[32:40], "little")))
        elif entry.leg == "spare" and kind == lib.DMR_TYPE_SUPER:
            at = ffi.offsetof("struct dmr_super", "epoch")
            supers.append((index, int.from_bytes(entry.data[at : at + 8], "little")))
    return tags, supers


def judge(main: bytearray, spare: bytearray) -> str:
    """Return why a load refuses a spare beside a main, nothing if it does not."""
    loaded = load(spare)
    copies = read_tags(View(ImageDevice(main), 0))
    refusal = judge_main(loaded.superblock, copies, MAIN)
    return refusal.reason if refusal else ""


def test_a_spare_of_an_earlier_moment(machine: MachineFactory, tmp_path: Path, long: bool) -> None:
    seed = int(os.environ.get("PUT_BACK_SEED") or Random().randrange(1 << 32))
    print(f"PUT_BACK_SEED={seed}, log {tmp_path / 'log'}")
    with Log(use(machine, seed, tmp_path)) as log:
        whole = Judge(log, seed, BEFORE, SPARE * SECTOR)
        whole.judge_all()
        assert not whole.problems, "\n".join(whole.problems[:20])
        assert not not_forced(log)
        assert len(whole.oracle.mapped) >= 500
        tags, supers = epochs(log)
        usable = [cut for cut in cut_points(log) if cut > tags[4][0] and cut > whole.formatting[-1]]
        random = Random(seed)
        pairs = sorted(
            tuple(sorted(random.sample(usable, 2))) for _ in range(MANY if long else PAIRS)
        )
        kept: dict[int, bytearray] = {}
        replay = whole.start()
        for cut in sorted({first for first, _ in pairs}):
            replay.advance(cut)
            kept[cut] = bytearray(replay.images["spare"])
        replay, oracle, seen = whole.start(), Oracle(), Counter[str]()
        for first, second in sorted(pairs, key=lambda pair: pair[1]):
            replay.advance(second)
            oracle.follow(replay.promised())
            main, now = (bytearray(replay.images[leg]) for leg in ("main", "spare"))
            where = f"the spare of {first} at {second}"
            # The right one, to begin with.
            assert not judge(main, now), where
            try:
                why = judge(main, kept[first])
            except Refused as refused:
                why = str(refused)
            begun = max(number for index, number in supers if index < first)
            newest = max(number for index, number in tags if index < second)
            if why:
                seen["refused"] += 1
                assert newest > begun, f"{where} is refused at epoch {newest} of {begun}: {why}"
            elif wrong := oracle.check(load(kept[first]), main, kept[first]):
                seen["old data of the same epoch"] += 1
                assert newest <= begun, f"{where}, epoch {newest} of {begun}: {wrong[:3]}"
            else:
                seen["right"] += 1
        print(f"{len(log)} entries, {whole.cuts} cuts, {len(tags)} copies of the tag: {seen}")
        assert seen["refused"] > len(pairs) / 2
        assert tags[-1][1] > STEPS
