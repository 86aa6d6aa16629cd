# SPDX-License-Identifier: GPL-2.0-only
"""What a run of everything.py consists of: all that its seed decides before it begins.

Pure. Sizes are bytes, a *unit* is main's logical block, a *sector* is 512 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Literal

from guest.lib import MIB, SECTOR

from dmremap.ondisk import BLOCK, HEAD_BLOCKS

UNITS = 1024
"""Of the oracle."""
CHUNK = 32
"""Units that are written by one thread at a time; a multiple of a physical block."""
JOBS = 4
JOB = MIB // 4
"""What each verifying job of fio has for itself."""
TAIL = 128 * 1024
"""At the end of main, where it never fails."""
GROWTHS = 12
KINDS = ((512, 512), (512, 4096), (4096, 4096))
Bus = Literal["virtio", "scsi"]
BUSES: tuple[Bus, ...] = ("virtio", "scsi")
"""Not NVMe: on a machine that is busy for long QEMU 7.2 loses commands, after a reset too."""

STEPS = {
    "suspend": 4,
    "reload": 3,
    "recreate": 2,
    "grow": 3,
    "scrub": 2,
    "wound": 1,
    "look": 4,
    "by_hand": 3,
    "lost": 2,
    "breaker": 1,
    "rename": 1,
    "flush_fails": 3,
    "dead_main": 2,
    "readonly_main": 1,
    "dead_spare": 1,
    "slow": 1,
    "discard": 2,
    "cached": 2,
    "drop_caches": 1,
    "cut": 6,
    "cut_in_load": 1,
    "cut_in_growth": 1,
    "cut_suspended": 1,
}
"""How often each is in the deck that steps are drawn from: all of them come, in any order."""
STRETCH = 17
"""Steps from one boot to the next."""
DECK = -(-sum(STEPS.values()) // STRETCH)
"""Stretches after which each step was done."""


@dataclass(frozen=True)
class Choice:
    """One set, its disks, and how many times the machine starts with it."""

    seed: int
    logical: int
    physical: int
    bus: Bus
    tagged: bool
    errors: str
    stretches: tuple[tuple[str, ...], ...]

    @property
    def data_start(self) -> int:
        """The sector of main that is the set's first."""
        return MIB // SECTOR if self.tagged else 0

    @property
    def unit_sectors(self) -> int:
        """Sectors of a unit."""
        return self.logical // SECTOR

    @property
    def main_size(self) -> int:
        """Bytes of main."""
        return self.data_start * SECTOR + JOBS * JOB + UNITS * self.logical + TAIL

    @property
    def _units(self) -> int:
        return JOBS * JOB // self.logical + UNITS

    def area(self, grown: int) -> int:
        """Return the blocks of the spare's area after so many growths."""
        per_block = BLOCK // self.logical
        first, step = (self._units // part // per_block for part in (3, 4))
        return HEAD_BLOCKS + first + 10 + grown * (step + 8)

    @property
    def spare_size(self) -> int:
        """Bytes of the spare."""
        return self.area(GROWTHS) * BLOCK


def choose(seed: int, stretches: int) -> Choice:
    """Return what a seed says; more stretches begin like fewer."""
    random = Random(f"choice {seed}")
    (logical, physical), bus = random.choice(KINDS), random.choice(BUSES)
    tagged = random.random() < 0.5
    errors = "medium" if random.random() < 0.25 else "confirm"
    deck: list[str] = []
    plan = []
    for _ in range(stretches):
        while len(deck) < STRETCH:
            more = [step for step, times in STEPS.items() for _ in range(times)]
            random.shuffle(more)
            deck += more
        last = random.choice(("stop", "power_off"))
        plan.append((*deck[:STRETCH], last))
        del deck[:STRETCH]
    return Choice(seed, logical, physical, bus, tagged, errors, tuple(plan))
