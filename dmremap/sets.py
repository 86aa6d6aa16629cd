# SPDX-License-Identifier: GPL-2.0-only
"""The life of a set: create, adopt, assemble, remove, list, status.

The superblock on the spare is the only truth about a set; nothing is kept anywhere else, but for
the newest epoch that this host has seen of an adopted one, which the spare cannot say itself.
Creating works in two steps: plan() checks everything and writes nothing, carry_out() does what the
plan says and takes back what it wrote itself if any step fails.
"""

import contextlib
import errno
import shlex
import time
import uuid as uuidlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final
from uuid import UUID

from dmremap import dm, safety, seen, udevrule
from dmremap.dm import module
from dmremap.dm.lines import (
    TARGET,
    ErrorPolicy,
    LineError,
    RemapTable,
    Status,
    parse_status,
    parse_stop,
    parse_table,
)
from dmremap.errors import (
    Busy,
    DmRemapError,
    NotFound,
    Refused,
    Usage,
)
from dmremap.host import blockdev
from dmremap.host.blockdev import DeviceFacts, Devno
from dmremap.host.run import run
from dmremap.ondisk import (
    BLOCK,
    BLOCK_SECTORS,
    HEAD_BLOCKS,
    MAGIC,
    NAME_MAX,
    SERIAL_MAX,
    TAG_BLOCKS,
    TAG_SECTORS,
    BlockDevice,
    Errors,
    Progress,
    Refusal,
    SetState,
    Superblock,
    Tag,
    View,
    choose,
    device_writer,
    find,
    first_super,
    format_area,
    look,
    lost_tags,
    newest_tag,
    opened,
    read_tag,
    read_tags,
    refused,
    segment_for,
    something_else,
    write_tag,
)
from dmremap.ondisk.epoch import OLDER, PARTED, UNFIT, judge_main, judge_seen
from dmremap.safety import Area, Finding, Metadata

