# SPDX-License-Identifier: GPL-2.0-only
"""Facts from a sysfs and a /proc made of files."""

import os
from pathlib import Path
from stat import S_IFBLK
from types import SimpleNamespace
from typing import Any

import pytest

from dmremap.errors import Failure
from dmremap.host import blockdev
from dmremap.host.blockdev import Signature, Use


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


class Sysfs:
    """Just enough of /sys/block and /sys/dev/block."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "dev" / "block").mkdir(parents=True)
        (root / "class" / "block").mkdir(parents=True)

    def device(self, path: str, devno: str, sectors: int, **files: str) -> Path:
        directory = self.root / "devices" / path
        put(directory / "dev", devno)
        put(directory / "size", str(sectors))
        for name, text in files.items():
            put(directory / name.replace("__", "/"), text)
        for sub in ("holders", "slaves"):
            (directory / sub).mkdir(exist_ok=True)
        (self.root / "dev" / "block" / devno).symlink_to(directory)
        (self.root / "class" / "block" / directory.name).symlink_to(directory)
        return directory


@pytest.fixture
def sysfs(tmp_path: Path) -> Sysfs:
    made = Sysfs(tmp_path / "sys")
    sda = made.device(
        "pci0/sda",
        "8:0",
        2048000,
        ro="0",
        queue__logical_block_size="512",
        queue__physical_block_size="4096",
        queue__zoned="none",
        device__wwid="naa.5000c500a1b2c3d4",
    )
    sda1 = made.device("pci0/sda/sda1", "8:1", 4096, partition="1", start="2048", ro="0")
    dm = made.device("virtual/dm-0", "253:0", 4096, dm__name="vg-a[b]", ro="1")
    (dm / "slaves" / "sda1").symlink_to(sda1)
    (sda1 / "holders" / "dm-0").symlink_to(dm)
    assert sda.is_dir()
    return made


def test_disk_with_a_partition_in_use(sysfs: Sysfs, tmp_path: Path) -> None:
    proc = tmp_path / "proc"
    put(
        proc / "self" / "mountinfo",
        r"36 35 8:1 / /srv/my\040disk rw,noatime shared:1 - ext4 /dev/sda1 rw",
    )
    put(proc / "swaps", "Filename Type Size Used Priority")
    facts = blockdev.facts_of(
        "/dev/sda", sysfs.root / "devices/pci0/sda", sysfs=sysfs.root, proc=proc
    )
    assert facts.devno == facts.disk == (8, 0)
    assert (facts.sectors, facts.logical, facts.physical) == (2048000, 512, 4096)
    assert facts.mounts == (Use("sda1", "/srv/my disk"),)
    assert facts.holders == (Use("sda1", "dm-0 (vg-a[b])"),)
    assert facts.components == frozenset({(8, 0)})
    assert (facts.id_type, facts.id.hex()) == (3, "5000c500a1b2c3d4")
    assert facts.serial == "naa.5000c500a1b2c3d4"


def test_partition_and_stack(sysfs: Sysfs, tmp_path: Path) -> None:
    devices = sysfs.root / "devices"
    part = blockdev.facts_of(
        "/dev/sda1", devices / "pci0/sda/sda1", sysfs=sysfs.root, proc=tmp_path
    )
    assert part.disk == (8, 0)
    assert part.offset == 2048
    assert part.physical == 4096
    mapped = blockdev.facts_of(
        "/dev/dm-0", devices / "virtual/dm-0", sysfs=sysfs.root, proc=tmp_path
    )
    assert mapped.components == frozenset({(253, 0), (8, 1)})
    assert mapped.read_only


def test_a_loop_device_holds_what_it_is_over(sysfs: Sysfs, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, backing in (("loop0", "/dev/sda1"), ("loop1", "/var/image"), ("loop2", "/dev/sdz")):
        put(sysfs.root / "block" / name / "loop" / "backing_file", backing)
    (sysfs.root / "block" / "loop3").mkdir()
    nodes(monkeypatch, {"/dev/sda1": (8, 1), "/dev/sdz": (8, 99)})
    sda = sysfs.root / "devices/pci0/sda"
    facts = blockdev.facts_of("/dev/sda", sda, sysfs=sysfs.root, proc=sysfs.root)
    assert facts.holders == (Use("sda1", "dm-0 (vg-a[b])"), Use("sda1", "loop0"))


def test_a_file_server_that_does_not_answer_is_not_asked(
    sysfs: Sysfs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is mounted may be named by a path there, and then whoever looks at it waits for ever."""
    put(
        tmp_path / "self" / "mountinfo",
        "36 35 0:40 / /mnt rw - fuse.x /srv/dead/image rw\n"
        "37 35 0:41 / /pool rw - btrfs /dev/sda rw\n",
    )
    (tmp_path / "swaps").write_text(
        "Filename Type Size Used Priority\n/mnt/swap file 1 0 -2\n/dev/sda partition 1 0 -2\n"
    )
    for name, backing in (("loop0", "/mnt/image"), ("loop1", "/dev/sda"), ("loop2", "/mntn/x")):
        put(sysfs.root / "block" / name / "loop" / "backing_file", backing)
    nodes(monkeypatch, {"/dev/sda": (8, 0)}, never="/mnt/")
    known = blockdev.around(sysfs.root, tmp_path)
    assert known.mounts == (((0, 40), "/mnt"), ((0, 41), "/pool"), ((8, 0), "/pool"))
    assert known.swaps == (((8, 0), "/dev/sda"),)
    assert known.loops == (((8, 0), "loop1"),)
    assert known.served == ("/mnt",)
    sysfs.device("virtual/loop0", "7:0", 100, loop__backing_file="/mnt/image", loop__offset="0")
    loop = sysfs.root / "devices/virtual/loop0"
    facts = blockdev.facts_of("/dev/loop0", loop, sysfs=sysfs.root, proc=tmp_path)
    assert (facts.medium, facts.components) == ("file /mnt/image", frozenset({(7, 0)}))


