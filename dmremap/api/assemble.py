# SPDX-License-Identifier: GPL-2.0-only
"""Start sets that exist on disk."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from dmremap.api.answer import MAYBE, Answer, need_root, partial
from dmremap.dm.lines import ErrorPolicy
from dmremap.errors import DmRemapError, NotFound, Refused, Usage
from dmremap.host.blockdev import block_devno
from dmremap.host.lock import locked
from dmremap.sets import assemble as sets
from dmremap.sets import discover, leftover, live
from dmremap.sets.discover import Found


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembled:
    """A set that was started, or would be.

    result: started, running (it was already), would start or failed.  device, recorded, table: the
    path of its device, the options that the superblock did not say before, and its table line; None
    where it failed, for the reason in `error`.
    """

    name: str
    uuid: UUID
    device: str | None = field(default=None, metadata=MAYBE)
    result: str
    recorded: tuple[str, ...] | None = field(default=None, metadata=MAYBE)
    table: str | None = field(default=None, metadata=MAYBE)
    error: DmRemapError | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembly(Answer):
    """The sets that were started, or would be, and those that were not."""

    dry_run: bool
    sets: tuple[Assembled, ...]


def assemble(
    *names: str,
    everything: bool = False,
    main: str | None = None,
    spare: str | None = None,
    spare_start: int = 0,
    name: str | None = None,
    errors: ErrorPolicy | None = None,
    remap_rate: int | None = None,
    readonly: bool = False,
    dry_run: bool = False,
    lock_timeout: float = 20.0,
) -> Assembly:
    """Start sets that exist on disk: those of these names or uuids, or on `spare`, or everything.

    spare: look for the superblock on this device only, at spare_start (sectors of 512 bytes). main:
    the main device; it must be the one that the set names. name: call the device so. Both need
    exactly one set. errors, remap_rate: are recorded on the spare first and count from then
    on; with readonly nothing is written, and they count for this start. lock_timeout: seconds.

    >>> dmremap.assemble("backup").sets[0].result
    'started'

    Errors: NotFound where a set or its main is not there, Busy, Refused where it cannot be started
    as it is, Usage, PermissionDenied but for root, KernelError. Of several sets those that can be
    started are, and `error` says how many were not.
    """
    if not names and not everything and spare is None:
        raise Usage("DMR-E201", "say which set: a name, a uuid, --spare DEVICE or --all")
    if names and everything:
        raise Usage("DMR-E201", "--all and names exclude each other")
    if spare_start and spare is None:
        raise Usage("DMR-E201", "--spare-start needs --spare")
    need_root("assemble sets")
    if spare is not None and block_devno(spare) is None:
        raise NotFound("DMR-E302", f"{spare} is not a block device")
    done: list[Assembled] = []
    failed: list[DmRemapError] = []
    warnings: list[str] = []
    with locked(lock_timeout):
        if not dry_run:
            leftover.take_back()
        found = discover.scan([(spare, spare_start)] if spare is not None else [], warnings)
        if spare is not None and not found:
            raise NotFound("DMR-E304", f"{spare} has no superblock at sector {spare_start}")
        chosen = discover.select(found, names) if names else found
        if (main is not None or name is not None) and len(chosen) != 1:
            raise Usage("DMR-E201", "--main and --name need exactly one set")
        up = live.find()
        for candidate in chosen:
            try:
                _refuse_twins(candidate, chosen)
                started, line = sets.assemble(
                    candidate,
                    main=main,
                    name=name,
                    errors=errors,
                    remap_rate=remap_rate,
                    readonly=readonly,
                    dry_run=dry_run,
                    up=up,
                )
            except DmRemapError as err:
                failed.append(err)
                done.append(
                    Assembled(
                        name=candidate.name,
                        uuid=candidate.superblock.uuid,
                        result="failed",
                        error=err,
                    )
                )
                continue
            warnings += started.warnings
            done.append(
                Assembled(
                    name=started.name,
                    uuid=candidate.superblock.uuid,
                    device=started.path,
                    result="running"
                    if started.already
                    else "would start"
                    if dry_run
                    else "started",
                    recorded=started.recorded,
                    table=line.line,
                    error=None,
                )
            )
    return Assembly(
        dry_run=dry_run,
        sets=tuple(done),
        warnings=tuple(warnings),
        error=partial(failed, len(chosen), "started"),
    )


def _refuse_twins(candidate: Found, chosen: Sequence[Found]) -> None:
    """Refuse a set that two devices carry: one of them is a copy."""
    uuid = candidate.superblock.uuid
    twins = [other.spare.path for other in chosen if other.superblock.uuid == uuid]
    if len(twins) > 1:
        raise Refused(
            "DMR-E521", f"set {candidate.name!r} is on several spares: {', '.join(twins)}"
        )