DM_UUID_PREFIX: Final = "REMAP-"
_HEAD_BYTES: Final = HEAD_BLOCKS * BLOCK
# A device-mapper name is 127 bytes at most, after mangling.
_DM_NAME_MAX: Final = 127
_CLOSED_SECONDS: Final = 5.0
"""How long remove() waits for a set to be closed."""
_STOPS: Final = 3
"""How often it tries to stop a set before that is removed without."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asks for; sectors count 512 bytes."""

    main: str
    spare: str
    name: str | None = None
    spare_start: int = 0
    spare_sectors: int | None = None
    errors: ErrorPolicy | None = None
    """None: nobody chose, and the set records no choice. So for the next."""
    remap_rate: int | None = None
    adopt: bool = False
    wipe: bool = False
    force: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What carry_out() will do. `steps` says it to people; `destroys` is what is overridden."""

    superblock: Superblock
    main: DeviceFacts
    spare: DeviceFacts
    area: Area
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


@dataclass(frozen=True, slots=True)
class Found:
    """A set found on disk. `mains` may be its main, `problems` keep it from being started.

    `main_problems` says by path with which of them it cannot be started, and why. `tags` are those
    found on any device, by its path. `untagged` are disks that the set has recorded as its main and
    that do not have the tag that they should have.
    """

    superblock: Superblock
    spare: DeviceFacts
    spare_start: int
    mains: tuple[DeviceFacts, ...] = ()
    problems: tuple[Refusal, ...] = ()
    main_problems: Mapping[str, Refusal] = field(default_factory=dict)
    tags: Mapping[str, Tag] = field(default_factory=dict)
    untagged: tuple[DeviceFacts, ...] = ()

    @property
    def name(self) -> str:
        """The name that the superblock gives."""
        return self.superblock.name or f"remap-{str(self.superblock.uuid)[:8]}"

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """Why it cannot be started, with the main that it has if there is no doubt about it."""
        if len(self.mains) != 1 or self.mains[0].path not in self.main_problems:
            return self.problems
        return (*self.problems, self.main_problems[self.mains[0].path])


@dataclass(frozen=True, slots=True)
class Started:
    """A set that assemble() started or found running."""

    name: str
    uuid: str
    path: str
    already: bool = False
    recorded: tuple[str, ...] = ()
    """What a person chose and the superblock did not say before, by the name of the option."""
    warnings: tuple[str, ...] = ()


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
            for what, step in reversed(self.steps):
                try:
                    step()
                except (DmRemapError, OSError) as also:
                    err.add_note(f"could not {what}: {also}")
            raise


def dm_uuid(uuid: UUID | str) -> str:
    """Return the device-mapper uuid of a set."""
    return f"{DM_UUID_PREFIX}{uuid}"


def check_name(name: str) -> str:
    """Return a name that is fit for a set and for a device, or raise."""
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


# ------------------------------------------------------------------- create


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
            *safety.check_searched(self.spare, theirs, self.area),
            *safety.check_signatures(self.spare),
            *safety.check_outside(self.spare, self.area),
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
    name = check_name(request.name or f"remap-{str(uuid)[:8]}")
    main, spare = blockdev.facts(request.main), blockdev.facts(request.spare)
    sectors = request.spare_sectors
    if sectors is None:
        sectors = spare.sectors - request.spare_start
    area = Area(request.spare_start, sectors // BLOCK_SECTORS * BLOCK_SECTORS)
    data_start, data_sectors = geometry(main.sectors, main.logical, tagged=not request.adopt)

    # What does not need a look inside comes first: nothing is read from a device in use.
    safety.refuse(
        [
            *safety.check_usable(main),
            *safety.check_usable(spare),
            *safety.check_pair(main, spare),
            *safety.check_area(spare, area),
            *safety.check_main_size(main, data_sectors),
        ]
    )
    _need_free_name(name)
    module.ensure(dry_run=dry_run)

    with opened(main.path) as on_main, opened(spare.path) as on_spare:
        pair = _Pair(main, spare, on_main, on_spare, area, request.adopt)
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
        main_serial=_recorded_serial(main),
        errors=_recorded_errors(request.errors),
        remap_rate=request.remap_rate,
    )
    rule = udevrule.make(uuid, name, main) if request.adopt else None
    made = Plan(
        superblock=superblock,
        main=main,
        spare=spare,
        area=area,
        table=table_line(superblock, main, spare, area.start),
        clear=request.wipe or request.force,
        destroys=tuple(destroys),
        rule=rule,
        steps=(),
        warnings=_warnings(request, main, spare, rule),
    )
    return replace(made, steps=_steps(made))


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


def _need_free_name(name: str) -> None:
    if dm.exists(name):
        raise Busy("DMR-E406", f"a device-mapper device {name!r} exists already")


def _steps(made: Plan) -> tuple[str, ...]:
    sb = made.superblock
    out: list[str] = []
    if made.rule:
        out.append(f"write {made.rule.path}, so that udev takes {made.main.path} for a member")
    out += [f"destroy: {finding.message}" for finding in made.destroys]
    out.append(
        f"write metadata of {sb.slots} slots to {made.spare.path}, "
        f"sectors {made.area.start} to {made.area.start + made.area.sectors - 1}"
    )
    if sb.tagged:
        out.append(f"write a tag into the first MiB of {made.main.path}")
    out.append(f"create device {made.name} ({dm_uuid(sb.uuid)}): {made.table.line}")
    return tuple(out)


def _recorded_errors(errors: ErrorPolicy | None) -> Errors | None:
    return Errors[errors.upper()] if errors else None


def table_line(
    sb: Superblock,
    main: DeviceFacts,
    spare: DeviceFacts,
    spare_start: int,
    *,
    errors: ErrorPolicy | None = None,
    remap_rate: int | None = None,
) -> RemapTable:
    """Return the table line of a set on these devices.

    What the superblock says needs no word: `errors` and `remap_rate` are for this load alone.
    """
    return RemapTable(
        start=0,
        length=sb.data_sectors,
        main=_numbers(main),
        spare=_numbers(spare),
        spare_start=spare_start,
        spare_len=sb.area_sectors,
        main_start=sb.data_start,
        uuid=str(sb.uuid),
        errors=errors,
        remap_rate=remap_rate,
    )


def _numbers(facts: DeviceFacts) -> str:
    # Numbers and not a path: what was checked is what is used, whatever udev renames meanwhile.
    if facts.devno is None:
        raise ValueError(f"{facts.path} is no block device")
    return f"{facts.devno[0]}:{facts.devno[1]}"


def carry_out(made: Plan, *, progress: Progress | None = None) -> Started:
    """Do what a plan says. The caller holds the lock; planning needs none."""
    sb = made.superblock
    _need_free_name(sb.name)
    undo = _Undo()
    with undo.on_failure():
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
        _start(sb.name, sb.uuid, made.table)
    warnings = (*made.warnings, *dm.take_warnings())
    warnings += seen.learn(sb.name, made.spare.path, made.area.start, sb.uuid)
    return Started(sb.name, str(sb.uuid), dm.device_path(sb.name), warnings=warnings)


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


def _start(name: str, uuid: UUID, line: RemapTable, *, readonly: bool = False) -> dm.Device:
    target = dm.Target(line.start, line.length, TARGET, line.params)
    return dm.create(name, dm_uuid(uuid), [target], readonly=readonly)


# ----------------------------------------------------------------- assemble


def scan(spares: Sequence[tuple[str, int]] = (), warnings: list[str] | None = None) -> list[Found]:
    """Look for sets on the given spares (path, start sector), else on all block devices.

    Devices that cannot be read, and metadata that cannot be used, are passed over with a warning,
    which is added to `warnings`: a disk that fails must not keep others from being assembled. On a
    spare that was given they are errors.
    """
    warnings = [] if warnings is None else warnings
    tags: dict[str, Tag] = {}
    lost: set[str] = set()
    copies: dict[str, dict[int, Tag]] = {}
    found: list[Found] = []
    everything: list[DeviceFacts] = []
    named = {blockdev.block_devno(path): start for path, start in spares}
    for facts in _readable(warnings):
        everything.append(facts)
        given = facts.devno in named
        start = named.get(facts.devno, 0)
        try:
            with opened(facts.path) as device:
                first = View(device, 0)
                area = View(device, start) if start else first
                loads = find(area) if given or not spares else ()
                copies[facts.path] = read_tags(first)
                if lost_tags(first):
                    lost.add(facts.path)
        except DmRemapError as err:
            if given:
                raise
            if not isinstance(err, NotFound):  # a drive without a medium is nothing to speak of
                warnings.append(f"{facts.path} was not looked at: {err.message}")
            continue
        tag = newest_tag(copies[facts.path].values())
        if tag is not None:
            tags[facts.path] = tag
        for load in loads:
            if load.superblock is not None:
                problems = tuple(load.refusals)
                # What is refused already would be refused to whoever accepts it, too.
                problems = problems or _older(load.superblock, facts, start, warnings)
                found.append(Found(load.superblock, facts, start, problems=problems))
            elif load.refusals:
                useless = refused(facts.path, load.refusals)
                if given:
                    raise useless
                warnings.append(useless.message)
    found = _topmost(found)
    found = [_with_mains(one, tags, lost, everything) for one in found]
    return [replace(one, main_problems=_main_problems(one, copies)) for one in found]


def _readable(warnings: list[str]) -> Iterator[DeviceFacts]:
    """Yield all block devices that may be a main or a spare."""
    for directory in blockdev.all_devices():
        facts = blockdev.facts_of(blockdev.node(directory), directory)
        if facts.sectors < TAG_SECTORS or _is_set(directory):
            continue
        if suspended(facts):
            # Reading it would wait until it is resumed, perhaps for ever.
            warnings.append(f"{blockdev.label(directory)} is suspended and was not looked at")
            continue
        yield facts


def tagged_mains(uuid: UUID) -> list[DeviceFacts]:
    """Return the block devices that carry the tag of a set."""

    def is_one(device: BlockDevice) -> bool:
        tag = read_tag(View(device, 0))
        return tag is not None and tag.uuid == uuid

    return _devices(is_one)


def spares(uuid: UUID, start: int) -> list[DeviceFacts]:
    """Return the block devices that have a superblock of a set, where its area begins."""
    return _devices(lambda device: look(View(device, start), uuid).superblock is not None)


def _devices(is_one: Callable[[BlockDevice], bool]) -> list[DeviceFacts]:
    """Return the block devices that are what is looked for, and not those that they consist of."""
    some: list[DeviceFacts] = []
    for facts in _readable([]):
        with contextlib.suppress(DmRemapError), opened(facts.path) as device:
            if is_one(device):
                some.append(facts)
    return [facts for facts in some if not _under(facts.devno, some)]


def _main_problems(one: Found, copies: Mapping[str, Mapping[int, Tag]]) -> dict[str, Refusal]:
    sb = one.superblock
    out: dict[str, Refusal] = {}
    for facts in one.mains:
        problem = _tag_in_data(one, facts)
        if sb.tagged and facts.path in one.tags:
            problem = judge_main(sb, copies[facts.path], facts.sectors)
        if sb.tagged and problem and problem.code != UNFIT:
            problem = _judge_again(one, facts, problem)
        if problem:
            out[facts.path] = with_way_out(problem, one.spare.path, one.spare_start)
    return out


def _older(
    sb: Superblock, spare: DeviceFacts, start: int, warnings: list[str]
) -> tuple[Refusal, ...]:
    """Say why the spare of an adopted main is refused, by what this host has seen of the set."""
    if sb.tagged:
        return ()
    try:
        epoch = seen.last(sb.uuid)
    except DmRemapError as err:
        warnings.append(err.message)
        return ()
    problem = judge_seen(sb, epoch) if epoch else None
    if problem and epoch:
        # What was seen has to be read first: the set may have been started meanwhile.
        with contextlib.suppress(DmRemapError), opened(spare.path) as device:
            now = look(View(device, start), sb.uuid).superblock
            problem = judge_seen(now, epoch) if now else problem
    return (with_way_out(problem, spare.path, start),) if problem else ()


def _tag_in_data(one: Found, main: DeviceFacts) -> Refusal | None:
    """Say why an adopted main with a tag on it is refused. check_adopted() in the kernel."""
    tag = one.tags.get(main.path)
    if one.superblock.tagged or tag is None or is_content(one.superblock, main, tag):
        return None
    return Refusal(
        errno.EINVAL,
        f"main has the tag of set {tag.set_name}, and no id says that it is this set's",
        "DMR-C319",
        hint="If it is that set's main, start that set. If the tag is content of this set's data: "
        + mend_command(one, "--tag-is-content", main.path),
    )


def _judge_again(one: Found, main: DeviceFacts, before: Refusal) -> Refusal | None:
    """Read the tag first and the superblocks second: they were read in any order.

    A set that was started meanwhile begins an epoch the other way round.
    """
    with contextlib.suppress(DmRemapError):
        with opened(main.path) as device:
            copies = read_tags(View(device, 0))
        with opened(one.spare.path) as device:
            sb = look(View(device, one.spare_start), one.superblock.uuid).superblock
        tag = newest_tag(copies.values())
        if sb and tag and tag.uuid == sb.uuid:
            return judge_main(sb, copies, main.sectors)
    return before


def with_way_out(problem: Refusal, spare: str, start: int, main: str | None = None) -> Refusal:
    """Return why main and spare are refused, with what to do as it can be typed."""
    if problem.code not in (OLDER, PARTED):
        return problem
    words = ["dmremapctl", "repair", "--accept-older-spare", spare]
    words += ["--start", str(start)] if start else []
    words += ["--main", main] if main else []
    return replace(
        problem,
        hint="Start the set with the spare that it was used with last. If that is gone, this takes "
        f"the one that is here, and says what is lost: {shlex.join(words)}",
    )


def suspended(facts: DeviceFacts) -> bool:
    """Say whether a device, or one that it consists of, is suspended."""
    for devno in facts.components:
        directory = blockdev.sysfs_dir(devno)
        with contextlib.suppress(OSError):
            if directory and (directory / "dm" / "suspended").read_text().strip() == "1":
                return True
    return False


def _is_set(directory: Path) -> bool:
    uuid = directory / "dm" / "uuid"
    with contextlib.suppress(OSError):
        return uuid.read_text(encoding="ascii", errors="replace").startswith(DM_UUID_PREFIX)
    return False


def _under(devno: Devno | None, others: Sequence[DeviceFacts]) -> bool:
    return any(other.devno != devno and devno in other.components for other in others)


def _topmost(found: Sequence[Found]) -> list[Found]:
    """Leave out paths of a multipath device, legs of a mirror and the like."""
    return [
        one
        for one in found
        if not _under(
            one.spare.devno,
            [two.spare for two in found if two.superblock.uuid == one.superblock.uuid],
        )
    ]


def matches_main(sb: Superblock, facts: DeviceFacts) -> bool:
    """Say whether a device is the main of an adopted set, as far as can be known."""
    if facts.offset != sb.main_offset or contradicts_main(sb, facts):
        return False
    if sb.main_id_type and facts.id_type == sb.main_id_type:
        return True
    return bool(sb.main_serial) and _recorded_serial(facts) == sb.main_serial


def contradicts_main(sb: Superblock, facts: DeviceFacts) -> bool:
    """Say whether a device cannot be the main of an adopted set, whoever says that it is."""
    if facts.sectors != sb.main_sectors:
        return True
    if facts.offset != sb.main_offset and (sb.main_id_type or sb.main_offset):
        return True
    if sb.main_id_type and facts.id_type == sb.main_id_type:
        return facts.id != sb.main_id
    serial = _recorded_serial(facts)
    return bool(sb.main_serial and serial) and serial != sb.main_serial


def _recorded_serial(facts: DeviceFacts) -> str:
    """Return a serial as far as the superblock has room for it."""
    return facts.serial.encode()[:SERIAL_MAX].decode(errors="ignore")


def known_by_id(sb: Superblock, facts: DeviceFacts) -> bool:
    """Say whether a device is the disk that a set has recorded as its main, as its driver says."""
    same = (facts.id_type, facts.id) == (sb.main_id_type, sb.main_id)
    return bool(sb.main_id_type) and same and facts.offset == sb.main_offset


def _is_tagless_main(sb: Superblock, facts: DeviceFacts) -> bool:
    """Say whether a load takes a main whose tag cannot be read. check_without_tag() in the kernel.

    What it holds is read only if its id is the right one.
    """
    if facts.sectors < sb.main_sectors or not known_by_id(sb, facts):
        return False
    with contextlib.suppress(DmRemapError), opened(facts.path) as device:
        return something_else(View(device, 0), sb.unit) is None
    return False


def _with_mains(
    one: Found, tags: Mapping[str, Tag], lost: set[str], everything: Sequence[DeviceFacts]
) -> Found:
    """Add which devices may be a set's main."""
    sb = one.superblock
    untagged: list[DeviceFacts] = []
    if sb.tagged:
        some = [facts for facts in everything if _carries(sb, tags.get(facts.path))]
        bare = [facts for facts in everything if facts.path not in tags]
        some += [facts for facts in bare if facts.path in lost and _is_tagless_main(sb, facts)]
        untagged = [facts for facts in bare if facts not in some and matches_main(sb, facts)]
    else:
        some = [facts for facts in everything if matches_main(sb, facts)]
    mains = tuple(facts for facts in some if not _under(facts.devno, some))
    return replace(one, mains=mains, tags=tags, untagged=tuple(untagged))


