# SPDX-License-Identifier: GPL-2.0-only
"""Debian's kernels, unpacked into the machine's cache and never installed.

``python3 -m harness.unpacked`` has the newest kernel of each of :data:`SERIES` there, and the root
that builds its modules; with ``--look`` it only says by its exit status whether that is so.
Debian's archive is asked once a day; where it cannot be reached, what is there is good enough.

A kernel is in ``linux/<release>_<version>_<recipe>``, with ``vmlinuz``, ``lib/modules/<release>``
and in ``usr/src`` the headers. Modules are built by the compiler that built the kernel: this
machine's own, or that of a root, the release of Debian that the kernel belongs to.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness import apt
from harness.cache import cache, locked
from harness.errors import HarnessError
from harness.process import run

if TYPE_CHECKING:
    from collections.abc import Collection

DAY = 24 * 3600.0
KEPT = 2
"""Kernels of a series, the newest ones: a guest may still run on the one before the newest."""
RECIPE = 1
"""Raised when what is unpacked must be made anew although Debian's packages are the same."""
ROOT_PACKAGES = ("gcc", "libc6-dev", "libelf1t64", "make", "kmod", "pahole", "python3", "sparse")
"""What a root has beyond the essential: the compiler, and what kernel headers need."""
CONTROL_PLANE = (
    *("libdevmapper-dev", "python3-dev", "python3-setuptools", "python3-cffi"),
    *("python3-click", "python3-pyroute2", "python3-pyudev", "python3-rich"),
    *("python3-hypothesis", "python3-jsonschema", "python3-pytest", "python3-pytest-timeout"),
)
"""What is added to a root: what the control plane is built of, runs on and is tested with there."""


@dataclass(frozen=True)
class Series:
    """Kernels of Debian's that differ in their patches only."""

    name: str
    release: str
    """A pattern: Debian 12 and 13 have a 6.12 each, and there are flavours of all."""
    packages: tuple[str, ...]
    """What brings one, by its release, and its release without the architecture (the ABI)."""
    root: str | None = None
    """The Debian that its modules are built in, unless this machine's own compiler does it."""

    def needed(self, release: str) -> list[str]:
        """Return the names of the packages of a release."""
        abi = release.removesuffix("-amd64")
        return [name.format(release=release, abi=abi) for name in self.packages]


_HEADERS = ("linux-headers-{release}", "linux-headers-{abi}-common")
SERIES = {
    one.name: one
    for one in (
        Series(
            "6.1",
            r"6\.1\.0-\d+-amd64",
            ("linux-image-{release}", *_HEADERS, "linux-kbuild-6.1"),
        ),
        Series(
            "6.12",
            r"6\.12\.\d+\+deb12[\d.]*-amd64",
            ("linux-image-{release}", *_HEADERS, "linux-kbuild-{abi}"),
        ),
        Series(
            "7.3",
            r"7\.3\.\d+\+deb13[\d.]*-amd64",
            (
                *("linux-binary-{release}", "linux-modules-{release}", "linux-base-{release}"),
                *(*_HEADERS, "linux-kbuild-{abi}"),
            ),
            root="trixie",
        ),
    )
}


def home() -> Path:
    """Return where the kernels are."""
    return cache() / "linux"


def numbers(name: str) -> list[int]:
    """Return what releases are compared by.

    >>> numbers("6.12.90+deb12.1-amd64") > numbers("6.12.90+deb12-amd64")
    True
    """
    return [int(number) for number in re.findall(r"\d+", name.replace("amd64", ""))]


def newest(series: Series, packages: Collection[str]) -> str | None:
    """Return the newest release of a series that has all its packages: headers may come first.

    >>> some = [f"linux-{it}" for it in ("image-6.1.0-9-amd64", "headers-6.1.0-9-amd64")]
    >>> newest(SERIES["6.1"], [*some, "linux-headers-6.1.0-9-common", "linux-kbuild-6.1"])
    '6.1.0-9-amd64'
    >>> newest(SERIES["6.1"], some)
    """
    prefix = "linux-headers-"
    releases = (name.removeprefix(prefix) for name in packages if name.startswith(prefix))
    matching = (name for name in releases if re.fullmatch(series.release, name))
    whole = (name for name in matching if set(series.needed(name)) <= set(packages))
    return max(whole, key=numbers, default=None)


def cached(series: Series) -> list[Path]:
    """Return the kernels of a series that are there, the newest first."""
    name = re.compile(rf"{series.release}_[^_]+_{RECIPE}")
    found = [path for path in home().glob("*_*") if name.fullmatch(path.name)]
    return sorted(found, key=lambda path: numbers(path.name), reverse=True)


