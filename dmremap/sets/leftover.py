# SPDX-License-Identifier: GPL-2.0-only
"""Finish or take back what commands had begun that were killed.

Everything is looked at once more, as much may have happened since: what is as it should be stays.
"""

import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final
from uuid import UUID

from dmremap import dm
from dmremap.errors import Busy, DmRemapError, Failure
from dmremap.host import begun, blockdev
from dmremap.host.begun import Note
from dmremap.host.lock import locked
from dmremap.ondisk import SUPER_HOMES, SetState, View, look, opened
from dmremap.sets import naming, udevrule

log = logging.getLogger(__name__)


def take_back_alone() -> None:
    """Do it with the lock, unless somebody else has that, who has done it."""
    with contextlib.suppress(Busy), locked(0):
        take_back()


def take_back() -> None:
    """Do it for all notes of processes that are gone. The caller holds the lock.

    What cannot be taken back now keeps its note, and the next one tries. That is no reason not to
    do what one is asked for.
    """
    with begun.left() as notes:
        for note in notes:
            log.debug("a command that is gone had begun: %s %s", note.kind, dict(note.about))
            try:
                _HOW[note.kind](note)
            except (DmRemapError, OSError, KeyError, ValueError) as err:
                log.debug("cannot take it back: %s", err)
            else:
                note.end()


def _device(note: Note) -> None:
    """Remove a device that was made and has no table, or one with which it does not start."""
    name = str(note.about["name"])
    device = _noted_device(note)
    if device is None:
        return
    if device.live_table:
        try:
            _suspended(note)
        except DmRemapError:
            dm.remove(name)
    else:
        dm.remove(name)


def _noted_device(note: Note) -> dm.Device | None:
    """Return the device that a note is of, None if it is gone or is another one."""
    device = dm.exists(str(note.about["name"]))
    return device if device and device.uuid and device.uuid == note.about["uuid"] else None


def _suspended(note: Note) -> None:
    """Let a device go on that was stopped for a moment."""
    device = _noted_device(note)
    if device and device.suspended and device.live_table:
        dm.resume(str(note.about["name"]))


def _cookie(note: Note) -> None:
    """End a semaphore that nobody waits for."""
    dm.forget_cookie(int(str(note.about["cookie"])), note.when)


def _file(note: Note) -> None:
    """Remove a file that was to become another one."""
    Path(str(note.about["path"])).unlink(missing_ok=True)


def _rule(note: Note) -> None:
    """Remove the udev rule of a set that was not made: there is none on its spare.

    A set that runs has been made. Another disk, or one that does not answer, says nothing of it.
    """
    about = note.about
    uuid = UUID(str(about["uuid"]))
    if dm.exists(uuid=naming.dm_uuid(uuid)):
        return
    path = str(about["spare"])
    spare = blockdev.facts(path, look_inside=False)
    if spare.diskseq != about["diskseq"] or blockdev.suspended(spare):
        raise Failure("DMR-E103", f"{path} is not there, which may have the set")
    with opened(path) as device:
        view = View(device, int(str(about["start"])))
        sb = look(view, uuid).superblock
        if sb is None and any(view.block(home) is None for home in SUPER_HOMES):
            raise Failure("DMR-E103", f"cannot read {device.path}, which may have the set")
    if sb is None or sb.state is not SetState.READY:
        udevrule.Rule(udevrule.path_of(uuid), "", str(about["main"])).remove()


_HOW: Final[dict[str, Callable[[Note], None]]] = {
    "device": _device,
    "suspended": _suspended,
    "cookie": _cookie,
    "file": _file,
    "rule": _rule,
}
