# SPDX-License-Identifier: GPL-2.0-only
"""Find Debian's kernels and the debug kernels, and the modules built for them.

``python3 -m harness.kernels [<flavour>...]`` prints a line ``<series> <release> <command>`` for
each of Debian's, and for each debug kernel that is named, which must have been built. The command
is ``make`` where the modules are built.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness import debugkernel, paths, unpacked
from harness.errors import HarnessError

if TYPE_CHECKING:
    from pathlib import Path

SERIES = tuple(unpacked.SERIES)
"""What is tested of Debian's."""
ENDS = OLDEST, NEWEST = SERIES[0], SERIES[-1]
DEBIAN12 = ("6.1", "6.12")
DEBUG, KCSAN = FLAVOURS = tuple(debugkernel.FLAVOURS)
"""The names of the debug kernels where a series is asked for."""
DEBUG_PATIENCE = 8.0
ALL = (*SERIES, *FLAVOURS)
IN_ROOT = paths.HARNESS / "in-root.sh"


@dataclass(frozen=True)
class Kernel:
    """A kernel that can be booted."""

    series: str
    release: str
    vmlinuz: Path
    modules: Path
    """Its own modules: lib/modules/<release>."""
    tree: Path
    """What modules are built with: headers, scripts, symbols."""
    build: Path
    """Where tools/prepare builds ours: build/<release>."""
    root: Path | None = None
    """The Debian whose compiler builds modules, if it is not this machine's own."""

    @property
    def python(self) -> Path:
        """The Python that runs tests in guests: on Debian 12's kernels with what Debian 12 ships.

        On the other kernels everything is the newest.
        """
        return paths.DEBIAN12_PYTHON if self.series in DEBIAN12 else paths.VENV_PYTHON

    @property
    def make(self) -> tuple[str, ...]:
        """The command that builds modules, to which their directory is added: ``M=...``."""
        make = ("make", "-C", str(self.tree))
        return make if self.root is None else ("sh", str(IN_ROOT), str(self.root), *make)

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


def find(series: str) -> Kernel:
    """Return the newest kernel of a series that is in the cache."""
    if series in FLAVOURS:
        return _find_debug(series)
    known = unpacked.SERIES[series]
    there = unpacked.cached(known)
    if not there:
        raise HarnessError(f"Linux {series} is not in {unpacked.home()}: run tools/prepare")
    release = unpacked.release_of(there[0])
    return Kernel(
        series=series,
        release=release,
        vmlinuz=there[0] / "vmlinuz",
        modules=there[0] / "lib/modules" / release,
        tree=there[0] / f"usr/src/linux-headers-{release}",
        build=paths.BUILD / release,
        root=unpacked.root(known.root) if known.root else None,
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
        print(name, kernel.release, *kernel.make)


if __name__ == "__main__":
    main()
