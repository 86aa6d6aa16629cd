# SPDX-License-Identifier: GPL-2.0-only
"""Stop a set. What is on disk stays."""

import contextlib
import time
from typing import Final
from uuid import UUID

from dmremap import dm
from dmremap.dm.messages import parse_stop
from dmremap.errors import Busy, DmRemapError
from dmremap.host import begun, blockdev, signals
from dmremap.ondisk import TAG_SECTORS
from dmremap.sets import safety, seen
from dmremap.sets.live import Running

_CLOSED_SECONDS: Final = 5.0
"""How long remove() waits for a set to be closed."""
_STOPS: Final = 3
"""How often it tries to stop a set before that is removed without."""


def remove(running: Running, *, deferred: bool = False) -> tuple[str, ...]:
    """Stop a set and return warnings. What is on disk stays."""
    if not deferred:
        directory = blockdev.sysfs_dir((running.device.major, running.device.minor))
        if directory is not None:
            facts = blockdev.facts_of(running.path, directory)
            busy = [
                finding
                for finding in safety.check_usable(facts, write=False)
                if finding.code in ("DMR-E401", "DMR-E402", "DMR-E403")
            ]
            if busy:
                raise Busy("DMR-E405", f"set {running.name!r} is in use: {busy[0].message}")
    warnings: list[str] = []
    try:
        if deferred or not any(_stop_quietly(running, warnings) for _ in range(_STOPS)):
            dm.remove(running.name, deferred=deferred)
        else:
            warnings += _remember_stopped(running)
    except Busy:
        raise Busy("DMR-E405", f"set {running.name!r} is opened by some program") from None
    return (*warnings, *dm.take_warnings())


def _stop_quietly(running: Running, warnings: list[str]) -> bool:
    """Suspend a set that nobody uses, have its last epoch begin, and remove it.

    From then on a copy of its spare that was made before is refused. False: somebody has it open,
    as udev has for a moment. Whoever opens it while it is suspended waits, so that is not for long:
    it is resumed.
    """
    until = time.monotonic() + _CLOSED_SECONDS
    while dm.info(running.name).open_count:
        if time.monotonic() > until:
            raise Busy("DMR-E405", f"set {running.name!r} is opened by some program")
        time.sleep(0.05)
    warnings.clear()
    with signals.held(), _noted(running):
        # Nothing is open, so no file system has to be frozen.
        dm.suspend(running.name, lockfs=False)
        try:
            for table, status in zip(running.tables, running.status, strict=True):
                if status.mode == "rw":
                    # One that is known by its id may have a tag that could not be read.
                    tagged = status.identity == "tag" or (
                        status.identity == "id" and table.main_start >= TAG_SECTORS
                    )
                    warnings += _begin_last_epoch(running.name, table.start, tagged=tagged)
            dm.remove(running.name, retry=False)
        except BaseException as err:
            if not running.device.suspended:
                dm.resume(running.name)
            if isinstance(err, Busy):
                return False
            raise
    return True


def _noted(running: Running) -> contextlib.AbstractContextManager[object]:
    """Note that a set is about to be suspended, unless somebody else has done that."""
    if running.device.suspended:
        return contextlib.nullcontext()
    return begun.noted("suspended", name=running.name, uuid=running.device.uuid)


def _remember_stopped(running: Running) -> tuple[str, ...]:
    """Remember the last epochs of the sets of a device that was stopped."""
    warnings: list[str] = []
    for table, status in zip(running.tables, running.status, strict=True):
        uuid = table.uuid or status.uuid
        if status.mode == "rw" and status.identity != "tag" and uuid:
            spare = blockdev.table_path(table.spare)
            warnings += seen.learn(running.name, spare, table.spare_start, UUID(uuid))
    return tuple(warnings)


def _begin_last_epoch(name: str, start: int, *, tagged: bool) -> tuple[str, ...]:
    """Send `stop` to a target; return what has to be said of that."""
    try:
        said = parse_stop(dm.message(name, start, "stop"))
    except DmRemapError as err:
        why = err.message
    else:
        if said.tag or not tagged:
            return ()
        why = "its main did not take the tag"
    return (f"a copy of {name}'s spare made before now cannot be told from the spare: {why}",)
