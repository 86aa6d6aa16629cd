# SPDX-License-Identifier: GPL-2.0-only
"""Sets that run, as device-mapper shows them."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dmremap import dm
from dmremap.dm.lines import TARGET, RemapTable, Status, parse_status, parse_table
from dmremap.dm.words import LineError
from dmremap.errors import Busy, NotFound, Usage
from dmremap.host import blockdev
from dmremap.host.blockdev import DeviceFacts
from dmremap.sets.naming import DM_UUID_PREFIX


@dataclass(frozen=True, slots=True)
class Running:
    """A device that has `remap` targets."""

    device: dm.Device
    uuid: str | None
    tables: tuple[RemapTable, ...]
    status: tuple[Status, ...]

    @property
    def name(self) -> str:
        """The name of the device."""
        return self.device.name

    @property
    def path(self) -> str:
        """The node of the device."""
        return dm.device_path(self.device.name)


def is_set(directory: Path) -> bool:
    """Say whether a block device, by its directory in sysfs, is a set's own."""
    uuid = directory / "dm" / "uuid"
    with contextlib.suppress(OSError):
        return uuid.read_text(encoding="ascii", errors="replace").startswith(DM_UUID_PREFIX)
    return False


def tables_of(name: str, *, inactive: bool = False) -> tuple[RemapTable, ...]:
    """Return the lines of a device's live table, or of its inactive one, that are ours."""
    return tuple(
        parse_table(line.start, line.length, line.params)
        for line in dm.table(name, inactive=inactive)
        if line.type == TARGET
    )


def find(names: Sequence[str] = ()) -> list[Running]:
    """Return the devices with `remap` targets, of these names or uuids, else all."""
    out: list[Running] = []
    for device in dm.list_devices():
        with contextlib.suppress(NotFound):
            running = look_at(device)
            if running is not None:
                out.append(running)
    if not names:
        return sorted(out, key=lambda running: running.name)
    chosen: list[Running] = []
    for name in names:
        plain = name.removeprefix("/dev/mapper/")
        hits = [
            running for running in out if plain in (running.name, running.uuid, running.device.uuid)
        ]
        if not hits:
            raise NotFound("DMR-E303", f"no set {name!r} is running")
        chosen += [running for running in hits if running not in chosen]
    return chosen


def find_one(name: str, *, stopped: str) -> Running:
    """Return the one running set of a name or uuid. stopped: what to do if it does not run."""
    try:
        found = find([name])
    except NotFound as err:
        raise NotFound(err.code, err.message, hint=stopped) from None
    if len(found) > 1:
        raise Usage(
            "DMR-E201",
            f"{name!r} is the name or uuid of several sets",
            hint="Name the one that is meant by its uuid or by its device.",
        )
    return found[0]


def spare_facts(table: RemapTable) -> DeviceFacts:
    """Return what is known of a running set's spare, without a read: one that hangs is refused."""
    spare = blockdev.facts(blockdev.table_path(table.spare), look_inside=False)
    if blockdev.suspended(spare):
        raise Busy(
            "DMR-E409",
            f"the spare {spare.path} is suspended",
            hint="Resume it, or whatever it consists of, with 'dmsetup resume'.",
        )
    return spare


def look_at(device: dm.Device) -> Running | None:
    """Return what a device runs, None if none of its targets is ours."""
    tables = tables_of(device.name)
    if not tables:
        # A table that was loaded and never resumed: half-made, but ours and in the way.
        tables = tables_of(device.name, inactive=True)
    if not tables:
        return None
    status: list[Status] = []
    with contextlib.suppress(LineError):
        status = [
            parse_status(line.start, line.length, line.params)
            for line in dm.status(device.name)
            if line.type == TARGET
        ]
    uuid = next((table.uuid for table in tables if table.uuid), None)
    if uuid is None:
        uuid = next((target.uuid for target in status if target.uuid), None)
    return Running(device, uuid, tables, tuple(status))


def names_in_sysfs(sysfs: Path = blockdev.SYSFS) -> list[tuple[str, str, str]]:
    """Return name, uuid and kernel name of running sets as anybody may read them."""
    out: list[tuple[str, str, str]] = []
    for directory in blockdev.all_devices(sysfs):
        # One that goes meanwhile is not running.
        with contextlib.suppress(OSError):
            uuid = (directory / "dm" / "uuid").read_text(errors="replace").strip()
            if uuid.startswith(DM_UUID_PREFIX):
                name = (directory / "dm" / "name").read_text(errors="surrogateescape").strip()
                plain = blockdev.unmangle(name)
                out.append((plain, uuid.removeprefix(DM_UUID_PREFIX), directory.name))
    return out
