# SPDX-License-Identifier: GPL-2.0-only
"""Facts about block devices, from sysfs, /proc and wipefs. No judgement: that is safety's.

Only signatures and the exclusive open touch the device itself; everything else is sysfs and
works for everybody and on a device that hangs.
"""

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from dmremap.errors import Failure, NotFound

SYSFS: Final = Path("/sys")
PROC: Final = Path("/proc")

Devno = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Signature:
    """Something that wipefs recognises. The offset is in bytes."""

    type: str
    offset: int
    label: str = ""


@dataclass(frozen=True, slots=True)
class Use:
    """A use of a device or of one of its partitions."""

    device: str
    by: str


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """What is known about a device before anything is decided.

    `devno` is None where the path is no block device. `below` are the devices that this one
    consists of, itself, its disk if it is a partition and everything under a stack included;
    `components` is the same without the disk of a partition, whose other sectors are not its own.
    `exclusive` is None where an exclusive open succeeded, else the errno. `medium` names what the
    sectors are on, where that can be known: one disk on two paths or one file behind two loop
    devices has one name; `medium_start` is the first sector there.
    """

    path: str
    exists: bool = True
    name: str = ""
    devno: Devno | None = None
    sectors: int = 0
    offset: int = 0
    logical: int = 512
    physical: int = 512
    read_only: bool = False
    zoned: bool = False
    mounts: tuple[Use, ...] = ()
    swaps: tuple[Use, ...] = ()
    holders: tuple[Use, ...] = ()
    exclusive: int | None = None
    signatures: tuple[Signature, ...] = ()
    disk: Devno | None = None
    components: frozenset[Devno] = field(default_factory=frozenset)
    id_type: int = 0
    id: bytes = b""
    serial: str = ""
    medium: str = ""
    medium_start: int = 0
    diskseq: int = 0


def _read(path: Path) -> str | None:
    # Not read_text(): a scan reads thousands of these, and it takes three times as long.
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            out = b""
            while piece := os.read(fd, 65536):
                out += piece
        finally:
            os.close(fd)
        return out.decode("utf-8", "surrogateescape").strip()
    return None


def _number(path: Path, default: int = 0) -> int:
    text = _read(path)
    return int(text) if text is not None and text.lstrip("-").isdigit() else default


def parse_devno(text: str | None) -> Devno | None:
    """Return the numbers of `major:minor`."""
    match = re.fullmatch(r"(\d+):(\d+)", text or "")
    return (int(match[1]), int(match[2])) if match else None


def sysfs_dir(devno: Devno, sysfs: Path = SYSFS) -> Path | None:
    """Return the directory of a device in sysfs."""
    link = sysfs / "dev" / "block" / f"{devno[0]}:{devno[1]}"
    return link.resolve() if link.exists() else None


def disk_dir(directory: Path) -> Path:
    """Return the directory of the whole disk, which a partition's lies in."""
    return directory.parent if (directory / "partition").exists() else directory


def partitions(directory: Path) -> list[Path]:
    """Return the directories of a disk's partitions."""
    try:
        # Called after the disk, so that only these have to be looked at.
        directories = [path for path in directory.iterdir() if path.name.startswith(directory.name)]
    except OSError:
        return []
    return sorted(path for path in directories if (path / "partition").is_file())


def all_devices(sysfs: Path = SYSFS) -> list[Path]:
    """Return the directories of all block devices that have any size."""
    try:
        found = [path.resolve() for path in sorted((sysfs / "class" / "block").iterdir())]
    except OSError:
        return []
    return [path for path in found if _number(path / "size")]


def table_path(word: str) -> str:
    """Return the path of a device as a table names it, such as 8:16; the word if it is gone."""
    devno = parse_devno(word)
    directory = sysfs_dir(devno) if devno else None
    return node(directory) if directory else word


def node(directory: Path) -> str:
    """Return the device node of a device."""
    return "/dev/" + directory.name.replace("!", "/")


def label(directory: Path) -> str:
    """Return what people call a device: the name of a mapped device, else the kernel's."""
    name = _read(directory / "dm" / "name")
    return f"{directory.name} ({unmangle(name)})" if name else directory.name


def unmangle(name: str) -> str:
    r"""Undo what libdevmapper does to a name on its way to the kernel: \x20 for a blank.

    >>> unmangle(r"my\x20set"), unmangle(r"l\xc3\xa4rm")
    ('my set', 'lärm')
    """
    raw = re.sub(
        rb"\\x([0-9a-fA-F]{2})",
        lambda match: bytes([int(match[1], 16)]),
        name.encode(errors="surrogateescape"),
    )
    return raw.decode(errors="surrogateescape")


