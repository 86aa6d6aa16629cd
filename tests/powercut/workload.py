# SPDX-License-Identifier: GPL-2.0-only
"""Writes to a set of dm-remap on the power-cut server, in a guest, and marks what it was promised.

The argument is JSON: the server's port, a seed, the sectors of the legs, and the rounds: the pieces
to write to (first sector and number of sectors), whether they are written whole each time, those
to give up at the end of the round, and whether the table is loaded anew at its begin, with how many
sectors of the spare, what blocks of it get empty tables before, and what a scrub finds gone.
Before round n, the first apart, it waits for the file /run/round-n. What the marks mean stands in
oracle.py.
"""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from random import Random
from threading import Lock
from typing import TYPE_CHECKING
from uuid import UUID

from guest.lib import (
    SECTOR,
    Device,
    background,
    dm_device,
    dm_message,
    dm_reload,
    dm_resume,
    dm_status,
    dm_suspend,
    nbd_device,
    network_up,
    pattern,
    wait_for,
)
from guest.remapset import scrub

from dmremap.ondisk import BLOCK_SECTORS
from dmremap.ondisk.layout import pack_empty_table

if TYPE_CHECKING:
    from concurrent.futures import Future

THREADS = 3
NAME = "cut"
Piece = tuple[int, int]


class Workload:
    """Writes and flushes. Each thread has pieces of its own."""

    def __init__(self, device: Device, mark: Device) -> None:
        self._device = device
        self._mark = mark
        self._lock = Lock()
        self._number = 1
        """Of the last generation or flush."""
        self.failed = 0

    def say(self, text: str) -> None:
        """Put a mark in the log."""
        self._mark.write(0, text.encode().ljust(SECTOR, b"\0"))

    def _next(self) -> int:
        with self._lock:
            self._number += 1
            return self._number

    def write(self, first: int, count: int, *, fua: bool) -> None:
        """Write some sectors of a piece."""
        number = self._next()
        place = f"{first} {count} {number}"
        self.say(f"begin {place}")
        try:
            self._device.write(first, pattern(first, count, number), fua=fua)
        except OSError:
            self.failed += 1
            self.say(f"fail {place}")
        else:
            self.say(f"ack {place} {int(fua)}")

    def flush(self) -> None:
        """Flush the device."""
        number = self._next()
        self.say(f"flush {number}")
        self._device.flush()
        self.say(f"flushed {number}")

    def work(self, pieces: list[Piece], random: Random, *, whole: bool) -> None:
        """Write to pieces, each more than once, in an order that the generator chooses."""
        order = pieces * 2
        random.shuffle(order)
        for first, count in order:
            if whole or random.random() < 0.5:
                self.write(first, count, fua=random.random() < 0.2)
            else:
                offset = random.randrange(count)
                length = random.randint(1, count - offset)
                self.write(first + offset, length, fua=random.random() < 0.2)
            if random.random() < 0.12:
                self.flush()

    def round(self, pieces: list[Piece], seed: int, *, whole: bool) -> None:
        """Have the threads do it all."""
        jobs: list[Future[None]] = [
            background(self.work, pieces[n::THREADS], Random(seed + n), whole=whole)
            for n in range(THREADS)
        ]
        for job in jobs:
            job.result()
        self.flush()

    def lose(self, pieces: list[Piece]) -> None:
        """Give up the content of sectors that are not mapped."""
        if not pieces:
            return
        dm_suspend(NAME)
        try:
            for first, count in pieces:
                self.say(f"losing {first} {count}")
                reply = dm_message(NAME, "remap", first, count, "lost")
                assert reply == f"done {count} of {count}", reply
                self.say(f"lost {first} {count}")
        finally:
            dm_resume(NAME)


def prepare(spare: Path, homes: list[int], uuid: UUID) -> None:
    """Write the empty tables of an extension."""
    with Device(spare) as device:
        for home in homes:
            device.write(home * BLOCK_SECTORS, pack_empty_table(uuid, home), fua=True)


def main() -> None:
    """Do the rounds."""
    plan = json.loads(sys.argv[1])
    network_up()
    with ExitStack() as stack:
        legs = [stack.enter_context(nbd_device(n, plan["port"])) for n in ("main", "spare", "mark")]
        mark = stack.enter_context(Device(legs[2]))
        # No breaker: the faster the machine, the more is mapped in a minute.
        line = f"0 {plan['main']} remap {legs[0]} {legs[1]} 0 %d 2 remap_rate 0"
        with dm_device(NAME, line % plan["spare"]) as path, Device(path) as device:
            work = Workload(device, mark)
            work.say("ready")
            for number, task in enumerate(plan["rounds"]):
                if number:
                    wait_for(Path(f"/run/round-{number}").exists, f"round {number}", 60)
                if task["reload"]:
                    uuid = UUID(dm_status(NAME).split(" uuid=")[1].split()[0])
                    prepare(legs[1], task["prepare"], uuid)
                    dm_reload(NAME, line % task["reload"])
                if task["scrub"]:
                    assert scrub(NAME) == [(home, "written") for home in task["scrub"]]
                work.failed = 0
                pieces = [(first, count) for first, count in task["pieces"]]
                work.round(pieces, plan["seed"] + 100 * number, whole=task["whole"])
                work.lose(task["lose"])
                print(dm_status(NAME))
                print(f"round {number}: {work.failed} writes failed", flush=True)
        work.say("done")


if __name__ == "__main__":
    main()
