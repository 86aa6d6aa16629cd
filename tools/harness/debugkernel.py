# SPDX-License-Identifier: GPL-2.0-only
"""Build the debug kernels from Debian's Linux 6.12, in several flavours: :data:`FLAVOURS`.

They are kept outside the checkout, in ``$XDG_CACHE_HOME/dm-remap`` (or ``~/.cache``), each under a
digest of all that it is made from, so that it is built once a machine and not once a
checkout: twelve minutes on two processors. ``python3 -m harness.debugkernel <flavour>``
builds one and prints where it is. The fragments of its flavour say what it has; a line of
them that does not hold in the final configuration is an error, because Kconfig drops
what lacks a dependency without a word.

Everything a guest boots from is built in, so that it needs no modules to reach its root;
what tests load with parameters (null_blk, scsi_debug) is a module.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness import paths
from harness.cache import cache, locked
from harness.errors import HarnessError
from harness.process import run

if TYPE_CHECKING:
    from collections.abc import Iterable

SOURCE = Path("/usr/src/linux-source-6.12.tar.xz")
LICENCE = "# SPDX-License-Identifier: GPL-2.0-only\n"
RECIPE = 1
"""Raised when a kernel must be built anew although its configuration is the same."""
PRUNED = (
    *("Documentation", "block", "certs", "crypto", "drivers", "fs", "init", "io_uring", "ipc"),
    *("kernel", "lib", "mm", "net", "rust", "samples", "security", "sound", "usr", "virt"),
)
"""What modules are not built with: a gigabyte."""


@dataclass(frozen=True)
class Flavour:
    """A kernel with a configuration of its own."""

    name: str
    """Also the series by which it is asked for."""
    fragments: tuple[Path, ...]
    """What it has beyond tinyconfig; each overrules those before it."""
    purpose: str


FLAVOURS = {
    flavour.name: flavour
    for flavour in (
        Flavour(
            "debug",
            (paths.HARNESS / "debug.config",),
            "KASAN, lockdep, kmemleak, fault injection and more",
        ),
        # Two fragments, because what guests need beside it is the same.
        Flavour(
            "kcsan",
            (paths.HARNESS / "debug.config", paths.HARNESS / "kcsan.config"),
            "KCSAN, which reports data races and cannot be had together with KASAN",
        ),
    )
}


def package_version() -> str:
    """Return the version of the kernel's source package."""
    if not SOURCE.exists():
        raise HarnessError(f"{SOURCE} is missing: run tools/prepare --test")
    return run(["dpkg-query", "-W", "-f", "${Version}", "linux-source-6.12"])


def directory(flavour: Flavour) -> Path:
    """Return where the kernel of this configuration is, or will be."""
    made_from = (
        str(RECIPE),
        # What a file says of its licence makes no other kernel.
        *(fragment.read_text().removeprefix(LICENCE) for fragment in flavour.fragments),
        package_version(),
        run(["gcc", "--version"]).partition("\n")[0],
    )
    digest = hashlib.sha256("\0".join(made_from).encode()).hexdigest()[:12]
    return cache() / f"kernel-{digest}"


def release(kernel: Path) -> str:
    """Return the release of a kernel that is built."""
    return (kernel / "build/include/config/kernel.release").read_text().strip()


def overlaid(fragments: Iterable[str]) -> list[str]:
    r"""Return the lines of fragments that hold: of an option the last one.

    >>> overlaid(["CONFIG_A=y\nCONFIG_B=m\n", "# A remark\n# CONFIG_A is not set\n"])
    ['# CONFIG_A is not set', 'CONFIG_B=m']
    """
    line = re.compile(r"(?:# )?(CONFIG_\w+)(?:=.*| is not set)$", re.MULTILINE)
    return list(
        {found[1]: found[0] for text in fragments for found in line.finditer(text)}.values()
    )


def not_set(fragment: Iterable[str], config: Iterable[str]) -> list[str]:
    """Return the lines of a fragment that a configuration does not have.

    >>> not_set(["CONFIG_A=y", "# a remark", "# CONFIG_B is not set"], ["CONFIG_A=m"])
    ['CONFIG_A=y']
    """
    have = {line.strip() for line in config}
    missing = []
    for line in map(str.strip, fragment):
        if line.startswith("CONFIG_") and line not in have:
            missing.append(line)
        elif line.startswith("# CONFIG_") and line.endswith(" is not set"):
            option = line.split()[1]
            if any(found.startswith(f"{option}=") for found in have):
                missing.append(line)
    return missing


def _configure(tree: Path, flavour: Flavour) -> None:
    make = ["make", "-s", "-C", str(tree)]
    run([*make, "tinyconfig"])
    config = tree / ".config"
    merge = tree / "scripts/kconfig/merge_config.sh"
    run([merge, "-m", "-O", tree, config, *flavour.fragments])
    run([*make, "olddefconfig"])
    wanted = overlaid(fragment.read_text() for fragment in flavour.fragments)
    missing = not_set(wanted, config.read_text().splitlines())
    if missing:
        raise HarnessError(
            f"{flavour.fragments[-1].name}: the configuration of this kernel does not have: "
            f"{', '.join(missing)}; each lacks an option that it depends on"
        )


def _prune(tree: Path) -> None:
    for name in PRUNED:
        shutil.rmtree(tree / name)
    for path in tree.rglob("*.o"):
        path.unlink()
    for path in (tree / "arch").iterdir():
        if path.is_dir() and path.name != "x86":
            shutil.rmtree(path)


def _arrange(scratch: Path) -> Path:
    """Return a directory with what is kept of a tree that is built."""
    tree = scratch / "build"
    # depmod is for the kernel's own makefile: it may be in no PATH of root's.
    install = [f"INSTALL_MOD_PATH={scratch}", "modules_install"]
    run(["make", "-s", "-C", tree, *install], timeout=600)
    run(["strip", "--strip-debug", tree / "vmlinux", "-o", scratch / "vmlinux"])
    (tree / "vmlinux").unlink()
    _prune(tree)
    for link in (scratch / "lib/modules").glob("*/*"):
        if link.is_symlink():  # to the tree, which moves
            link.unlink()
    finished = scratch / "finished"
    finished.mkdir()
    for name in ("build", "lib", "vmlinux"):
        (scratch / name).rename(finished / name)
    return finished


def build(flavour: Flavour) -> Path:
    """Return the directory of a kernel, building it first unless it is there.

    It has ``vmlinux``, ``build`` (for modules) and ``lib/modules``.
    """
    target = directory(flavour)
    with locked(cache()):
        if target.exists():
            return target
        with tempfile.TemporaryDirectory(dir=cache(), prefix="building-") as scratch:
            tree = Path(scratch, "build")
            tree.mkdir()
            run(["tar", "-xf", SOURCE, "-C", tree, "--strip-components=1"], timeout=600)
            _configure(tree, flavour)
            jobs = f"-j{os.cpu_count() or 1}"
            run(["make", "-s", "-C", tree, jobs, "vmlinux", "modules"], timeout=7200)
            _arrange(Path(scratch)).rename(target)
    return target


if __name__ == "__main__":
    print(build(FLAVOURS[sys.argv[1]]))
