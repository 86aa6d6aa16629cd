# SPDX-License-Identifier: GPL-2.0-only
"""Growing a running set onto more of its spare.

plan() looks and writes nothing. carry_out() writes empty tables behind the area, then loads a table
with the longer area; the kernel, which alone writes the superblocks of a live set, makes the new
slots part of it when that table is resumed. Until then the set is the old one, so that every step
may fail and all of it can be done again.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from uuid import UUID

from dmremap import dm
from dmremap.dm.lines import TARGET, RemapTable, parse_table
from dmremap.errors import Busy, DmRemapError, Failure, Refused, Usage
from dmremap.host import begun, blockdev, signals
from dmremap.host.blockdev import DeviceFacts
from dmremap.host.sizes import binary_size
from dmremap.ondisk import (
    BLOCK,
    BLOCK_SECTORS,
    MAGIC,
    MAX_SEGMENTS,
    MAX_SLOTS,
    BlockDevice,
    InTheWay,
    Obstacle,
    Progress,
    Segment,
    Superblock,
    View,
    extension_for,
    first_obstacle,
    largest_area,
    look,
    opened,
    refused,
    write_tables,
)
from dmremap.sets import extent, live, safety, seen
from dmremap.sets.extent import Cost, Size
from dmremap.sets.live import Running
from dmremap.sets.safety import Finding

_LESS = "Make the spare longer, or let the set grow less far with --to or --by."


@dataclass(frozen=True, slots=True)
class Plan:
    """What carry_out() will do."""

    name: str
    path: str
    before: Superblock
    after: Superblock
    spare: DeviceFacts
    old: RemapTable
    new: RemapTable
    targets: tuple[dm.Target, ...]

    @property
    def segment(self) -> Segment:
        """The segment that the set gets."""
        return self.after.segments[-1]

    @property
    def cost(self) -> Cost:
        """What is read and written for the new slots, and the memory of all."""
        segment = self.segment
        return Cost(self.after.slots, segment.blocks * BLOCK, extent.metadata(segment))

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps, for people."""
        segment, cost = self.segment, self.cost
        first = self.old.spare_start + segment.start * BLOCK_SECTORS
        end = self.new.spare_start + self.after.area_sectors
        where = f"{self.spare.path}, within sectors {first} to {end - 1}"
        left = extent.left_over(
            self.after, self.spare.sectors - self.new.spare_start, self.spare.path
        )
        return (
            f"read all {binary_size(cost.reads)} of {where}",
            f"write empty tables of {segment.slots} slots, {binary_size(cost.writes)}, to {where}",
            *([left] if left else []),
            f"load for {self.name}: {self.new.line}",
            f"suspend and resume {self.name}",
            f"keep {cost.words}",
        )


# ------------------------------------------------------------------- what is


@dataclass(frozen=True, slots=True)
class _Now:
    """The set as it runs."""

    running: Running
    table: RemapTable
    targets: tuple[dm.Target, ...]
    spare: DeviceFacts

    def with_table(self, table: RemapTable) -> tuple[dm.Target, ...]:
        """Return all lines of the device, with this one in the place of the set's."""
        return tuple(
            replace(target, params=table.params) if target.type == TARGET else target
            for target in self.targets
        )


def _look(name: str) -> _Now:
    """Return the set as it runs, if it may grow at all."""
    running = live.find_one(
        name, stopped="A set grows while it runs: start it with 'dmremapctl assemble'."
    )
    _check_running(running)
    targets = tuple(dm.table(running.name))
    lines = [parse_table(t.start, t.length, t.params) for t in targets if t.type == TARGET]
    if len(lines) != 1:
        raise Refused(
            "DMR-E528",
            f"device {running.name!r} has {len(lines)} targets of dm-remap in its table",
            hint="Write a table with a longer spare_len by hand; see docs/interface.md.",
        )
    now = _Now(running, lines[0], targets, live.spare_facts(lines[0]))
    _check_inactive(now)
    return now


def _check_running(running: Running) -> None:
    if running.device.suspended or not running.device.live_table:
        raise Busy(
            "DMR-E409",
            f"set {running.name!r} is suspended",
            hint=f"Resume it with 'dmsetup resume {running.name}', then let it grow.",
        )
    if not running.status:
        raise Failure("DMR-E106", f"the status of set {running.name!r} is not understood")
    modes = {status.mode for status in running.status}
    if running.device.read_only or modes != {"rw"}:
        raise Refused("DMR-E529", f"set {running.name!r} is read-only, so that it cannot grow")


