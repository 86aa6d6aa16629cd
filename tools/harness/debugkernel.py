"""Build the debug kernel: Debian's Linux 6.12 with KASAN, lockdep, kmemleak and the like.

It is kept outside the checkout, in ``$XDG_CACHE_HOME/dm-remap`` (or ``~/.cache``), under a
digest of all that it is made from, so that it is built once a machine and not once a
checkout: twelve minutes on two processors. ``python3 -m harness.debugkernel``
builds it and prints where it is. ``debug.config`` says what it has; a line of
that file that does not hold in the final configuration is an error, because Kconfig drops
what lacks a dependency without a word.

Everything a guest boots from is built in, so that it needs no modules to reach its root;
what tests load with parameters (null_blk, scsi_debug) is a module.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from harness import paths
from harness.errors import HarnessError
from harness.process import run

SOURCE = Path("/usr/src/linux-source-6.12.tar.xz")
FRAGMENT = paths.HARNESS / "debug.config"
SERIES = "debug"
RECIPE = 1
"""Raised when a kernel must be built anew although its configuration is the same."""
PRUNED = (
    *("Documentation", "block", "certs", "crypto", "drivers", "fs", "init", "io_uring", "ipc"),
    *("kernel", "lib", "mm", "net", "rust", "samples", "security", "sound", "usr", "virt"),
)
"""What modules are not built with: a gigabyte."""


def cache() -> Path:
    """Return where kernels are kept."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "dm-remap"


def package_version() -> str:
    """Return the version of the kernel's source package."""
    if not SOURCE.exists():
        raise HarnessError(f"{SOURCE} is missing: run tools/prepare --test")
    return run(["dpkg-query", "-W", "-f", "${Version}", "linux-source-6.12"])


def directory() -> Path:
    """Return where the kernel of this configuration is, or will be."""
    made_from = (
        str(RECIPE),
        FRAGMENT.read_text(),
        package_version(),
        run(["gcc", "--version"]).partition("\n")[0],
    )
    digest = hashlib.sha256("\0".join(made_from).encode()).hexdigest()[:12]
    return cache() / f"kernel-{digest}"


def release(kernel: Path) -> str:
    """Return the release of a kernel that is built."""
    return (kernel / "build/include/config/kernel.release").read_text().strip()


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


@contextlib.contextmanager
def _locked(where: Path) -> Iterator[None]:
    """Keep others from building the same kernel at the same time."""
    where.mkdir(parents=True, exist_ok=True)
    with (where / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _configure(tree: Path) -> None:
    make = ["make", "-s", "-C", str(tree)]
    run([*make, "tinyconfig"])
    config = tree / ".config"
    merge = tree / "scripts/kconfig/merge_config.sh"
    run([merge, "-m", "-O", tree, config, FRAGMENT])
    run([*make, "olddefconfig"])
    missing = not_set(FRAGMENT.read_text().splitlines(), config.read_text().splitlines())
    if missing:
        raise HarnessError(
            f"{FRAGMENT.name}: the configuration of this kernel does not have: "
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


def build() -> Path:
    """Return the directory of the kernel, building it first unless it is there.

    It has ``vmlinux``, ``build`` (for modules) and ``lib/modules``.
    """
    target = directory()
    with _locked(cache()):
        if target.exists():
            return target
        with tempfile.TemporaryDirectory(dir=cache(), prefix="building-") as scratch:
            tree = Path(scratch, "build")
            tree.mkdir()
            run(["tar", "-xf", SOURCE, "-C", tree, "--strip-components=1"], timeout=600)
            _configure(tree)
            jobs = f"-j{os.cpu_count() or 1}"
            run(["make", "-s", "-C", tree, jobs, "vmlinux", "modules"], timeout=7200)
            _arrange(Path(scratch)).rename(target)
    return target


if __name__ == "__main__":
    print(build())
