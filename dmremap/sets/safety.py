# SPDX-License-Identifier: GPL-2.0-only
"""Every reason to refuse, in one place.

Pure: facts in, findings out. A finding is a code, a sentence and a next step, and says which
option, if any, overrides it. Nothing overrides "in use".
"""

import enum
import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from dmremap.errors import DmRemapError, error
from dmremap.host.blockdev import DeviceFacts
from dmremap.ondisk import BLOCK_SECTORS, MIN_AREA_BLOCKS, SUPER_HOMES, TAG_SECTORS, Load, Tag


class Override(enum.Enum):
    """What the user has to say to go on all the same."""

    NEVER = ""
    WIPE = "--wipe"
    FORCE = "--force"


@dataclass(frozen=True, slots=True)
class Finding:
    """One reason not to do it."""

    code: str
    message: str
    hint: str | None = None
    override: Override = Override.NEVER


@dataclass(frozen=True, slots=True)
class Area:
    """The part of the spare that a set is to have, in sectors."""

    start: int
    sectors: int


@dataclass(frozen=True, slots=True)
class Metadata:
    """What of ours is on a device: tag, sets at the start and at the area's start.

    `unreadable` says that the tag could not be read, and `unsearched` is the first byte that
    could not be read where signatures are looked for.
    """

    tag: Tag | None = None
    loads: tuple[Load, ...] = ()
    unreadable: bool = False
    unsearched: int | None = None


def _join(uses: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(uses))


def check_usable(facts: DeviceFacts, *, write: bool = True) -> Iterator[Finding]:
    """Yield why a device cannot be used now by anybody."""
    path = facts.path
    if not facts.exists:
        yield Finding("DMR-E302", f"{path} does not exist")
        return
    if facts.devno is None:
        yield Finding("DMR-E501", f"{path} is not a block device")
        return
    if facts.sectors == 0:
        yield Finding("DMR-E302", f"{path} has no medium: its size is zero")
        return
    if facts.mounts:
        where = _join(
            use.by if use.device == facts.name else f"{use.by} ({use.device})"
            for use in facts.mounts
        )
        yield Finding("DMR-E401", f"{path} is mounted on {where}")
    if facts.swaps:
        yield Finding("DMR-E402", f"{path} is in use as swap: {_join(u.by for u in facts.swaps)}")
    if facts.holders:
        yield Finding("DMR-E403", f"{path} is held by {_join(use.by for use in facts.holders)}")
    if facts.exclusive == errno.EBUSY:
        if not (facts.mounts or facts.swaps or facts.holders):
            yield Finding("DMR-E404", f"{path} is opened exclusively by something else")
    elif facts.exclusive is not None:
        yield Finding("DMR-E103", f"{path} cannot be opened: {os.strerror(facts.exclusive)}")
    if write and facts.read_only:
        yield Finding("DMR-E502", f"{path} is read-only")
    if facts.zoned:
        yield Finding("DMR-E517", f"{path} is a zoned device")
    if facts.logical not in (512, 1024, 2048, 4096):
        yield Finding("DMR-E517", f"{path} has logical blocks of {facts.logical} bytes")


def check_signatures(facts: DeviceFacts) -> Iterator[Finding]:
    """Yield what would be destroyed on a device."""
    for signature in facts.signatures:
        name = signature.type + (f" ({signature.label})" if signature.label else "")
        yield Finding(
            "DMR-E503",
            f"{facts.path} holds {name}, at byte {signature.offset}",
            override=Override.FORCE,
        )


def check_searched(facts: DeviceFacts, found: Metadata, area: Area | None) -> Iterator[Finding]:
    """Yield that there may be signatures that could not be found; `area` is the spare's.

    What lies outside of the area would not be removed, so that nothing overrides it there.
    """
    if found.unsearched is not None:
        whole = area is None or (area.start == 0 and area.start + area.sectors + 8 > facts.sectors)
        yield Finding(
            "DMR-E518",
            f"{facts.path} cannot be searched for signatures: byte {found.unsearched} and what "
            "follows cannot be read",
            hint="Look at what the device holds; --force destroys it, whatever it is."
            if whole
            else "Give the whole device, or a partition of it, to the set.",
            override=Override.FORCE if whole else Override.NEVER,
        )


def check_metadata(facts: DeviceFacts, found: Metadata) -> Iterator[Finding]:
    """Yield which other set a device belongs to, or that this cannot be known."""
    seen: set[UUID] = set()
    if found.unreadable:
        yield Finding(
            "DMR-E518",
            f"{facts.path} cannot be read where a main device has its tag",
            override=Override.FORCE,
        )
    if found.tag is not None:
        seen.add(found.tag.uuid)
        yield Finding(
            "DMR-E504",
            f"{facts.path} is the main device of set {found.tag.set_name}",
            override=Override.FORCE,
        )
    for load in found.loads:
        if load.uuid in seen:
            continue
        if load.superblock is not None:
            seen.add(load.superblock.uuid)
            yield Finding(
                "DMR-E504",
                f"{facts.path} is the spare of set {load.superblock.name!r} ({load.uuid})",
                override=Override.FORCE,
            )
        # Of a newer version, or damaged.
        elif load.head.ours and load.refusals:
            yield Finding(
                "DMR-E504",
                f"{facts.path} has dm-remap metadata that cannot be used: "
                f"{load.refusals[0].reason}",
                override=Override.FORCE,
            )
    for load in found.loads:
        if gone := [home for home in SUPER_HOMES if home in load.head.unreadable]:
            yield Finding(
                "DMR-E518",
                f"{facts.path} cannot be read where a spare has its superblock (block {gone[0]})",
                override=Override.FORCE,
            )