def _carries(sb: Superblock, tag: Tag | None) -> bool:
    return tag is not None and tag.uuid == sb.uuid


def is_content(sb: Superblock, facts: DeviceFacts, tag: Tag) -> bool:
    """Say whether a tag on an adopted main counts as content."""
    return known_by_id(sb, facts) or tag.uuid == (sb.content_tag or UUID(int=0))


def select(found: Sequence[Found], names: Sequence[str]) -> list[Found]:
    """Return the sets of these names or uuids."""
    out: list[Found] = []
    for name in names:
        hits = [one for one in found if name in (one.name, str(one.superblock.uuid))]
        if not hits:
            raise NotFound("DMR-E303", f"there is no set {name!r} on any block device")
        uuids = {one.superblock.uuid for one in hits}
        if len(uuids) > 1:
            raise Refused(
                "DMR-E521",
                f"several sets are called {name!r}: {', '.join(sorted(map(str, uuids)))}",
                hint="Name the set by its uuid.",
            )
        out += [one for one in hits if one not in out]
    return out


def assemble(
    one: Found,
    *,
    main: str | None = None,
    name: str | None = None,
    errors: ErrorPolicy | None = None,
    remap_rate: int | None = None,
    readonly: bool = False,
    dry_run: bool = False,
) -> tuple[Started, RemapTable]:
    """Start a set that was found on disk. The caller holds the lock.

    `errors` and `remap_rate` are recorded first; read-only, where nothing is written, they are for
    this start alone.
    """
    sb = one.superblock
    chosen = _new_choices(sb, errors, remap_rate)
    already = dm.exists(uuid=dm_uuid(sb.uuid))
    if already and not already.live_table:
        # Whoever began to start it was killed: the lock is ours now.
        if not dry_run:
            dm.remove(already.name)
        already = None
    others = [run for run in [_running(already)] if run] if already else running()
    if runs := _runs_as(one, main, others):
        already = runs.device
    if already:
        path = dm.device_path(already.name)
        if chosen:
            raise Busy(
                "DMR-E411",
                f"set {one.name!r} runs, so its {' and '.join(chosen)} cannot be changed",
            )
        line = table_line(sb, one.spare, one.spare, one.spare_start)
        current = _tables(already.name)
        # It may have been started past us.
        told = seen.learn(already.name, one.spare.path, one.spare_start, sb.uuid)
        return Started(already.name, str(sb.uuid), path, already=True, warnings=told), (
            current[0] if current else line
        )
    # A read-only table may have what this version may not write.
    problems = [p for p in one.problems if not (readonly and p.code == "DMR-C312")]
    if problems:
        raise refused(f"set {one.name!r} on {one.spare.path}", problems)
    disk = _choose_main(one, main)
    if problem := one.main_problems.get(disk.path) or _tag_in_data(one, disk):
        raise refused(f"set {one.name!r} on {one.spare.path}, with {disk.path}", [problem])
    safety.refuse(
        [
            *safety.check_usable(
                replace(disk, exclusive=blockdev.exclusive_errno(disk.path)),
                write=not readonly,
            ),
            *safety.check_usable(_beside(one, others), write=not readonly),
            *safety.check_pair(disk, one.spare),
        ]
    )
    module.ensure(dry_run=dry_run)
    wanted = check_name(name or one.name)
    free = _free_name(wanted)
    if name and free != name:
        raise Busy("DMR-E406", f"a device-mapper device {name!r} exists already")
    warnings: tuple[str, ...] = (
        (f"the name {wanted!r} is taken, so the device is called {free!r}",)
        if free != wanted
        else ()
    )
    line = table_line(sb, disk, one.spare, one.spare_start)
    if readonly:
        line = replace(line, errors=errors, remap_rate=remap_rate)
        chosen = ()
    if not dry_run:
        if chosen:
            _record(one, errors, remap_rate)
        _start(free, sb.uuid, line, readonly=readonly)
        warnings += dm.take_warnings()
        if not readonly:
            warnings += seen.learn(free, one.spare.path, one.spare_start, sb.uuid)
    path = dm.device_path(free)
    return Started(free, str(sb.uuid), path, recorded=chosen, warnings=warnings), line


