# SPDX-License-Identifier: GPL-2.0-only
"""Where the links of sets and of adopted disks point. In a guest with udevd, as root.

Run by tests/vm/test_guest.py, which gives the machine the disks that this needs: `virtio`,
`scsi` and `nvme` to adopt, `spare`, and `tray`, a drive for CDs, of which a scan must not close the
tray.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from guest.lib import run, sectors, wait_for, write

from dmremap import dm
from dmremap.cli import main
from dmremap.sets import live, remove, udevrule

pytestmark = [pytest.mark.guest, pytest.mark.module]

UUID = "6f8a1c52-90b4-4b7f-8a39-1d2e3f405162"
LINK = Path("/dev/disk/by-uuid", UUID)


def disk(serial: str) -> Path:
    """Find a disk of the machine by its serial number or its world-wide name."""
    for link in sorted(Path("/dev/disk/by-id").iterdir()):
        if link.name.endswith((f"-{serial}", f"_{serial}", f"_{serial}_1")):
            return link.resolve()
    raise LookupError(serial, os.listdir("/dev/disk/by-id"))


@pytest.fixture
def spare() -> Iterator[Path]:
    path = disk("spare")
    yield path
    for one in live.find():
        remove.remove(one)
    for rule in udevrule.RULES.glob("59-dmremap-*"):
        rule.unlink()
    run("udevadm", "control", "--reload")
    for start in range(0, sectors(path), 2048):
        write(path, start, bytes(512 * min(2048, sectors(path) - start)))


def points_to() -> str:
    run("udevadm", "settle")
    return LINK.resolve().name if LINK.exists() else "nothing"


@pytest.mark.parametrize(
    "serial", ["virtio", "35000c500a1b2c3d4", "nvme"], ids=["virtio", "scsi", "nvme"]
)
def test_by_uuid_never_goes_back_to_the_bare_disk(
    serial: str, spare: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = disk(serial)
    run("mkfs.ext4", "-q", "-F", "-U", UUID, bare)
    run("udevadm", "trigger", "--settle", "--action=change", bare)
    assert points_to() == bare.name
    by_id = [link for link in Path("/dev/disk/by-id").iterdir() if link.resolve() == bare]
    assert by_id

    capsys.readouterr()
    assert main(["adopt", str(bare), str(spare), "--yes", "--name", "home", "-o", "json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["warnings"] == []
    rule = Path(made["data"]["rule"])
    assert rule.is_file()
    mapped = Path("/dev", f"dm-{dm.info('home').minor}")
    assert points_to() == mapped.name

    run("udevadm", "trigger", "--action=change", "--settle", bare)
    assert points_to() == mapped.name
    run("udevadm", "trigger", "--action=add", "--settle", "--subsystem-match=block")
    assert points_to() == mapped.name
    with bare.open("r+b"):  # closing a disk that was open for writing is an event too
        pass
    time.sleep(0.5)
    assert points_to() == mapped.name
    assert all(link.resolve() == bare for link in by_id)
    run("mount", f"UUID={UUID}", tmp_path)
    try:
        assert run("findmnt", "-no", "SOURCE", tmp_path).strip() == "/dev/mapper/home"
    finally:
        run("umount", tmp_path)

    # Without the set nothing may mount the disk by its uuid either.
    remove.remove(live.find()[0])
    assert points_to() == "nothing"
    run("udevadm", "trigger", "--action=change", "--settle", bare)
    assert points_to() == "nothing"
    capsys.readouterr()
    assert main(["assemble", "home", "-o", "json"]) == 0, capsys.readouterr()
    assert points_to() == f"dm-{dm.info('home').minor}"
    remove.remove(live.find()[0])

    # The way out, as the help and the file say it.
    rule.unlink()
    run("udevadm", "control", "--reload")
    run("udevadm", "trigger", "--settle", "--action=change", bare)
    wait_for(lambda: points_to() == bare.name, "the link to come back to the bare disk")
    run("wipefs", "--all", bare)
    wait_for(lambda: points_to() == "nothing", "the link to go with the file system")


def test_coldplug_keeps_the_nodes_link(spare: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare = disk("virtio")
    run("wipefs", "--all", bare)
    words = ["create", str(bare), str(spare), "--yes", "--wipe", "--name", "one"]
    assert main(words) == 0, capsys.readouterr()
    link = Path("/dev/mapper/one")
    assert link.is_symlink()
    run("udevadm", "trigger", "--action=add", "--settle", "--subsystem-match=block")
    assert link.is_symlink()
    assert run("dmsetup", "udevcookies").count("\n") == 1


# Of linux/cdrom.h.
CDROMEJECT, CDROM_DRIVE_STATUS = 0x5309, 0x5326
CDS_TRAY_OPEN = 2


def test_a_tray_that_is_open_stays_open(capfd: pytest.CaptureFixture[str]) -> None:
    run("modprobe", "sr_mod")
    wait_for(Path("/dev/sr0").exists, "the drive")
    drive = os.open("/dev/sr0", os.O_RDONLY | os.O_NONBLOCK)
    try:
        fcntl.ioctl(drive, CDROMEJECT)
        assert fcntl.ioctl(drive, CDROM_DRIVE_STATUS, 0) == CDS_TRAY_OPEN
        assert Path("/sys/block/sr0/size").read_text() != "0\n"
        assert main(["list"]) == 0
        assert main(["examine", "/dev/sr0"]) in (1, 3)
        assert fcntl.ioctl(drive, CDROM_DRIVE_STATUS, 0) == CDS_TRAY_OPEN
    finally:
        os.close(drive)
    assert "internal error" not in capfd.readouterr().err
