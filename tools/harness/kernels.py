"""Find the installed Debian kernels and the modules built for them.

``python3 -m harness.kernels [<flavour>...]`` prints a line ``<series> <release> <build tree>`` for
each of Debian's, and for each debug kernel that is named, which must have been built.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness import debugkernel, paths
from harness.errors import HarnessError

if TYPE_CHECKING:
    from collections.abc import Iterable

PACKAGES = {"6.1": "linux-image-amd64", "6.12": "linux-image-6.12-amd64"}
"""Series that are tested, and the package that brings the newest kernel of each."""

SERIES = tuple(PACKAGES)
DEBUG, KCSAN = FLAVOURS = tuple(debugkernel.FLAVOURS)
"""The names of the debug kernels where a series is asked for."""
DEBUG_PATIENCE = 8.0
ALL = (*SERIES, *FLAVOURS)


@dataclass(frozen=True)
class Kernel:
    """A kernel that can be booted."""

    series: str
    release: str
    vmlinuz: Path
    modules: Path
    """Its own modules: /lib/modules/<release>."""
    tree: Path
    """What modules are built with: headers, scripts, symbols."""
    build: Path
    """Where tools/prepare builds ours: build/<release>."""

    @property
    def patience(self) -> float:
        """How many times as long as Debian's kernels this one may take for anything."""
        return DEBUG_PATIENCE if self.series in FLAVOURS else 1.0

    def module(self, name: str) -> Path:
        """Return the path of a module of ours, ``dm_remap`` for dm_remap.ko."""
        found = sorted(self.build.rglob(f"{name}.ko"))
        if not found:
            raise HarnessError(f"{name}.ko is not built for {self.release}: run tools/prepare")
        return found[0]


def newest(series: str, releases: Iterable[str]) -> str | None:
    """Return the newest plain amd64 release of a series: 6.1 does not match 6.12.

    >>> newest("6.1", ["6.1.0-9-amd64", "6.1.0-56-amd64", "6.12.117+deb12-amd64"])
    '6.1.0-56-amd64'
    """
    wanted = re.compile(rf"{re.escape(series)}\.[\d.+~a-z-]*?-?amd64")
    matching = [release for release in releases if wanted.fullmatch(release)]
    flavoured = re.compile(r"-(cloud|rt)-")
    plain = [release for release in matching if not flavoured.search(release)]
    return max(plain, key=lambda r: [int(n) for n in re.findall(r"\d+", r)], default=None)


def find(series: str, *, root: Path = Path("/")) -> Kernel:
    """Return the newest installed kernel of a series, or say what to install."""
    if series in FLAVOURS:
        return _find_debug(series)
    boot, modules = root / "boot", root / "lib/modules"
    images = (path.name.removeprefix("vmlinuz-") for path in boot.glob("vmlinuz-*"))
    with_headers = (name for name in images if (modules / name / "build/Makefile").exists())
    release = newest(series, with_headers)
    if release is None:
        package = PACKAGES.get(series, f"linux-image-{series}-amd64")
        raise HarnessError(
            f"no Linux {series} with its headers is installed: run tools/prepare, or install "
            f"{package} and {package.replace('image', 'headers')}"
        )
    return Kernel(
        series=series,
        release=release,
        vmlinuz=boot / f"vmlinuz-{release}",
        modules=modules / release,
        tree=modules / release / "build",
        build=paths.BUILD / release,
    )


def _find_debug(series: str) -> Kernel:
    directory = debugkernel.directory(debugkernel.FLAVOURS[series])
    if not directory.exists():
        raise HarnessError(f"the {series} kernel is not built: run tools/vm kernel {series}")
    release = debugkernel.release(directory)
    return Kernel(
        series=series,
        release=release,
        vmlinuz=directory / "vmlinux",
        modules=directory / "lib/modules" / release,
        tree=directory / "build",
        build=paths.BUILD / release,
    )


def main() -> None:
    """Print what tools/prepare builds modules for."""
    for name in (*SERIES, *sys.argv[1:]):
        kernel = find(name)
        print(name, kernel.release, kernel.tree)


if __name__ == "__main__":
    main()
