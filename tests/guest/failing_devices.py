# SPDX-License-Identifier: GPL-2.0-only
"""Each I/O of a table's load and of its first resume fails in turn.

Arguments: a seed, and how many of all failures are tried. Whatever fails, read or write, plainly
or as a medium error, once, twice or for ever: the table is refused with an errno that the interface
names and can be used when the cause is gone, or the set works; what it holds is as it was, nothing
is left, and no page is lost. Runs inside a guest.
"""

from __future__ import annotations

import errno
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from guest import dmioctl
from guest.lib import (
    SECTOR,
    Device,
    Fault,
    dm_names,
    dm_remove,
    dm_resume,
    fault_device,
    load_module,
    loop_device,
    outcome,
    pattern,
    read,
    unload_module,
    write,
)
from guest.memory import loose_pages
from guest.remapset import (
    SMALLEST_AREA,
    KernelLog,
    contents,
    entries,
    format_set,
    new_superblock,
    status,
    tag_main,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "failing"
MAIN = 4096
TAGGED = 2048
"""Where the data of a tagged main begins."""
MAPPED = (7, 8)
KINDS = ("blank", "set", "uneven", "tagged")
COPY_A, SLOTS, COPY_B = 256, 257, 258
"""Blocks of the smallest area, behind its head."""
TIMES = 100
LOST_PAGES = 64
"""As many more than before may be in use for other reasons."""
REFUSED = {
    "load": ("EINVAL", "ENODATA", "EBUSY"),
    "resume": ("EBUSY", "ENODATA", "EAGAIN", "EIO", "EINVAL"),
}


@dataclass(frozen=True)
class Failure:
    """I/O that fails: of a leg, in a range of sectors."""

    leg: str
    sector: int
    count: int
    direction: str
    status: str
    times: int


def failures() -> list[Failure]:
    """Return all of them: block by block, then larger ranges, and flushes."""
    spare = [(block * 8, 8) for block in range(COPY_B + 1)]
    # Both superblocks; the stand-ins; both copies of the table; everything.
    spare += [(0, 8 * 256), (1024, 1016), (COPY_A * 8, 24), (0, SMALLEST_AREA)]
    main = [(8, 8), (255 * 8, 8), (0, TAGGED), (0, MAIN)]
    found = [
        Failure(leg, sector, count, direction, kind, times)
        for leg, ranges in (("spare", spare), ("main", main))
        for sector, count in ranges
        for direction in ("read", "write")
        for kind in ("medium", "ioerr")
        for times in (1, 2, 0)
    ]
    return found + [Failure(leg, 0, 0, "flush", "ioerr", 1) for leg in ("spare", "main")]


def telling(failure: Failure) -> bool:
    """Say whether it is of a block that differs from all others; stand-ins are alike."""
    return failure.leg == "main" or failure.sector // 8 in (0, 1, 128, 254, 255, 256, 257, 258)


class Place:
    """Two disks that hold what the name says, and how they are made to hold it again."""

    def __init__(self, kind: str, main: Fault, spare: Fault, disks: tuple[Path, Path]) -> None:
        self.kind, self.main, self.spare, self.disks = kind, main, spare, disks
        self.start = TAGGED if kind == "tagged" else 0
        self.line = f"0 {MAIN - self.start} remap {main.path} {spare.path} 0 {SMALLEST_AREA}"
        if kind == "tagged":
            superblock = new_superblock(
                main.path, SMALLEST_AREA, tagged=True, data_start=self.start
            )
            format_set(spare.path, superblock)
            tag_main(main.path, superblock)
            self.line += f" 4 main_start {self.start} uuid {superblock.uuid}"
        write(main.path, self.start, pattern(0, 64))
        if kind != "blank":
            self.begin()
            main.add(self.start + MAPPED[0], len(MAPPED), "write", "medium")
            write(Path("/dev/mapper", NAME), MAPPED[0], pattern(MAPPED[0], len(MAPPED), 1))
            main.clear()
            dm_remove(NAME)
        if kind == "uneven":
            write(spare.path, COPY_A * 8, bytes(4096))
        self.image = read(self.disks[1], 0, SMALLEST_AREA)

    def begin(self) -> None:
        """Create the device."""
        dmioctl.create(NAME)
        dmioctl.load(NAME, self.line)
        self.resume()

    def resume(self) -> None:
        """Resume it; its node appears."""
        dm_resume(NAME)

    def again(self) -> None:
        """Have the spare as it was."""
        write(self.disks[1], 0, self.image)
        self.main.reset()
        self.spare.reset()

    def check(self) -> None:
        """The set works, and holds what was written."""
        told = status(NAME)
        assert (told.mode, told.pending, told.doubt, told.bad) == ("rw", 0, 0, 0), told
        mapped = [] if self.kind == "blank" else list(MAPPED)
        assert sorted(entry.sector or 0 for entry in entries(NAME)) == mapped
        with Device(Path("/dev/mapper", NAME)) as device:
            expected = [pattern(n, 1, int(n in mapped)) for n in range(16)]
            assert device.read(0, 16) == b"".join(expected)


@contextmanager
def place(kind: str) -> Iterator[Place]:
    """Have two disks while the block runs."""
    with ExitStack() as stack:
        main_disk = stack.enter_context(loop_device(MAIN * SECTOR))
        spare_disk = stack.enter_context(loop_device(SMALLEST_AREA * SECTOR))
        main = stack.enter_context(fault_device(main_disk, name=f"{kind}-main"))
        spare = stack.enter_context(fault_device(spare_disk, name=f"{kind}-spare"))
        yield Place(kind, main, spare, (main_disk, spare_disk))


def attempt(where: Place, failure: Failure) -> str:
    """Load and resume while something fails, then without; return where it was refused."""
    leg = where.main if failure.leg == "main" else where.spare
    where.again()
    leg.add(failure.sector, failure.count, failure.direction, failure.status, failure.times)
    dmioctl.create(NAME)
    step = "load"
    with KernelLog() as log:
        ended = outcome(dmioctl.load, NAME, where.line)
        if ended == "OK":
            step = "resume"
            ended = outcome(dmioctl.resume, NAME)
    leg.clear()
    if ended != "OK":
        assert ended in REFUSED[step], f"{step}: {ended}"
        assert ("remap: " if step == "load" else "was not started") in log.text, log.text
    if step == "load":
        assert where.spare.counters()["writes"] == 0
        assert contents(where.disks[1])[0].data == where.image
        assert int(Path("/sys/module/dm_remap/refcnt").read_text()) == 0
        dmioctl.load(NAME, where.line)
    where.resume()  # again, if it was refused
    where.check()
    assert where.main.counters()["writes"] == 0
    dm_remove(NAME)
    where.begin()
    where.check()
    dm_remove(NAME)
    return step if ended != "OK" else ""


def repeat(where: Place) -> None:
    """Fail loads and resumes so often that a page lost each time shows."""
    for direction, count in (("read", SMALLEST_AREA), ("write", SMALLEST_AREA), ("flush", 0)):
        where.again()
        dmioctl.create(NAME)
        dmioctl.load(NAME, where.line)
        where.spare.add(0, count, direction, "ioerr")
        for _ in range(TIMES):
            if direction == "read":
                assert outcome(dmioctl.load, NAME, where.line) in REFUSED["load"]
            elif outcome(dmioctl.resume, NAME) == "OK":
                break  # nothing is written where nothing is to be mended
        where.spare.clear()
        dmioctl.remove(NAME)
        Path("/dev/mapper", NAME).unlink(missing_ok=True)


def main() -> None:
    """Try some or all failures on every kind of disks."""
    seed, share = int(sys.argv[1]), float(sys.argv[2])
    load_module("dm_remap")
    chosen = Random(seed)
    for kind in KINDS:
        with place(kind) as where:
            tried = [f for f in failures() if chosen.random() < share * (4 if telling(f) else 0.25)]
            for f in tried[:3]:  # what is allocated once is allocated
                attempt(where, f)
            before, refused = loose_pages(), []
            for failure in tried:
                try:
                    refused.append(attempt(where, failure))
                except Exception:
                    print(f"{kind}: {failure}", flush=True)
                    raise
            repeat(where)
            lost = loose_pages() - before
            print(
                f"{kind}: {len(tried)} failures, refused at load {refused.count('load')}, "
                f"at resume {refused.count('resume')}; {lost} pages more",
                flush=True,
            )
            assert lost < LOST_PAGES
    assert dm_names() == []
    unload_module("dm_remap")
    assert outcome(dmioctl.info, NAME) == errno.errorcode[errno.ENXIO]


if __name__ == "__main__":
    main()
