# SPDX-License-Identifier: GPL-2.0-only
"""The C sources are clean: W=1 and sparse on all kernels, checkpatch --strict, coccicheck."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from harness.kernels import SERIES, Kernel
from harness.paths import ROOT

# What is needed of the kernel's source tree: checkpatch, its lists, and the semantic patches.
SCRIPTS = ("checkpatch.pl", "spelling.txt", "const_structs.checkpatch", "coccinelle")
SOURCE_PACKAGE = Path("/usr/src/linux-source-6.12.tar.xz")
SOURCES = sorted([*ROOT.glob("kernel/*.[ch]"), *ROOT.glob("tests/kernel/*.[ch]")])
COMPAT = ROOT / "kernel/dm-remap-compat.h"
# Kbuild says of every module on a kernel without the full debug information:
HARMLESS = "Skipping BTF generation"
# sparse 0.6.4 does not have what Linux 7 says where it can, and means the same to it.
SPARSE = "-D__typeof_unqual__=__typeof__"
# What coccicheck has to find, and where.
BUG = """#include <linux/slab.h>
void drop(void *p)
{
	if (p)
		kfree(p);
}
"""
BUG_FOUND = re.compile(r"\./bug\.c:5:.*NULL check before some freeing functions is not needed")


def run(argv: list[str], cwd: Path) -> str:
    """Run a program that must succeed; return all that it said."""
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def asserted_by_module_info(line: str) -> bool:
    """Whether sparse stumbles over Linux 7's MODULE_LICENSE(): it cannot compute its assertion."""
    found = re.fullmatch(r"(\S+):(\d+):\d+: error: bad constant expression", line)
    if found is None:
        return False
    name = found[1].partition("/kernel/")[2] or found[1].removeprefix("kernel/")
    paths = [ROOT / "kernel" / name, ROOT / "tests/kernel" / name]
    path = next(path for path in paths if path.exists())
    return path.read_text().splitlines()[int(found[2]) - 1].startswith("MODULE_")


@pytest.mark.usually(*SERIES)
@pytest.mark.debug  # the only one that the KUnit suites are compiled for
@pytest.mark.parametrize("directory", [".", "tests/kernel"], ids=["remap", "fault"])
def test_compilers_say_nothing(kernel: Kernel, directory: str, tmp_path: Path) -> None:
    """gcc with W=1, with its check of kernel-doc, and sparse."""
    (tmp_path / "dmremap").mkdir()
    for name in ("Kbuild", "dmremap/__init__.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("kernel", "tests/kernel"):
        shutil.copytree(
            ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.o", "*.ko", ".*")
        )
    options = ["W=1", "C=2", "CHECK=sparse", f"CF={SPARSE}", f"M={tmp_path / directory}"]
    said = run([*kernel.make, "-s", *options, "modules"], tmp_path)
    lines = [line for line in said.splitlines() if line and HARMLESS not in line]
    assert [line for line in lines if not asserted_by_module_info(line)] == []


@pytest.fixture(scope="session")
def scripts() -> Path:
    """The kernel's scripts, out of its source package; unpacking them takes 15 s once."""
    assert SOURCE_PACKAGE.exists(), "install linux-source-6.12 (tools/prepare --test does)"
    cache = ROOT / "build/cache"
    directory = cache / f"kernel-scripts-{SOURCE_PACKAGE.stat().st_mtime_ns}"
    if not directory.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            unpacked = Path(scratch) / "scripts"
            unpacked.mkdir()
            wanted = [f"*/scripts/{name}" for name in SCRIPTS]
            options = ["--strip-components=2", "--wildcards", "--no-wildcards-match-slash"]
            run(["tar", "-xf", str(SOURCE_PACKAGE), *options, *wanted], unpacked)
            unpacked.rename(directory)  # whole or not at all
    return directory


def test_checkpatch(scripts: Path) -> None:
    """checkpatch --strict on every source file; one of them may ask for a version."""
    options = ["--no-tree", "--strict", "--terse", "--no-summary", "--file"]
    checkpatch = ["perl", str(scripts / "checkpatch.pl"), *options]
    others = [str(path) for path in SOURCES if path != COMPAT]
    assert run([*checkpatch, *others], ROOT) == ""
    versions = ["--ignore", "LINUX_VERSION_CODE,CONSTANT_COMPARISON"]
    assert run([*checkpatch, *versions, str(COMPAT)], ROOT) == ""


def semantic_patches(scripts: Path) -> list[list[str]]:
    """The options of spatch for each semantic patch that can report, as coccicheck reads them.

    Those in OCaml need its compiler, which does not come with spatch.
    """
    found: list[list[str]] = []
    for path in sorted(scripts.glob("coccinelle/**/*.cocci")):
        text = path.read_text()
        if re.search(r"^virtual\b.*\breport\b", text, re.MULTILINE) and ":ocaml@" not in text:
            options = " ".join(re.findall(r"Options:([^:\n]*)", text))
            found.append(["--cocci-file", str(path), *options.split()])
    return found


def test_coccicheck(scripts: Path, tmp_path: Path) -> None:
    """What `make coccicheck MODE=report` does: nothing is found but the bug that was put there."""
    assert shutil.which("spatch"), "install coccinelle (tools/prepare --test does)"
    names = [str(source.relative_to(ROOT)) for source in SOURCES]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "bug.c").write_text(BUG)
    # What it cannot parse it skips without a word.
    assert " pbs = 0;" in run(["spatch", "--parse-c", *names], tmp_path)

    options = ["-D", "report", "--no-show-diff", "--very-quiet", "--patch", ".", "--dir", "."]
    found: list[str] = []
    for chosen in semantic_patches(scripts):
        done = subprocess.run(
            ["spatch", *options, *chosen], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        found += done.stdout.splitlines()
    others = [line for line in found if line and not BUG_FOUND.match(line)]
    assert not others, "\n".join(others)
    assert any(BUG_FOUND.match(line) for line in found), "no semantic patch has found the bug"
