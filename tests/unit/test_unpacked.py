# SPDX-License-Identifier: GPL-2.0-only
"""Debian's kernels in the cache: which, when they are asked for, and where things are in them."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from harness import apt, kernels, unpacked
from harness.errors import HarnessError

RELEASES = {
    "6.1": ("6.1.0-56-amd64", "6.1.192-2"),
    "6.12": ("6.12.117+deb12-amd64", "6.12.117-1~deb12u1"),
    "7.3": ("7.3.4+deb13-amd64", "7.3.4-1~bpo13+1"),
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; nothing is asked of any archive."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def unreachable() -> None:
        raise HarnessError("apt-get update: exit status 100")

    monkeypatch.setattr(apt, "update", unreachable)
    return unpacked.home()


def fill(home: Path) -> None:
    """Put a kernel of each series into the cache, and the root."""
    for release, version in RELEASES.values():
        (home / f"{release}_{version}_{unpacked.RECIPE}").mkdir(parents=True)
    fill_root()


def fill_root() -> None:
    unpacked.root("trixie").mkdir(parents=True)
    (unpacked.root("trixie") / ".added").write_text(" ".join(unpacked.CONTROL_PLANE))


def test_the_archive_is_the_one_that_this_machine_uses() -> None:
    listed = """nodistro http://other/ Other Vendor
bookworm http://other/ Other
bookworm http://mirror/a Debian
bookworm-security http://mirror/s Debian
"""
    known = apt.archives(listed)
    lines = apt.sources(known).splitlines()
    assert f"deb [signed-by={apt.KEYRING}] http://mirror/a trixie-backports main" in lines
    assert f"deb [signed-by={apt.KEYRING}] http://mirror/s trixie-security main" in lines
    # Before the first update nobody has said whose it is; and some have no security.
    known = apt.archives("bookworm http://mirror/a $(ORIGIN)\n")
    assert "security" not in apt.sources(known)


@pytest.mark.usefixtures("home")
def test_no_kernel_says_which_command_failed() -> None:
    assert not unpacked.complete()
    with pytest.raises(HarnessError, match="apt-get update: exit status 100"):
        unpacked.prepare()
    assert not unpacked.complete()


def test_a_cached_kernel_will_do(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(home)
    assert not unpacked.complete(), "nobody has asked yet"
    unpacked.prepare()
    assert "note: using the kernels that were here already" in capsys.readouterr().out
    # And not asked again on every call.
    assert unpacked.complete()
    unpacked.prepare()
    assert capsys.readouterr().out == ""
    long_ago = time.time() - unpacked.DAY - 1
    os.utime(home / ".asked", (long_ago, long_ago))
    assert not unpacked.complete()


@pytest.mark.parametrize("gone", [*RELEASES, "root", "added", "more"])
def test_one_that_is_missing_is_not_complete(home: Path, gone: str) -> None:
    fill(home)
    (home / ".asked").touch()
    assert unpacked.complete()
    added = unpacked.root("trixie") / ".added"
    if gone == "root":
        shutil.rmtree(unpacked.root("trixie"))
    elif gone == "added":
        added.unlink()
    elif gone == "more":
        added.write_text(added.read_text().partition(" ")[2])
    else:
        unpacked.cached(unpacked.SERIES[gone])[0].rmdir()
    assert not unpacked.complete()


def debian(name: str, directory: Path) -> str:
    """Make what Debian's packages of a kernel unpack to; return its release."""
    release, _ = RELEASES[name]
    abi = release.removesuffix("-amd64")
    old = name != "7.3"
    modules = directory / ("lib" if old else "usr/lib") / "modules" / release
    tree = directory / f"usr/src/linux-headers-{release}"
    kbuild = directory / f"usr/lib/linux-kbuild-{abi}/scripts"
    for path in (modules / "kernel", tree, kbuild, directory / "boot"):
        path.mkdir(parents=True)
    image = directory / f"boot/vmlinuz-{release}" if old else modules / "vmlinuz"
    image.write_text("Linux")
    common = f"/usr/src/linux-headers-{abi}-common"
    (modules / "source").symlink_to(common)
    (tree / "Makefile").write_text(f"KBUILD_OUTPUT={common}\ninclude {common}/Makefile\n")
    (modules / "modules.order").touch()
    (modules / "modules.builtin").touch()
    return release


