# SPDX-License-Identifier: GPL-2.0-only
"""Writes to a set of dm-remap on the power-cut server, in a guest, and marks what it was promised.

The argument is JSON: the server's port, a seed, the sectors of the legs, and two lists of pieces
(first sector and number of sectors), one for each round. Before the second round it waits for the
file /run/second-round. What the marks mean stands in oracle.py.
"""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from random import Random
from threading import Lock
from typing import TYPE_CHECKING

from guest.lib import (
    SECTOR,
    Device,
    background,
    dm_device,
    dm_status,
    nbd_device,
    network_up,
    pattern,
    wait_for,
)

if TYPE_CHECKING:
    from concurrent.futures import Future

THREADS = 3
ROUND_TWO = Path("/run/second-round")
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

    def work(self, pieces: list[Piece], random: Random) -> None:
        """Write to pieces, each more than once, in an order that the generator chooses."""
        order = pieces * 2
        random.shuffle(order)
        for first, count in order:
            if random.random() < 0.5:
                self.write(first, count, fua=random.random() < 0.2)
            else:
                offset = random.randrange(count)
                length = random.randint(1, count - offset)
                self.write(first + offset, length, fua=random.random() < 0.2)
            if random.random() < 0.12:
                self.flush()

    def round(self, pieces: list[Piece], seed: int) -> None:
        """Have the threads do it all."""
        jobs: list[Future[None]] = [
            background(self.work, pieces[n::THREADS], Random(seed + n)) for n in range(THREADS)
        ]
        for job in jobs:
            job.result()
        self.flush()


def main() -> None:
    """Do two rounds."""
    plan = json.loads(sys.argv[1])
    network_up()
    with ExitStack() as stack:
        legs = [stack.enter_context(nbd_device(n, plan["port"])) for n in ("main", "spare", "mark")]
        mark = stack.enter_context(Device(legs[2]))
        line = f"0 {plan['main']} remap {legs[0]} {legs[1]} 0 {plan['spare']}"
        path = stack.enter_context(dm_device("cut", line))
        work = Workload(stack.enter_context(Device(path)), mark)
        work.say("ready")
        for number, pieces in enumerate(plan["rounds"]):
            if number:
                print("round 1 is done", flush=True)
                wait_for(ROUND_TWO.exists, "the second round", 60)
            work.round([(first, count) for first, count in pieces], plan["seed"] + 100 * number)
        print(dm_status("cut"))
        print(f"{work.failed} writes failed")


if __name__ == "__main__":
    main()