def nodes(
    monkeypatch: pytest.MonkeyPatch, numbers: dict[str, tuple[int, int]], never: str = "/never"
) -> None:
    """Let some paths be block devices, and fail where one is asked for that never answers."""
    real = os.stat

    def stat(path: Any, **how: Any) -> Any:
        assert not str(path).startswith(never)
        if str(path) in numbers:
            return SimpleNamespace(st_mode=S_IFBLK, st_rdev=os.makedev(*numbers[str(path)]))
        return real(path, **how)

    monkeypatch.setattr(os, "stat", stat)


def test_what_is_known_is_not_read_again(sysfs: Sysfs, tmp_path: Path) -> None:
    known = blockdev.Around(
        loops=(((8, 1), "loop7"),), mounts=(((8, 1), "/a"),), swaps=(((8, 0), "/dev/sda"),)
    )
    facts = blockdev.facts_of(
        "/dev/sda", sysfs.root / "devices/pci0/sda", sysfs=sysfs.root, proc=tmp_path, known=known
    )
    assert facts.holders[-1] == Use("sda1", "loop7")
    assert facts.mounts == (Use("sda1", "/a"),)
    assert facts.swaps == (Use("sda", "/dev/sda"),)


@pytest.mark.parametrize(
    ("raw", "name"),
    [("plain", "plain"), (r"my\x20set", "my set"), (r"c\xc3\x9f", "c\u00df"), (r"\xff", "\udcff")],
)
def test_names_in_sysfs_are_mangled(raw: str, name: str) -> None:
    assert blockdev.unmangle(raw) == name


