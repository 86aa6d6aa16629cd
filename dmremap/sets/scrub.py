# SPDX-License-Identifier: GPL-2.0-only
"""Having a running set read its metadata, and write again what is gone.

The kernel does it, in pages; see the message `scrub` in docs/interface.md. It numbers the copies:
copy A of every metadata block, then copy B of each. Which block that is follows from the number
of blocks, which only the superblock tells. If neither superblock can be read it is asked again
afterwards, for a scrub writes superblocks again too.

No lock is held: a large set takes minutes, nobody else has to wait for them, and the kernel lets
a scrub and whatever else is done to the set take turns. If the set grew meanwhile the numbers of
its copies are others, so the table is compared in the end.
"""

import contextlib
import errno
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from dmremap import dm
from dmremap.dm.lines import RemapTable, Status
from dmremap.dm.messages import Scrubbed, ScrubEntry, ScrubPage, parse_scrub, scrub_message
from dmremap.errors import (
    Busy,
    DmRemapError,
    Failure,
    Interrupted,
    KernelError,
    NotFound,
    Refused,
)
from dmremap.ondisk import Progress, View, look, opened
from dmremap.sets import live
from dmremap.sets.live import Running

PAGE = 128
"""Copies that one message has read: that much between two steps of the progress."""
PATIENCE = 60.0
"""Seconds without a copy read after which it is given up; no suspend takes longer."""
PAUSE = 0.5


