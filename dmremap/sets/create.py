# SPDX-License-Identifier: GPL-2.0-only
"""Make a set: create and adopt.

It works in two steps: plan() checks everything and writes nothing, carry_out() does what the plan
says and takes back what it wrote itself if any step fails.
"""

import contextlib
import time
import uuid as uuidlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from dmremap import dm
from dmremap.dm import module
from dmremap.dm.lines import ErrorPolicy, RemapTable
from dmremap.errors import Busy, DmRemapError, Refused
from dmremap.host import begun, blockdev, signals
from dmremap.host.blockdev import DeviceFacts
from dmremap.host.run import run
from dmremap.host.sizes import binary_size
from dmremap.ondisk import (
    BLOCK,
    BLOCK_SECTORS,
    HEAD_BLOCKS,
    MAGIC,
    TAG_BLOCKS,
    TAG_SECTORS,
    BlockDevice,
    Progress,
    SetState,
    Superblock,
    Tag,
    View,
    find,
    first_super,
    format_area,
    opened,
    read_tag,
    segment_for,
    write_tag,
)
from dmremap.sets import assemble, extent, identity, naming, safety, seen, udevrule
from dmremap.sets.assemble import Started
from dmremap.sets.extent import Cost, Size
from dmremap.sets.safety import Area, Finding, Metadata

_HEAD_BYTES: Final = HEAD_BLOCKS * BLOCK


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asks for; sectors count 512 bytes."""

    main: str
    spare: str
    name: str | None = None
    spare_start: int = 0
    spare_sectors: Size = None
    """None: as many as DEFAULT_SLOTS slots take."""
    errors: ErrorPolicy | None = None
    """None: nobody chose, and the set records no choice. So for the next."""
    remap_rate: int | None = None
    adopt: bool = False
    wipe: bool = False
    force: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What carry_out() will do. `steps` says it to people; `destroys` is what is overridden.

    `given` is what of the spare the set may have, of which it takes `area`.
    """

    superblock: Superblock
    main: DeviceFacts
    spare: DeviceFacts
    given: Area
    area: Area
    cost: Cost
    table: RemapTable
    clear: bool
    destroys: tuple[Finding, ...]
    rule: udevrule.Rule | None
    steps: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name of the set and of its device."""
        return self.superblock.name


@dataclass(slots=True)
class _Undo:
    """Steps to take back, the last first. A step that fails does not stop the others."""

    steps: list[tuple[str, Callable[[], object]]] = field(default_factory=list)

    def add(self, what: str, step: Callable[[], object]) -> None:
        self.steps.append((what, step))

    @contextlib.contextmanager
    def on_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException as err:
            # A second signal waits: who is impatient must not be left with half a set.
            with signals.held(signals.ENDING):
                for what, step in reversed(self.steps):
                    try:
                        step()
                    except (DmRemapError, OSError) as also:
                        err.add_note(f"could not {what}: {also}")
            raise


def geometry(
    main_sectors: int, unit: int, *, tagged: bool, data_start: int = TAG_SECTORS
) -> tuple[int, int]:
    """Return first sector and number of sectors of main that a set shows.

    Whole units, and whole 4 KiB where the data begins behind a tag, so that what is put on top is
    as aligned as the disk.
    """
    start = data_start if tagged else 0
    grain = max(unit // 512, BLOCK_SECTORS if tagged else 1)
    return start, max(main_sectors - start, 0) // grain * grain


def _metadata(device: BlockDevice, start: int = 0) -> Metadata:
    """Look for anything of ours on a device: where it begins, and where an area is to begin."""
    views = [View(device, at) for at in dict.fromkeys((0, start))]
    fits = [view for view in views if view.count >= HEAD_BLOCKS]
    return Metadata(
        loads=tuple(load for view in fits for load in find(view)),
        tag=read_tag(fits[0]) if fits else None,
        unreadable=bool(fits) and all(fits[0].block(place) is None for place in TAG_BLOCKS),
        unsearched=device.first_unreadable(blockdev.probed(device.size)),
    )


@dataclass(frozen=True, slots=True)
class _Pair:
    """Main and spare, open: what is on them."""

    main: DeviceFacts
    spare: DeviceFacts
    on_main: BlockDevice
    on_spare: BlockDevice
    given: Area
    area: Area
    adopt: bool

    def recognised(self) -> list[Finding]:
        """Return what would be destroyed and has a name, and what cannot be known."""
        ours = _metadata(self.on_main)
        theirs = _metadata(self.on_spare, self.area.start)
        of_main = list(safety.check_metadata(self.main, ours))
        if self.adopt:
            # Nothing is written to an adopted disk: what is on it or cannot be read there does
            # no harm, but nothing can make another set's disk ours either.
            of_main = [
                replace(finding, override=safety.Override.NEVER)
                for finding in of_main
                if finding.code == "DMR-E504"
            ]
        else:
            of_main += safety.check_searched(self.main, ours, None)
            of_main += safety.check_signatures(self.main)
        return [
            *of_main,
            *safety.check_metadata(self.spare, theirs),
            *safety.check_searched(self.spare, theirs, self.given),
            *safety.check_signatures(self.spare),
            *safety.check_outside(self.spare, self.given),
        ]

    def not_blank(self, sectors: int, progress: Progress | None = None) -> list[Finding]:
        """Return what else is in so many sectors of the area and in main's first MiB."""
        found = list(
            _not_blank(self.on_spare, self.area.start * 512, sectors * 512, "the area", progress)
        )
        if not self.adopt:
            found += _not_blank(self.on_main, 0, _HEAD_BYTES, "its first MiB", None)
        return found

    def old_sets(self, progress: Progress | None = None) -> list[Finding]:
        """Return the set, if any, whose metadata is somewhere in the area."""
        at = first_super(self.on_spare, self.area.start * 512, self.area.sectors * 512, progress)
        return list(safety.check_old_set(self.spare.path, at))


