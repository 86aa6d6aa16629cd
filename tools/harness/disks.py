# SPDX-License-Identifier: GPL-2.0-only
"""What a guest's disks look like, which of their sectors fail, and QEMU's words for it.

Which error the guest's kernel sees depends on the kind of disk and on ``errno``:

====== ===== =============================================
kind   errno the guest sees
====== ===== =============================================
virtio 5     BLK_STS_IOERR (EIO); virtio has nothing finer
scsi   5     BLK_STS_IOERR (aborted command)
scsi   61    BLK_STS_MEDIUM (ENODATA, medium error)
nvme   any   BLK_STS_MEDIUM (ENODATA, medium error)
====== ===== =============================================
"""

from __future__ import annotations

import errno as errors
import json
import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from harness.errors import HarnessError

if TYPE_CHECKING:
    from pathlib import Path

SECTOR = 512
MAX_RULES = 1000
ALL: Literal["all"] = "all"
"""Every sector, instead of a set of them."""

Sectors = AbstractSet[int] | Literal["all"]
Kind = Literal["virtio", "scsi", "nvme"]
Node = dict[str, Any]


@dataclass(frozen=True)
class Faults:
    """Which sectors (of 512 bytes) of a disk fail; a command that meets one fails whole."""

    read: Sectors = frozenset()
    write: Sectors = frozenset()
    flush: bool = False
    """Every flush fails."""
    errno: int = errors.EIO
    once: bool = False
    """Each sector fails once, and then works."""

    def rules(self) -> list[Node]:
        """Return the rules of QEMU's ``blkdebug`` driver that say the same.

        >>> Faults(read={64}).rules()
        [{'event': 'none', 'iotype': 'read', 'errno': 5, 'once': False, 'sector': 64}]
        """
        rules: list[Node] = []
        for iotype, sectors in (("read", self.read), ("write", self.write)):
            common = {"event": "none", "iotype": iotype, "errno": self.errno, "once": self.once}
            if sectors == ALL:
                rules.append(common)
            else:
                rules.extend({**common, "sector": sector} for sector in sorted(sectors))
        if self.flush:
            rules.append(
                {"event": "none", "iotype": "flush", "errno": self.errno, "once": self.once}
            )
        if len(rules) > MAX_RULES:
            raise HarnessError(f"{len(rules)} failing sectors: QEMU takes at most {MAX_RULES}")
        return rules


@dataclass(frozen=True, kw_only=True)
class Disk:
    """A disk of a guest. Sizes in bytes.

    ``name`` is also its serial number, by which the guest finds it again.
    """

    name: str
    size: int = 64 << 20
    kind: Kind = "virtio"
    logical_block: int = 512
    physical_block: int | None = None
    """None is the logical block."""
    bad_read: Sectors = frozenset()
    bad_write: Sectors = frozenset()
    errno: int = errors.EIO
    write_cache: bool = True
    """The disk has a volatile cache that the guest flushes (scsi and virtio)."""
    dpofua: bool = False
    """The disk takes FUA writes (scsi; nvme always does, virtio never)."""
    read_only: bool = False
    wwn: int | None = None
    """World-wide name (scsi)."""
    image: Path | None = None
    """The file behind it; None is a sparse one in the machine's work directory."""
    nbd: str = ""
    """Instead of a file, ``nbd+unix:///EXPORT?socket=PATH``; ``size`` is the server's then."""
    throttle: int | None = None
    """The most bytes per second; None is as fast as it goes. A tenth of that may come at once."""
    options: dict[str, str | int] = field(default_factory=dict)
    """More properties of the QEMU device."""

    def __post_init__(self) -> None:
        """Refuse what QEMU or the guest would choke on."""
        if not re.fullmatch(r"[a-z][a-z0-9]{0,19}", self.name):
            raise HarnessError(f"disk {self.name!r}: a name is 1 to 20 small letters and digits")
        if self.size % self.logical_block:
            raise HarnessError(f"disk {self.name}: {self.size} bytes is no multiple of its blocks")

    @property
    def faults(self) -> Faults:
        """The faults it starts with."""
        return Faults(read=self.bad_read, write=self.bad_write, errno=self.errno)

    def storage(self, workdir: Path) -> Path:
        """Return the file behind it."""
        return self.image or workdir / f"{self.name}.img"

    def create(self, workdir: Path) -> None:
        """Make the file behind it, unless it is there: a machine that boots again keeps it."""
        if not self.nbd:
            with self.storage(workdir).open("ab") as file:
                if file.tell() < self.size:
                    file.truncate(self.size)


