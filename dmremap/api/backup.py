# SPDX-License-Identifier: GPL-2.0-only
"""Save the metadata of a set to a file, and bring it back."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from uuid import UUID

from dmremap.api.answer import BESIDE, Answer, Telling, step
from dmremap.api.metadata import (
    BlockWrite,
    Compared,
    Epoch,
    alone,
    block_writes,
    place_of,
    untaken,
)
from dmremap.ondisk.load import Counts
from dmremap.sets import offline, restore
from dmremap.sets.restore import Restore


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported(Answer):
    """A backup that was made. created: seconds since 1970. bytes: the size of the file."""

    device: str
    start_sectors: int
    uuid: UUID
    name: str
    file: str
    bytes: int
    created: int
    metadata_blocks: int


def export_metadata(
    device: str,
    file: str,
    *,
    start: int = 0,
    uuid: UUID | None = None,
    force: bool = False,
    progress: Telling | None = None,
) -> Exported:
    """Save the metadata of the set on a spare, or in a file with its image, to a file.

    It says which blocks live in which slots; what is in the slots is not saved. The set may be
    running. start: sectors of 512 bytes, where the area begins. uuid: only this set is meant.
    force: replace a file that exists.

    >>> dmremap.export_metadata("spare.img", "set.backup").name
    'backup'

    Errors: NotFound, Refused where a load would refuse the spare or the file exists,
    PermissionDenied for a block device but for root, Failure where the file cannot be written.
    """
    place = place_of(device, start, "read block devices")
    data, backup = offline.export(place, uuid, step(progress, "reading"))
    offline.write_backup(file, data, overwrite=force)
    return Exported(
        device=place.path,
        start_sectors=start,
        uuid=backup.uuid,
        name=backup.superblock.name,
        file=file,
        bytes=len(data),
        created=backup.created,
        metadata_blocks=len(backup.states),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported(Answer):
    """What was brought back from a backup, or would be.

    created: when the backup was made, in seconds since 1970.  result: clean (there is nothing to
    write), would import or imported.  blank: device holds nothing of the set.  taken, kept: blocks
    that are newest in the backup, and on the device.  risky: blocks of which the set may have had a
    newer state.  slots: counts afterwards.  epoch: the set's then.  compared: what main's tag, or
    this host, said of device before.  main_writes: to main's tag.  main: its path, None where it
    is not there or was adopted.
    """

    file: str
    created: int
    device: str
    start_sectors: int
    uuid: UUID
    name: str
    dry_run: bool
    result: str
    blank: bool
    taken: int
    kept: int
    risky: tuple[int, ...]
    slots: Counts
    writes: tuple[BlockWrite, ...]
    epoch: Epoch | None
    compared: Compared | None
    main_writes: tuple[BlockWrite, ...]
    main: str | None = field(metadata=BESIDE)


def import_metadata(
    file: str,
    device: str,
    *,
    start: int = 0,
    main: str | None = None,
    force: bool = False,
    dry_run: bool = False,
    confirm: Callable[[Imported], None] | None = None,
    progress: Telling | None = None,
    lock_timeout: float = 20.0,
) -> Imported:
    """Bring the metadata that `export_metadata` saved back: onto the set's spare or a blank device.

    start: sectors of 512 bytes, where the area is to begin. main: the set's main, whose tag gets
    the epoch that begins; without it it is searched for. force: go on where the backup may be older
    than what is gone, where device is an older copy of the spare, or where something else has put
    its signature there. confirm: is asked before anything is written, with what would be done; what
    it raises ends the verb. lock_timeout: seconds.

    >>> dmremap.import_metadata("set.backup", "spare.img", dry_run=True).result
    'clean'

    Errors: NotFound, Busy, Refused where force is needed or the backup cannot be used,
    PermissionDenied for a block device but for root.
    """
    place = place_of(device, start, "write block devices")
    backup = offline.read_backup(file)
    checking = step(progress, "checking")
    plan = restore.plan(backup, place, force=force, main=main, progress=checking)
    answer = Imported(
        file=file,
        created=backup.created,
        device=place.path,
        start_sectors=start,
        uuid=backup.uuid,
        name=backup.superblock.name,
        dry_run=dry_run,
        result="would import" if plan.writes else "clean",
        blank=plan.plan.blank,
        taken=plan.plan.taken,
        kept=plan.plan.kept,
        risky=tuple(plan.plan.risky),
        slots=plan.after.counts,
        writes=block_writes(plan.writes, start),
        epoch=Epoch.of(plan.after.superblock.epoch) if plan.after.superblock else None,
        compared=Compared.of(plan.compared) if plan.compared else None,
        main_writes=block_writes(plan.main_writes, 0),
        main=plan.main.path if plan.main else None,
    )
    if not plan.writes or dry_run:
        return answer
    if confirm:
        confirm(answer)
    with alone(place, lock_timeout):
        _after, done, tags, warnings = restore.carry_out(plan)
    return replace(
        answer,
        result="imported",
        writes=block_writes(done, start),
        main_writes=block_writes(tags, 0),
        warnings=(
            *_warnings(plan),
            *untaken(plan.main, len(plan.main_writes), len(tags)),
            *warnings,
        ),
    )


def _warnings(plan: Restore) -> tuple[str, ...]:
    sb, found = plan.backup.superblock, plan.found
    if not sb.tagged and plan.epoch and not found.epoch:
        number = plan.epoch.epoch.number
        what = f"{found.why}; a host that has seen a later epoch than {number} refuses the spare"
        return (f"{what} as an older one: see 'dmremapctl check' there",)
    if not sb.tagged or plan.main:
        return ()
    what = f"main's tag was not written: {plan.found.why}"
    return (f"{what}; if the spare is refused as an older one see 'dmremapctl check'",)
