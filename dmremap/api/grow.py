# SPDX-License-Identifier: GPL-2.0-only
"""Give a running set more of its spare."""

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from dmremap.api.answer import Answer, Telling, need_root, step
from dmremap.errors import Usage
from dmremap.host.lock import locked
from dmremap.sets import grow as sets
from dmremap.sets import leftover
from dmremap.sets.extent import Size
from dmremap.sets.grow import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Grown(Answer):
    """A set that has grown, or would. Sectors count 512 bytes.

    result: grown or would grow.  device: the path of its device.  memory_bytes: kernel memory for
    all slots.  reads_bytes: what of the spare is read before anything is written.  table: its table
    line then.  steps: what is done, in words.
    """

    dry_run: bool
    result: str
    name: str
    uuid: UUID
    device: str
    spare: str
    spare_start_sectors: int
    spare_sectors_before: int
    spare_sectors: int
    unit_bytes: int
    slots_before: int
    slots: int
    memory_bytes: int
    reads_bytes: int
    segments: int
    table: str
    steps: tuple[str, ...]


def grow(
    name: str,
    *,
    by: int | None = None,
    to: Size = None,
    dry_run: bool = False,
    confirm: Callable[[Grown], None] | None = None,
    progress: Telling | None = None,
    lock_timeout: float = 20.0,
) -> Grown:
    """Give a running set, by name or uuid, more of its spare.

    by, to: sectors of 512 bytes; to="all": as much as can become slots; neither: 1,048,576 slots or
    what is left. confirm: is asked before anything is written, with what would be
    done; what it raises ends the verb. lock_timeout: seconds. The set goes on meanwhile; until the
    last step it is the old one.

    >>> grown = dmremap.grow("backup", by=2048, dry_run=True)
    >>> grown.spare_sectors - grown.spare_sectors_before
    2048

    Errors: NotFound where it does not run, Refused where there is no room or what is to be added is
    not blank, Busy, Usage, PermissionDenied but for root, KernelError.
    """
    if by is not None and to is not None:
        raise Usage("DMR-E201", "--by and --to exclude each other")
    need_root("let a set grow")
    if not dry_run:
        leftover.take_back_alone()
    plan = sets.plan(name, by=by, to=to, progress=step(progress, "checking the spare"))
    if dry_run:
        return _answer(plan, (), dry_run=True)
    if confirm:
        confirm(_answer(plan, (), dry_run=True))
    # As with create: reading takes long and people take longer, so others may work meanwhile.
    with locked(lock_timeout):
        warnings = sets.carry_out(plan, progress=step(progress, "writing tables"))
    return _answer(plan, warnings, dry_run=False)


def _answer(plan: Plan, warnings: tuple[str, ...], *, dry_run: bool) -> Grown:
    before, after = plan.before, plan.after
    return Grown(
        dry_run=dry_run,
        result="would grow" if dry_run else "grown",
        name=plan.name,
        uuid=before.uuid,
        device=plan.path,
        spare=plan.spare.path,
        spare_start_sectors=plan.old.spare_start,
        spare_sectors_before=before.area_sectors,
        spare_sectors=after.area_sectors,
        unit_bytes=after.unit,
        slots_before=before.slots,
        slots=after.slots,
        memory_bytes=plan.cost.memory,
        reads_bytes=plan.cost.reads,
        segments=len(after.segments),
        table=plan.new.line,
        steps=plan.steps,
        warnings=warnings,
    )
