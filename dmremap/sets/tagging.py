# SPDX-License-Identifier: GPL-2.0-only
"""A main that has lost its tag gets it again; a tag in an adopted main's data is called content.

Both are what a person says who knows which disk is the set's main. So each is a plan, which writes
nothing, and carrying it out, which claims what it writes to and makes the plan once more. Nothing
is written to a main that is another disk than the set has recorded, or that holds anything else.
"""

import contextlib
from dataclasses import dataclass
from uuid import UUID

from dmremap.errors import Busy, DmRemapError, Failure, NotFound, Refused, Usage
from dmremap.host import blockdev
from dmremap.host.blockdev import Signature
from dmremap.ondisk import (
    TAG_BLOCKS,
    BlockDevice,
    Superblock,
    Tag,
    View,
    opened,
    read_tag,
    read_tags,
    something_else,
)
from dmremap.ondisk.change import call_content
from dmremap.ondisk.epoch import judge_main
from dmremap.ondisk.layout import pack_tag
from dmremap.ondisk.load import Load, Overlay, refused
from dmremap.ondisk.mend import Write, device_writer
from dmremap.sets import discover, identity, live, safety
from dmremap.sets.offline import Place, after_writes, claimed, look_at, read_back, usable


@dataclass(frozen=True, slots=True)
class OfMain:
    """What is to be written about a set's main: to main, or to the spare.

    `known` says how the set knows that it is its main, if it does. `tag` is the one in main's data.
    """

    spare: Place
    main: Place
    superblock: Superblock
    known: str
    writes: tuple[Write, ...]
    tag: Tag | None = None
    uuid: UUID | None = None


def _set_of(device: BlockDevice, place: Place, uuid: UUID | None, *, tagged: bool) -> Superblock:
    """Return the set on a spare, whose main has to be tagged or adopted, and that does not run."""
    load = look_at(device, place, uuid, None)
    if load.refusals or load.superblock is None:
        raise refused(place.path, load.refusals)
    sb = load.superblock
    if sb.tagged is not tagged:
        raise Usage(
            "DMR-E201",
            f"set {sb.name!r} knows its main by its tag"
            if sb.tagged
            else f"set {sb.name!r} has adopted its main, which has no tag",
        )
    # A tag must not be ahead of a superblock that the next load may find.
    if tagged and not load.blocks[0].settled:
        raise Refused(
            "DMR-E514",
            f"{place.path}: the superblocks of set {sb.name!r} are not equal",
            hint=f"Run 'dmremapctl repair {place.path}' first.",
        )
    # Under other names of its disks, perhaps.
    if place.facts is not None:
        for running in live.find():
            if running.uuid == str(sb.uuid):
                raise Busy(
                    "DMR-E403",
                    f"set {running.name!r} is running",
                    hint="Stop the set first ('dmremapctl remove').",
                )
    return sb


def _known(sb: Superblock, main: Place, sectors: int) -> str:
    """Return how a set knows that a device is its main, "" if by its size only, or raise."""
    facts = main.facts
    by_id = facts is not None and identity.known_by_id(sb, facts)
    # The very disk may have been put in place of a smaller one.
    if sectors != sb.main_sectors and not (sb.tagged and by_id and sectors > sb.main_sectors):
        raise Refused(
            "DMR-E513",
            f"{main.path} has {sectors} sectors, and the main of set {sb.name!r} {sb.main_sectors}",
        )
    if facts is None or by_id:
        return "id" if by_id else ""
    if facts.logical != sb.unit:
        raise Refused(
            "DMR-E513",
            f"{main.path} has logical blocks of {facts.logical} bytes, and the main of set "
            f"{sb.name!r} of {sb.unit}",
        )
    if identity.contradicts_main(sb, facts):
        raise Refused(
            "DMR-E513", f"{main.path} is another disk than set {sb.name!r} has recorded as its main"
        )
    return "serial number" if identity.matches_main(sb, facts) else ""


def plan_retag(spare: Place, main: Place, uuid: UUID | None = None) -> OfMain:
    """Find out whether main may get the tag of a set again. Writes nothing."""
    usable(spare)
    usable(main)
    with opened(spare.path) as on_spare, opened(main.path) as on_main:
        return _plan_retag(on_spare, on_main, spare, main, uuid)


