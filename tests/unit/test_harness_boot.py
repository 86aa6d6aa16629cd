# SPDX-License-Identifier: GPL-2.0-only
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


def fake(name: str, tmp_path: Path) -> Path:
    """Put a kernel into a cache, as far as it is looked at."""
    directory = tmp_path / "dm-remap/linux" / name
    directory.mkdir(parents=True)
    return directory


def test_the_newest_kernel_of_a_series_is_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in (
        "6.1.0-9-amd64_6.1.10-1_1",
        "6.1.0-56-amd64_6.1.192-1_1",
        "6.1.0-56-amd64_6.1.192-2_1",
        "6.1.0-57-amd64_6.1.193-1_0",
        "6.1.0-99-cloud-amd64_6.1.999-1_1",
        "6.12.99+deb12-amd64_6.12.99-1~deb12u1_1",
        "6.12.117+deb12-amd64_6.12.117-1~deb12u1_1",
        "6.12.118+deb13-amd64_6.12.118-1_1",
        "7.3.4+deb13-amd64_7.3.4-1~bpo13+1_1",
    ):
        fake(name, tmp_path)
    found = {series: kernels.find(series) for series in kernels.SERIES}
    assert [kernel.release for kernel in found.values()] == [
        "6.1.0-56-amd64",
        "6.12.117+deb12-amd64",
        "7.3.4+deb13-amd64",
    ]
    assert found["6.1"].vmlinuz.parent.name == "6.1.0-56-amd64_6.1.192-2_1"
    assert found["6.1"].make == ("make", "-C", str(found["6.1"].tree))
    # Built by the compiler that it was built by.
    assert found["7.3"].root == tmp_path / "dm-remap/root-trixie-1"
    assert found["7.3"].make[:3] == ("sh", str(kernels.IN_ROOT), str(found["7.3"].root))


def test_a_missing_kernel_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(HarnessError, match=r"Linux 6\.12 is not in .*: run tools/prepare"):
        kernels.find("6.12")


def test_a_module_that_is_not_built_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    fake("6.1.0-1-amd64_6.1.1-1_1", tmp_path)
    kernel = kernels.find("6.1")
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
