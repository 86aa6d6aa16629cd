# SPDX-License-Identifier: GPL-2.0-only
"""Take a spare that is not the one that main was used with last: the set begins an epoch with it.

What was mapped since the copy was made reads as main had it before, so a person is told first. Both
superblocks have the new epoch before main's tag has, each copy durable before the next. It counts
when both have it; until then the set may be refused as before, and all of it is done again. Where
main was adopted this host is told, and nothing is written to main.
"""

import contextlib
from dataclasses import dataclass, replace
from uuid import UUID

from dmremap.errors import Busy, Failure, NotFound, Usage
from dmremap.ondisk import BlockDevice, Progress, Superblock, Tag, View, look, opened
from dmremap.ondisk.check import examine
from dmremap.ondisk.epoch import Raise, later
from dmremap.ondisk.load import Load, refused
from dmremap.ondisk.mend import Write, Writer, device_writer, mend
from dmremap.ondisk.tags import renew_tag
from dmremap.sets import seen
from dmremap.sets.compare import (
    Compared,
    Main,
    MainTag,
    compare,
    find_main,
    read_main,
    tags_on,
    unlike,
)
from dmremap.sets.offline import Place, after_writes, claimed, locate, look_at, read_back, usable


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What is to be written, to the spare and then to main, and what is there before.

    `main` is None where main was adopted: then what this host has seen is compared, and nothing is
    written there. `epoch` is None where nothing is against the spare: then it is a repair.
    """

    place: Place
    main: Place | None
    sb: Superblock
    before: Load
    compared: Compared
    epoch: Raise | None
    writes: tuple[Write, ...]
    main_writes: tuple[Write, ...]


def plan(
    place: Place,
    uuid: UUID | None = None,
    progress: Progress | None = None,
    main: str | None = None,
) -> Acceptance:
    """Find out what is to be written. Writes nothing."""
    usable(place)
    with opened(place.path) as spare:
        sb = look(View(spare, place.start), uuid).superblock
        if sb is None:
            raise refused(place.path, look_at(spare, place, uuid, None).refusals)
        found = find_main(sb, given=main, search=not place.is_file)
        if not sb.tagged and main:
            raise Usage(
                "DMR-E201",
                f"main of set {sb.name!r} was adopted and has no tag: leave --main out",
            )
        if not sb.tagged:
            return _plan(spare, place, None, None, sb, progress)
        if found.path is None:
            raise NotFound("DMR-E305", f"set {sb.name!r}: {found.why}")
        where = locate(found.path)
        usable(where)
        with opened(where.path) as device:
            return _plan(spare, place, device, where, sb, progress)


def _plan(
    spare: BlockDevice,
    place: Place,
    device: BlockDevice | None,
    main: Place | None,
    expected: Superblock,
    progress: Progress | None = None,
    begin: Raise | None = None,
) -> Acceptance:
    """Plan it on open devices; `begin` is the epoch of an earlier plan."""
    found = _used_with(device, expected)
    before = look_at(spare, place, expected.uuid, progress)
    sb = before.superblock
    if sb is None or before.refusals:
        raise refused(place.path, before.refusals)
    unlike(sb, found)
    compared = compare(sb, found, place.path, place.start)
    epoch = None
    if compared.problem and found.epoch:
        epoch = later(sb.name, found.epoch, sb.epoch, earlier=begin)
    writes = mend(examine(spare, place.start, sb.uuid), lambda _place, _data: True, epoch)
    after_writes(spare, place, sb.uuid, writes)
    main_writes = _renew(found, sb, place, epoch, lambda _place, _data: True)
    return Acceptance(place, main, sb, before, compared, epoch, tuple(writes), tuple(main_writes))


def _used_with(main: BlockDevice | None, sb: Superblock) -> MainTag:
    """Return with which epoch main was used last: its tag, or what this host has seen."""
    if main is None:
        return read_main(find_main(sb), sb)
    return tags_on(main, Main(main.path, given=True), sb)


def _renew(
    found: MainTag, sb: Superblock, place: Place, epoch: Raise | None, write: Writer
) -> list[Write]:
    if epoch is None or not found.copies:
        return []
    tag = Tag.of(replace(sb, epoch=epoch.epoch), place.start)
    return renew_tag(found.copies, tag, write)


def carry_out(
    made: Acceptance,
) -> tuple[Load, list[Write], list[Write], tuple[str, ...]]:
    """Write what the plan says; return what is there then, what was written, and warnings.

    The caller holds the lock. Main may refuse its tag: it has the one before then, which no load
    minds.
    """
    place = made.place
    with contextlib.ExitStack() as stack:
        spare = stack.enter_context(claimed(place))
        device = stack.enter_context(claimed(made.main)) if made.main else None
        again = _plan(spare, place, device, made.main, made.sb, begin=made.epoch)
        if (again.writes, again.main_writes) != (made.writes, made.main_writes):
            raise Busy("DMR-E409", f"{place.path} has changed while this was being decided")
        work = examine(spare, place.start, made.sb.uuid)
        written = mend(work, device_writer(spare, place.start), made.epoch)
        found = made.compared.found
        tags = []
        if device:
            tags = _renew(found, made.sb, place, made.epoch, device_writer(device, 0))
        after = read_back(spare, place, made.sb.uuid)
        now = _used_with(device, made.sb)
    if after.superblock and (problem := compare(after.superblock, now, place.path, 0).problem):
        raise Failure(
            "DMR-E103",
            f"{place.path}: the new epoch was written, and a load refuses it: {problem.reason}",
            hint="Run it again.",
        )
    warnings: tuple[str, ...] = ()
    if made.epoch and not place.is_file:
        warnings = seen.learn(made.sb.name, place.path, place.start, made.sb.uuid)
    return after, written, tags, warnings