def _devno(directory: Path) -> Devno | None:
    return parse_devno(_read(directory / "dev"))


def components(directory: Path, sysfs: Path, served: Sequence[str]) -> frozenset[Devno]:
    """Return a device and all that it consists of, down every stack.

    A partition's disk is not among them; a loop device's backing block device is. `served` is as in
    backing().
    """
    out: set[Devno] = set()
    todo = [directory]
    while todo:
        here = todo.pop()
        devno = _devno(here)
        if devno is None or devno in out:
            continue
        out.add(devno)
        with contextlib.suppress(OSError):
            todo += [path.resolve() for path in (here / "slaves").iterdir()]
        behind = _behind(here, served)
        under = sysfs_dir(behind, sysfs) if behind else None
        todo += [under] if under else []
    return frozenset(out)


def backing(directory: Path, served: Sequence[str]) -> os.stat_result | None:
    """Return what is known of the file or device behind a loop device; None if there is none.

    None too where it is below one of the directories that are `served`, as by a file server: that
    one may be dead, and who asks would wait for it for ever.
    """
    path = _read(directory / "loop" / "backing_file")
    if not path or any(path.startswith(f"{where.rstrip('/')}/") for where in served):
        return None
    with contextlib.suppress(OSError, ValueError):
        return os.stat(path)
    return None


def _behind(directory: Path, served: Sequence[str]) -> Devno | None:
    """Return the block device that a loop device is over, if it is over one."""
    info = backing(directory, served)
    return _number_of(info) if info else None


def _number_of(info: os.stat_result) -> Devno | None:
    return (os.major(info.st_rdev), os.minor(info.st_rdev)) if stat.S_ISBLK(info.st_mode) else None


@dataclass(frozen=True, slots=True)
class Around:
    """What says by itself which block devices it uses, read once for all of them.

    Loop devices over block devices, file systems that are mounted and places that are swapped to:
    each with the number of its device. served: where file systems are mounted that somebody else
    answers for.
    """

    loops: tuple[tuple[Devno, str], ...] = ()
    mounts: tuple[tuple[Devno, str], ...] = ()
    swaps: tuple[tuple[Devno, str], ...] = ()
    served: tuple[str, ...] = ()


def around(sysfs: Path = SYSFS, proc: Path = PROC) -> Around:
    """Read it. A loop device claims nothing, so the kernel lists it nowhere else."""
    mountinfo = _read(proc / "self" / "mountinfo") or ""
    served = parse_served(mountinfo)
    loops = [(_behind(loop, served), loop.name) for loop in sorted((sysfs / "block").glob("loop*"))]
    mounts: list[tuple[Devno, str]] = []
    for devno, where, source in parse_mountinfo(mountinfo):
        mounts.append((devno, where))
        # Elsewhere it may be on a file server that does not answer.
        number = block_devno(source) if source.startswith("/dev/") else None
        if number is not None:
            mounts.append((number, where))
    swaps = [(block_devno(path), path) for path in parse_swaps(_read(proc / "swaps") or "")]
    return Around(
        loops=tuple((devno, name) for devno, name in loops if devno),
        mounts=tuple(mounts),
        swaps=tuple((devno, path) for devno, path in swaps if devno),
        served=served,
    )


def holders(parts: Mapping[Devno | None, Path], loops: Iterable[tuple[Devno, str]]) -> list[Use]:
    """Return what sits on a device and its partitions, which are given by number."""
    out: list[Use] = []
    for part in parts.values():
        with contextlib.suppress(OSError):
            found = sorted((part / "holders").iterdir())
            out += [Use(part.name, label(holder.resolve())) for holder in found]
    return out + _of(parts, loops)


def _of(parts: Mapping[Devno | None, Path], users: Iterable[tuple[Devno, str]]) -> list[Use]:
    uses = [Use(parts[devno].name, by) for devno, by in users if devno in parts]
    return list(dict.fromkeys(uses))


def parse_mountinfo(text: str) -> list[tuple[Devno, str, str]]:
    """Return device number, mount point and source of each line of mountinfo.

    A file system on several devices, btrfs say, has a number of its own, so the source counts too.
    """
    out: list[tuple[Devno, str, str]] = []
    for line in text.splitlines():
        words = line.split(" ")
        devno = parse_devno(words[2]) if len(words) > 9 else None
        if devno is not None and "-" in words:
            source = words[words.index("-") + 2] if len(words) > words.index("-") + 2 else ""
            out.append((devno, unescape(words[4]), unescape(source)))
    return out


