# SPDX-License-Identifier: GPL-2.0-only
"""What the module can be built for stands in one place, and the rest is refused in a sentence."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest
from harness import kernels
from harness.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

LINE = re.compile(r"^(\w+)=(.*)$", re.MULTILINE)
SUPPORTED = dict(LINE.findall((ROOT / "kernel/supported.mk").read_text()))
GCC = {"CONFIG_MODULES": "y", "CONFIG_BLK_DEV_DM": "m", "CONFIG_GCC_VERSION": "120200"}
CLANG = {"CONFIG_GCC_VERSION": "0", "CONFIG_CLANG_VERSION": "140006"}
LINUX = {"VERSION": "6", "PATCHLEVEL": "12"}


def compiler(directory: Path, says: str, version: str) -> str:
    """Make a compiler that says what is asked of it, and return its path."""
    path = directory / "cc"
    path.write_text(f"#!/bin/sh\n[ $1 = -dumpversion ] && echo {version} || echo '{says}'\n")
    path.chmod(0o755)
    return str(path)


def kbuild(*words: str, cc: str, **variables: str) -> tuple[int, str]:
    """Read Kbuild as Linux does, with what Linux has put into make's variables."""
    given = {"src": str(ROOT), "CC": cc, **GCC, **LINUX, **variables}
    script = "include $(src)/Kbuild\nall: ; @echo $(obj-m)\n"
    argv = ["make", "-s", "-f", "-", *[f"{name}={value}" for name, value in given.items()], *words]
    done = subprocess.run(argv, input=script, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_the_range_is_what_is_tested() -> None:
    assert SUPPORTED == {"LINUX_OLDEST": kernels.OLDEST, "LINUX_NEWEST": kernels.NEWEST}
    readme = (ROOT / "README.md").read_text()
    assert f"Linux {kernels.OLDEST} to {kernels.NEWEST}" in readme


@pytest.mark.parametrize("linux", [("6", "1"), ("6", "12"), ("7", "0"), ("7", "3")])
def test_what_is_in_the_range_is_built(linux: tuple[str, str], tmp_path: Path) -> None:
    cc = compiler(tmp_path, "gcc (Debian) 12.2.0", "12")
    assert kbuild(cc=cc, VERSION=linux[0], PATCHLEVEL=linux[1]) == (0, "dm_remap.o\n")
    clang = compiler(tmp_path, "Debian clang version 14.0.6", "14.0.6")
    assert kbuild(cc=clang, **CLANG) == (0, "dm_remap.o\n")
    # As Debian's makefiles have it; and a newer compiler is no reason.
    assert kbuild(cc=f" {compiler(tmp_path, 'gcc (Debian) 14.2.0', '14')}")[0] == 0


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"VERSION": "5", "PATCHLEVEL": "15"}, r"Linux 5\.15 is older than 6\.1, the oldest"),
        ({"PATCHLEVEL": "0"}, r"Linux 6\.0 is older than 6\.1, the oldest"),
        ({"VERSION": "7", "PATCHLEVEL": "4"}, r"Linux 7\.4 is newer than 7\.3, the newest"),
        ({"VERSION": "10", "PATCHLEVEL": "0"}, r"Linux 10\.0 is newer than 7\.3, the newest"),
        ({"CONFIG_BLK_DEV_DM": ""}, r"Linux 6\.12 has no device mapper.*CONFIG_BLK_DEV_DM"),
        ({"CONFIG_GCC_VERSION": "140200"}, "gcc 14, and '.*' is gcc 12: .*install gcc-14"),
        (CLANG, "built by clang 14 and not by gcc: .*LLVM=1"),
        ({"CC": "/no/gcc-12"}, "gcc 12, and '/no/gcc-12' cannot be run: install gcc-12"),
    ],
)
def test_what_cannot_be_built_is_refused_in_a_sentence(
    variables: dict[str, str], said: str, tmp_path: Path
) -> None:
    cc = compiler(tmp_path, "gcc (Debian) 12.2.0", "12")
    status, output = kbuild(**{"cc": cc, **variables})
    assert status == 2
    (line,) = output.splitlines()
    assert re.search(rf"dm-remap: .*{said}", line)


@pytest.mark.parametrize("linux", [("5", "15"), ("7", "4")])
def test_who_insists_may_try(linux: tuple[str, str], tmp_path: Path) -> None:
    cc = compiler(tmp_path, "gcc (Debian) 12.2.0", "12")
    insist = "DM_REMAP_UNSUPPORTED=1"
    assert kbuild(insist, cc=cc, VERSION=linux[0], PATCHLEVEL=linux[1]) == (0, "dm_remap.o\n")
    assert kbuild(insist, cc=cc, CONFIG_BLK_DEV_DM="")[0] == 2


def test_cleaning_needs_no_kernel_that_fits() -> None:
    assert kbuild(cc="/no/gcc", CONFIG_MODULES="", VERSION="5") == (0, "dm_remap.o\n")
