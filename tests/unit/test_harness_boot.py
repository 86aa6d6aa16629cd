"""What a guest boots from: the archive writer, the kernels, and the command line."""

import os
import stat
import subprocess
from pathlib import Path

import pytest
from harness import cpio, kernels, paths
from harness.accel import TCG
from harness.command import TERMINAL, Hardware, Wiring, command
from harness.disks import Disk
from harness.errors import HarnessError


def extract(data: bytes, directory: Path) -> None:
    argv = ["busybox", "cpio", "-id"]
    subprocess.run(argv, input=data, cwd=directory, check=True, capture_output=True)


def test_an_archive_can_be_unpacked_again(tmp_path: Path) -> None:
    content = os.urandom(4099)
    entries = [
        cpio.directory("modules"),
        cpio.Entry("modules/a.ko", content, stat.S_IFREG | 0o644),
        cpio.Entry("init", b"#!/bin/sh\n"),
        cpio.symlink("linuxrc", "init"),
        cpio.Entry("empty", b""),
    ]
    data = cpio.archive(entries)
    assert data == cpio.archive(entries)
    extract(data, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "empty",
        "init",
        "linuxrc",
        "modules",
    ]
    assert (tmp_path / "modules/a.ko").read_bytes() == content
    assert stat.S_IMODE((tmp_path / "init").stat().st_mode) == 0o755
    assert (tmp_path / "linuxrc").readlink() == Path("init")


def test_the_newest_plain_kernel_of_a_series_is_chosen() -> None:
    releases = [
        "6.1.0-9-amd64",
        "6.1.0-56-amd64",
        "6.1.0-99-cloud-amd64",
        "6.1.0-99-rt-amd64",
        "6.12.99+deb12-amd64",
        "6.12.117+deb12-amd64",
    ]
    assert kernels.newest("6.1", releases) == "6.1.0-56-amd64"
    assert kernels.newest("6.12", releases) == "6.12.117+deb12-amd64"
    assert kernels.newest("6.9", releases) is None


def test_a_missing_kernel_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"install linux-image-6\.12-amd64"):
        kernels.find("6.12", root=tmp_path)


def test_a_module_that_is_not_built_says_so(tmp_path: Path) -> None:
    (tmp_path / "boot").mkdir()
    for release in ("6.1.0-1-amd64", "6.1.0-2-amd64"):
        (tmp_path / "boot" / f"vmlinuz-{release}").touch()
    # The newer one has no headers, so nothing could be built for it.
    headers = tmp_path / "lib/modules/6.1.0-1-amd64/build"
    headers.mkdir(parents=True)
    (headers / "Makefile").touch()
    kernel = kernels.find("6.1", root=tmp_path)
    assert kernel.build == paths.BUILD / "6.1.0-1-amd64"
    with pytest.raises(HarnessError, match="tools/prepare"):
        kernel.module("dm_remap")


def words(wiring: Wiring) -> str:
    hardware = Hardware(Path("/k"), Path("/i"), TCG, extra_words=("slub_debug=FZ",))
    disks = [Disk(name="main", kind="scsi"), Disk(name="spare")]
    argv = command(hardware, disks, {d.name: d.faults for d in disks}, Path("/w"), wiring)
    return argv[argv.index("-append") + 1]


def test_the_kernel_is_told_which_drivers_to_load() -> None:
    line = words(Wiring("null", "null", "null"))
    assert "harness.load=scsi,virtio" in line
    assert "slub_debug=FZ" in line
    assert "quiet" not in line.split()
    assert "harness.script" not in line


def test_a_person_gets_a_shell() -> None:
    script = words(TERMINAL).partition("harness.script=")[2]
    assert Path(bytes.fromhex(script).decode()) == paths.HARNESS / "shell.sh"