@dataclass(frozen=True, slots=True)
class Part:
    """One `remap` target. blocks: of its metadata, the superblock included; None if not known."""

    start: int
    uuid: str | None
    spare: str
    spare_start: int
    blocks: int | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What carry_out() will have read."""

    name: str
    uuid: str | None
    path: str
    parts: tuple[Part, ...]
    targets: tuple[dm.Target, ...]

    @property
    def blocks(self) -> int | None:
        """The metadata blocks of all targets; None if not known."""
        known = [part.blocks for part in self.parts if part.blocks is not None]
        return sum(known) if len(known) == len(self.parts) else None

    @property
    def copies(self) -> int | None:
        """The copies of all metadata blocks; None if not known."""
        return None if self.blocks is None else 2 * self.blocks

    @property
    def spares(self) -> str:
        """The spares, for people."""
        return ", ".join(dict.fromkeys(part.spare for part in self.parts))


@dataclass(frozen=True, slots=True)
class Gone:
    """A copy that was gone.

    target: first sector of its target.  copy: the kernel's number.  which: A or B.  block: which
    metadata block, 0 is the superblock, then the table blocks in the order of their slots.  home:
    where the copy belongs, in blocks of the area.
    """

    target: int
    copy: int
    which: str | None
    block: int | None
    home: int
    result: Scrubbed

    @property
    def what(self) -> str:
        """The copy, for people."""
        if self.block is None or self.which is None:
            return f"copy {self.copy}"
        what = f"table block {self.block}" if self.block else "the superblock"
        return f"copy {self.which} of {what}"


@dataclass(frozen=True, slots=True)
class Done:
    """What came of it. The plan is the one made before, with what is known better now."""

    plan: Plan
    gone: tuple[Gone, ...]

    @property
    def written(self) -> int:
        """Copies that are there again."""
        return sum(copy.result == "written" for copy in self.gone)

    @property
    def failed(self) -> int:
        """Copies for which there was no place."""
        return sum(copy.result == "failed" for copy in self.gone)

    @property
    def only_in_memory(self) -> int:
        """Metadata blocks that have no copy on the spare any more."""
        failed = [(copy.target, copy.block) for copy in self.gone if copy.result == "failed"]
        known = [block for block in failed if block[1] is not None]
        return len(known) - len(set(known))


# --------------------------------------------------------------------- look


def plan(name: str) -> Plan:
    """Check everything and return what is to be read."""
    running = live.find_one(
        name,
        stopped="A set that does not run reads its metadata when it is started; 'dmremapctl "
        "check' reads it without starting it.",
    )
    _check_running(running)
    parts = tuple(
        _part(table, status) for table, status in zip(running.tables, running.status, strict=True)
    )
    return Plan(running.name, running.uuid, running.path, parts, tuple(dm.table(running.name)))


def _check_running(running: Running) -> None:
    """Refuse what the kernel would refuse, and what would hang."""
    modes = {status.mode for status in running.status}
    if not running.device.live_table or "init" in modes:
        raise Busy(
            "DMR-E409",
            f"set {running.name!r} was never started",
            hint=f"Start it with 'dmsetup resume {running.name}'.",
        )
    if len(running.status) != len(running.tables):
        raise Failure("DMR-E106", f"the status of set {running.name!r} is not understood")
    if running.device.read_only or "ro" in modes:
        raise _read_only(running.name)


def _read_only(name: str) -> Refused:
    return Refused(
        "DMR-E529",
        f"set {name!r} is read-only, so that nothing of its metadata can be written again",
        hint=f"See 'dmremapctl health {name}' for the reason.",
    )


def _part(table: RemapTable, status: Status) -> Part:
    spare = live.spare_facts(table)
    return _counted(Part(table.start, status.uuid, spare.path, table.spare_start, None))


def _counted(part: Part) -> Part:
    """Count the metadata blocks, if a superblock can be read."""
    sb = None
    with contextlib.suppress(DmRemapError), opened(part.spare) as device:
        uuid = UUID(part.uuid) if part.uuid else None
        sb = look(View(device, part.spare_start), uuid).superblock if uuid else None
    if sb is None:
        return part
    return replace(part, blocks=1 + sum(segment.table_blocks for segment in sb.segments))


# ------------------------------------------------------------------- do it


def carry_out(made: Plan, *, progress: Progress | None = None) -> Done:
    """Have every copy read; return what was gone."""
    found: list[tuple[int, ScrubEntry]] = []
    try:
        for number, page in _pages(made, progress):
            found += [(number, entry) for entry in page.entries]
        if not _same(made):
            raise _changed(made)
    except KeyboardInterrupt:
        raise _with_notes(_interrupted(), found) from None
    except DmRemapError as err:
        raise _with_notes(err, found) from None
    parts = tuple(part if part.blocks else _counted(part) for part in made.parts)
    gone = tuple(_gone(parts[number], entry) for number, entry in found)
    return Done(replace(made, parts=parts), gone)


def _with_notes(err: DmRemapError, found: Sequence[tuple[int, ScrubEntry]]) -> DmRemapError:
    """Say what was found before: what is written again stays."""
    results = [entry.result for _, entry in found]
    if written := results.count("written"):
        err.add_note(f"Copies that were gone and are written again so far: {written}.")
    if failed := results.count("failed"):
        err.add_note(f"Copies that are gone and that no place takes: {failed}.")
    return err


def _interrupted() -> Interrupted:
    return Interrupted(
        "DMR-E109", "interrupted", hint="What is written again stays. Run it again for the rest."
    )


def _gone(part: Part, entry: ScrubEntry) -> Gone:
    which = block = None
    if part.blocks:
        which, block = "AB"[entry.copy >= part.blocks], entry.copy % part.blocks
    return Gone(part.start, entry.copy, which, block, entry.block, entry.result)


def _pages(made: Plan, progress: Progress | None) -> Iterator[tuple[int, ScrubPage]]:
    """Yield all replies, with the number of the part that each is about."""
    total, before = made.copies, 0
    for number, part in enumerate(made.parts):
        copies = 2 * (part.blocks or 0)
        for page in _pages_of(made, part):
            yield number, page
            if progress and total:
                progress(before + (copies if page.next is None else min(page.next, copies)), total)
        before += copies


def _pages_of(made: Plan, part: Part) -> Iterator[ScrubPage]:
    """Yield the replies of one target, each with copies that the one before did not have."""
    at, last = 0, time.monotonic()
    while True:
        page = _page(made, part, at)
        if page.next is None:
            yield page
            return
        if page.next > at:
            yield page
            at, last = page.next, time.monotonic()
            continue
        # A suspend waits for what is under repair, and goes first.
        if time.monotonic() - last > PATIENCE:
            raise Busy(
                "DMR-E409",
                f"set {made.name!r} has read nothing for {PATIENCE:g} s, for it is being suspended",
                hint="See in the kernel log which disk does not answer, then run it again.",
            )
        time.sleep(PAUSE)


def _page(made: Plan, part: Part, at: int) -> ScrubPage:
    try:
        return parse_scrub(dm.message(made.name, part.start, scrub_message(at, PAGE)))
    except NotFound:
        raise NotFound("DMR-E303", f"set {made.name!r} was stopped meanwhile") from None
    except DmRemapError as err:
        # A table without a target at that sector does not know the message either.
        if err.errno == errno.EINVAL and not _same(made):
            raise _changed(made) from None
        raise _meant(err, made.name, part.spare) from None


def _meant(err: DmRemapError, name: str, spare: str) -> DmRemapError:
    """Return what an errno of the message means."""
    meant: DmRemapError
    match err.errno:
        case errno.EINVAL:
            meant = KernelError("DMR-E707", "the kernel module does not know the message 'scrub'")
        case errno.EROFS:
            meant = _read_only(name)
        case errno.EIO:
            meant = Failure(
                "DMR-E103",
                f"the spare {spare} of set {name!r} does not answer",
                hint="Look at the kernel log for the device, and at its cable. Run this again when "
                "it answers; until then nothing is written to it.",
            )
        case errno.EUCLEAN:
            meant = Failure("DMR-E110", f"something else writes to {spare}, the spare of {name!r}")
        case errno.EINTR:
            meant = _interrupted()
        case _:
            return err
    meant.add_note(err.message)
    return meant


def _same(made: Plan) -> bool:
    """Say whether the set has the table that it had."""
    with contextlib.suppress(DmRemapError):
        return tuple(dm.table(made.name)) == made.targets
    return False


def _changed(made: Plan) -> Busy:
    return Busy(
        "DMR-E409",
        f"set {made.name!r} was changed while its metadata was read",
        hint="Run it again.",
    )