def _check_inactive(now: _Now) -> None:
    """Refuse where somebody has loaded a table, unless it was an attempt to grow that was cut."""
    if not now.running.device.inactive_table:
        return
    waiting = dm.table(now.running.name, inactive=True)
    with contextlib.suppress(DmRemapError):
        lines = [parse_table(t.start, t.length, t.params) for t in waiting if t.type == TARGET]
        if len(lines) == 1:
            same = now.with_table(replace(lines[0], spare_len=now.table.spare_len))
            if same == now.targets and lines[0].spare_len >= now.table.spare_len:
                return
    raise Busy(
        "DMR-E409",
        f"a table that is not in force yet is loaded for {now.running.name!r}",
        hint=f"'dmsetup table --inactive {now.running.name}' shows it, 'dmsetup clear' forgets it.",
    )


def _recorded(device: BlockDevice, now: _Now) -> Superblock:
    """Return what the superblocks say, which is what the kernel goes by."""
    running = now.running
    view = View(device, now.table.spare_start)
    load = look(view, UUID(running.uuid) if running.uuid else None)
    sb = load.superblock
    if load.refusals:
        raise refused(f"set {running.name!r}, on {now.spare.path}", load.refusals)
    if sb is None:
        what = "no superblock of it is found there"
        raise Refused("DMR-E514", f"set {running.name!r}, on {now.spare.path}: {what}")
    slots = [status.slots for status in running.status]
    if sb.area_blocks != now.table.spare_len // BLOCK_SECTORS or slots != [sb.slots]:
        raise Busy(
            "DMR-E409",
            f"set {running.name!r} is not, as it runs, what {now.spare.path} says that it is",
            hint="If another command has just changed it, try again; else stop the set and look "
            "with 'dmremapctl check'.",
        )
    return sb


# --------------------------------------------------------------- what can be


def grown(
    sb: Superblock, spare: DeviceFacts, spare_start: int, by: int | None, to: Size
) -> Superblock:
    """Return the set as it is to be, or raise. Sizes are in sectors; see next_area() for others."""
    room = max(spare.sectors - spare_start, 0) // BLOCK_SECTORS
    if isinstance(to, int):
        blocks = to // BLOCK_SECTORS
    elif by is not None:
        blocks = sb.area_blocks + by // BLOCK_SECTORS
    else:
        blocks = extent.next_area(sb, room, everything=to == "all")
    if sb.slots >= MAX_SLOTS:
        raise Refused("DMR-E528", f"the set has {sb.slots} slots and cannot grow any more")
    if len(sb.segments) >= MAX_SEGMENTS:
        raise Refused("DMR-E528", f"the set has {MAX_SEGMENTS} segments and cannot grow any more")
    if blocks > room:
        raise Refused(
            "DMR-E511",
            f"an area of {blocks * BLOCK_SECTORS} sectors ends at sector "
            f"{spare_start + blocks * BLOCK_SECTORS}, {spare.path} at {spare.sectors}",
            hint=_LESS,
        )
    segment = extension_for(sb, blocks)
    if segment is None:
        raise Refused(
            "DMR-E527",
            f"the area has {sb.area_sectors} sectors, and {blocks * BLOCK_SECTORS} would give it "
            f"no slot more; {spare.path} has room for {room * BLOCK_SECTORS}",
        )
    if sb.slots + segment.slots > MAX_SLOTS:
        most = largest_area(sb)
        raise Refused(
            "DMR-E528",
            f"the set would have {sb.slots + segment.slots} slots, and {MAX_SLOTS} are the most",
            hint=f"Let it grow less far: --to {most * BLOCK_SECTORS} is the most."
            if extension_for(sb, most)
            else None,
        )
    return replace(sb, area_blocks=blocks, segments=(*sb.segments, segment))


