# SPDX-License-Identifier: GPL-2.0-only
"""Make a set: of two blank devices, or under a disk that holds data."""

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from dmremap import dm
from dmremap.api.answer import Answer, Telling, need_root, step
from dmremap.dm.lines import ErrorPolicy
from dmremap.host.lock import locked
from dmremap.sets import create as sets
from dmremap.sets import leftover
from dmremap.sets.create import Plan, Request
from dmremap.sets.extent import Size


@dataclass(frozen=True, slots=True, kw_only=True)
class Created(Answer):
    """A set that was made, or would be. Sectors count 512 bytes.

    device: the path of its device.  kind: tagged or adopted.  memory_bytes: kernel memory for all
    slots, while the set runs.  reads_bytes: what of the spare is read before anything is written.
    table: its table line.  rule: the udev rule of an adopted set.  steps: what is done, in words.
    destroys: what is lost by it.
    """

    dry_run: bool
    name: str
    uuid: UUID
    device: str
    kind: str
    main: str
    spare: str
    spare_start_sectors: int
    spare_sectors: int
    data_sectors: int
    unit_bytes: int
    slots: int
    memory_bytes: int
    reads_bytes: int
    table: str
    rule: str | None
    steps: tuple[str, ...]
    destroys: tuple[str, ...]


Confirm = Callable[[Created], None]
"""Is asked before anything is written, with what would be done. What it raises ends the verb."""


def create(
    main: str,
    spare: str,
    *,
    name: str | None = None,
    spare_start: int = 0,
    spare_sectors: Size = None,
    errors: ErrorPolicy | None = None,
    remap_rate: int | None = None,
    wipe: bool = False,
    force: bool = False,
    dry_run: bool = False,
    confirm: Confirm | None = None,
    progress: Telling | None = None,
    lock_timeout: float = 20.0,
) -> Created:
    """Make a set of two blank devices and start it.

    spare_start, spare_sectors: where the area is on the spare, in sectors of 512 bytes; "all": as
    much of it as can become slots, None: as much as 1,048,576 slots take. errors, remap_rate: what
    the set records, see docs/interface.md; None: nothing. wipe: overwrite what is not recognised as
    anything; force: destroy file systems, partition tables and old sets. Nothing overrides "in
    use". dry_run: check everything and change nothing. lock_timeout: seconds.

    >>> made = dmremap.create("/dev/sda", "/dev/sdb", name="backup")
    >>> made.device
    '/dev/mapper/backup'

    Errors: NotFound, Busy or Refused for devices that are not there, in use or not blank;
    PermissionDenied but for root; KernelError where the module cannot be loaded or refuses the set.
    Whatever is raised, what was written has been taken back.
    """
    request = Request(
        main=main,
        spare=spare,
        name=name,
        spare_start=spare_start,
        spare_sectors=spare_sectors,
        errors=errors,
        remap_rate=remap_rate,
        adopt=False,
        wipe=wipe,
        force=force,
    )
    return _make(request, dry_run, confirm, progress, lock_timeout)


def adopt(
    main: str,
    spare: str,
    *,
    name: str | None = None,
    spare_start: int = 0,
    spare_sectors: Size = None,
    errors: ErrorPolicy | None = None,
    remap_rate: int | None = None,
    wipe: bool = False,
    force: bool = False,
    dry_run: bool = False,
    confirm: Confirm | None = None,
    progress: Telling | None = None,
    lock_timeout: float = 20.0,
) -> Created:
    """Put a disk that holds data under a set, in place; only the spare has to be blank.

    Nothing is written to main; the set's device shows it 1:1. A udev rule keeps the links in
    /dev/disk/by-uuid away from the bare disk. Arguments and errors are those of `create`; wipe and
    force are about the spare.

    >>> dmremap.adopt("/dev/sda", "/dev/sdb", name="backup", dry_run=True).kind
    'adopted'
    """
    request = Request(
        main=main,
        spare=spare,
        name=name,
        spare_start=spare_start,
        spare_sectors=spare_sectors,
        errors=errors,
        remap_rate=remap_rate,
        adopt=True,
        wipe=wipe,
        force=force,
    )
    return _make(request, dry_run, confirm, progress, lock_timeout)


def _make(
    request: Request,
    dry_run: bool,
    confirm: Confirm | None,
    progress: Telling | None,
    lock_timeout: float,
) -> Created:
    """Plan, ask, carry out."""
    need_root("create a set")
    if not dry_run:
        leftover.take_back_alone()
    plan = sets.plan(request, dry_run=dry_run, progress=step(progress, "checking the spare"))
    if dry_run:
        return _answer(plan, plan.warnings, dry_run=True)
    if confirm:
        confirm(_answer(plan, plan.warnings, dry_run=True))
    # Reading takes long and people take longer: others may work meanwhile, and what they change
    # is seen when everything is checked again.
    with locked(lock_timeout):
        started = sets.carry_out(plan, progress=step(progress, "writing metadata"))
    return _answer(plan, started.warnings, dry_run=False)


def _answer(plan: Plan, warnings: tuple[str, ...], *, dry_run: bool) -> Created:
    sb = plan.superblock
    return Created(
        dry_run=dry_run,
        name=sb.name,
        uuid=sb.uuid,
        device=dm.device_path(sb.name),
        kind="tagged" if sb.tagged else "adopted",
        main=plan.main.path,
        spare=plan.spare.path,
        spare_start_sectors=plan.area.start,
        spare_sectors=plan.area.sectors,
        data_sectors=sb.data_sectors,
        unit_bytes=sb.unit,
        slots=sb.slots,
        memory_bytes=plan.cost.memory,
        reads_bytes=plan.cost.reads,
        table=plan.table.line,
        rule=str(plan.rule.path) if plan.rule else None,
        steps=plan.steps,
        destroys=tuple(finding.message for finding in plan.destroys),
        warnings=warnings,
    )