def test_all_devices_and_nodes(sysfs: Sysfs) -> None:
    sysfs.device("pci1/cciss!c0d0", "104:0", 100)
    sysfs.device("virtual/loop0", "7:0", 0)
    found = blockdev.all_devices(sysfs.root)
    assert [blockdev.node(path) for path in found] == [
        "/dev/cciss/c0d0",
        "/dev/dm-0",
        "/dev/sda",
        "/dev/sda1",
    ]


def test_a_medium_has_one_name(sysfs: Sysfs, tmp_path: Path) -> None:
    file = tmp_path / "file.img"
    file.touch()
    devices = sysfs.root / "devices"
    for number, offset in ((0, 0), (1, 1 << 20)):
        sysfs.device(
            f"virtual/loop{number}",
            f"7:{number}",
            100,
            loop__backing_file=str(file),
            loop__offset=str(offset),
        )
    one, two, disk, part = (
        blockdev.facts_of("/dev/x", devices / path, sysfs=sysfs.root, proc=tmp_path)
        for path in ("virtual/loop0", "virtual/loop1", "pci0/sda", "pci0/sda/sda1")
    )
    assert one.medium == two.medium != ""
    assert (one.medium_start, two.medium_start) == (0, 2048)
    assert disk.medium == part.medium == "disk 3 5000c500a1b2c3d4"
    assert (disk.medium_start, part.medium_start) == (0, 2048)


@pytest.mark.parametrize("size", [4096, 3 << 20, 1 << 30])
def test_probed_is_on_the_device(size: int) -> None:
    places = blockdev.probed(size)
    assert places[0][0] == 0
    assert places[-1][1] == size
    assert all(0 <= first < end <= size for first, end in places)


def test_a_serial_that_is_no_text(sysfs: Sysfs, tmp_path: Path) -> None:
    directory = sysfs.device("virtual/vda", "252:0", 100)
    (directory / "serial").write_bytes(b"A\xff \0 B\x1b[31m\n")
    facts = blockdev.facts_of("/dev/vda", directory, sysfs=sysfs.root, proc=tmp_path)
    assert facts.serial == "A\\xff ? B?[31m"
    assert facts.serial.encode()


def test_wipefs() -> None:
    text = '{"signatures": [{"device":"sdb","offset":"0x438","type":"ext4","label":null}]}'
    assert blockdev.parse_wipefs(text) == [Signature("ext4", 0x438)]
    assert blockdev.parse_wipefs("") == []
    with pytest.raises(Failure, match="wipefs"):
        blockdev.parse_wipefs("ext4")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("naa.5000c500a1b2c3d4", (3, "5000c500a1b2c3d4")),
        ("eui.0025388b71b2c3d4", (2, "0025388b71b2c3d4")),
        ("t10.ATA     DISK 1", (0, "")),
        ("naa.xyz", (0, "")),
        ("", (0, "")),
    ],
)
def test_wwid(text: str, expected: tuple[int, str]) -> None:
    kind, raw = blockdev.parse_wwid(text)
    assert (kind, raw.hex()) == expected


@pytest.mark.parametrize(
    ("line", "served"),
    [
        ("36 35 0:40 / /mnt rw - nfs4 host:/x rw", ("/mnt",)),
        ("36 35 0:40 / /a\\040b rw shared:7 - fuse.sshfs host:/x rw", ("/a b",)),
        ("36 35 0:40 / /mnt rw - fuseblk /dev/sda1 rw", ()),
        ("36 35 0:40 / /mnt rw - ext4 nfs rw", ()),
        ("36 35 0:40 / /mnt rw -", ()),
        ("a - nfs", ()),
    ],
)
def test_what_others_answer_for(line: str, served: tuple[str, ...]) -> None:
    assert blockdev.parse_served(f"{line}\n") == served


def test_mountinfo_of_a_file_system_on_several_devices() -> None:
    text = "30 1 0:26 /@ / rw - btrfs /dev/sdc2 rw,subvol=/@\nbroken line\n"
    assert blockdev.parse_mountinfo(text) == [((0, 26), "/", "/dev/sdc2")]