def check_neighbours(
    spare: DeviceFacts, own: Running, running: list[Running], start: int, end: int
) -> Iterator[Finding]:
    """Yield who else uses the spare, but for sets whose areas there lie elsewhere."""
    number = f"{spare.devno[0]}:{spare.devno[1]}" if spare.devno else ""
    apart = {_label(own)}
    for other in running:
        if other.device.name == own.device.name:
            continue
        areas = [(t.spare_start, t.spare_len) for t in other.tables if t.spare == number]
        for first, sectors in areas:
            if first < end and start < first + sectors:
                yield Finding(
                    "DMR-E403",
                    f"sectors {first} to {first + sectors - 1} of {spare.path} belong to set "
                    f"{other.name!r}",
                    hint="Let the set grow less far with --to or --by.",
                )
        # Nothing of the device may lie elsewhere on the spare either.
        known = len(areas) == other.device.target_count
        if known and all(table.main != number for table in other.tables):
            apart.add(_label(other))
    # Device-mapper's claim is the only one that there can be, so nobody else is found by asking
    # for another.
    left = tuple(use for use in spare.holders if use.by not in apart)
    yield from safety.check_usable(replace(spare, holders=left, exclusive=None))


def _label(running: Running) -> str:
    return f"dm-{running.device.minor} ({running.name})"


def check_signatures(spare: DeviceFacts, start: int, end: int) -> Iterator[Finding]:
    """Yield what is recognised outside of the area, which is from `start` to `end`.

    Inside are the slots with what users have written. A partition table that lies before it may
    give what follows to somebody else, though that reads as zero.
    """
    for signature in spare.signatures:
        if not start * 512 <= signature.offset < end * 512:
            name = signature.type + (f" ({signature.label})" if signature.label else "")
            yield Finding(
                "DMR-E503",
                f"{spare.path} holds {name}, at byte {signature.offset}",
                hint="What is behind the set's area must be free. See what it is with 'wipefs' "
                f"and 'lsblk'. {_LESS}",
            )


def check_obstacle(path: str, uuid: UUID, start: int, found: Obstacle | None) -> Iterator[Finding]:
    """Yield why a place behind the area is not blank."""
    if found is None:
        return
    at = start * 512 + found.block * BLOCK
    if found.data is None:
        yield Finding(
            "DMR-E518",
            f"{path} cannot be read at byte {at}, behind the area, so it is not known to be blank",
            hint="Let the set grow less far with --to or --by, or write zeroes there, which may "
            "mend it, if you know that it holds nothing.",
        )
    elif found.data.startswith(MAGIC):
        whose = "this set, not empty," if uuid.bytes in found.data[:64] else "a set"
        yield Finding(
            "DMR-E504",
            f"{path} has metadata of {whose} at byte {at}, sector {at // 512}",
            hint="If a set has its area there, leave it to it and let this one grow less far with "
            "--to or --by. If not, write zeroes there.",
        )
    else:
        yield Finding(
            "DMR-E505",
            f"{path} is not blank: there is data behind the area, at byte {at}",
            hint="Check what it is. If nobody needs it write zeroes there; or let the set grow "
            "less far with --to or --by.",
        )


def plan(
    name: str, *, by: int | None = None, to: Size = None, progress: Progress | None = None
) -> Plan:
    """Check everything and return what is to be done. Writes nothing; sizes are in sectors."""
    if by is not None and to is not None:
        raise Usage("DMR-E201", "--by and --to exclude each other")
    now = _look(name)
    with opened(now.spare.path) as device:
        before = _recorded(device, now)
        after = grown(before, now.spare, now.table.spare_start, by, to)
        made = _plan(now, before, after)
        _refuse(made, now)
        # What takes long comes last.
        found = _search(device, made, progress)
    safety.refuse(check_obstacle(now.spare.path, before.uuid, now.table.spare_start, found))
    return made


def _plan(now: _Now, before: Superblock, after: Superblock) -> Plan:
    new = replace(now.table, spare_len=after.area_sectors)
    return Plan(
        name=now.running.name,
        path=now.running.path,
        before=before,
        after=after,
        spare=now.spare,
        old=now.table,
        new=new,
        targets=now.targets,
    )


def _refuse(made: Plan, now: _Now) -> None:
    """Refuse what can be seen without reading the extension."""
    start = made.old.spare_start
    end = start + made.after.area_sectors
    # Nothing is read from a device that is in use by others.
    safety.refuse(check_neighbours(made.spare, now.running, live.find(), start, end))
    spare = blockdev.with_signatures(made.spare)
    safety.refuse(check_signatures(spare, start, start + made.before.end * BLOCK_SECTORS))


