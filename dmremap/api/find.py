# SPDX-License-Identifier: GPL-2.0-only
"""Which sets there are."""

import os
from collections.abc import Collection
from dataclasses import dataclass, field

from dmremap.api.answer import MAYBE, Answer
from dmremap.api.metadata import Finding, findings
from dmremap.dm.lines import LEGS
from dmremap.host import blockdev
from dmremap.ondisk import Superblock
from dmremap.ondisk import findings as codes
from dmremap.sets import discover, live
from dmremap.sets.discover import Found
from dmremap.sets.live import Running


@dataclass(frozen=True, slots=True, kw_only=True)
class Set:
    """A set that runs or was found on disk.

    state: running, stopped, incomplete (it cannot be started as it is, or its device never was) or
    superseded (it has gone on elsewhere).  kind: tagged, adopted, or None: its superblock was not
    looked at.  device: the path of its device if it runs.  main, spare: paths; None where main is
    missing or ambiguous.  data_sectors: what its device shows, in sectors of 512 bytes.  problems:
    sentences.  findings: those of them that have a code.  The last four are None where it is not
    root who asks.
    """

    name: str
    uuid: str | None
    state: str
    kind: str | None = None
    device: str | None
    main: str | None = None
    spare: str | None = field(default=None, metadata=MAYBE)
    data_sectors: int | None = field(default=None, metadata=MAYBE)
    problems: tuple[str, ...] | None = field(default=None, metadata=MAYBE)
    findings: tuple[Finding, ...] | None = field(default=None, metadata=MAYBE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sets(Answer):
    """The sets that there are: those that run, then those on disk that do not."""

    sets: tuple[Set, ...]


def find(*, running_only: bool = False) -> Sets:
    """Find sets: those that run and, unless `running_only`, those on all block devices.

    That reads the first MiB of every block device as far as it needs to, which only root can do;
    anybody else gets the names of those that run. A device that cannot be read is a warning.

    >>> for found in dmremap.find().sets:
    ...     print(found.name, found.state)
    backup running

    Errors: KernelError where device-mapper is not there, Failure where it answers something that
    is not understood.
    """
    if os.geteuid() != 0:
        names = live.names_in_sysfs()
        return Sets(
            sets=tuple(
                Set(name=name, uuid=uuid, state="running", device=f"/dev/{kernel}")
                for name, uuid, kernel in names
            ),
            warnings=("only root sees sets that do not run, and more than their names",),
        )
    warnings: list[str] = []
    up = live.find()
    on_disk = [] if running_only else discover.scan(warnings=warnings)
    kinds = {str(found.superblock.uuid): _kind(found.superblock) for found in on_disk}
    known = {running.uuid for running in up}
    return Sets(
        sets=(
            *(_running(running, kinds) for running in up),
            *(_stopped(found) for found in on_disk if str(found.superblock.uuid) not in known),
        ),
        warnings=tuple(warnings),
    )


def _kind(sb: Superblock) -> str:
    return "tagged" if sb.tagged else "adopted"


def _running(running: Running, kinds: dict[str, str]) -> Set:
    return Set(
        name=running.name,
        uuid=running.uuid,
        state="running" if running.device.live_table else "incomplete",
        kind=kinds.get(running.uuid or ""),
        device=running.path,
        main=blockdev.table_path(running.tables[0].main),
        spare=blockdev.table_path(running.tables[0].spare),
        data_sectors=sum(target.length for target in running.tables),
        problems=tuple(
            f"{leg} is failing"
            for leg in LEGS
            if any(getattr(status, leg) == "failing" for status in running.status)
        ),
        findings=(),
    )


def _stopped(found: Found) -> Set:
    sb = found.superblock
    problems = tuple(_problems(found))
    return Set(
        name=found.name,
        uuid=str(sb.uuid),
        state=_state(sb, problems),
        kind=_kind(sb),
        device=None,
        main=found.mains[0].path if len(found.mains) == 1 else None,
        spare=found.spare.path,
        data_sectors=sb.data_sectors,
        problems=problems,
        findings=findings(
            codes.Finding(refusal.code, refusal.reason, hint=refusal.hint)
            for refusal in found.refusals
        ),
    )


def _problems(found: Found) -> list[str]:
    """Return why a set cannot be started."""
    problems = [refusal.reason for refusal in found.refusals]
    if found.superblock.superseded:
        pass  # nobody needs its main any more
    elif not found.mains:
        problems.append("main is missing")
    elif len(found.mains) > 1:
        problems.append("main is ambiguous")
    return problems


def _state(sb: Superblock, problems: Collection[str]) -> str:
    if sb.superseded:
        return "superseded"
    return "incomplete" if problems else "stopped"