def _new_choices(
    sb: Superblock, errors: ErrorPolicy | None, remap_rate: int | None
) -> tuple[str, ...]:
    """Return the options of which a superblock says something else."""
    return tuple(
        name
        for name, wanted, recorded in (
            ("errors", _recorded_errors(errors), sb.errors),
            ("remap_rate", remap_rate, sb.remap_rate),
        )
        if wanted is not None and wanted != recorded
    )


def _record(one: Found, errors: ErrorPolicy | None, remap_rate: int | None) -> None:
    """Have the superblocks of a set that is about to be started say what a person chose."""
    # Sets that have other areas of the spare hold it for device-mapper, of which this is no part.
    shared = bool(one.spare.holders)
    with opened(one.spare.path, write=True, exclusive=not shared) as spare:
        if spare.devno != one.spare.devno:
            raise Busy("DMR-E409", f"{one.spare.path} has changed while this was being decided")
        choose(
            spare,
            one.spare_start,
            one.superblock.uuid,
            device_writer(spare, one.spare_start),
            errors=_recorded_errors(errors),
            remap_rate=remap_rate,
        )


def mend_command(one: Found, option: str, main: str) -> str:
    """Return the repair that a set on disk needs, as it can be typed."""
    words = ["dmremapctl", "repair", one.spare.path, option, main]
    if one.spare_start:
        words += ["--start", str(one.spare_start)]
    return shlex.join(words)


