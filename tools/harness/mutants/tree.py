# SPDX-License-Identifier: GPL-2.0-only
"""Private copies of the checkout: mutants are planted there, and never in the checkout.

A copy has all files that git knows of, as they are now, what cffi has compiled, and a ``.venv`` and
a ``.venv-12`` of its own that find the package in the copy and everything else where the checkout's
have it. It is used by one process at a time, which holds its lock.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self, TextIO

from harness import paths
from harness.process import run

if TYPE_CHECKING:
    from collections.abc import Iterable

HOME = paths.BUILD / "mutants"
COMPILED = ("dmremap/**/_*.so", "*.egg-info/*")
"""What is in no commit and is needed all the same."""
PYTHONS = tuple(python.parents[1].name for python in (paths.VENV_PYTHON, paths.DEBIAN12_PYTHON))


def files(root: Path = paths.ROOT) -> list[str]:
    """Return the files that git knows of or would take, and that are there."""
    options = ["--cached", "--others", "--exclude-standard", "-z"]
    listed = run(["git", "-C", root, "ls-files", *options]).split("\0")
    return sorted({name for name in listed if name and (root / name).is_file()})


def digest(names: Iterable[str], root: Path = paths.ROOT) -> str:
    """Return a short digest of some files."""
    whole = hashlib.sha256()
    for name in sorted(names):
        whole.update(f"{name}\0".encode() + (root / name).read_bytes() + b"\0")
    return whole.hexdigest()[:12]


def commit(root: Path = paths.ROOT) -> str:
    """Return what the results go by: the commit, and what was changed since by its digest."""
    name = run(["git", "-C", root, "rev-parse", "--short=12", "HEAD"]).strip()
    changed = run(["git", "-C", root, "status", "--porcelain"]).strip()
    return f"{name}-{digest(files(root), root)}" if changed else name


@dataclass
class Tree:
    """A copy of the checkout."""

    root: Path
    lock: TextIO
    python: Path = field(init=False)

    def __post_init__(self) -> None:
        """Know where its Python is."""
        self.python = self.root / ".venv/bin/python"

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment of its programs."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "COVERAGE"))}
        folders = (self.root / name for name in ("tools", "tests"))
        ours = {"PYTHONPATH": ":".join(map(str, folders)), "PYTHONDONTWRITEBYTECODE": "1"}
        return kept | ours | {"COLUMNS": "240"}  # pytest's last lines are cut to that

    def __enter__(self) -> Self:
        """It is used until the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Somebody else may have it."""
        self.lock.close()

    def fill(self) -> None:
        """Make it what the checkout is, without touching what is that already."""
        wanted = [*files(), *_compiled()]
        for name in wanted:
            source, target = paths.ROOT / name, self.root / name
            if target.exists() and target.read_bytes() == source.read_bytes():
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            shutil.copymode(source, target)
        for name in set(files_below(self.root)) - set(wanted):
            (self.root / name).unlink()
        for name in PYTHONS:
            self._make_venv(name)
        run([self.python, "-m", "compileall", "-q", "-f", *self._packages()])

    def _packages(self) -> list[Path]:
        return [self.root / name for name in ("dmremap", "tests", "tools/harness")]

    def _make_venv(self, name: str) -> None:
        ours, theirs = self.root / name, paths.ROOT / name
        (site,) = ours.glob("lib/python*/site-packages") if ours.exists() else (None,)
        if site is None:
            run(["/usr/bin/python3", "-m", "venv", "--without-pip", ours])
            (site,) = ours.glob("lib/python*/site-packages")
        (packages,) = theirs.glob("lib/python*/site-packages")
        # A folder that is named here is searched, but its own .pth files are not read: the one
        # that leads to the checkout's package is among them.
        (site / "copy.pth").write_text(f"{self.root}\n{packages}\n")
        for counting in packages.glob("count-lines.pth"):
            shutil.copy(counting, site)
        for script in (theirs / "bin").iterdir():
            head, _, body = script.read_bytes().partition(b"\n")
            if head.startswith(b"#!" + os.fsencode(theirs)):
                target = ours / "bin" / script.name
                target.write_bytes(b"#!" + os.fsencode(ours / "bin/python") + b"\n" + body)
                target.chmod(0o755)

    def write(self, name: str, text: str) -> None:
        """Change a file, and what Python has compiled of it."""
        path = self.root / name
        path.write_text(text)
        if path.suffix == ".py":
            # Not by the time and size of the source, by which Python would tell.
            for old in (path.parent / "__pycache__").glob(f"{path.stem}.*"):
                old.unlink()
            run([self.python, "-m", "py_compile", path])


def _compiled() -> list[str]:
    return [
        str(path.relative_to(paths.ROOT)) for form in COMPILED for path in paths.ROOT.glob(form)
    ]


def files_below(root: Path) -> list[str]:
    """Return the files of a copy that come from the checkout."""
    left_out = {*PYTHONS, "build", "__pycache__", ".hypothesis", ".pytest_cache"}
    return [
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.is_file() and not left_out & set(path.relative_to(root).parts)
    ]


def _take(where: Path, *, wait: bool) -> Tree | None:
    where.mkdir(parents=True, exist_ok=True)
    lock = (where.parent / f".{where.name}.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        lock.close()
        return None
    tree = Tree(where, lock)
    tree.fill()
    return tree


def original(name: str) -> Tree:
    """Return a copy without a mutant, as soon as nobody else measures the same in it."""
    tree = _take(HOME / f"original-{name}", wait=True)
    assert tree is not None
    return tree


def private() -> Tree:
    """Return a copy that nobody else uses."""
    number = 1
    while (tree := _take(HOME / f"tree{number}", wait=False)) is None:
        number += 1
    return tree
