# SPDX-License-Identifier: GPL-2.0-only
"""Which files the project is made of, and by which name a state of them is known."""

from __future__ import annotations

import hashlib
import os
import shutil
from typing import TYPE_CHECKING

from harness import paths
from harness.process import run

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MADE = ("build", "__pycache__", "dm_remap.egg-info")
"""Directories that are made here, where no git says what is; so are all with a dot but .ci."""
DIGITS = 12


def _git(root: Path, *words: str) -> str:
    # Root may work in a checkout that belongs to somebody else.
    return run(["git", "-c", f"safe.directory={root}", "-C", root, *words])


def _has_git(root: Path) -> bool:
    return (root / ".git").exists() and shutil.which("git") is not None


def files(root: Path = paths.ROOT) -> list[Path]:
    """Return the files of the project, without those that are made: relative, in order."""
    if _has_git(root):
        shown = _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
        names = [root / name for name in shown.split("\0") if name]
        return sorted(path.relative_to(root) for path in names if path.is_file())
    found: list[Path] = []
    for top, directories, names_here in os.walk(root):
        directories[:] = [
            name for name in directories if name not in MADE and (name[0] != "." or name == ".ci")
        ]
        found += [root / top / name for name in names_here]
    return sorted(path.relative_to(root) for path in found)


def digest(root: Path, names: Iterable[Path]) -> str:
    """Return a digest of what files are called and hold."""
    sums = hashlib.sha256()
    for name in names:
        content = hashlib.sha256((root / name).read_bytes()).hexdigest()
        sums.update(f"{name}\0{content}\0".encode())
    return sums.hexdigest()[:DIGITS]


def state(root: Path = paths.ROOT) -> str:
    """Return the name of what is there: the commit, and a digest of it where it is another."""
    if not _has_git(root):
        return f"tree-{digest(root, files(root))}"
    commit = _git(root, "rev-parse", "HEAD").strip()[:DIGITS]
    if not _git(root, "status", "--porcelain", "--untracked-files=all").strip():
        return commit
    return f"{commit}-with-{digest(root, files(root))}"