def _no_tag(one: Found, facts: DeviceFacts) -> Refused:
    return Refused(
        "DMR-E533",
        f"{facts.path} has no tag that can be read, and set {one.name!r} knows its main by one",
        hint="If it is the set's main, with the set's data, have the tag written again: "
        + mend_command(one, "--retag", facts.path),
    )


def _runs_as(one: Found, main: str | None, others: Sequence[Running]) -> Running | None:
    """Return the device that runs a set already, or raise if it runs from other devices."""
    uuid = str(one.superblock.uuid)
    runs = next((run for run in others if run.uuid == uuid and run.device.live_table), None)
    if runs is None:
        return None
    wanted = [("spare", one.spare)]
    if main is not None:
        wanted.append(("main", blockdev.facts(main, look_inside=False)))
    for what, facts in wanted:
        used = {getattr(table, what) for table in runs.tables if table.uuid == uuid}
        # A device over the one that is used is the same disk.
        names = {f"{major}:{minor}" for major, minor in facts.components}
        if facts.devno is None or not used & {_numbers(facts), *names}:
            paths = ", ".join(sorted(map(blockdev.table_path, used)))
            raise Busy(
                "DMR-E410",
                f"set {one.name!r} runs as {runs.name!r}, whose {what} is {paths} "
                f"and not {facts.path}",
                hint="What runs can be used. To start the set from other devices, stop it first: "
                f"dmremapctl remove {shlex.quote(runs.name)}",
            )
    return runs


