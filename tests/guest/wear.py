# SPDX-License-Identifier: GPL-2.0-only
"""A set that wears out while something real is on it: disks by name, and blocks that go bad.

A block may fail for reads only where nothing was acknowledged yet. So some blocks are bad for both
before anything is written, and everything that goes bad later does so for writes alone: with
that no program above may see an error, and every byte must be there at the end.
"""

from __future__ import annotations

import re
import threading
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Self

from guest.lib import background, dm_message, queue, run, sectors
from guest.remapset import KernelLog, remap_set, segment_of

from dmremap.dm.messages import parse_list

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

    from guest.remapset import RemapSet

STRIDE = 512
"""Sectors of which one run is bad from the beginning."""
RUNS = (1, 8, 32)
"""How many sectors such runs have, in turn."""
DENSITY = sum(RUNS) / len(RUNS) / STRIDE
"""The part of main that is bad from the beginning: one sector in 37."""
EDGE = 2048
"""Sectors at either end that can be read: a mkfs looks there for what was on the disk before."""
MOST_RULES = 400
"""Runs that go bad later; dm-fault looks at each for every bio."""

LOGGED = "Buffer I/O error|I/O error, dev|lost async page write|critical medium error"
"""What the block layer says of a request that failed and was not to be repeated."""


def disk(serial: str) -> Path:
    """Find a virtio disk of the machine by its serial number."""
    for path in sorted(Path("/sys/block").glob("vd*/serial")):
        if path.read_text().strip() == serial:
            return Path("/dev", path.parent.name)
    raise LookupError(serial)


def blank(path: Path) -> Path:
    """Make all of a disk zero."""
    run("blkdiscard", "--zeroout", path)
    return path


def sector_of(made: RemapSet, slot: int) -> int:
    """Return where a slot begins on the spare."""
    unit = int(queue(made.main.path, "logical_block_size"))
    return segment_of(made).data * 8 + slot * unit // 512


