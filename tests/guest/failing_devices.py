# SPDX-License-Identifier: GPL-2.0-only
"""Each I/O of a table's load, of its first resume and of messages fails in turn.

Arguments: a seed, how many of all failures of a block are tried, and `all` if not only each command
of a message, but also each of a load and of a resume is to fail after the other. Whatever fails,
read or write, plainly or as a medium error, once, twice or for ever: the table is refused with an
errno that the interface names and can be used when the cause is gone, or the set works; a message
ends with such an errno, and the next load finds what it has said; what the set holds is as it was,
nothing is left, and no page is lost. Runs inside a guest. (Other steps need no I/O:
tests/guest/failing_memory.py.)
"""

from __future__ import annotations

import errno
import sys
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, takewhile
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from guest import dmioctl
from guest.lib import (
    SECTOR,
    SLOW_KERNEL,
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

from dmremap.dm.messages import parse_remap
from dmremap.ondisk.layout import REFUGES, TAG_BLOCKS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

NAME = "failing"
MAIN = 4096
TAGGED = 2048
"""Where the data of a tagged main begins."""
MAPPED = (7, 8)
KINDS = ("blank", "set", "uneven", "tagged")
COPY_A, SLOTS, COPY_B = 256, 257, 258
"""Blocks of the smallest area, behind its head."""
NOT_REACHED = "not reached"
TIMES = 100
LOST_PAGES = 64
"""As many more than before may be in use for other reasons."""
BY_HAND = (12, 13)
"""Sectors that a message maps."""
REFUSED = {
    "load": ("EINVAL", "ENODATA", "EBUSY"),
    "resume": ("EBUSY", "ENODATA", "EAGAIN", "EIO", "EINVAL"),
    "rename": ("EIO",),
    "scrub": ("EIO",),
    "remap": (),
}
MESSAGES = ("rename other", "scrub 0 10", f"remap {BY_HAND[0]} {len(BY_HAND)}")


@dataclass(frozen=True)
class Failure:
    """I/O that fails: of a leg, in a range of sectors, when some of it has passed."""

    leg: str
    sector: int
    count: int
    direction: str
    status: str
    times: int
    after: int = 0


def failures() -> list[Failure]:
    """Return all of them: block by block, then larger ranges, and flushes."""
    spare = [(block * 8, 8) for block in range(COPY_B + 1)]
    # Both superblocks; the stand-ins; both copies of the table; everything.
    spare += [(0, 8 * 256), (1024, 1016), (COPY_A * 8, 24), (0, SMALLEST_AREA)]
    main = [(8, 8), (255 * 8, 8), (0, TAGGED), (0, MAIN)]
    found = [
        Failure(leg, sector, length, direction, kind, times)
        for leg, ranges in (("spare", spare), ("main", main))
        for sector, length in ranges
        for direction in ("read", "write")
        for kind in ("medium", "ioerr")
        for times in (1, 2, 0)
    ]
    return found + [Failure(leg, 0, 0, "flush", "ioerr", 1) for leg in ("spare", "main")]


def telling(failure: Failure) -> bool:
    """Say whether it is of a block that differs from all others.

    Stand-ins are alike, but for those at both ends, which are the first to be used.
    """
    blocks = (0, 1, 128, REFUGES[0], REFUGES[-1], 254, 255, COPY_A, SLOTS, COPY_B)
    return failure.leg == "main" or failure.sector // 8 in blocks


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
            if kind == "uneven":
                spare.add(COPY_A * 8, 8, "write", "medium")
            write(Path("/dev/mapper", NAME), MAPPED[0], pattern(MAPPED[0], len(MAPPED), 1))
            main.clear()
            spare.clear()
            dm_remove(NAME)
        if kind == "uneven":
            # One copy of the table, on a stand-in that has its name.
            write(spare.path, COPY_B * 8, bytes(4096))
        self.image = read(self.disks[1], 0, SMALLEST_AREA)
        self.head = read(self.disks[0], 0, self.start) if self.start else b""

    def begin(self) -> None:
        """Create the device."""
        dmioctl.create(NAME)
        dmioctl.load(NAME, self.line)
        self.resume()

    def resume(self) -> None:
        """Resume it; its node appears."""
        dm_resume(NAME)

    def again(self) -> None:
        """Have the spare as it was, and main's tag: or it would be an older copy."""
        write(self.disks[1], 0, self.image)
        if self.head:
            write(self.disks[0], 0, self.head)
        self.main.reset()
        self.spare.reset()

    def leg(self, failure: Failure) -> Fault:
        """Return the disk that a failure is of, with it."""
        leg = self.main if failure.leg == "main" else self.spare
        leg.reset()
        leg.add(
            *(failure.sector, failure.count),
            *(failure.direction, failure.status),
            failure.times,
            after=failure.after,
        )
        return leg

    def check(self, by_hand: Collection[int] = (), modes: Collection[str] = ("rw",)) -> None:
        """The set works, and holds what was written, but for what a message may have made bad."""
        told = status(NAME)
        assert told.mode in modes, told
        assert (told.pending, told.doubt) == (0, 0), told
        assert not told.bad or by_hand, told
        mapped = [] if self.kind == "blank" else list(MAPPED)
        rows = [entry for entry in entries(NAME) if entry.state != "bad"]
        assert {entry.sector for entry in rows} - set(by_hand) == set(mapped)
        self.holds(range(16))

    def holds(self, sectors: Iterable[int]) -> None:
        """These sectors hold what was written."""
        with Device(Path("/dev/mapper", NAME)) as device:
            for sector in sectors:
                generation = int(self.kind != "blank" and sector in MAPPED)
                assert device.read(sector, 1) == pattern(sector, 1, generation)


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
    """Load and resume while something fails, then without.

    Return where it was refused, else "works", or NOT_REACHED if nothing has failed.
    """
    where.again()
    leg = where.leg(failure)
    dmioctl.create(NAME)
    step = "load"
    with KernelLog() as log:
        ended = outcome(dmioctl.load, NAME, where.line)
        if ended == "OK":
            step = "resume"
            ended = outcome(dmioctl.resume, NAME)
    failed = leg.counters()["failed"]
    leg.clear()
    if ended != "OK":
        assert failed, failure
        assert ended in REFUSED[step], f"{step}: {ended}"
        assert ("remap: " if step == "load" else "was not started") in log.text, log.text
    if step == "load":
        assert where.spare.counters()["writes"] == 0
        assert contents(where.disks[1])[0].data == where.image
        assert int(Path("/sys/module/dm_remap/refcnt").read_text()) == 0
        dmioctl.load(NAME, where.line)
    where.resume()  # again, if it was refused
    # A spare that takes no superblock has no epoch begin.
    late = ended == "OK" and failed and failure.leg == "spare" and failure.direction != "read"
    where.check(modes=("rw", "ro") if late else ("rw",))
    assert where.main.counters()["writes"] <= (len(TAG_BLOCKS) if where.head else 0)
    dm_remove(NAME)
    where.begin()
    where.check()
    dm_remove(NAME)
    return step if ended != "OK" else "works" if failed else NOT_REACHED


def attempt_message(where: Place, failure: Failure, text: str) -> str:
    """Send a message while something fails; what it has said is there, then and after a load.

    Return the errno, "works", or NOT_REACHED if nothing has failed.
    """
    name = text.split(maxsplit=1)[0]
    where.again()
    where.begin()
    if name == "remap":
        dmioctl.suspend(NAME)
    leg = where.leg(failure)
    said: list[str] = []
    ended = outcome(lambda: said.append(dmioctl.message(NAME, 0, text)))
    failed = leg.counters()["failed"]
    leg.clear()
    if name == "remap":
        where.resume()
    assert ended == "OK" or (failed and ended in REFUSED[name]), f"{text}: {ended}"
    done = BY_HAND[: parse_remap(said[0]).done] if name == "remap" and said else ()
    told = status(NAME)
    assert told.mode == "rw" or failed, told
    # Of a commit that has half failed nobody knows what the next load finds.
    where.holds(n for n in range(16) if n in done or n not in BY_HAND or not told.doubt)
    dm_remove(NAME)
    where.begin()
    where.check(BY_HAND if name == "remap" else ())
    assert set(done) <= {entry.sector for entry in entries(NAME)}
    dm_remove(NAME)
    return ended if ended != "OK" else "works" if failed else NOT_REACHED


def sweep(
    where: Place, function: Callable[[Place, Failure], str], tried: Iterable[Failure]
) -> Iterator[str]:
    """Try one failure after the other, and say how each ended."""
    for failure in tried:
        try:
            end = function(where, failure)
        except Exception:
            print(f"{where.kind}: {failure}", flush=True)
            raise
        yield end


def in_turn(
    where: Place, function: Callable[[Place, Failure], str], *, everything: bool
) -> Counter[str]:
    """Let each command fail in turn, of each leg and kind; return how often it ended how.

    Once as a plain error, and as a medium error it and all that follow it; or all four ways.
    """
    ways = {("ioerr", 1), ("medium", 0)}
    if everything:
        ways |= {("medium", 1), ("ioerr", 0)}
    ends = Counter[str]()
    for leg, size in (("spare", SMALLEST_AREA), ("main", MAIN)):
        for direction in ("read", "write", "flush"):
            for status_, times in sorted(ways):
                where_ = (0, 0 if direction == "flush" else size)
                failure = Failure(leg, *where_, direction, status_, times)
                each = (replace(failure, after=number) for number in count())
                # When it has failed the one after the last, it has failed them all.
                for end in takewhile(NOT_REACHED.__ne__, sweep(where, function, each)):
                    ends[end] += 1
    return ends


def repeat(where: Place) -> None:
    """Fail loads and resumes so often that a page lost each time shows."""
    for direction, length in (("read", SMALLEST_AREA), ("write", SMALLEST_AREA), ("flush", 0)):
        where.again()
        dmioctl.create(NAME)
        dmioctl.load(NAME, where.line)
        where.spare.add(0, length, direction, "ioerr")
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
    seed, share, everything = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:] == ["all"]
    load_module("dm_remap")
    chosen = Random(seed)
    for kind in KINDS:
        with place(kind) as where:
            tried = [f for f in failures() if chosen.random() < share * (4 if telling(f) else 0.25)]
            for f in tried[:3]:  # what is allocated once is allocated
                attempt(where, f)
            before = loose_pages()
            found = {"table": Counter(sweep(where, attempt, tried))}
            if everything:
                found["table, in turn"] = in_turn(where, attempt, everything=True)
            repeat(where)
            if kind == "set" or (everything and kind != "blank"):
                for text in MESSAGES:
                    by_message = partial(attempt_message, text=text)
                    found[text] = in_turn(where, by_message, everything=everything)
            lost = loose_pages() - before
            for what, ends in found.items():
                print(f"{kind}, {what}: {dict(ends)}", flush=True)
                assert ends.keys() - {NOT_REACHED}
            print(f"{kind}: {lost} pages more", flush=True)
            # The debug kernel takes pages for what it keeps records of; there kmemleak looks.
            assert lost < LOST_PAGES or SLOW_KERNEL
    assert dm_names() == []
    unload_module("dm_remap")
    assert outcome(dmioctl.info, NAME) == errno.errorcode[errno.ENXIO]


if __name__ == "__main__":
    main()
