# SPDX-License-Identifier: GPL-2.0-only
"""Python on a processor whose bytes are in the other order: Debian 12's of s390x, emulated.

``python3 -m harness.bigendian`` has it and its emulator in the machine's cache; with ``--look`` it
only says by its exit status whether that is so. It is made once: nothing is installed, and the
kernel of this machine learns of no other format of programs.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from harness import apt
from harness.cache import cache, locked
from harness.errors import HarnessError
from harness.process import run

if TYPE_CHECKING:
    from harness.process import Argument

ARCHITECTURE = "s390x"
COMPILER = "s390x-linux-gnu-gcc"
"""This machine's, which tools/prepare installs."""
RECIPE = 1
"""Raised when it must be made anew."""
PYTHON = "usr/bin/python3.11"
EMULATOR = "usr/bin/qemu-s390x-static"
EMULATOR_PACKAGE = f"qemu-user-static/{apt.BASE}"
PACKAGES = (
    *("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "libpython3.11-dev"),
    *("python3-cffi-backend", "libc6", "libbz2-1.0", "libexpat1", "libffi8", "liblzma5"),
    *("libssl3", "libuuid1", "zlib1g"),
)
"""What Python, and the modules of its library that are used here, do not run without."""


def home() -> Path:
    """Return where it is."""
    return cache() / f"{ARCHITECTURE}-{RECIPE}"


def python() -> list[Argument]:
    """Return the command that Python's arguments are added to."""
    return [home() / EMULATOR, "-L", home(), home() / PYTHON]


def includes() -> list[str]:
    """Return the compiler's options for a module of that Python."""
    return [f"-I{home() / 'usr/include/python3.11'}", f"-I{home() / 'usr/include'}"]


def prepare() -> None:
    """Have it."""
    with locked(cache() / f"{ARCHITECTURE}-made"):
        if home().exists():
            return
        apt.update()
        apt.update(ARCHITECTURE)
        with tempfile.TemporaryDirectory(dir=cache(), prefix=f"{ARCHITECTURE}-") as scratch:
            at = Path(scratch)
            apt.unpack([EMULATOR_PACKAGE], at / "ours", at / "emulators")
            apt.unpack(PACKAGES, at / "theirs", at / "root", architecture=ARCHITECTURE)
            (at / "emulators" / EMULATOR).rename(at / "root" / EMULATOR)
            run([at / "root" / EMULATOR, "-L", at / "root", at / "root" / PYTHON, "-c", ""])
            (at / "root").rename(home())


if __name__ == "__main__":
    if "--look" in sys.argv[1:]:
        sys.exit(not home().exists())
    try:
        prepare()
    except HarnessError as error:
        sys.exit(f"{error}")
