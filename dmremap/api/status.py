# SPDX-License-Identifier: GPL-2.0-only
"""How running sets are."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from dmremap.api.answer import MAYBE, Answer
from dmremap.dm.lines import RemapTable, Status
from dmremap.errors import NotFound
from dmremap.health import Reason, State, judge
from dmremap.host import blockdev
from dmremap.sets import live
from dmremap.sets.live import Running


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The table line of a target. start, sectors: of the set's device.

    main, spare: paths.  errors, remap_rate: a word of the line; None: there is none, see the
    status.  The rest is as in the line.
    """

    start: int
    sectors: int
    main: str
    spare: str
    spare_start_sectors: int
    spare_sectors: int
    main_start_sectors: int
    errors: str | None
    remap_rate: int | None
    accept_stale: bool

    @classmethod
    def of(cls, line: RemapTable) -> "Table":
        """Take over a table line, with paths for the numbers of devices."""
        return cls(
            start=line.start,
            sectors=line.length,
            main=blockdev.table_path(line.main),
            spare=blockdev.table_path(line.spare),
            spare_start_sectors=line.spare_start,
            spare_sectors=line.spare_len,
            main_start_sectors=line.main_start,
            errors=line.errors,
            remap_rate=line.remap_rate,
            accept_stale=line.accept_stale,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A `remap` target of a running set; a set that dmremap made has one.

    status: what the kernel says of it, None where the device has never been resumed.
    """

    table: Table
    status: Status | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SetStatus:
    """How a running set is.

    state: rw, ro, init (resumed never yet), suspended or incomplete (no table is live).
    data_sectors: 512 bytes each.  health, reasons: the verdict, see `judge`.  Where it is not root
    who asks all but name, uuid and device are None, and there are no targets.
    """

    name: str
    uuid: str | None
    device: str
    state: str | None = field(default=None, metadata=MAYBE)
    readonly: bool | None = field(default=None, metadata=MAYBE)
    open_count: int | None = field(default=None, metadata=MAYBE)
    data_sectors: int | None = field(default=None, metadata=MAYBE)
    health: State | None = field(default=None, metadata=MAYBE)
    reasons: tuple[Reason, ...] | None = field(default=None, metadata=MAYBE)
    targets: tuple[Target, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Statuses(Answer):
    """How the running sets are that were asked for."""

    sets: tuple[SetStatus, ...]


def status(*names: str) -> Statuses:
    """Ask the kernel how running sets are: those of these names or uuids, or all.

    Reads neither main nor spare.

    >>> for running in dmremap.status().sets:
    ...     print(running.name, running.health.name, running.targets[0].status.mapped)
    backup OK 0

    Errors: NotFound where a set that is named does not run.
    """
    if os.geteuid() != 0:
        return _without_root(names)
    return Statuses(sets=tuple(map(_of, live.find(names))))


def _without_root(names: Sequence[str]) -> Statuses:
    seen = live.names_in_sysfs()
    for name in names:
        if not any(name in known[:2] for known in seen):
            raise NotFound("DMR-E303", f"no set {name!r} is running")
    return Statuses(
        sets=tuple(
            SetStatus(name=name, uuid=uuid, device=f"/dev/{kernel}")
            for name, uuid, kernel in seen
            if not names or name in names or uuid in names
        ),
        warnings=("some fields need root",),
    )


def _of(running: Running) -> SetStatus:
    verdict = judge(running)
    return SetStatus(
        name=running.name,
        uuid=running.uuid,
        device=running.path,
        state=_state(running),
        readonly=running.device.read_only,
        open_count=running.device.open_count,
        data_sectors=sum(target.length for target in running.tables),
        health=verdict.state,
        reasons=verdict.reasons,
        targets=tuple(
            Target(table=Table.of(line), status=told)
            for line, told in zip_longest(running.tables, running.status)
            if line
        ),
    )


def _state(running: Running) -> str:
    if not running.device.live_table:
        return "incomplete"
    if running.device.suspended:
        return "suspended"
    modes = {told.mode for told in running.status}
    return "ro" if "ro" in modes else "rw" if modes == {"rw"} else "init"