def _beside(one: Found, others: Sequence[Running]) -> DeviceFacts:
    """Return the facts about a set's spare without the sets that have other areas of it.

    Their device-mapper claim is the only one that there can be, and it is shared by ours.
    """
    number = _numbers(one.spare)
    end = one.spare_start + one.superblock.area_sectors
    apart: set[str] = set()
    for other in others:
        areas = [(t.spare_start, t.spare_len) for t in other.tables if t.spare == number]
        disjoint = all(start >= end or start + size <= one.spare_start for start, size in areas)
        # Nothing of the device may lie elsewhere on the spare either.
        known = len(areas) == other.device.target_count
        if known and disjoint and all(table.main != number for table in other.tables):
            apart.add(f"dm-{other.device.minor} ({other.name})")
    left = tuple(use for use in one.spare.holders if use.by not in apart)
    if one.spare.holders and not left:
        return replace(one.spare, holders=())
    return replace(one.spare, exclusive=blockdev.exclusive_errno(one.spare.path))


def _choose_main(one: Found, main: str | None) -> DeviceFacts:
    sb = one.superblock
    if main is not None:
        facts = blockdev.facts(main, look_inside=False)
        if facts.devno is None:
            safety.refuse(safety.check_usable(facts))
        if not sb.tagged:
            # The user names the disk; what is recorded of it must agree all the same.
            wrong = contradicts_main(sb, facts)
        else:
            wrong = facts.devno not in {candidate.devno for candidate in one.mains}
        if wrong and sb.tagged and facts.path not in one.tags and facts.sectors >= sb.main_sectors:
            raise _no_tag(one, facts)
        if wrong:
            raise Refused("DMR-E513", f"{main} is not the main device of set {one.name!r}")
        return facts
    if not one.mains:
        if one.untagged:
            raise _no_tag(one, one.untagged[0])
        if not sb.tagged and not sb.main_serial and not sb.main_id_type:
            raise Refused("DMR-E516", f"the main device of set {one.name!r} cannot be recognised")
        what = f"serial {sb.main_serial}, " if sb.main_serial else ""
        raise NotFound(
            "DMR-E305",
            f"the main device of set {one.name!r} ({what}{sb.main_sectors} sectors) is not there",
        )
    if len(one.mains) > 1:
        paths = ", ".join(facts.path for facts in one.mains)
        raise Refused("DMR-E516", f"several devices may be the main of set {one.name!r}: {paths}")
    return one.mains[0]


