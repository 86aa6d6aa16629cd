# SPDX-License-Identifier: GPL-2.0-only
"""What a set may be called, and what its device is called."""

from typing import Final
from uuid import UUID

from dmremap import dm
from dmremap.errors import Busy, Usage

DM_UUID_PREFIX: Final = "REMAP-"
# A device-mapper name is 127 bytes at most, after mangling.
_DM_NAME_MAX: Final = 127


def dm_uuid(uuid: UUID | str) -> str:
    """Return the device-mapper uuid of a set."""
    return f"{DM_UUID_PREFIX}{uuid}"


def check_name(name: str) -> str:
    """Return a name that is fit for a set and for a device, or raise."""
    # Who only asks what runs does without the format, which takes long to import.
    from dmremap.ondisk import NAME_MAX

    raw = name.encode(errors="surrogateescape")
    # A backslash would be taken for the start of an escaped character by udev and libdevmapper.
    # What is not UTF-8 is not printable either.
    if not raw or len(raw) > NAME_MAX or not name.isprintable() or set("/\\") & set(name):
        raise Usage("DMR-E203", f"{name!r} cannot be a set's name")
    if name in (".", "..", "control"):
        raise Usage("DMR-E203", f"{name!r} is a reserved name")
    if len(dm.device_path(name).encode()) - len("/dev/mapper/") > _DM_NAME_MAX:
        raise Usage("DMR-E203", f"{name!r} is too long once its special characters are escaped")
    return name


def need_free(name: str) -> None:
    """Refuse a name that a device has already."""
    if dm.exists(name):
        raise Busy("DMR-E406", f"a device-mapper device {name!r} exists already")


def find_free(name: str) -> str:
    """Return the name, or one made of it that no device has."""
    candidate, number = name, 0
    while dm.exists(candidate):
        number += 1
        candidate = f"{name}_{number}"
    return candidate