@dataclass
class Wear:
    """Blocks of a set's legs that go bad; as a context manager: all the time, in a thread."""

    made: RemapSet
    seed: int = 1
    bad: set[int] = field(default_factory=set)
    """Every sector of main that fails or failed."""
    first: set[int] = field(default_factory=set)
    """Those that did so from the beginning."""
    unreadable: set[int] = field(default_factory=set)
    """Those of them that fail for reads too."""
    spoilt: int = 0
    """Runs that have gone bad since the beginning."""

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self.stop = threading.Event()
        self.ageing: Future[None] | None = None

    def scatter(self) -> None:
        """Make runs of sectors bad all over main, before anything was written to it."""
        main = self.made.main
        size = sectors(main.path)
        lengths = cycle(RUNS)
        for direction in ("read", "write", "write_zeroes"):
            main.add(0, size, direction, "medium")
        good = 0
        edges = []
        for start in range(0, size - STRIDE + 1, STRIDE):
            length = next(lengths)
            first = start + self.random.randrange(STRIDE - length)
            self.bad.update(range(first, first + length))
            if EDGE <= first <= size - EDGE - length:
                main.clear(good, first - good)
                self.unreadable.update(range(first, first + length))
                good = first + length
            else:
                edges.append((first, length))
        main.clear(good, size - good)
        for first, length in edges:
            main.add(first, length, "write", "medium")
        self.first = set(self.bad)

    def age(self) -> None:
        """Make sectors bad for writes near some that are mapped, where something is written.

        Half of the time that is near the ones mapped last, where something is written now.
        """
        now = self.made.status
        used = now.mapped + now.bad
        start = self.random.choice((self.random.randrange(used + 1), max(used - 8, 0)))
        page = parse_list(dm_message(self.made.name, "list", start, 8)).entries
        rows = [row for row in page if row.sector is not None]
        size = sectors(self.made.main.path)
        for row in self.random.sample(rows, min(4, len(rows))):
            assert row.sector is not None
            length = self.random.choice((1, 8))
            first = row.sector + self.random.randrange(-64, 512)
            first = min(max(first, 0), size - length)
            self.bad.update(range(first, first + length))
            self.made.main.add(first, length, "write", "medium")
            self.spoilt += 1
        if rows and not self.random.randrange(3):  # the spare is no better: a slot, a table block
            slot = self.random.choice(rows).slot
            self.made.spare.add(sector_of(self.made, slot), 1, "write", "medium")
        if rows and not self.random.randrange(15):
            table = segment_of(self.made)
            home = self.random.choice((table.copy_a, table.copy_b)) + rows[-1].slot // 255
            self.made.spare.add(home * 8, 8, "write", "medium")

    def _work(self) -> None:
        while not self.stop.wait(0.2):
            if self.spoilt < MOST_RULES:
                self.age()

    def __enter__(self) -> Self:
        self.stop.clear()
        self.ageing = background(self._work)
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop.set()
        assert self.ageing is not None
        self.ageing.result(60)

    def judge(self, written: int) -> int:
        """Assert that all went as promised, with so many bytes above; return the mapped units.

        The set and the file system spread what is written over main regardless of what is bad
        there. Of `written` bytes one in 37 therefore falls on a sector that is bad from the
        beginning, and is mapped or was never acknowledged; half of that leaves room for chance.
        """
        now = self.made.status
        mapped = self.made.mapped
        assert len(mapped) == now.mapped
        assert set(mapped) <= self._units(self.bad)
        assert set(mapped) - self._units(self.first), "nothing was mapped that went bad later"
        assert now.mapped * now.unit > written * DENSITY / 2, (now.mapped, written)
        assert (now.mode, now.breaker, now.lost, now.doubt) == ("rw", "closed", 0, 0)
        # What cannot be read was never written: a mkfs has looked for what was there before.
        assert set(self.made.pending) <= self._units(self.unreadable) - set(mapped)
        return now.mapped

    def _units(self, bad: set[int]) -> set[int]:
        """Return the units of all pieces that have one of these sectors."""
        unit = int(queue(self.made.main.path, "logical_block_size")) // 512
        piece = int(queue(self.made.main.path, "physical_block_size")) // 512
        starts = {sector - sector % piece for sector in bad}
        return {place for start in starts for place in range(start, start + piece, unit)}


@contextmanager
def worn_set(*main_options: str) -> Iterator[tuple[RemapSet, Wear]]:
    """Have a set on the disks `main` and `spare` that are bad in many places; nothing is on it."""
    with ExitStack() as stack:
        made = stack.enter_context(
            remap_set(
                *("remap_rate", "0"),
                main_options=main_options,
                main_disk=blank(disk("main")),
                spare_disk=blank(disk("spare")),
            )
        )
        wear = Wear(made)
        wear.scatter()
        yield made, wear


@contextmanager
def nothing_logged(complaint: str) -> Iterator[None]:
    """Assert that neither the block layer nor who uses the set, by a pattern, complained."""
    ended = threading.Event()

    def follow() -> None:
        while not ended.wait(1):  # before the oldest lines are overwritten
            log.read()

    with KernelLog() as log:
        reader = background(follow)
        try:
            yield
        finally:
            ended.set()
            reader.result(60)
        text = log.read()
    # The fault devices under the set do fail; they say nothing.
    wrong = [line for line in text.splitlines() if re.search(f"{LOGGED}|{complaint}", line)]
    assert not wrong, "\n".join(wrong)


@contextmanager
def mounted(device: Path, where: Path, *options: str) -> Iterator[Path]:
    """Have a file system mounted."""
    where.mkdir(parents=True, exist_ok=True)
    run("mount", *options, device, where)
    try:
        yield where
    except BaseException:
        with suppress(Exception):
            run("umount", "--lazy", where)
        raise
    run("umount", where)
