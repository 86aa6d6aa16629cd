# SPDX-License-Identifier: GPL-2.0-only
"""Is a device the main that a set has recorded? As the kernel judges it."""

import contextlib
from uuid import UUID

from dmremap.errors import DmRemapError
from dmremap.host.blockdev import DeviceFacts
from dmremap.ondisk import SERIAL_MAX, Superblock, Tag, View, opened, something_else


def matches_main(sb: Superblock, facts: DeviceFacts) -> bool:
    """Say whether a device is the main of an adopted set, as far as can be known."""
    if facts.offset != sb.main_offset or contradicts_main(sb, facts):
        return False
    if sb.main_id_type and facts.id_type == sb.main_id_type:
        return True
    return bool(sb.main_serial) and recorded_serial(facts) == sb.main_serial


def contradicts_main(sb: Superblock, facts: DeviceFacts) -> bool:
    """Say whether a device cannot be the main of an adopted set, whoever says that it is."""
    if facts.sectors != sb.main_sectors:
        return True
    if facts.offset != sb.main_offset and (sb.main_id_type or sb.main_offset):
        return True
    if sb.main_id_type and facts.id_type == sb.main_id_type:
        return facts.id != sb.main_id
    serial = recorded_serial(facts)
    return bool(sb.main_serial and serial) and serial != sb.main_serial


def recorded_serial(facts: DeviceFacts) -> str:
    """Return a serial as far as the superblock has room for it."""
    return facts.serial.encode()[:SERIAL_MAX].decode(errors="ignore")


def known_by_id(sb: Superblock, facts: DeviceFacts) -> bool:
    """Say whether a device is the disk that a set has recorded as its main, as its driver says."""
    same = (facts.id_type, facts.id) == (sb.main_id_type, sb.main_id)
    return bool(sb.main_id_type) and same and facts.offset == sb.main_offset


def is_tagless_main(sb: Superblock, facts: DeviceFacts) -> bool:
    """Say whether a load takes a main whose tag cannot be read. check_without_tag() in the kernel.

    What it holds is read only if its id is the right one.
    """
    if facts.sectors < sb.main_sectors or not known_by_id(sb, facts):
        return False
    with contextlib.suppress(DmRemapError), opened(facts.path) as device:
        return something_else(View(device, 0), sb.unit) is None
    return False


def carries(sb: Superblock, tag: Tag | None) -> bool:
    """Say whether a tag, if there is one, is that of a set."""
    return tag is not None and tag.uuid == sb.uuid


def is_content(sb: Superblock, facts: DeviceFacts, tag: Tag) -> bool:
    """Say whether a tag on an adopted main counts as content."""
    return known_by_id(sb, facts) or tag.uuid == (sb.content_tag or UUID(int=0))
