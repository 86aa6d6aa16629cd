# SPDX-License-Identifier: GPL-2.0-only
"""Sets that do not run: examine a device, check, repair and back up its metadata.

Looking is allowed at everything, images in files and devices in use included. Writing works in two
steps as for sets: a plan that writes nothing, and carrying it out, which claims the device and
makes the plan once more; if that comes out as another one nothing is written.
"""

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

from dmremap.dm.lines import RemapTable
from dmremap.errors import Busy, DmRemapError, Failure, NotFound, Refused, Usage
from dmremap.host import blockdev, durable
from dmremap.host.blockdev import DeviceFacts, Signature
from dmremap.ondisk import (
    BLOCK,
    BLOCK_SECTORS,
    MIN_AREA_BLOCKS,
    BlockDevice,
    Progress,
    Tag,
    look,
    newest_tag,
    opened,
    read_tag,
    read_tags,
)
from dmremap.ondisk.backup import (
    Backup,
    decode,
    encode,
)
from dmremap.ondisk.check import examine
from dmremap.ondisk.findings import Finding, Severity
from dmremap.ondisk.load import Load, Overlay, View, refused
from dmremap.ondisk.mend import Write, device_writer, mend
from dmremap.sets import live, safety
from dmremap.sets.compare import (
    Compared,
    Main,
    MainTag,
    compare,
    compare_main,
    find_main,
    note,
    read_main,
)
from dmremap.sets.live import Running

_AREA_MIN: Final = MIN_AREA_BLOCKS * BLOCK
_BACKUP_MAX: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Place:
    """A device or image that a command was given. `facts` are of a block device only."""

    path: str
    start: int
    facts: DeviceFacts | None

    @property
    def is_file(self) -> bool:
        """Whether it is an image in a file."""
        return self.facts is None


@dataclass(frozen=True, slots=True)
class Member:
    """What a device is. `running` names the set that has it now, `role` is spare, main or none."""

    place: Place
    size: int
    load: Load
    tag: Tag | None
    role: str
    running: str | None
    uuid: UUID | None
    holds: tuple[Signature, ...] = ()
    compared: Compared | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check found. A `snapshot` is of a device in use."""

    place: Place
    load: Load
    running: str | None = None
    compared: Compared | None = None

    @property
    def severity(self) -> Severity:
        """The worst finding."""
        return self.load.severity


@dataclass(frozen=True, slots=True)
class Repair:
    """What a repair will write, and what a check finds now and afterwards."""

    place: Place
    before: Load
    after: Load
    writes: tuple[Write, ...]
    uuid: UUID | None = None
    main: str | None = None


# ------------------------------------------------------------------- devices


def locate(path: str, start: int = 0) -> Place:
    """Find out what a path is; an image in a file is as good as a device."""
    if start % BLOCK_SECTORS:
        raise Usage(
            "DMR-E201", f"an area starts at a multiple of {BLOCK_SECTORS} sectors, not at {start}"
        )
    try:
        info = os.stat(path)
    except FileNotFoundError:
        raise NotFound("DMR-E302", f"{path} does not exist") from None
    except OSError as err:
        raise NotFound("DMR-E302", f"{path}: {err.strerror}") from None
    if stat.S_ISREG(info.st_mode):
        return Place(path, start, None)
    if not stat.S_ISBLK(info.st_mode):
        raise Refused(
            "DMR-E501",
            f"{path} is neither a block device nor a file",
            hint="Give a block device, or a file with the image of one.",
        )
    facts = blockdev.facts(path, look_inside=False)
    if facts.sectors == 0:
        raise NotFound("DMR-E302", f"{path} has no medium: its size is zero")
    if blockdev.suspended(facts):
        # Reading it would wait until it is resumed, perhaps for ever.
        raise Busy("DMR-E409", f"{path} is suspended", hint="Resume it first.")
    return Place(facts.path, start, facts)


@dataclass(frozen=True, slots=True)
class _Use:
    """A running set that has a device, by which of its targets, and whether as its main."""

    set: Running
    table: RemapTable
    is_main: bool

    @property
    def uuid(self) -> UUID | None:
        """The target's set."""
        uuid = self.table.uuid or self.set.uuid
        return UUID(uuid) if uuid else None

    @property
    def is_tagged(self) -> bool:
        """Whether the kernel knows main by a tag, which then is the set's."""
        tables = zip(self.set.tables, self.set.status, strict=False)
        return any(status.identity == "tag" for table, status in tables if table == self.table)


