# SPDX-License-Identifier: GPL-2.0-only
"""Write to the members of a set that does not run what its next load needs."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from uuid import UUID

from dmremap.api.answer import BESIDE, Answer, Telling, step
from dmremap.api.metadata import (
    BlockWrite,
    Compared,
    Epoch,
    Finding,
    alone,
    block_writes,
    findings,
    place_of,
    untaken,
)
from dmremap.ondisk.findings import Severity
from dmremap.ondisk.load import Load
from dmremap.sets import accept as accepting
from dmremap.sets import offline, tagging
from dmremap.sets.accept import Acceptance
from dmremap.sets.tagging import OfMain

_WRITE = "write block devices"


@dataclass(frozen=True, slots=True, kw_only=True)
class Repaired(Answer):
    """What was written, or would be.

    file: device is an image in a file.  result: clean (there is nothing to write), would repair,
    repaired, would accept or accepted.  findings: before it.  writes: to the spare, or of `retag`
    to main.  left: what a check still finds afterwards, if it is more than information.
    """

    device: str
    file: bool
    start_sectors: int
    uuid: UUID | None
    name: str | None
    dry_run: bool
    result: str
    findings: tuple[Finding, ...]
    writes: tuple[BlockWrite, ...]
    left: tuple[Finding, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted(Repaired):
    """A spare that was accepted, or would be.

    compared: what main's tag, or this host, said of it before.  epoch: the set's then.
    main_writes: to main's tag.  main: its path, None where it was adopted and is not touched.
    accepts: whether something is against the spare; else it is a repair.
    """

    compared: Compared
    epoch: Epoch | None
    main_writes: tuple[BlockWrite, ...]
    main: str | None = field(metadata=BESIDE)
    accepts: bool = field(metadata=BESIDE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tagged(Repaired):
    """A main whose tag was written or called content, or would be.

    main: its path.  known_by: what says that it is the set's, besides its size: id, serial number
    or None.  content_of: the set that the tag called content names; None if there is none.
    """

    main: str
    known_by: str | None
    content_of: str | None = field(default=None, metadata=BESIDE)


def repair(
    device: str,
    *,
    start: int = 0,
    uuid: UUID | None = None,
    main: str | None = None,
    dry_run: bool = False,
    confirm: Callable[[Repaired], None] | None = None,
    progress: Telling | None = None,
    lock_timeout: float = 20.0,
) -> Repaired:
    """Write to a spare, or to a file with its image, what starting its set would write.

    start: sectors of 512 bytes, where the area begins. uuid: only this set is meant. main: the
    set's main, see `check`. confirm: is asked before anything is written, with what would be done;
    what it raises ends the verb. lock_timeout: seconds.

    >>> dmremap.repair("spare.img").result
    'clean'

    Errors: NotFound, Busy where the device is in use, Refused where a load would refuse it,
    PermissionDenied for a block device but for root.
    """
    place = place_of(device, start, _WRITE)
    plan = offline.plan_repair(place, uuid, step(progress, "checking"), main)
    before = plan.before
    answer = Repaired(
        device=place.path,
        file=place.is_file,
        start_sectors=start,
        uuid=before.uuid,
        name=before.superblock.name if before.superblock else None,
        dry_run=dry_run,
        result="would repair" if plan.writes else "clean",
        findings=findings(before.findings),
        writes=block_writes(plan.writes, start),
        left=(),
    )
    if not plan.writes or dry_run:
        return answer
    if confirm:
        confirm(answer)
    with alone(place, lock_timeout):
        after, done = offline.repair(plan)
    return replace(answer, result="repaired", writes=block_writes(done, start), left=_left(after))


def _left(after: Load) -> tuple[Finding, ...]:
    # A stand-in that cannot be erased stays as it is; everything outranks it now.
    return findings(found for found in after.findings if found.severity > Severity.INFO)


def accept_older_spare(
    device: str,
    *,
    start: int = 0,
    uuid: UUID | None = None,
    main: str | None = None,
    dry_run: bool = False,
    confirm: Callable[[Accepted], None] | None = None,
    progress: Telling | None = None,
    lock_timeout: float = 20.0,
) -> Accepted:
    """Take a spare although main was used with a later state of it, or repair one that is not old.

    What was mapped since the copy was made reads as main has it, and nothing says of a block that
    it is old. The set begins an epoch with this spare, so that any other copy is refused from then
    on. Arguments are those of `repair`; main, unless it was adopted, must be there.

    >>> dmremap.accept_older_spare("/dev/sdb", dry_run=True).compared.verdict
    'older_spare'

    Errors: those of `repair`, and NotFound where main is not there.
    """
    place = place_of(device, start, _WRITE)
    plan = accepting.plan(place, uuid, step(progress, "checking"), main)
    would = "would accept" if plan.epoch else "would repair"
    answer = Accepted(
        device=place.path,
        file=place.is_file,
        start_sectors=start,
        uuid=plan.sb.uuid,
        name=plan.sb.name,
        dry_run=dry_run,
        result=would if plan.writes else "clean",
        findings=findings(plan.before.findings),
        writes=block_writes(plan.writes, start),
        left=(),
        compared=Compared.of(plan.compared),
        epoch=Epoch.of(plan.epoch.epoch if plan.epoch else plan.sb.epoch),
        main_writes=block_writes(plan.main_writes, 0),
        main=plan.main.path if plan.main else None,
        accepts=plan.epoch is not None,
    )
    if not plan.writes or dry_run:
        return answer
    if confirm:
        confirm(answer)
    return _accept(plan, answer, lock_timeout)


def _accept(plan: Acceptance, answer: Accepted, lock_timeout: float) -> Accepted:
    with alone(plan.place, lock_timeout):
        after, done, tags, warnings = accepting.carry_out(plan)
    return replace(
        answer,
        result="accepted" if plan.epoch else "repaired",
        writes=block_writes(done, plan.place.start),
        left=_left(after),
        main_writes=block_writes(tags, 0),
        warnings=(*untaken(plan.main, len(plan.main_writes), len(tags)), *warnings),
    )


def retag(
    device: str,
    main: str,
    *,
    start: int = 0,
    uuid: UUID | None = None,
    dry_run: bool = False,
    confirm: Callable[[Tagged], None] | None = None,
    lock_timeout: float = 20.0,
) -> Tagged:
    """Write the tag of the set on the spare `device` to main, which has lost it.

    Whether it is the set's main, with the set's data, only a person can know: on another disk what
    is read from the set is wrong. The other arguments are those of `repair`.

    >>> dmremap.retag("/dev/sdb", "/dev/sda", dry_run=True).result
    'would repair'

    Errors: those of `repair`, and Refused where main's first MiB holds anything but zeroes.
    """
    spare = place_of(device, start, _WRITE)
    plan = tagging.plan_retag(spare, place_of(main, 0, _WRITE), uuid)
    writes = block_writes(plan.writes, 0)
    answer = _tagged(plan, writes, dry_run=dry_run)
    if not writes or dry_run:
        return answer
    if confirm:
        confirm(answer)
    with alone(spare, lock_timeout):
        done = tagging.retag(plan)
    return replace(answer, result="repaired", writes=block_writes(done, 0))


def tag_is_content(
    device: str,
    main: str,
    *,
    start: int = 0,
    uuid: UUID | None = None,
    dry_run: bool = False,
    confirm: Callable[[Tagged], None] | None = None,
    lock_timeout: float = 20.0,
) -> Tagged:
    """Record on the spare `device` that the tag in main's data is content of the data.

    It is for an adopted main in whose data somebody has made a set. Main is only read. If it is
    that other set's main after all, what is written to this set destroys the other's data. The
    other arguments are those of `repair`.

    >>> dmremap.tag_is_content("/dev/sdb", "/dev/sda", dry_run=True).result
    'would repair'

    Errors: those of `repair`, and NotFound where main has no tag in its data.
    """
    spare = place_of(device, start, _WRITE)
    plan = tagging.plan_content(spare, place_of(main, 0, _WRITE), uuid)
    answer = _tagged(plan, block_writes(plan.writes, start), dry_run=dry_run)
    if not plan.writes or dry_run:
        return answer
    if confirm:
        confirm(answer)
    with alone(spare, lock_timeout):
        _, done = tagging.record_content(plan)
    return replace(answer, result="repaired", writes=block_writes(done, start))


def _tagged(plan: OfMain, writes: tuple[BlockWrite, ...], *, dry_run: bool) -> Tagged:
    return Tagged(
        device=plan.spare.path,
        file=plan.spare.is_file,
        start_sectors=plan.spare.start,
        uuid=plan.superblock.uuid,
        name=plan.superblock.name,
        dry_run=dry_run,
        result="would repair" if writes else "clean",
        findings=(),
        writes=writes,
        left=(),
        main=plan.main.path,
        known_by=plan.known or None,
        content_of=plan.tag.set_name if plan.tag else None,
    )