_SERVED: Final = frozenset(
    {"9p", "afs", "ceph", "cifs", "coda", "lustre", "nfs", "nfs4", "orangefs", "smb3", "virtiofs"}
)


def parse_served(text: str) -> tuple[str, ...]:
    """Return where mountinfo has file systems that another machine or a program answers for."""
    out: list[str] = []
    for line in text.splitlines():
        words = line.split(" ")
        kind = words[words.index("-") + 1] if len(words) > 9 and "-" in words[:-1] else ""
        if kind in _SERVED or kind == "fuse" or kind.startswith("fuse."):
            out.append(unescape(words[4]))
    return tuple(out)


def parse_swaps(text: str) -> list[str]:
    """Return the devices of /proc/swaps. Its files are left out: file systems have them."""
    rows = [line.split() for line in text.splitlines()[1:]]
    return [unescape(row[0]) for row in rows if row[1:2] == ["partition"]]


def unescape(text: str) -> str:
    r"""Undo the kernel's \040 for blanks in paths."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def block_devno(path: str) -> Devno | None:
    """Return the number of a block device node."""
    with contextlib.suppress(OSError, ValueError):
        return _number_of(os.stat(path))
    return None


def parse_wipefs(text: str) -> list[Signature]:
    """Return what `wipefs --json` lists. It prints nothing where it finds nothing."""
    if not text.strip():
        return []
    import json

    try:
        found = json.loads(text).get("signatures") or []
        return [
            Signature(str(item["type"]), int(str(item["offset"]), 0), str(item.get("label") or ""))
            for item in found
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Failure("DMR-E106", "the answer of wipefs is not understood") from None


def signatures(path: str) -> list[Signature]:
    """Return every signature on a device, partition tables included."""
    from dmremap.host.run import run  # what asks no device starts without it

    return parse_wipefs(run(["wipefs", "--json", "--noheadings", path]).stdout)


def exclusive_errno(path: str) -> int | None:
    """Return None if a device can be opened exclusively, else why not."""
    try:
        # O_NONBLOCK: a drive whose tray is open leaves it so.
        os.close(os.open(path, os.O_RDONLY | os.O_EXCL | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as err:
        return err.errno or errno.EIO
    return None


def parse_wwid(text: str) -> tuple[int, bytes]:
    """Return kind and bytes of a SCSI wwid as enum blk_unique_id knows them; (0, b"") if none.

    A T10 id is text of any length and is left to the serial.
    """
    kind, _, rest = text.partition(".")
    number = {"eui": 2, "naa": 3}.get(kind, 0)
    with contextlib.suppress(ValueError):
        raw = bytes.fromhex(rest)
        if number and len(raw) in (8, 12, 16):
            return number, raw
    return 0, b""


def _printable(text: str) -> str:
    """Return text that can be stored and shown, whatever a drive calls itself."""
    words = text.encode(errors="surrogateescape").decode(errors="backslashreplace").split()
    return "".join(char if char.isprintable() else "?" for char in " ".join(words))


def identity(disk: Path) -> tuple[int, bytes, str]:
    """Return the driver's unique id of a disk (kind, bytes) and its serial for people."""
    kind, raw = 0, b""
    if disk.name.startswith("nvme"):
        # The driver answers with the NGUID where there is one, else with the EUI-64.
        for name in ("nguid", "eui"):
            text = re.sub(r"[-: ]", "", _read(disk / name) or "")
            if text.strip("0"):
                kind, raw = 2, bytes.fromhex(text)
                break
    else:
        kind, raw = parse_wwid(_read(disk / "device" / "wwid") or "")
    serial = ""
    for name in ("serial", "device/serial", "wwid", "device/wwid", "dm/uuid"):
        serial = _printable(_read(disk / name) or "")
        if serial:
            break
    return kind, raw, serial


def facts(
    path: str, *, sysfs: Path = SYSFS, proc: Path = PROC, look_inside: bool = True
) -> DeviceFacts:
    """Gather the facts about a path. Without `look_inside` the device is not opened."""
    try:
        info = os.stat(path)
    except FileNotFoundError:
        return DeviceFacts(path, exists=False)
    except OSError as err:
        raise NotFound("DMR-E302", f"{path}: {err.strerror}") from None
    if not stat.S_ISBLK(info.st_mode):
        return DeviceFacts(path)
    devno = (os.major(info.st_rdev), os.minor(info.st_rdev))
    directory = sysfs_dir(devno, sysfs)
    if directory is None:
        raise NotFound("DMR-E302", f"{path} is a node without a device behind it")
    # The kernel's own name from here on: links can be moved while somebody is asked.
    own = node(directory)
    if block_devno(own) != devno:
        own = os.path.realpath(path)
    found = facts_of(own, directory, sysfs=sysfs, proc=proc)
    if not look_inside:
        return found
    return with_signatures(replace(found, exclusive=exclusive_errno(own)))


