# SPDX-License-Identifier: GPL-2.0-only
"""Finish or take back what commands had begun that were killed.

Everything is looked at once more, as much may have happened since: what is as it should be stays.
"""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final
from uuid import UUID

from dmremap import dm
from dmremap.errors import DmRemapError, Failure
from dmremap.host import begun
from dmremap.ondisk import SUPER_HOMES, SetState, View, look, opened
from dmremap.sets import udevrule

log = logging.getLogger(__name__)

About = Mapping[str, object]


def take_back() -> None:
    """Do it for all notes of processes that are gone.

    What cannot be taken back now keeps its note, and the next one tries. That is no reason not to
    do what one is asked for.
    """
    with begun.left() as notes:
        for note in notes:
            log.debug("a command that is gone had begun: %s %s", note.kind, dict(note.about))
            try:
                _HOW[note.kind](note.about)
            except (DmRemapError, OSError, KeyError, ValueError) as err:
                log.debug("cannot take it back: %s", err)
            else:
                note.end()


def _device(about: About) -> None:
    """Remove a device that was made and has no table, or one with which it does not start."""
    name = str(about["name"])
    device = dm.exists(name)
    if device is None or not device.uuid or device.uuid != about["uuid"]:
        return
    if device.live_table:
        try:
            _suspended(about)
        except DmRemapError:
            dm.remove(name)
    else:
        dm.remove(name)


def _suspended(about: About) -> None:
    """Let a device go on that was stopped for a moment."""
    name = str(about["name"])
    device = dm.exists(name)
    if device and device.uuid == about["uuid"] and device.suspended and device.live_table:
        dm.resume(name)


def _cookie(about: About) -> None:
    """End a semaphore that nobody waits for."""
    dm.forget_cookie(int(str(about["cookie"])))


def _file(about: About) -> None:
    """Remove a file that was to become another one."""
    Path(str(about["path"])).unlink(missing_ok=True)


def _rule(about: About) -> None:
    """Remove the udev rule of a set that was not made: there is none on its spare."""
    uuid = UUID(str(about["uuid"]))
    with opened(str(about["spare"])) as device:
        view = View(device, int(str(about["start"])))
        sb = look(view, uuid).superblock
        if sb is None and any(view.block(home) is None for home in SUPER_HOMES):
            raise Failure("DMR-E103", f"cannot read {device.path}, which may have the set")
    if sb is None or sb.state is not SetState.READY:
        udevrule.Rule(udevrule.path_of(uuid), "", str(about["main"])).remove()


_HOW: Final[dict[str, Callable[[About], None]]] = {
    "device": _device,
    "suspended": _suspended,
    "cookie": _cookie,
    "file": _file,
    "rule": _rule,
}