def _not_blank(
    device: BlockDevice, offset: int, length: int, what: str, progress: Progress | None
) -> Iterator[Finding]:
    found = device.first_nonzero(offset, length, progress)
    if found and found[1] and (device.read(found[0], BLOCK) or b"").startswith(MAGIC):
        yield from safety.check_old_set(device.path, found[0])
    else:
        yield from safety.check_blank(device.path, found, what)


def plan(request: Request, *, dry_run: bool = False, progress: Progress | None = None) -> Plan:
    """Check everything and return what is to be done. Writes nothing."""
    uuid = uuidlib.uuid4()
    name = naming.check_name(request.name or f"remap-{str(uuid)[:8]}")
    main, spare = blockdev.facts(request.main), blockdev.facts(request.spare)
    # What does not need a look inside comes first: nothing is read from a device in use.
    safety.refuse(
        [
            *safety.check_usable(main),
            *safety.check_usable(spare),
            *safety.check_pair(main, spare),
        ]
    )
    given, area = _areas(request, spare, main.logical)
    data_start, data_sectors = geometry(main.sectors, main.logical, tagged=not request.adopt)
    safety.refuse(
        [*safety.check_area(spare, area), *safety.check_main_size(main, data_sectors)],
    )
    naming.need_free(name)
    module.ensure(dry_run=dry_run)

    with opened(main.path) as on_main, opened(spare.path) as on_spare:
        pair = _Pair(main, spare, on_main, on_spare, given, area, request.adopt)
        # Reading the whole area takes long, so what is known already is said before.
        destroys = safety.refuse(pair.recognised(), wipe=request.wipe, force=request.force)
        if request.wipe and not request.force:
            safety.refuse(pair.old_sets(progress))
        elif not request.force:
            safety.refuse(pair.not_blank(area.sectors, progress))

    segment = segment_for(area.sectors // BLOCK_SECTORS, main.logical)
    if segment is None:
        raise Refused("DMR-E510", f"an area of {area.sectors} sectors has no room for a slot")
    superblock = Superblock(
        uuid=uuid,
        name=name,
        state=SetState.READY,
        unit=main.logical,
        area_blocks=area.sectors // BLOCK_SECTORS,
        segments=(segment,),
        tagged=not request.adopt,
        main_sectors=main.sectors,
        main_offset=main.offset,
        data_start=data_start,
        data_sectors=data_sectors,
        created=int(time.time()),
        # The kernel records the driver's id itself at the first start.
        main_serial=identity.recorded_serial(main),
        errors=assemble.recorded_errors(request.errors),
        remap_rate=request.remap_rate,
    )
    rule = udevrule.make(uuid, name, main) if request.adopt else None
    made = Plan(
        superblock=superblock,
        main=main,
        spare=spare,
        given=given,
        area=area,
        cost=Cost(
            slots=segment.slots,
            reads=0 if request.force else area.sectors * 512,
            writes=extent.metadata(segment),
        ),
        table=assemble.table_line(superblock, main, spare, area.start),
        clear=request.wipe or request.force,
        destroys=tuple(destroys),
        rule=rule,
        steps=(),
        warnings=_warnings(request, main, spare, rule),
    )
    return replace(made, steps=_steps(made))


def _areas(request: Request, spare: DeviceFacts, unit: int) -> tuple[Area, Area]:
    """Return what of the spare a set is given, and what of that it takes.

    Who names no size has given all of it, and signatures are removed from all of it, although the
    set leaves what it does not need.
    """
    start = request.spare_start
    room = max(spare.sectors - start, 0)
    taken = Area(start, extent.first_area(room, unit, request.spare_sectors))
    if isinstance(request.spare_sectors, int):
        return taken, taken
    return Area(start, room // BLOCK_SECTORS * BLOCK_SECTORS), taken


def _warnings(
    request: Request, main: DeviceFacts, spare: DeviceFacts, rule: udevrule.Rule | None
) -> tuple[str, ...]:
    out: list[str] = []
    if request.spare_start:
        out.append(
            f"the area does not start at sector 0: 'assemble' needs --spare {spare.path} "
            f"--spare-start {request.spare_start}"
        )
    if main.disk is not None and main.disk == spare.disk:
        out.append("main and spare are on one disk: the spare fails when the disk does")
    if request.adopt and rule is None:
        out.append(
            f"{main.path} has no id by which a udev rule could know it: its links in "
            "/dev/disk/by-uuid stay, so mount /dev/mapper names only"
        )
    return tuple(out)


def _steps(made: Plan) -> tuple[str, ...]:
    sb = made.superblock
    out: list[str] = []
    if made.rule:
        out.append(f"write {made.rule.path}, so that udev takes {made.main.path} for a member")
    out += [f"destroy: {finding.message}" for finding in made.destroys]
    where = (
        f"{made.spare.path}, sectors {made.area.start} to {made.area.start + made.area.sectors - 1}"
    )
    if made.cost.reads:
        out.append(f"read all {binary_size(made.cost.reads)} of {where}")
    out.append(f"write metadata of {sb.slots} slots, {binary_size(made.cost.writes)}, to {where}")
    left = extent.left_over(sb, made.spare.sectors - made.area.start, made.spare.path)
    # Who has named a size knows that there is more.
    if left and made.given != made.area:
        out.append(left)
    if sb.tagged:
        out.append(f"write a tag into the first MiB of {made.main.path}")
    out.append(f"create device {made.name} ({naming.dm_uuid(sb.uuid)}): {made.table.line}")
    out.append(f"keep {made.cost.words}")
    return tuple(out)


def carry_out(made: Plan, *, progress: Progress | None = None) -> Started:
    """Do what a plan says. The caller holds the lock; planning needs none."""
    sb = made.superblock
    naming.need_free(sb.name)
    undo = _Undo()
    with contextlib.ExitStack() as stack:
        if made.rule:
            stack.enter_context(_noted(made, made.rule))
        stack.enter_context(undo.on_failure())
        # Time has passed since the plan: perhaps somebody was asked a question. So both devices
        # are claimed, then looked at again, and only then is anything written to either.
        with (
            _claimed(made.main, write=sb.tagged) as main,
            _claimed(made.spare) as spare,
        ):
            _check_again(made, main, spare)
            if made.rule:
                undo.add(f"remove {made.rule.path}", made.rule.remove)
                made.rule.install()
            if made.spare.signatures:
                _erase_signatures(spare)
            if made.main.signatures and sb.tagged:
                _erase_signatures(main)
            undo.add(f"clear {spare.path}", lambda: _zero(made.spare, spare.written))
            format_area(spare, sb, made.area.start, clear=made.clear, progress=progress)
            if sb.tagged:
                undo.add(f"take the tag off {main.path}", lambda: _zero(made.main, main.written))
                write_tag(main, Tag.of(sb, made.area.start), clear=made.clear)
        # From the moment when it runs nothing is taken back: it is done.
        with signals.held(signals.ENDING):
            assemble.start(sb.name, sb.uuid, made.table)
            undo.steps.clear()
    warnings = (*made.warnings, *dm.take_warnings())
    warnings += seen.learn(sb.name, made.spare.path, made.area.start, sb.uuid)
    return Started(sb.name, str(sb.uuid), dm.device_path(sb.name), warnings=warnings)


def _noted(made: Plan, rule: udevrule.Rule) -> contextlib.AbstractContextManager[object]:
    """Note that there is a rule before there is the set that it is for."""
    return begun.noted(
        "rule",
        uuid=str(made.superblock.uuid),
        main=rule.device,
        spare=made.spare.path,
        diskseq=made.spare.diskseq,
        start=made.area.start,
    )


@contextlib.contextmanager
def _claimed(before: DeviceFacts, *, write: bool = True) -> Iterator[BlockDevice]:
    """Open a device so that nobody else can use it, and make sure that it is the one checked."""
    now = blockdev.facts(before.path, look_inside=False)
    safety.refuse(safety.check_usable(now))
    with opened(before.path, write=write, exclusive=True) as device:
        now = blockdev.facts(before.path, look_inside=False)
        if device.devno != before.devno or _identity(now) != _identity(before):
            raise Busy("DMR-E409", f"{before.path} has changed while this was being decided")
        yield device


def _identity(facts: DeviceFacts) -> tuple[object, ...]:
    """Return what tells a device from another one that took its place."""
    where = facts.devno, facts.sectors, facts.offset
    return *where, facts.id_type, facts.id, facts.serial, facts.medium, facts.diskseq


def _check_again(made: Plan, main: BlockDevice, spare: BlockDevice) -> None:
    """Refuse what was not there when the plan was made."""
    pair = _Pair(
        blockdev.with_signatures(made.main),
        blockdev.with_signatures(made.spare),
        main,
        spare,
        made.given,
        made.area,
        not made.superblock.tagged,
    )
    found = pair.recognised()
    if not made.clear:
        found += pair.not_blank(TAG_SECTORS)
    safety.refuse(finding for finding in found if finding not in made.destroys)


def _erase_signatures(device: BlockDevice) -> None:
    # wipefs asks for --force because the device is claimed, which it is by us.
    run(["wipefs", "--all", "--force", device.path])
    device.forget_partitions()


def _zero(facts: DeviceFacts, ranges: Sequence[tuple[int, int]]) -> None:
    with _claimed(facts) as device:
        device.zero(ranges)