def facts_of(
    path: str,
    directory: Path,
    *,
    sysfs: Path = SYSFS,
    proc: Path = PROC,
    known: Around | None = None,
) -> DeviceFacts:
    """Gather what sysfs and /proc know about a device.

    Who asks about many devices reads around() once, and passes what is `known`.
    """
    known = known or around(sysfs, proc)
    disk = disk_dir(directory)
    parts = {_devno(part): part for part in (directory, *partitions(directory))}
    id_type, raw_id, serial = identity(disk)
    offset = _number(directory / "start")
    medium, medium_start = _medium(disk, id_type, raw_id, known.served)
    return DeviceFacts(
        path=path,
        name=directory.name,
        devno=_devno(directory),
        sectors=_number(directory / "size"),
        offset=offset,
        logical=_number(disk / "queue" / "logical_block_size", 512),
        physical=_number(disk / "queue" / "physical_block_size", 512),
        read_only=bool(_number(directory / "ro")),
        zoned=(_read(disk / "queue" / "zoned") or "none") not in ("none", ""),
        mounts=tuple(_of(parts, known.mounts)),
        swaps=tuple(_of(parts, known.swaps)),
        holders=tuple(holders(parts, known.loops)),
        disk=_devno(disk),
        components=components(directory, sysfs, known.served),
        id_type=id_type,
        id=raw_id,
        serial=serial,
        medium=medium,
        medium_start=medium_start + offset,
        diskseq=_number(disk / "diskseq"),
    )


def _medium(disk: Path, id_type: int, raw_id: bytes, served: Sequence[str]) -> tuple[str, int]:
    """Return a name of what a disk's sectors are on, and where there it begins."""
    path = _read(disk / "loop" / "backing_file")
    if path:
        info = backing(disk, served)
        if info is None:
            name = f"file {path}"
        elif stat.S_ISBLK(info.st_mode):
            name = f"device {info.st_rdev}"
        else:
            name = f"file {info.st_dev} {info.st_ino}"
        return name, _number(disk / "loop" / "offset") // 512
    return (f"disk {id_type} {raw_id.hex()}" if raw_id else ""), 0


def backing_inode(directory: Path, served: Sequence[str]) -> tuple[int, int] | None:
    """Return device and inode of the file behind a loop device, None if there is none."""
    info = backing(directory, served)
    return (info.st_dev, info.st_ino) if info else None


def with_signatures(found: DeviceFacts) -> DeviceFacts:
    """Add what wipefs recognises on the device."""
    return replace(found, signatures=tuple(signatures(found.path)))


def probed(size: int) -> list[tuple[int, int]]:
    """Return where on a device of so many bytes signatures are looked for.

    libblkid ends at the first read that fails and says nothing about it, so that one bad sector
    hides every signature. These are the places that it reads.
    """
    mib = 1 << 20
    ranges = [(0, mib), *((at * mib, at * mib + 4096) for at in (1, 2, 4)), (size - 2 * mib, size)]
    return [(max(first, 0), min(end, size)) for first, end in ranges if first < size]


def links(devno: Devno, directory: str = "/dev/disk/by-id") -> list[str]:
    """Return the stable names of a device, the best for people first."""
    out: list[str] = []
    with contextlib.suppress(OSError):
        out += [entry.path for entry in os.scandir(directory) if block_devno(entry.path) == devno]
    return sorted(out, key=_link_rank)


def _link_rank(path: str) -> tuple[int, str]:
    name = os.path.basename(path)
    opaque: Iterable[str] = ("wwn-", "nvme-eui.", "nvme-nvme.", "scsi-0", "scsi-1", "scsi-3")
    return (1 if name.startswith(tuple(opaque)) else 0, path)


def suspended(facts: DeviceFacts) -> bool:
    """Say whether a device, or one that it consists of, is suspended."""
    for devno in facts.components:
        directory = sysfs_dir(devno)
        with contextlib.suppress(OSError):
            if directory and (directory / "dm" / "suspended").read_text().strip() == "1":
                return True
    return False
