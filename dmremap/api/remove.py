# SPDX-License-Identifier: GPL-2.0-only
"""Stop running sets."""

import shlex
from dataclasses import dataclass

from dmremap import dm
from dmremap.api.answer import Answer, need_root, partial
from dmremap.errors import DmRemapError, Usage
from dmremap.host import blockdev
from dmremap.host.lock import locked
from dmremap.sets import leftover, live, udevrule
from dmremap.sets import remove as sets
from dmremap.sets.live import Running
from dmremap.sets.naming import DM_UUID_PREFIX


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """A set that was stopped, or would be.

    back: the command that brings it back.  rule: the udev rule that stays, of an adopted set.
    result: stopped, deferred (it goes when its last user closes it), would stop or failed, for the
    reason in `error`.
    """

    name: str
    uuid: str | None
    back: str
    rule: str | None
    result: str
    error: DmRemapError | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal(Answer):
    """The sets that were stopped, or would be, and those that were not."""

    dry_run: bool
    sets: tuple[Removed, ...]


def remove(
    *names: str,
    everything: bool = False,
    deferred: bool = False,
    dry_run: bool = False,
    lock_timeout: float = 20.0,
) -> Removal:
    """Stop running sets: those of these names or uuids, or everything. What is on disk stays.

    deferred: one that is in use goes when its last user closes it. lock_timeout: seconds.

    >>> dmremap.remove("backup").sets[0].back
    'dmremapctl assemble ...'

    Errors: NotFound where a set that is named does not run, Busy where it is in use, Usage,
    PermissionDenied but for root. Of several sets those that can be stopped are, and `error` says
    how many were not.
    """
    if bool(names) == everything:
        raise Usage("DMR-E201", "say which set: a name, a uuid or --all")
    need_root("stop a set")
    done: list[Removed] = []
    failed: list[DmRemapError] = []
    warnings: list[str] = []
    with locked(lock_timeout):
        if not dry_run:
            leftover.take_back()
        chosen = live.find(names)
        for running in chosen:
            error = None
            try:
                if not dry_run:
                    warnings += sets.remove(running, deferred=deferred)
                result = _result(running, deferred=deferred, dry_run=dry_run)
            except DmRemapError as err:
                failed.append(err)
                error, result = err, "failed"
            rule = udevrule.path_of(running.uuid) if running.uuid else None
            done.append(
                Removed(
                    name=running.name,
                    uuid=running.uuid,
                    back=_back(running),
                    rule=str(rule) if rule and rule.exists() else None,
                    result=result,
                    error=error,
                )
            )
    return Removal(
        dry_run=dry_run,
        sets=tuple(done),
        warnings=tuple(warnings),
        error=partial(failed, len(chosen), "stopped"),
    )


def _result(running: Running, *, deferred: bool, dry_run: bool) -> str:
    if dry_run:
        return "would stop"
    return "deferred" if deferred and dm.exists(running.name) else "stopped"


def _back(running: Running) -> str:
    """Return the command that brings a set back, as it can be typed."""
    table = running.tables[0]
    if not running.device.uuid.startswith(DM_UUID_PREFIX):
        # Made with plain dmsetup: its spare may be of one set with no name and no tag.
        return f"dmsetup create {shlex.quote(running.name)} --table {shlex.quote(table.line)}"
    start = table.spare_start
    where = (
        f" --spare {shlex.quote(blockdev.table_path(table.spare))} --spare-start {start}"
        if start
        else ""
    )
    return f"dmremapctl assemble {running.uuid}{where}"