@pytest.fixture
def archive(home: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What Debian has, by the series: a version of each; and the root is there."""
    has = {name: version for name, (_, version) in RELEASES.items()}

    def needed(name: str) -> list[str]:
        return unpacked.SERIES[name].needed(RELEASES[name][0])

    def versions(packages: list[str]) -> dict[str, str]:
        return {name: has[series] for series in has for name in packages if name in needed(series)}

    def unpack(packages: list[str], scratch: Path, target: Path) -> None:
        assert scratch.parent == target.parent != home
        (name,) = (series for series in has if packages == needed(series))
        debian(name, target)

    monkeypatch.setattr(apt, "update", lambda: None)
    monkeypatch.setattr(apt, "names", lambda _: [name for series in has for name in needed(series)])
    monkeypatch.setattr(apt, "versions", versions)
    monkeypatch.setattr(apt, "unpack", unpack)
    fill_root()
    return has


@pytest.mark.usefixtures("archive")
def test_things_are_where_they_are_on_every_kernel(home: Path) -> None:
    unpacked.prepare()
    assert unpacked.complete()
    for name, (release, version) in RELEASES.items():
        kernel = kernels.find(name)
        assert kernel.tree.parents[2] == home / f"{release}_{version}_{unpacked.RECIPE}"
        assert kernel.vmlinuz.read_text() == "Linux"
        assert (kernel.modules / "modules.dep").exists()
        assert (kernel.modules / "build").readlink() == kernel.tree
        assert not (kernel.modules / "source").is_symlink()
        makefile = (kernel.tree / "Makefile").read_text()
        assert makefile.count("/usr/src/") == makefile.count(f"{kernel.tree.parent}/") == 2
    assert list(home.glob("unpacking-*")) == []


def test_the_one_before_the_newest_is_kept(home: Path, archive: dict[str, str]) -> None:
    for number in (7, 8, 9):
        archive["6.1"] = f"6.1.{number}-1"
        unpacked.prepare()
        (home / ".asked").unlink()
    there = [path.name for path in unpacked.cached(unpacked.SERIES["6.1"])]
    assert there == ["6.1.0-56-amd64_6.1.9-1_1", "6.1.0-56-amd64_6.1.8-1_1"]


@pytest.mark.usefixtures("archive")
def test_packages_are_added_to_a_root_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def install(*words: object) -> None:
        asked.append(words)

    monkeypatch.setattr(apt, "install", install)
    (unpacked.root("trixie") / ".added").unlink()
    unpacked.prepare()
    assert unpacked.complete()
    unpacked.prepare()
    assert asked == [(unpacked.CONTROL_PLANE, unpacked.root("trixie"), "trixie")]


@pytest.mark.usefixtures("archive")
def test_a_root_that_lacks_packages_is_not_good_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    def install(*_: object) -> None:
        raise HarnessError("apt-get install: exit status 100")

    monkeypatch.setattr(apt, "install", install)
    (unpacked.root("trixie") / ".added").unlink()
    with pytest.raises(HarnessError, match="apt-get install: exit status 100"):
        unpacked.prepare()
    assert not unpacked.complete()


def test_a_series_that_is_gone_is_said(archive: dict[str, str]) -> None:
    del archive["7.3"]
    with pytest.raises(HarnessError, match=r"no Linux 7\.3 with its headers any more"):
        unpacked.prepare()


def in_root(*command: str) -> subprocess.CompletedProcess[str]:
    argv = ["sh", str(kernels.IN_ROOT), str(unpacked.root("trixie")), *command]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_a_root_is_there_for_one_command_only() -> None:
    mounts = Path("/proc/mounts").read_text()
    said = in_root("sh", "-c", "cat /etc/os-release; gcc -dumpversion; cat $0", __file__).stdout
    assert "VERSION_CODENAME=trixie\n" in said
    assert "\n14\n" in said
    # All else is this machine's.
    assert said.endswith(Path(__file__).read_text())
    failed = in_root("sh", "-c", "exit 7")
    assert failed.returncode == 7
    assert Path("/proc/mounts").read_text() == mounts
    assert "VERSION_CODENAME=bookworm\n" in Path("/etc/os-release").read_text()