def _running(place: Place) -> _Use | None:
    """Return the running set that has a device."""
    if place.facts is None or place.facts.devno is None or not place.facts.holders:
        return None
    number = f"{place.facts.devno[0]}:{place.facts.devno[1]}"
    with contextlib.suppress(DmRemapError):
        for running in live.find():
            for table in running.tables:
                if table.main == number:
                    return _Use(running, table, is_main=True)
                if table.spare == number and table.spare_start == place.start:
                    return _Use(running, table, is_main=False)
    return None


def _loops(path: str) -> list[str]:
    """Return the loop devices that have a file."""
    try:
        info = os.stat(path)
    except OSError:
        return []
    served = blockdev.around().served
    return [
        blockdev.node(directory)
        for directory in blockdev.all_devices()
        if blockdev.backing_inode(directory, served) == (info.st_dev, info.st_ino)
    ]


def usable(place: Place) -> None:
    """Refuse to write to what is in use or cannot be written."""
    if place.facts is None:
        loops = _loops(place.path)
        if loops:
            raise Busy(
                "DMR-E403",
                f"{place.path} is behind {', '.join(loops)}",
                hint="Use the loop device, or take it apart first ('losetup --detach').",
            )
        return
    running = _running(place)
    if running:
        raise Busy(
            "DMR-E403",
            f"{place.path} belongs to set {running.set.name!r}, which is running",
            hint="Stop the set first ('dmremapctl remove').",
        )
    facts = blockdev.facts(place.path, look_inside=False)
    safety.refuse(safety.check_usable(facts))


