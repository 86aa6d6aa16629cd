# SPDX-License-Identifier: GPL-2.0-only
"""The udev rule that an adopted disk needs.

An adopted disk looks like what is on it: its file system would get its /dev/disk/by-uuid link, at
every uevent of the raw disk anew, and be mounted past the set. The rule takes the blkid links
from the raw disk, keeps by-id and by-path, and tells systemd that it is not ready. It has to run
before 60-persistent-storage.rules, which is also why it matches on sysfs attributes: udev's own
ID_SERIAL is not known yet.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

from dmremap.errors import Failure
from dmremap.host import durable
from dmremap.host.blockdev import SYSFS, DeviceFacts, disk_dir, node, sysfs_dir
from dmremap.host.run import run

RULES: Final = Path("/etc/udev/rules.d")
CONTROL: Final = Path("/run/udev/control")

# Where a disk keeps something that no other disk has, the best first.
_ATTRIBUTES: Final = ("wwid", "device/wwid", "serial", "device/serial")


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule file, and the device whose links it changes."""

    path: Path
    text: str
    device: str

    def install(self) -> None:
        """Write the file and let udev look at the device again."""
        try:
            durable.replace(self.path, self.text)
        except OSError as err:
            raise Failure(
                "DMR-E103",
                f"cannot write {self.path}: {err.strerror}",
                hint="An adopted disk needs this rule: make room, or make the directory writable.",
            ) from None
        self._apply()

    def remove(self) -> None:
        """Remove the file and let udev look at the device again."""
        self.path.unlink(missing_ok=True)
        self._apply()

    def _apply(self) -> None:
        if not CONTROL.exists():
            return
        run(["udevadm", "control", "--reload"])
        run(["udevadm", "trigger", "--settle", "--action=change", self.device], check=False)


def path_of(uuid: UUID | str) -> Path:
    """Return where the rule of a set is."""
    return RULES / f"59-dmremap-{uuid}.rules"


def make(uuid: UUID, name: str, main: DeviceFacts, sysfs: Path = SYSFS) -> Rule | None:
    """Return the rule for a main device, None if it has nothing that names it."""
    directory = sysfs_dir(main.devno, sysfs) if main.devno else None
    if directory is None:
        return None
    disk = disk_dir(directory)
    for attribute in _ATTRIBUTES:
        try:
            value = (disk / attribute).read_text(errors="strict").rstrip("\n")
        except (OSError, ValueError):
            continue
        if value.strip() and value.isprintable():
            offset = main.offset if directory != disk else None
            text = render(uuid, name, os.path.basename(attribute), value, main.sectors, offset)
            return Rule(path_of(uuid), text, node(directory))
    return None


def _pattern(value: str) -> str:
    """Quote a value for udev's match: blanks at the end are ignored there, globs are not."""
    out = value.rstrip()
    for char in "\\*?[]|":
        out = out.replace(char, "?")
    return out.replace('"', "?")


def render(
    uuid: UUID | str, name: str, attribute: str, value: str, sectors: int, offset: int | None
) -> str:
    """Return the text of a rule. `offset` is a partition's start, None for a whole disk.

    ATTRS looks at the device and its parents, so of a whole disk the partitions match too.
    """
    match: Sequence[str] = (
        'SUBSYSTEM=="block"',
        'KERNEL!="dm-*"',
        f'ATTRS{{{attribute}}}=="{_pattern(value)}"',
    )
    if offset is not None:
        match = (*match, f'ATTR{{start}}=="{offset}"', f'ATTR{{size}}=="{sectors}"')
    label = f"dmremap_{str(uuid).replace('-', '_')}_end"
    lines = [
        f"# Adopted by dm-remap: set {name!r}, {uuid}.",
        "# Keeps the raw disk's file system from being mounted past the set. Remove this file",
        "# only when the disk is to be used without dm-remap, then run",
        "# 'udevadm control --reload' and 'udevadm trigger'.",
        f'ACTION=="remove", GOTO="{label}"',
        ", ".join(match)
        + ', ENV{UDEV_DISABLE_PERSISTENT_STORAGE_BLKID_FLAG}="1"'
        + ', ENV{ID_FS_TYPE}="dm_remap_member", ENV{SYSTEMD_READY}="0"',
        f'LABEL="{label}"',
    ]
    return "\n".join(lines) + "\n"
