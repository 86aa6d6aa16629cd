# SPDX-License-Identifier: GPL-2.0-only
"""The C sources are clean on both kernels: W=1, sparse, checkpatch --strict."""

import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from harness.kernels import Kernel
from harness.paths import ROOT

CHECKPATCH = ("checkpatch.pl", "spelling.txt", "const_structs.checkpatch")
SOURCE_PACKAGE = Path("/usr/src/linux-source-6.12.tar.xz")
SOURCES = sorted([*ROOT.glob("kernel/*.[ch]"), *ROOT.glob("tests/kernel/*.[ch]")])
# Kbuild says of every module on a kernel without the full debug information:
HARMLESS = "Skipping BTF generation"


def run(argv: list[str], cwd: Path) -> str:
    """Run a program that must succeed; return all that it said."""
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("directory", [".", "tests/kernel"], ids=["remap", "fault"])
def test_compilers_say_nothing(kernel: Kernel, directory: str, tmp_path: Path) -> None:
    """gcc with W=1, with its check of kernel-doc, and sparse."""
    shutil.copy(ROOT / "Kbuild", tmp_path)
    for name in ("kernel", "tests/kernel"):
        shutil.copytree(
            ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.o", "*.ko", ".*")
        )
    build = Path("/lib/modules", kernel.release, "build")
    options = ["W=1", "C=2", "CHECK=sparse", f"M={tmp_path / directory}"]
    said = run(["make", "-s", "-C", str(build), *options, "modules"], tmp_path)
    assert [line for line in said.splitlines() if line and HARMLESS not in line] == []


@pytest.fixture(scope="session")
def checkpatch() -> Path:
    """checkpatch.pl, out of the kernel's source package; unpacking it takes 15 s once."""
    assert SOURCE_PACKAGE.exists(), "install linux-source-6.12 (tools/prepare --lint does)"
    directory = ROOT / "build/cache" / f"checkpatch-{SOURCE_PACKAGE.stat().st_mtime_ns}"
    wanted = {name for name in CHECKPATCH if not (directory / name).exists()}
    directory.mkdir(parents=True, exist_ok=True)
    if wanted:
        with tarfile.open(SOURCE_PACKAGE, "r|xz") as archive:
            for member in archive:
                parts = Path(member.name).parts
                if len(parts) == 3 and parts[1] == "scripts" and parts[2] in wanted:
                    source = archive.extractfile(member)
                    assert source is not None
                    (directory / parts[2]).write_bytes(source.read())
                    wanted.discard(parts[2])
                    if not wanted:
                        break
    assert not wanted
    return directory / CHECKPATCH[0]


def test_checkpatch(checkpatch: Path) -> None:
    """checkpatch --strict on every source file."""
    options = ["--no-tree", "--strict", "--terse", "--no-summary", "--file"]
    said = run(["perl", str(checkpatch), *options, *map(str, SOURCES)], ROOT)
    assert said == ""