def check_pair(main: DeviceFacts, spare: DeviceFacts) -> Iterator[Finding]:
    """Yield why two devices cannot be main and spare of one set."""
    if main.devno is None or spare.devno is None:
        return
    if main.devno == spare.devno:
        yield Finding("DMR-E506", f"{main.path} and {spare.path} are the same device")
        return
    for whole, part in ((main, spare), (spare, main)):
        if part.disk == whole.devno:
            yield Finding("DMR-E507", f"{part.path} is a partition of {whole.path}")
            return
        if whole.devno in part.components:
            yield Finding("DMR-E507", f"{part.path} consists of {whole.path}")
            return
    if main.medium and main.medium == spare.medium:
        first, second = sorted((main, spare), key=lambda facts: facts.medium_start)
        if second.medium_start < first.medium_start + first.sectors:
            yield Finding(
                "DMR-E506", f"{main.path} and {spare.path} are two names of the same sectors"
            )
            return
    # Two partitions or logical volumes of one disk share the disk and no sector: no finding.
    if spare.logical > main.logical:
        yield Finding(
            "DMR-E508",
            f"{spare.path} has logical blocks of {spare.logical} bytes, "
            f"{main.path} of {main.logical}",
        )


def check_area(spare: DeviceFacts, area: Area) -> Iterator[Finding]:
    """Yield why an area cannot be used."""
    if spare.devno is None:
        return
    if area.start % BLOCK_SECTORS:
        yield Finding(
            "DMR-E509",
            f"the area starts at sector {area.start}, which is no multiple of {BLOCK_SECTORS}",
        )
    if area.start + area.sectors > spare.sectors:
        yield Finding(
            "DMR-E511",
            f"the area ends at sector {area.start + area.sectors}, {spare.path} at {spare.sectors}",
        )
    elif area.sectors < MIN_AREA_BLOCKS * BLOCK_SECTORS:
        yield Finding(
            "DMR-E510",
            f"the area has {max(area.sectors, 0)} sectors and needs at least "
            f"{MIN_AREA_BLOCKS * BLOCK_SECTORS}",
        )


def check_main_size(main: DeviceFacts, data_sectors: int) -> Iterator[Finding]:
    """Yield why a main device has no room."""
    if main.devno is not None and data_sectors <= 0:
        yield Finding(
            "DMR-E512",
            f"{main.path} has {main.sectors} sectors; its tag alone takes {TAG_SECTORS}",
        )


def check_outside(spare: DeviceFacts, area: Area) -> Iterator[Finding]:
    """Yield signatures that the area does not cover: forcing would not remove them."""
    first, end = area.start * 512, (area.start + area.sectors) * 512
    for signature in spare.signatures:
        if not first <= signature.offset < end:
            yield Finding(
                "DMR-E503",
                f"{spare.path} holds {signature.type} outside of the area, "
                f"at byte {signature.offset}",
                hint="Give the whole device, or a partition of it, to the set.",
            )


def check_blank(path: str, found: tuple[int, bool] | None, what: str) -> Iterator[Finding]:
    """Yield why a place is not blank; `found` is what first_nonzero() returned."""
    if found is None:
        return
    offset, readable = found
    if readable:
        yield Finding(
            "DMR-E505",
            f"{path} is not blank: {what} has data at byte {offset}",
            override=Override.WIPE,
        )
    else:
        yield Finding(
            "DMR-E518",
            f"{path} cannot be read at byte {offset}, in {what}, so it is not known to be blank",
        )


def check_old_set(path: str, offset: int | None) -> Iterator[Finding]:
    """Yield that an area contains another one: `offset` is where it has metadata, in bytes."""
    if offset is not None:
        yield Finding(
            "DMR-E504",
            f"{path} has metadata of a set at byte {offset}, sector {offset // 512}",
            hint="If the set is in use, leave the area to it; see 'dmremapctl assemble --help' for "
            "--spare-start. --force destroys it.",
            override=Override.FORCE,
        )


def refuse(
    findings: Iterable[Finding], *, wipe: bool = False, force: bool = False
) -> Sequence[Finding]:
    """Raise for the findings that are not overridden; return those that are.

    The first that stands decides the code; the others are added as notes.
    """
    allowed = {Override.NEVER: False, Override.WIPE: wipe or force, Override.FORCE: force}
    every = list(dict.fromkeys(findings))
    standing = [finding for finding in every if not allowed[finding.override]]
    if standing:
        raise _as_error(standing)
    return every


def _as_error(standing: Sequence[Finding]) -> DmRemapError:
    # What is in use comes first: it is the reason that the user can and must do something about.
    ordered = sorted(standing, key=lambda finding: not finding.code.startswith("DMR-E4"))
    first = ordered[0]
    err = error(first.code, first.message, hint=first.hint)
    for other in ordered[1:]:
        err.add_note(f"also: {other.message} [{other.code}]")
    return err