def release_of(kernel: Path) -> str:
    """Return the release of a kernel that is there, from its directory."""
    return kernel.name.partition("_")[0]


def root(suite: str) -> Path:
    """Return where the root of a Debian is."""
    return cache() / f"root-{suite}-{RECIPE}"


def _arrange(unpacked: Path, release: str, final: Path) -> None:
    """Put things where they are on every kernel, for a directory that will be ``final``."""
    if not (unpacked / "lib").exists():
        (unpacked / "lib").mkdir()
        (unpacked / "usr/lib/modules").rename(unpacked / "lib/modules")
    modules = unpacked / "lib/modules" / release
    images = [unpacked / f"boot/vmlinuz-{release}", modules / "vmlinuz"]
    next(image for image in images if image.exists()).rename(unpacked / "vmlinuz")
    tree = unpacked / f"usr/src/linux-headers-{release}"
    for link in ("build", "source"):
        (modules / link).unlink(missing_ok=True)
    (modules / "build").symlink_to(final / tree.relative_to(unpacked))
    makefile = tree / "Makefile"
    makefile.write_text(makefile.read_text().replace("/usr/src/", f"{final}/usr/src/"))
    # Debian leaves it out, and Linux 7 does without sparse where it fails.
    for scripts in unpacked.glob("usr/lib/linux-kbuild-*/scripts"):
        checker = scripts / "checker-valid.sh"
        if not checker.exists():
            checker.write_text("#!/bin/sh\necho 1\n")
            checker.chmod(0o755)
    run(["depmod", "-b", unpacked, release])


def _unpack(series: Series, known: Collection[str]) -> None:
    release = newest(series, known)
    if release is None:
        raise HarnessError(f"Debian's archive has no Linux {series.name} with its headers any more")
    packages = series.needed(release)
    version = apt.versions(packages[:1])[packages[0]]
    final = home() / f"{release}_{version}_{RECIPE}"
    if final.exists():
        return
    with tempfile.TemporaryDirectory(dir=home(), prefix="unpacking-") as scratch:
        unpacked = Path(scratch, "kernel")
        apt.unpack(packages, Path(scratch, "packages"), unpacked)
        _arrange(unpacked, release, final)
        unpacked.rename(final)
    for old in cached(series)[KEPT:]:
        shutil.rmtree(old)


def _make_root(suite: str) -> None:
    final = root(suite)
    if final.exists():
        return
    with tempfile.TemporaryDirectory(dir=cache(), prefix="root-") as scratch:
        made = Path(scratch, "root")
        include = f"--include={','.join(ROOT_PACKAGES)}"
        options = ["--variant=minbase", "--arch=amd64", f"--keyring={apt.KEYRING}", include]
        # What it mounts goes with its namespace.
        debootstrap = ["unshare", "--mount", "debootstrap", *options]
        run([*debootstrap, suite, made, apt.mirror()], timeout=1800)
        for package in made.glob("var/cache/apt/archives/*.deb"):
            package.unlink()
        made.rename(final)


def _added(suite: str) -> Path:
    return root(suite) / ".added"


def _whole(suite: str) -> bool:
    """Say whether a root is there, with all that is added to it."""
    added = _added(suite)
    return added.exists() and added.read_text().split() == [*CONTROL_PLANE]


def _add(suite: str) -> None:
    """Add to a root what debootstrap would not get right: it knows nothing of alternatives."""
    if _whole(suite):
        return
    apt.update()
    apt.install(CONTROL_PLANE, root(suite), suite)
    _added(suite).write_text("\n".join(CONTROL_PLANE))


def _asked() -> Path:
    return home() / ".asked"


def complete() -> bool:
    """Say whether all is there, and no older than a day."""
    roots = {series.root for series in SERIES.values() if series.root}
    if not all(cached(series) for series in SERIES.values()) or not all(map(_whole, roots)):
        return False
    asked = _asked()
    return asked.exists() and time.time() - asked.stat().st_mtime < DAY


def prepare() -> None:
    """Have the newest kernel of each series, and what builds modules for it."""
    with locked(home()):
        if complete():
            return
        try:
            apt.update()
            packages = set(apt.names("linux-"))
            for series in SERIES.values():
                _unpack(series, packages)
        except HarnessError as error:
            if not all(cached(series) for series in SERIES.values()):
                raise
            print(f"note: using the kernels that were here already: {error}")
        for series in SERIES.values():
            if series.root:
                _make_root(series.root)
                _add(series.root)
        _asked().touch()


if __name__ == "__main__":
    if "--look" in sys.argv[1:]:
        sys.exit(not complete())
    try:
        prepare()
    except HarnessError as error:
        sys.exit(f"{error}")
