# SPDX-License-Identifier: GPL-2.0-only
"""Start a set that was found on disk."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from dmremap import dm
from dmremap.dm import module
from dmremap.dm.lines import TARGET, ErrorPolicy, RemapTable
from dmremap.errors import Busy, NotFound, Refused
from dmremap.host import blockdev
from dmremap.host.blockdev import DeviceFacts
from dmremap.ondisk import Errors, Superblock, choose, device_writer, opened, refused
from dmremap.sets import discover, identity, live, naming, safety, seen
from dmremap.sets.discover import Found
from dmremap.sets.live import Running


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


def recorded_errors(errors: ErrorPolicy | None) -> Errors | None:
    """Return what a superblock records for what a person chose, None if nobody did."""
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
        main=numbers(main),
        spare=numbers(spare),
        spare_start=spare_start,
        spare_len=sb.area_sectors,
        main_start=sb.data_start,
        uuid=str(sb.uuid),
        errors=errors,
        remap_rate=remap_rate,
    )


def numbers(facts: DeviceFacts) -> str:
    """Return the device numbers of a block device, as a table line names it."""
    # Numbers and not a path: what was checked is what is used, whatever udev renames meanwhile.
    if facts.devno is None:
        raise ValueError(f"{facts.path} is no block device")
    return f"{facts.devno[0]}:{facts.devno[1]}"


def start(name: str, uuid: UUID, line: RemapTable, *, readonly: bool = False) -> dm.Device:
    """Create the device of a set, with one table line, and resume it."""
    target = dm.Target(line.start, line.length, TARGET, line.params)
    return dm.create(name, naming.dm_uuid(uuid), [target], readonly=readonly)


def assemble(
    found: Found,
    *,
    main: str | None = None,
    name: str | None = None,
    errors: ErrorPolicy | None = None,
    remap_rate: int | None = None,
    readonly: bool = False,
    dry_run: bool = False,
    up: list[Running] | None = None,
) -> tuple[Started, RemapTable]:
    """Start a set that was found on disk. The caller holds the lock.

    Who starts many passes what runs as `up`; what is started is added to it.

    `errors` and `remap_rate` are recorded first; read-only, where nothing is written, they are for
    this start alone.
    """
    sb = found.superblock
    chosen = _new_choices(sb, errors, remap_rate)
    already = _begun(sb.uuid, dry_run=dry_run)
    if already:
        running = [run for run in [live.look_at(already)] if run]
    else:
        running = live.find() if up is None else up
    if runs := _runs_as(found, main, running):
        already = runs.device
    if already:
        path = dm.device_path(already.name)
        if chosen:
            raise Busy(
                "DMR-E411",
                f"set {found.name!r} runs, so its {' and '.join(chosen)} cannot be changed",
            )
        line = table_line(sb, found.spare, found.spare, found.spare_start)
        current = live.tables_of(already.name)
        # It may have been started past us.
        learned: tuple[str, ...] = ()
        if not sb.tagged:
            learned = seen.learn(already.name, found.spare.path, found.spare_start, sb.uuid)
        return Started(already.name, str(sb.uuid), path, already=True, warnings=learned), (
            current[0] if current else line
        )
    # A read-only table may have what this version may not write.
    problems = [p for p in found.problems if not (readonly and p.code == "DMR-C312")]
    if problems:
        raise refused(f"set {found.name!r} on {found.spare.path}", problems)
    disk = _choose_main(found, main)
    if problem := found.main_problems.get(disk.path) or discover.tag_in_data(found, disk):
        raise refused(f"set {found.name!r} on {found.spare.path}, with {disk.path}", [problem])
    safety.refuse(
        [
            *safety.check_usable(
                replace(disk, exclusive=blockdev.exclusive_errno(disk.path)),
                write=not readonly,
            ),
            *safety.check_usable(_beside(found, running), write=not readonly),
            *safety.check_pair(disk, found.spare),
        ]
    )
    module.ensure(dry_run=dry_run)
    wanted = naming.check_name(name or found.name)
    free = naming.find_free(wanted)
    if name and free != name:
        raise Busy("DMR-E406", f"a device-mapper device {name!r} exists already")
    warnings: tuple[str, ...] = (
        (f"the name {wanted!r} is taken, so the device is called {free!r}",)
        if free != wanted
        else ()
    )
    line = table_line(sb, disk, found.spare, found.spare_start)
    if readonly:
        line = replace(line, errors=errors, remap_rate=remap_rate)
        chosen = ()
    if not dry_run:
        if chosen:
            _record(found, errors, remap_rate)
        device = start(free, sb.uuid, line, readonly=readonly)
        warnings += dm.take_warnings()
        if up is not None:
            up += filter(None, [live.look_at(device)])
        if not readonly and not sb.tagged:
            warnings += seen.learn(free, found.spare.path, found.spare_start, sb.uuid)
    path = dm.device_path(free)
    return Started(free, str(sb.uuid), path, recorded=chosen, warnings=warnings), line


def _begun(uuid: UUID, *, dry_run: bool) -> dm.Device | None:
    """Return the device that has the uuid of a set, and take away one that never started."""
    already = dm.exists(uuid=naming.dm_uuid(uuid))
    if already and not already.live_table:
        # Whoever began to start it was killed: the lock is ours now.
        if not dry_run:
            dm.remove(already.name)
        return None
    return already


def _new_choices(
    sb: Superblock, errors: ErrorPolicy | None, remap_rate: int | None
) -> tuple[str, ...]:
    """Return the options of which a superblock says something else."""
    return tuple(
        name
        for name, wanted, recorded in (
            ("errors", recorded_errors(errors), sb.errors),
            ("remap_rate", remap_rate, sb.remap_rate),
        )
        if wanted is not None and wanted != recorded
    )


def _record(found: Found, errors: ErrorPolicy | None, remap_rate: int | None) -> None:
    """Have the superblocks of a set that is about to be started say what a person chose."""
    # Sets that have other areas of the spare hold it for device-mapper, of which this is no part.
    shared = bool(found.spare.holders)
    with opened(found.spare.path, write=True, exclusive=not shared) as spare:
        if spare.devno != found.spare.devno:
            raise Busy("DMR-E409", f"{found.spare.path} has changed while this was being decided")
        choose(
            spare,
            found.spare_start,
            found.superblock.uuid,
            device_writer(spare, found.spare_start),
            errors=recorded_errors(errors),
            remap_rate=remap_rate,
        )


def _no_tag(found: Found, facts: DeviceFacts) -> Refused:
    return Refused(
        "DMR-E533",
        f"{facts.path} has no tag that can be read, and set {found.name!r} knows its main by one",
        hint="If it is the set's main, with the set's data, have the tag written again: "
        + discover.mend_command(found, "--retag", facts.path),
    )


def _runs_as(found: Found, main: str | None, running: Sequence[Running]) -> Running | None:
    """Return the device that runs a set already, or raise if it runs from other devices."""
    uuid = str(found.superblock.uuid)
    runs = next((run for run in running if run.uuid == uuid and run.device.live_table), None)
    if runs is None:
        return None
    wanted = [("spare", found.spare)]
    if main is not None:
        wanted.append(("main", blockdev.facts(main, look_inside=False)))
    for what, facts in wanted:
        used = {getattr(table, what) for table in runs.tables if table.uuid == uuid}
        # A device over the one that is used is the same disk.
        names = {f"{major}:{minor}" for major, minor in facts.components}
        if facts.devno is None or not used & {numbers(facts), *names}:
            paths = ", ".join(sorted(map(blockdev.table_path, used)))
            raise Busy(
                "DMR-E410",
                f"set {found.name!r} runs as {runs.name!r}, whose {what} is {paths} "
                f"and not {facts.path}",
                hint="What runs can be used. To start the set from other devices, stop it first: "
                f"dmremapctl remove {shlex.quote(runs.name)}",
            )
    return runs


def _beside(found: Found, running: Sequence[Running]) -> DeviceFacts:
    """Return the facts about a set's spare without the sets that have other areas of it.

    Their device-mapper claim is the only one that there can be, and it is shared by ours.
    """
    number = numbers(found.spare)
    end = found.spare_start + found.superblock.area_sectors
    apart: set[str] = set()
    for other in running:
        areas = [(t.spare_start, t.spare_len) for t in other.tables if t.spare == number]
        disjoint = all(start >= end or start + size <= found.spare_start for start, size in areas)
        # Nothing of the device may lie elsewhere on the spare either.
        known = len(areas) == other.device.target_count
        if known and disjoint and all(table.main != number for table in other.tables):
            apart.add(f"dm-{other.device.minor} ({other.name})")
    left = tuple(use for use in found.spare.holders if use.by not in apart)
    if found.spare.holders and not left:
        return replace(found.spare, holders=())
    return replace(found.spare, exclusive=blockdev.exclusive_errno(found.spare.path))


def _choose_main(found: Found, main: str | None) -> DeviceFacts:
    sb = found.superblock
    if main is not None:
        facts = blockdev.facts(main, look_inside=False)
        if facts.devno is None:
            safety.refuse(safety.check_usable(facts))
        if not sb.tagged:
            # The user names the disk; what is recorded of it must agree all the same.
            wrong = identity.contradicts_main(sb, facts)
        else:
            wrong = facts.devno not in {candidate.devno for candidate in found.mains}
        if (
            wrong
            and sb.tagged
            and facts.path not in found.tags
            and facts.sectors >= sb.main_sectors
        ):
            raise _no_tag(found, facts)
        if wrong:
            raise Refused("DMR-E513", f"{main} is not the main device of set {found.name!r}")
        return facts
    if not found.mains:
        if found.untagged:
            raise _no_tag(found, found.untagged[0])
        if not sb.tagged and not sb.main_serial and not sb.main_id_type:
            raise Refused("DMR-E516", f"the main device of set {found.name!r} cannot be recognised")
        what = f"serial {sb.main_serial}, " if sb.main_serial else ""
        raise NotFound(
            "DMR-E305",
            f"the main device of set {found.name!r} ({what}{sb.main_sectors} sectors) is not there",
        )
    if len(found.mains) > 1:
        paths = ", ".join(facts.path for facts in found.mains)
        raise Refused("DMR-E516", f"several devices may be the main of set {found.name!r}: {paths}")
    return found.mains[0]
