# SPDX-License-Identifier: GPL-2.0-only
"""What a device is to dm-remap."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self
from uuid import UUID

from dmremap.api.answer import Answer
from dmremap.api.metadata import Compared, Epoch, Finding, Loading, findings, place_of
from dmremap.host.blockdev import Signature
from dmremap.ondisk import Errors, SetState, Superblock
from dmremap.ondisk import Tag as TagOnDisk
from dmremap.ondisk import findings as codes
from dmremap.ondisk.load import Counts
from dmremap.sets import offline
from dmremap.sets.offline import Member


@dataclass(frozen=True, slots=True, kw_only=True)
class SetOnDisk:
    """What the superblock says of a set. Sectors count 512 bytes.

    created: seconds since 1970.  kind: tagged or adopted.  segments: parts of the area, one more
    for each growth.  main_offset_sectors: where main is on its disk.  before: the epoch before.
    superseded: the set has gone on elsewhere.  content_tag: of whose tag a person has said that it
    is content of main's data.  errors, remap_rate: what a person chose, None: nobody did.
    """

    uuid: UUID
    name: str
    state: SetState
    sequence: int
    unit_bytes: int
    area_sectors: int
    segments: int
    created: int
    kind: str
    main_sectors: int
    main_offset_sectors: int
    main_serial: str
    main_id: bytes
    data_start_sectors: int
    data_sectors: int
    epoch: Epoch | None
    before: Epoch | None
    superseded: bool
    predecessor: UUID | None
    predecessor_epoch: Epoch | None
    content_tag: UUID | None
    spare_serial: int
    errors: Errors | None
    remap_rate: int | None

    @classmethod
    def of(cls, sb: Superblock) -> Self:
        """Take over a superblock."""
        return cls(
            uuid=sb.uuid,
            name=sb.name,
            state=sb.state,
            sequence=sb.seq,
            unit_bytes=sb.unit,
            area_sectors=sb.area_sectors,
            segments=len(sb.segments),
            created=sb.created,
            kind="tagged" if sb.tagged else "adopted",
            main_sectors=sb.main_sectors,
            main_offset_sectors=sb.main_offset,
            main_serial=sb.main_serial,
            main_id=sb.main_id,
            data_start_sectors=sb.data_start,
            data_sectors=sb.data_sectors,
            epoch=Epoch.of(sb.epoch),
            before=Epoch.of(sb.before),
            superseded=sb.superseded,
            predecessor=sb.predecessor,
            predecessor_epoch=Epoch.of(sb.predecessor_epoch),
            content_tag=sb.content_tag,
            spare_serial=sb.spare_serial,
            errors=sb.errors,
            remap_rate=sb.remap_rate,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tag:
    """What the tag of a main device says. Sectors count 512 bytes.

    fault: why it cannot be used; the other fields say nothing then but uuid.
    """

    uuid: UUID
    name: str
    main_sectors: int
    data_start_sectors: int
    unit_bytes: int
    spare_start_sectors: int
    spare_sectors: int
    epoch: Epoch | None
    fault: str | None

    @classmethod
    def of(cls, tag: TagOnDisk) -> Self:
        """Take over a tag."""
        return cls(
            uuid=tag.uuid,
            name=tag.name,
            main_sectors=tag.main_sectors,
            data_start_sectors=tag.data_start,
            unit_bytes=tag.unit,
            spare_start_sectors=tag.spare_start,
            spare_sectors=tag.spare_len,
            epoch=None if tag.fault else Epoch.of(tag.epoch),
            fault=tag.fault or None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Something else that a device holds, as wipefs tells it. label: "" where it has none."""

    type: str
    label: str
    offset_bytes: int

    @classmethod
    def all_of(cls, signatures: Iterable[Signature]) -> tuple[Self, ...]:
        """Take over what wipefs tells."""
        return tuple(
            cls(type=held.type, label=held.label, offset_bytes=held.offset) for held in signatures
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined(Answer):
    """What a device is.

    file: it is an image in a file.  role: spare, main or none.  running: the name of the set that
    has it now.  set: what a spare's superblock says.  tag: what is in main's first MiB; a spare may
    have one, too.  slots: counts, None where no table could be read.  copies_away: copies of the
    metadata that live on stand-ins.  compared: what main's tag says of the spare, whichever of the
    two it is.  spare: where a main's spare was found.  load: what a start would do, of a spare.
    holds: what else is on a device that is nothing of ours; `error` says so, too.
    """

    device: str
    file: bool
    size_bytes: int
    start_sectors: int
    role: str
    uuid: UUID | None
    running: str | None
    set: SetOnDisk | None
    tag: Tag | None
    slots: Counts | None
    copies_away: int
    compared: Compared | None
    spare: str | None
    load: Loading | None
    findings: tuple[Finding, ...]
    holds: tuple[Held, ...]


def examine(device: str, *, start: int = 0) -> Examined:
    """Say what a block device, or a file with the image of one, is to dm-remap. Writes nothing.

    start: sectors of 512 bytes, where an area is to begin. An adopted main device has nothing on
    it, and is recognised only while its set runs.

    >>> dmremap.examine("/dev/sdb").role
    'spare'

    Errors: NotFound where it does not exist, PermissionDenied for a block device but for root,
    Refused where it is neither device nor file. Where there is nothing of dm-remap on it, that is
    the answer's `error`.
    """
    place = place_of(device, start, "read block devices")
    member = offline.member(place)
    load, tag, compared = member.load, member.tag, member.compared
    spare = member.role == "spare"
    return Examined(
        device=place.path,
        file=place.is_file,
        size_bytes=member.size,
        start_sectors=place.start,
        role=member.role,
        uuid=member.uuid,
        running=member.running,
        set=SetOnDisk.of(load.superblock) if load.superblock else None,
        tag=Tag.of(tag) if tag else None,
        slots=load.counts if len(load.blocks) > 1 else None,
        copies_away=load.away,
        compared=Compared.of(compared) if compared else None,
        spare=compared.spare if compared else None,
        load=Loading.of(load) if spare else None,
        findings=findings(_found(member)),
        holds=Held.all_of(member.holds),
        warnings=(f"it also has the tag of a main device, of set {tag.uuid}",)
        if spare and tag
        else (),
        error=offline.not_ours(place.path, start, member.size, member.holds)
        if member.role == "none"
        else None,
    )


def _found(member: Member) -> Iterable[codes.Finding]:
    """Return what is found of a spare, or of the one that a main belongs to."""
    if member.role == "spare":
        return member.load.findings
    problem = member.compared.problem if member.compared else None
    return [codes.Finding(problem.code, problem.reason, hint=problem.hint)] if problem else []