def _free_name(name: str) -> str:
    candidate, number = name, 0
    while dm.exists(candidate):
        number += 1
        candidate = f"{name}_{number}"
    return candidate


# ------------------------------------------------------------------ running


def _tables(name: str, *, inactive: bool = False) -> tuple[RemapTable, ...]:
    return tuple(
        parse_table(line.start, line.length, line.params)
        for line in dm.table(name, inactive=inactive)
        if line.type == TARGET
    )


def running(names: Sequence[str] = ()) -> list[Running]:
    """Return the devices with `remap` targets, of these names or uuids, else all."""
    out: list[Running] = []
    for device in dm.list_devices():
        with contextlib.suppress(NotFound):
            one = _running(device)
            if one is not None:
                out.append(one)
    if not names:
        return sorted(out, key=lambda one: one.name)
    chosen: list[Running] = []
    for name in names:
        plain = name.removeprefix("/dev/mapper/")
        hits = [one for one in out if plain in (one.name, one.uuid, one.device.uuid)]
        if not hits:
            raise NotFound("DMR-E303", f"no set {name!r} is running")
        chosen += [one for one in hits if one not in chosen]
    return chosen


def running_one(name: str, *, stopped: str) -> Running:
    """Return the one running set of a name or uuid. stopped: what to do if it does not run."""
    try:
        found = running([name])
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
    if suspended(spare):
        raise Busy(
            "DMR-E409",
            f"the spare {spare.path} is suspended",
            hint="Resume it, or whatever it consists of, with 'dmsetup resume'.",
        )
    return spare