@contextlib.contextmanager
def claimed(place: Place) -> Iterator[BlockDevice]:
    """Open a device or image for writing, so that nobody else does."""
    usable(place)
    with opened(place.path, write=True, exclusive=True) as device:
        if place.facts is not None and device.devno != place.facts.devno:
            raise Busy("DMR-E409", f"{place.path} has changed while this was being decided")
        if place.facts is None:
            try:
                fcntl.flock(device.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Busy("DMR-E404", f"{place.path} is locked by another program") from None
        yield device


# --------------------------------------------------------- examine and check


def member(place: Place) -> Member:
    """Find out what a device is."""
    running = _running(place)
    with opened(place.path) as device:
        copies = read_tags(View(device, 0))
        tag = newest_tag(copies.values())
        load, compared = look_with_main(
            device, place, lambda: examine(device, place.start), running
        )
        size = device.size
    ours = load.head.ours
    if running and running.is_main and not running.is_tagged:
        tag = None  # an adopted main's data is not the set's business
    role = "spare" if ours else "main" if tag or (running and running.is_main) else "none"
    uuid = load.uuid if ours else tag.uuid if tag else None
    if uuid is None and running:
        uuid = running.uuid
    if role == "main" and tag and not tag.fault:
        found = MainTag(Main(place.path), size // 512, copies)
        table = running.table if running else None
        compared = compare_main(found, tag, runs=table, search=not place.is_file)
    elif role == "main" and running:
        found = MainTag(Main(place.path), why="main was adopted and has no tag")
        compared = Compared(found, spare=blockdev.table_path(running.table.spare))
    holds: tuple[Signature, ...] = ()
    if role == "none":
        # Without wipefs, or on a disk that it cannot read, there is no hint.
        with contextlib.suppress(DmRemapError):
            holds = tuple(blockdev.signatures(place.path))
    name = running.set.name if running else None
    return Member(place, size, load, tag, role, name, uuid, holds, compared)


def not_ours(path: str, start: int, size: int, holds: tuple[Signature, ...] = ()) -> NotFound:
    """Return the error for a device without anything of ours; `size` is its own, in bytes."""
    what = ", ".join(
        signature.type + (f" ({signature.label})" if signature.label else "")
        for signature in dict.fromkeys(holds)
    )
    where = f" at sector {start}" if start else ""
    room = max(size - start * 512, 0)
    return NotFound(
        "DMR-E307",
        f"{path} has no dm-remap metadata{where}"
        + (f"; it holds {what}" if what else "")
        + (
            f"; from there it has {room} bytes, and an area has at least {_AREA_MIN}"
            if room < _AREA_MIN
            else ""
        ),
    )


def refuse_main(place: Place, tag: Tag | None) -> None:
    """Refuse a device that carries a tag."""
    if tag is not None:
        raise Refused("DMR-E522", f"{place.path} is the main device of set {tag.set_name}")


def look_at(
    device: BlockDevice, place: Place, uuid: UUID | None, progress: Progress | None
) -> Load:
    """Examine a device that has to be the spare of a set."""
    load = examine(device, place.start, uuid, progress)
    if not load.head.ours and not load.refusals:
        refuse_main(place, read_tag(View(device, 0)))
        holds: tuple[Signature, ...] = ()
        with contextlib.suppress(DmRemapError):
            holds = tuple(blockdev.signatures(place.path))
        raise not_ours(place.path, place.start, device.size, holds)
    if uuid is not None and load.superblock is None:
        other = examine(device, place.start)
        if other.uuid is not None and other.uuid != uuid:
            raise Refused(
                "DMR-E504",
                f"{place.path} is the spare of set {other.uuid}, and not of {uuid}",
                hint="Give the spare of the set that is meant, or leave --uuid out.",
            )
    return load


def look_with_main(
    device: BlockDevice,
    place: Place,
    read: Callable[[], Load],
    running: _Use | None = None,
    *,
    uuid: UUID | None = None,
    main: str | None = None,
) -> tuple[Load, Compared | None]:
    """Read a set, its main's tag before it, and compare the two; None where there is no set.

    `main` is the one that was given. What runs is read again as long as it looks damaged: between
    the copies of a commit they are unequal, and soon they are not.
    """
    sb = look(View(device, place.start), uuid).superblock
    if sb is None:
        return read(), None
    runs = blockdev.table_path(running.table.main) if running else None
    where = find_main(sb, given=main, runs=runs, search=not place.is_file)
    for left in range(3 if running else 0, -1, -1):
        found = read_main(where, sb)
        load = read()
        if load.superblock is None or load.superblock.uuid != sb.uuid:
            return load, None
        compared = compare(load.superblock, found, place.path, place.start)
        note(load, compared)
        if not left or load.severity is Severity.INFO:
            return load, compared
    raise AssertionError


def check(
    place: Place,
    uuid: UUID | None = None,
    progress: Progress | None = None,
    main: str | None = None,
) -> Checked:
    """Check the metadata on a device or image, and its epoch with main's. Writes nothing."""
    running = _running(place)
    with opened(place.path) as device:
        load, compared = look_with_main(
            device,
            place,
            lambda: look_at(device, place, uuid, progress),
            running,
            uuid=uuid,
            main=main,
        )
    if running:
        text = f"{place.path} belongs to set {running.set.name!r}, which is running"
        load.findings.append(Finding("DMR-C105", text))
    return Checked(place, load, running.set.name if running else None, compared)


# -------------------------------------------------------------------- repair


def plan_repair(
    place: Place,
    uuid: UUID | None = None,
    progress: Progress | None = None,
    main: str | None = None,
) -> Repair:
    """Find out what a load would write. Writes nothing."""
    usable(place)
    with opened(place.path) as device:
        return _plan_repair(device, place, uuid, progress, main)


def _plan_repair(
    device: BlockDevice,
    place: Place,
    uuid: UUID | None,
    progress: Progress | None,
    main: str | None,
) -> Repair:
    before, _ = look_with_main(
        device, place, lambda: look_at(device, place, uuid, progress), uuid=uuid, main=main
    )
    if before.refusals:
        raise refused(place.path, before.refusals)
    # mend() uses what it works on up.
    work = examine(device, place.start, uuid)
    writes = mend(work, lambda _place, _data: True)
    after = after_writes(device, place, before.uuid, writes)
    return Repair(place, before, after, tuple(writes), uuid, main)


def after_writes(device: BlockDevice, place: Place, uuid: UUID | None, writes: list[Write]) -> Load:
    """Return what a load will find once some blocks are written, and see that it is good."""
    changed = {write.place: write.data for write in writes}
    after = examine(Overlay(View(device, place.start), changed), place.start, uuid)
    if after.refusals or after.severity is not Severity.INFO:
        left = "; ".join(finding.message for finding in after.findings)
        raise Failure("DMR-E100", f"what would be written is not what a load accepts: {left}")
    return after


def repair(plan: Repair) -> tuple[Load, list[Write]]:
    """Write what the plan says; return what is there then. The caller holds the lock."""
    place = plan.place
    with claimed(place) as device:
        again = _plan_repair(device, place, plan.uuid, None, plan.main)
        if again.writes != plan.writes:
            raise Busy("DMR-E409", f"{place.path} has changed while this was being decided")
        written = mend(examine(device, place.start, plan.uuid), device_writer(device, place.start))
        return read_back(device, place, plan.uuid), written


def read_back(device: BlockDevice, place: Place, uuid: UUID | None) -> Load:
    """Return what is there after writing, and see that a load accepts it."""
    after = examine(device, place.start, uuid)
    if after.refusals:
        raise Failure(
            "DMR-E103",
            f"{place.path}: all was written, and what is read is not: {after.refusals[0].reason}",
        )
    return after


# ------------------------------------------------------------------- backups


def export(
    place: Place, uuid: UUID | None = None, progress: Progress | None = None
) -> tuple[bytes, Backup]:
    """Return the backup of the metadata on a device. The set may be running."""
    with opened(place.path) as device:
        for _ in range(5):
            load = look_at(device, place, uuid, progress)
            if load.refusals:
                raise refused(place.path, load.refusals)
            data, seqs = encode(load, int(time.time())), [block.seq for block in load.blocks]
            del load  # a large set is in memory once
            # Blocks are read one after the other: only what stayed the same is of one moment.
            if seqs == [block.seq for block in examine(device, place.start, uuid).blocks]:
                return data, decode(data)
    raise Busy("DMR-E409", f"{place.path}: the metadata changes too often to be read as a whole")


def write_backup(path: str, data: bytes, *, overwrite: bool = False) -> None:
    """Write a backup to a file: all of it or nothing, and durable."""
    target = Path(path)
    part = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        if target.exists() and not target.is_file():
            raise Refused("DMR-E525", f"{path} is not a file", hint="Name a file.")
        if target.exists() and not overwrite:
            raise Refused("DMR-E525", f"{path} exists already")
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            part.rename(target)
        else:
            durable.give_name(part, target)
        durable.sync(target.parent)
    except FileExistsError:
        raise Refused("DMR-E525", f"{path} exists already") from None
    except OSError as err:
        raise Failure(
            "DMR-E103",
            f"cannot write {path}: {err.strerror}",
            hint="Name a file in a directory that exists, can be written and has room.",
        ) from None
    finally:
        with contextlib.suppress(OSError):  # a name that is too long, or below a file
            part.unlink(missing_ok=True)


def read_backup(path: str) -> Backup:
    """Read a backup from a file."""
    try:
        # Not to wait for somebody who writes to a FIFO.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                raise Refused("DMR-E523", f"the backup cannot be used: {path} is not a file")
            data = file.read(_BACKUP_MAX + 1) if info.st_size <= _BACKUP_MAX else b""
    except FileNotFoundError:
        raise NotFound("DMR-E302", f"{path} does not exist") from None
    except OSError as err:
        # A directory does not even become a file of Python's.
        if err.errno in (errno.EISDIR, errno.ENXIO):
            raise Refused("DMR-E523", f"the backup cannot be used: {path} is not a file") from None
        raise Failure(
            "DMR-E103",
            f"cannot read {path}: {err.strerror}",
            hint="Name a backup that can be read, or another copy of it.",
        ) from None
    if info.st_size > _BACKUP_MAX or len(data) > _BACKUP_MAX:
        raise Refused("DMR-E523", f"the backup cannot be used: {path} is too large for one")
    return decode(data)