def _plan_retag(
    on_spare: BlockDevice, on_main: BlockDevice, spare: Place, main: Place, uuid: UUID | None
) -> OfMain:
    sb = _set_of(on_spare, spare, uuid, tagged=True)
    if main.facts is not None and spare.facts is not None:
        safety.refuse(safety.check_pair(main.facts, spare.facts))
    view = View(on_main, 0)
    tag = read_tag(view)
    if tag is not None and tag.uuid != sb.uuid:
        raise Refused(
            "DMR-E504",
            f"{main.path} is the main device of set {tag.set_name}",
            hint="Start that set, or name the disk that is this set's main.",
        )
    known = _known(sb, main, on_main.size // 512)
    if tag is not None:
        # Where it says that the spare is an older copy that is not to be hidden.
        problem = judge_main(sb, read_tags(view), on_main.size // 512)
        if problem:
            refusal = discover.with_way_out(problem, spare.path, spare.start, main.path)
            raise refused(f"set {sb.name!r} on {spare.path}, with {main.path}", [refusal])
        # A start writes all of its copies.
        return OfMain(spare, main, sb, known, (), uuid=uuid)
    other = something_else(view, sb.unit, sb.uuid)
    if other is not None:
        raise Refused(
            "DMR-E505",
            f"{main.path} holds something else than the tag of set {sb.name!r}, at byte {other}",
            hint="Whatever it is, this is not the set's main any more, or not as it was left. Look "
            "at what the disk holds; nothing overrides this.",
        )
    if not known:
        _refuse_own_content(main)
    new = Tag.of(sb, spare.start)
    writes = tuple(
        Write(home, home, sb.epoch.number, f"tag, copy {number}", pack_tag(new, home))
        for number, home in enumerate(TAG_BLOCKS, 1)
    )
    return OfMain(spare, main, sb, known, writes, uuid=uuid)


def _refuse_own_content(main: Place) -> None:
    """Refuse a device that is something by itself, as far as what can be read says so."""
    found: list[Signature] = []
    # Without wipefs, or on a disk that it cannot read, there is no hint.
    with contextlib.suppress(DmRemapError):
        found = blockdev.signatures(main.path)
    for signature in found:
        raise Refused(
            "DMR-E503",
            f"{main.path} holds {signature.type}, at byte {signature.offset}",
            hint="Name the disk that is the set's main.",
        )


def retag(plan: OfMain) -> list[Write]:
    """Write the tag; return the copies that main took. The caller holds the lock."""
    main = plan.main
    with claimed(plan.spare) as on_spare, claimed(main) as on_main:
        again = _plan_retag(on_spare, on_main, plan.spare, main, plan.uuid)
        if again.writes != plan.writes:
            raise Busy("DMR-E409", f"{main.path} has changed while this was being decided")
        write = device_writer(on_main, 0)
        taken = [
            copy
            for copy in plan.writes
            if write(copy.place, copy.data) and on_main.read_block(0, copy.place) == copy.data
        ]
    if not taken:
        raise Failure("DMR-E103", f"{main.path} takes no copy of its tag, or cannot give it back")
    return taken


def plan_content(spare: Place, main: Place, uuid: UUID | None = None) -> OfMain:
    """Find out what records that the tag in main's data is content. Writes nothing."""
    usable(spare)
    with opened(spare.path) as on_spare:
        return _plan_content(on_spare, spare, main, uuid)


def _plan_content(device: BlockDevice, spare: Place, main: Place, uuid: UUID | None) -> OfMain:
    sb = _set_of(device, spare, uuid, tagged=False)
    with opened(main.path) as on_main:
        tag = read_tag(View(on_main, 0))
        size = on_main.size
    known = _known(sb, main, size // 512)
    if tag is None:
        raise NotFound(
            "DMR-E307", f"{main.path} has no tag in its data", hint="The set can be started."
        )
    writes: list[Write] = []
    if tag.uuid != sb.content_tag:
        changed: dict[int, bytes] = {}

        def write(place: int, data: bytes) -> bool:
            changed[place] = data
            return True

        source = Overlay(View(device, spare.start), changed)
        writes = call_content(source, spare.start, sb.uuid, write, tag.uuid)
        after_writes(device, spare, sb.uuid, writes)
    return OfMain(spare, main, sb, known, tuple(writes), tag=tag, uuid=uuid)


def record_content(plan: OfMain) -> tuple[Load, list[Write]]:
    """Write the superblocks; return what is there then. The caller holds the lock."""
    spare = plan.spare
    with claimed(spare) as device:
        again = _plan_content(device, spare, plan.main, plan.uuid)
        if again.writes != plan.writes or again.tag is None:
            raise Busy("DMR-E409", f"{spare.path} has changed while this was being decided")
        write = device_writer(device, spare.start)
        uuid = plan.superblock.uuid
        written = call_content(device, spare.start, uuid, write, again.tag.uuid)
        return read_back(device, spare, plan.uuid), written