def _running(device: dm.Device) -> Running | None:
    tables = _tables(device.name)
    if not tables:
        # A table that was loaded and never resumed: half-made, but ours and in the way.
        tables = _tables(device.name, inactive=True)
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
        uuid = next((one.uuid for one in status if one.uuid), None)
    return Running(device, uuid, tables, tuple(status))


def names_in_sysfs(sysfs: Path = blockdev.SYSFS) -> list[tuple[str, str, str]]:
    """Return name, uuid and kernel name of running sets as anybody may read them."""
    out: list[tuple[str, str, str]] = []
    for directory in blockdev.all_devices(sysfs):
        if _is_set(directory):
            name = blockdev.unmangle(
                (directory / "dm" / "name").read_text(errors="surrogateescape").strip()
            )
            uuid = (directory / "dm" / "uuid").read_text(errors="replace").strip()
            out.append((name, uuid.removeprefix(DM_UUID_PREFIX), directory.name))
    return out


def remove(one: Running, *, deferred: bool = False) -> tuple[str, ...]:
    """Stop a set and return warnings. What is on disk stays."""
    if not deferred:
        directory = blockdev.sysfs_dir((one.device.major, one.device.minor))
        if directory is not None:
            facts = blockdev.facts_of(one.path, directory)
            busy = [
                finding
                for finding in safety.check_usable(facts, write=False)
                if finding.code in ("DMR-E401", "DMR-E402", "DMR-E403")
            ]
            if busy:
                raise Busy("DMR-E405", f"set {one.name!r} is in use: {busy[0].message}")
    warnings: list[str] = []
    try:
        if deferred or not any(_stop_quietly(one, warnings) for _ in range(_STOPS)):
            dm.remove(one.name, deferred=deferred)
        else:
            warnings += _remember_stopped(one)
    except Busy:
        raise Busy("DMR-E405", f"set {one.name!r} is opened by some program") from None
    return (*warnings, *dm.take_warnings())


def _stop_quietly(one: Running, warnings: list[str]) -> bool:
    """Suspend a set that nobody uses, have its last epoch begin, and remove it.

    From then on a copy of its spare that was made before is refused. False: somebody has it open,
    as udev has for a moment. Whoever opens it while it is suspended waits, so that is not for long:
    it is resumed.
    """
    until = time.monotonic() + _CLOSED_SECONDS
    while dm.info(one.name).open_count:
        if time.monotonic() > until:
            raise Busy("DMR-E405", f"set {one.name!r} is opened by some program")
        time.sleep(0.05)
    warnings.clear()
    with dm.uninterrupted():
        # Nothing is open, so no file system has to be frozen.
        dm.suspend(one.name, lockfs=False)
        try:
            for table, told in zip(one.tables, one.status, strict=True):
                if told.mode == "rw":
                    # One that is known by its id may have a tag that could not be read.
                    tagged = told.identity == "tag" or (
                        told.identity == "id" and table.main_start >= TAG_SECTORS
                    )
                    warnings += _begin_last_epoch(one.name, table.start, tagged=tagged)
            dm.remove(one.name, retry=False)
        except BaseException as err:
            if not one.device.suspended:
                dm.resume(one.name)
            if isinstance(err, Busy):
                return False
            raise
    return True


def _remember_stopped(one: Running) -> tuple[str, ...]:
    """Remember the last epochs of the sets of a device that was stopped."""
    warnings: list[str] = []
    for table, told in zip(one.tables, one.status, strict=True):
        uuid = table.uuid or told.uuid
        if told.mode == "rw" and told.identity != "tag" and uuid:
            spare = blockdev.table_path(table.spare)
            warnings += seen.learn(one.name, spare, table.spare_start, UUID(uuid))
    return tuple(warnings)


def _begin_last_epoch(name: str, start: int, *, tagged: bool) -> tuple[str, ...]:
    """Send `stop` to a target; return what has to be said of that."""
    try:
        said = parse_stop(dm.message(name, start, "stop"))
    except DmRemapError as err:
        why = err.message
    else:
        if said.tag or not tagged:
            return ()
        why = "its main did not take the tag"
    return (f"a copy of {name}'s spare made before now cannot be told from the spare: {why}",)
