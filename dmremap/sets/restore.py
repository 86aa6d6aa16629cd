# SPDX-License-Identifier: GPL-2.0-only
"""Bring a set's metadata back from a backup, onto its own spare or a blank one.

What comes from a backup is another history of the set: an epoch begins, behind those of the backup,
of the superblocks that are there and of main's tag. It does so last, when everything else is
durable: until then the set is to a load what it was.
"""

import contextlib
from dataclasses import dataclass

from dmremap.errors import Busy, NotFound, Refused
from dmremap.host import blockdev
from dmremap.ondisk import (
    BLOCK,
    HEAD_BLOCKS,
    BlockDevice,
    Progress,
    Tag,
    View,
    look,
    opened,
    read_tag,
)
from dmremap.ondisk.backup import Backup, Import, plan_blank, plan_import, write_import
from dmremap.ondisk.epoch import Raise, later
from dmremap.ondisk.load import Load
from dmremap.ondisk.mend import Write, Writer, device_writer
from dmremap.ondisk.tags import renew_tag
from dmremap.sets import safety, seen
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
from dmremap.sets.offline import (
    Place,
    after_writes,
    claimed,
    locate,
    read_back,
    refuse_main,
    usable,
)


@dataclass(frozen=True, slots=True)
class Restore:
    """What an import will write: to the spare and, if main is there, its tag.

    `found` is main's tag as it was read, and `compared` what it says of the superblocks that are
    there, None where there are none.
    """

    place: Place
    backup: Backup
    plan: Import
    after: Load
    writes: tuple[Write, ...]
    found: MainTag
    compared: Compared | None
    epoch: Raise | None
    main: Place | None
    main_writes: tuple[Write, ...]
    force: bool


def plan(
    backup: Backup,
    place: Place,
    *,
    force: bool = False,
    main: str | None = None,
    progress: Progress | None = None,
) -> Restore:
    """Find out what an import would write. Writes nothing."""
    usable(place)
    where = find_main(backup.superblock, given=main, search=not place.is_file)
    found = read_main(where, backup.superblock)
    with opened(place.path) as device:
        return _plan(device, backup, place, found, force=force, progress=progress)


def _plan(
    device: BlockDevice,
    backup: Backup,
    place: Place,
    found: MainTag,
    *,
    force: bool,
    progress: Progress | None = None,
    begin: Raise | None = None,
) -> Restore:
    """Plan it on an open device; `begin` is the epoch of an earlier plan."""
    refuse_main(place, read_tag(View(device, 0)))
    there = look(View(device, place.start), backup.uuid).superblock
    made = _import(device, backup, place, progress)
    _refuse_signatures(place, force=force)
    if made.risky and not force:
        raise Refused(
            "DMR-E526",
            f"of {len(made.risky)} blocks of the table on {place.path} no copy is left that is "
            "known to be the newest, so that the backup may be older than what was there",
        )
    unlike(backup.superblock, found)
    compared = compare(there, found, place.path, place.start) if there and found.epoch else None
    older = bool(compared and compared.problem)
    if older and not force:
        raise Refused(
            "DMR-E531",
            f"{place.path}: {compared.reason if compared else ''}",
            hint="Use the spare that main was used with last. If that is gone --force takes this "
            "one: what was mapped since it was copied reads as main has it, and what was written "
            "to mapped blocks since is lost.",
        )
    epoch = None
    # Writing uses a plan up.
    writes = write_import(_import(device, backup, place, None), _written)
    if writes or older:
        known = [
            record.epoch for record in (found, there, backup.superblock) if record and record.epoch
        ]
        epoch = later(backup.superblock.name, *known, earlier=begin)
        writes = write_import(_import(device, backup, place, None), _written, epoch)
    after = after_writes(device, place, backup.uuid, writes)
    main = locate(found.main.path) if found.main.path and found.copies else None
    return Restore(
        place=place,
        backup=backup,
        plan=made,
        after=after,
        writes=tuple(writes),
        found=found,
        compared=compared,
        epoch=epoch,
        main=main,
        main_writes=tuple(_renew(found, after, place, epoch, _written)),
        force=force,
    )


def _written(_place: int, _data: bytes) -> bool:
    return True


def _renew(
    found: MainTag, after: Load, place: Place, epoch: Raise | None, write: Writer
) -> list[Write]:
    if epoch is None or after.superblock is None or not found.copies:
        return []
    return renew_tag(found.copies, Tag.of(after.superblock, place.start), write)


def _import(device: BlockDevice, backup: Backup, place: Place, progress: Progress | None) -> Import:
    view = View(device, place.start)
    made = plan_import(view, backup, place.path)
    if made is not None:
        return made
    length = backup.superblock.area_sectors * 512
    found = device.first_nonzero(place.start * 512, length, progress)
    for finding in safety.check_blank(place.path, found, "the area"):
        raise Refused(
            finding.code,
            f"{finding.message}, and nothing there is of set {backup.uuid}",
            hint="Give the device that the backup is of, or a blank one.",
        )
    return plan_blank(view, backup)


def _refuse_signatures(place: Place, *, force: bool) -> None:
    """Refuse where something else has put its signature into the first MiB."""
    first = place.start * 512
    with contextlib.suppress(NotFound):
        for signature in blockdev.signatures(place.path):
            if first <= signature.offset < first + HEAD_BLOCKS * BLOCK and not force:
                raise Refused(
                    "DMR-E503",
                    f"{place.path} holds {signature.type}, at byte {signature.offset}",
                    hint="Find out what it is; what it has overwritten no backup brings back. "
                    "--force goes on.",
                )


def carry_out(made: Restore) -> tuple[Load, list[Write], list[Write], tuple[str, ...]]:
    """Write what the plan says; return what is there then, what was written to spare and main, and
    warnings.

    The caller holds the lock.
    """
    place, backup = made.place, made.backup
    with contextlib.ExitStack() as stack:
        device = stack.enter_context(claimed(place))
        main = stack.enter_context(claimed(made.main)) if made.main else None
        # Time has passed since the plan, and the set may have been in use.
        found = (
            tags_on(main, Main(main.path, given=True), backup.superblock)
            if main
            else read_main(made.found.main, backup.superblock)
        )
        again = _plan(device, backup, place, found, force=made.force, begin=made.epoch)
        if (again.writes, again.main_writes) != (made.writes, made.main_writes):
            raise Busy("DMR-E409", f"{place.path} has changed while this was being decided")
        spent = _import(device, backup, place, None)
        written = write_import(spent, device_writer(device, place.start), made.epoch)
        after = read_back(device, place, backup.uuid)
        tags = _renew(found, after, place, made.epoch, device_writer(main, 0)) if main else []
    warnings: tuple[str, ...] = ()
    if made.epoch and not place.is_file:
        sb = backup.superblock
        warnings = seen.learn(sb.name, place.path, place.start, sb.uuid)
    return after, written, tags, warnings