def _nbd_server(url: str) -> Node:
    parsed = re.fullmatch(r"nbd\+unix:///(?P<export>[^?]*)\?socket=(?P<path>.+)", url)
    if parsed is None:
        raise HarnessError(f"{url!r}: expected nbd+unix:///EXPORT?socket=PATH")
    node: Node = {"driver": "nbd", "server": {"type": "unix", "path": parsed["path"]}}
    return {**node, "export": parsed["export"]} if parsed["export"] else node


def bottom_node(disk: Disk, workdir: Path) -> Node:
    """Return the block node that holds the data."""
    if disk.nbd:
        node = _nbd_server(disk.nbd)
    else:
        # Nothing is lost when QEMU is killed, so a flush need not reach the host's disk.
        cache = {"direct": False, "no-flush": True}
        node = {"driver": "file", "filename": str(disk.storage(workdir)), "cache": cache}
    return {
        **node,
        "node-name": f"{disk.name}-data",
        "read-only": disk.read_only,
        "discard": "unmap",
    }


def throttle_group(disk: Disk) -> Node:
    """Return the object that holds a throttled disk's limit."""
    limits = {"bps-total": disk.throttle}
    return {"qom-type": "throttle-group", "id": f"{disk.name}-limit", "limits": limits}


def throttle_node(disk: Disk) -> Node:
    """Return a block node above the data that keeps the limit."""
    return {
        "driver": "throttle",
        "node-name": f"{disk.name}-slow",
        "throttle-group": f"{disk.name}-limit",
        "file": f"{disk.name}-data",
        "read-only": disk.read_only,
        "discard": "unmap",
    }


def fault_node(disk: Disk, generation: int, faults: Faults) -> Node:
    """Return a block node that injects faults above the data.

    Its rules cannot be changed, so each change makes a node of a new generation.
    """
    rules = faults.rules()
    return {
        "driver": "blkdebug",
        "node-name": f"{disk.name}-faults{generation}",
        "image": f"{disk.name}-{'slow' if disk.throttle else 'data'}",
        # QEMU knows no empty list here.
        **({"inject-error": rules} if rules else {}),
        "read-only": disk.read_only,
        "discard": "unmap",
    }


def top_node(disk: Disk, generation: int) -> Node:
    """Return the node that the guest's device is attached to, above a generation of faults."""
    return {
        "driver": "raw",
        "node-name": disk.name,
        "file": f"{disk.name}-faults{generation}",
        "read-only": disk.read_only,
        "discard": "unmap",
    }


def device(disk: Disk) -> dict[str, str | int]:
    """Return the properties of the guest's device."""
    properties: dict[str, str | int] = {
        "id": f"{disk.name}-device",
        "drive": disk.name,
        "serial": disk.name,
        "logical_block_size": disk.logical_block,
        "physical_block_size": disk.physical_block or disk.logical_block,
    }
    cache = "on" if disk.write_cache else "off"
    match disk.kind:
        case "virtio":
            properties |= {"driver": "virtio-blk-pci", "write-cache": cache}
        case "scsi":
            properties |= {"driver": "scsi-hd", "bus": "scsi.0", "write-cache": cache}
            if disk.dpofua:  # a drive has no such property
                properties["dpofua"] = True
            if disk.wwn is not None:
                properties["wwn"] = disk.wwn
        case "nvme":
            properties["driver"] = "nvme"
    if disk.kind != "nvme":
        properties |= {"rerror": "report", "werror": "report"}
    return {**properties, **disk.options}


def arguments(disks: Sequence[Disk], faults: Mapping[str, Faults], workdir: Path) -> list[str]:
    """Return QEMU's arguments for a machine's disks; ``faults`` by the disk's name."""
    argv: list[str] = []
    if any(disk.kind == "scsi" for disk in disks):
        argv += ["-device", "virtio-scsi-pci,id=scsi"]
    for disk in disks:
        if disk.throttle:
            argv += ["-object", json.dumps(throttle_group(disk))]
        nodes = (
            bottom_node(disk, workdir),
            *([throttle_node(disk)] if disk.throttle else []),
            fault_node(disk, 0, faults[disk.name]),
            top_node(disk, 0),
        )
        for node in nodes:
            argv += ["-blockdev", json.dumps(node)]
        argv += ["-device", json.dumps(device(disk))]
    return argv