def _search(device: BlockDevice, made: Plan, progress: Progress | None) -> Obstacle | None:
    places = range(made.segment.start, made.after.area_blocks)
    return first_obstacle(device, made.before.uuid, made.old.spare_start, places, progress)


# ------------------------------------------------------------------- do it


def carry_out(made: Plan, *, progress: Progress | None = None) -> tuple[str, ...]:
    """Do what a plan says and return warnings. The caller holds the lock; planning needs none."""
    now = _look(made.name)
    with opened(made.spare.path, write=True) as device:
        # Time has passed since the plan: perhaps somebody was asked a question.
        if device.devno != made.spare.devno or (
            now.spare.sectors < made.spare.sectors
            or now.targets != made.targets
            or replace(_recorded(device, now), seq=0) != replace(made.before, seq=0)
        ):
            raise Busy("DMR-E409", f"set {made.name!r} has changed while this was being decided")
        _refuse(made, now)
        with _step(f"while empty tables were written behind the area on {made.spare.path}"):
            _write(device, made, progress)
        with _step(f"while the longer table of {made.name} was loaded"):
            warnings = _swap(made, now)
        _verify(device, made)
    where = made.spare.path, made.old.spare_start
    warnings += seen.learn(made.name, *where, made.before.uuid)
    return (*warnings, *dm.take_warnings())


@contextlib.contextmanager
def _step(what: str) -> Iterator[None]:
    try:
        yield
    except DmRemapError as err:
        err.add_note(f"This happened {what}. The command can be repeated.")
        raise


def _write(device: BlockDevice, made: Plan, progress: Progress | None) -> None:
    start, uuid = made.old.spare_start, made.before.uuid
    try:
        write_tables(device, uuid, start, made.segment, progress)
    except InTheWay as found:
        safety.refuse(check_obstacle(made.spare.path, uuid, start, found.obstacle))


@signals.held()
def _swap(made: Plan, now: _Now) -> tuple[str, ...]:
    """Put the longer table in force, whatever signal comes; return warnings."""
    with contextlib.ExitStack() as note:
        uuid = now.running.device.uuid
        note.enter_context(begun.noted("suspended", name=made.name, uuid=uuid))
        return _swap_noted(made, now, note.close)


def _swap_noted(made: Plan, now: _Now, then: Callable[[], None]) -> tuple[str, ...]:
    """Do it; `then` is called when the set goes on."""
    try:
        # Freezing a file system would make it write everything that it has, for nothing.
        dm.swap(made.name, now.with_table(made.new), lockfs=False, then=then)
    except DmRemapError as err:
        # A table that the kernel did not take leaves the old one at work. One that it took, and
        # could not start, has replaced it: nothing goes on before a table is in force again.
        if not dm.info(made.name).suspended:
            err.add_note(f"Set {made.name} goes on as it was.")
            raise
        if _go_on(made.name, made.targets):
            err.add_note(f"Set {made.name} was given its old table back and goes on as it was.")
            raise
        # The old table is not taken any more once a superblock has the new segment.
        if not _go_on(made.name, now.with_table(made.new)):
            err.add_note(
                f"Set {made.name} is suspended. When the cause is removed, "
                f"'dmsetup resume {made.name}' goes on."
            )
            raise
        return (f"{made.name} was started at the second attempt: {err.message}",)
    return ()


def _go_on(name: str, targets: tuple[dm.Target, ...]) -> bool:
    """Load a table for a suspended device and resume it; say whether that worked."""
    try:
        dm.reload(name, targets)
        dm.resume(name)
    except DmRemapError:
        return False
    return True


def _verify(device: BlockDevice, made: Plan) -> None:
    """Make sure that the kernel has done it."""
    (running,) = live.find([made.name])
    sb = look(View(device, made.old.spare_start), made.before.uuid).superblock
    slots = [(status.mode, status.slots) for status in running.status]
    if slots != [("rw", made.after.slots)] or not sb or sb.segments != made.after.segments:
        raise Failure(
            "DMR-E100", f"set {made.name!r} took the longer table and has not the size it gives"
        )
