# SPDX-License-Identifier: GPL-2.0-only
"""Build the modules in a copy of the checkout, and tell whether a mutant makes a difference."""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness import kernels
from harness.errors import HarnessError
from harness.process import run

if TYPE_CHECKING:
    from harness.kernels import Kernel
    from harness.mutants.tree import Tree

FOLDERS = ("kernel", "tests/kernel")
ALONE = (Path("Kbuild"), Path("dmremap/__init__.py"))
"""The second is where the module's version stands."""
WRITTEN = {".c", ".h", ".mk", ".sh", ""}
"""What files end with that are no product of a build; those of the compiler and of make do not."""


class Uncompilable(Exception):
    """The compiler refuses the sources."""


def ordinary() -> str:
    """Return the series that mutants run on: the one that the debug kernel is of, if it is there.

    Lines are counted on the debug kernel, and what is compiled there is compiled here.
    """
    debug = kernels.find(kernels.DEBUG).release
    same = [name for name in kernels.SERIES if debug.startswith(f"{name}.")]
    return same[0] if same else kernels.SERIES[-1]


def kernel_of(tree: Tree, series: str) -> Kernel:
    """Return a kernel with the modules of a copy."""
    found = kernels.find(series)
    return replace(found, build=tree.root / "build" / found.release)


def make(tree: Tree, series: str, *, count: bool = False) -> Kernel:
    """Build the modules for a kernel from the copy's sources, what has changed of them.

    With ``count`` they count their lines, where the kernel has gcov.
    """
    kernel = kernel_of(tree, series)
    _copy(tree.root, kernel.build)
    words = ["GCOV_PROFILE=y"] if count else []
    for where in (kernel.build, kernel.build / "tests/kernel"):
        argv = [*kernel.make, "-s", f"M={where}", *words, "modules"]
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise Uncompilable(done.stderr.strip() or done.stdout.strip())
    return kernel


def _copy(root: Path, build: Path) -> None:
    """Kbuild writes beside its sources, so each kernel has a copy of them."""
    wanted, there = _sources(root), _sources(build)
    for name in there - wanted:
        (build / name).unlink()
    for name in wanted:
        source, target = (root / name).read_bytes(), build / name
        if not target.exists() or target.read_bytes() != source:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source)


def _sources(where: Path) -> set[Path]:
    """Return the files that a build is made from, or was."""
    found = {name for name in ALONE if (where / name).exists()}
    for folder in FOLDERS:
        for path in (where / folder).glob("[!.]*"):
            if path.suffix in WRITTEN and not path.name.endswith(".mod.c") and path.is_file():
                found.add(path.relative_to(where))
    return found


def objects(kernel: Kernel) -> str:
    """Return a digest of what the compiler has made of the module, without where it came from."""
    whole = hashlib.sha256()
    found = sorted((kernel.build / "kernel").glob("*.o"))
    if not found:
        raise HarnessError(f"nothing is built in {kernel.build}")
    with tempfile.TemporaryDirectory() as scratch:
        bare = Path(scratch, "bare.o")
        for path in found:
            run(["objcopy", "--strip-debug", path, bare])
            whole.update(bare.read_bytes())
    return whole.hexdigest()
