# SPDX-License-Identifier: GPL-2.0-only
"""Imports of the control plane run one way, from room to room."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.paths import ROOT

FLOORS = (
    ("errors",),
    ("host",),
    ("dm", "ondisk"),
    ("sets",),
    ("health",),
    ("monitor", "selftest"),
    ("cli",),
    ("__main__",),
)
"""The lowest first: a room imports from itself and from floors below its own."""
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
FILES = sorted((ROOT / "dmremap").rglob("*.py"))


def imported(source: str) -> Iterator[str]:
    """Yield the modules of dmremap that a source names in imports, wherever they stand."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == "dmremap")


def upward(room: str, source: str) -> list[str]:
    """Return what a file of a room imports that is on its own floor or above, and not its own."""
    found = []
    for name in imported(source):
        other = name.split(".")[1]
        if other.startswith("__") and other != "__main__":
            continue  # what the package itself says, as its version
        if other != room and FLOOR[other] >= FLOOR[room]:
            found.append(name)
    return found


def room_of(path: Path) -> str:
    """Return the room that a file is in."""
    return path.relative_to(ROOT / "dmremap").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_downward(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        assert list(imported(path.read_text())) == []
    else:
        assert upward(room, path.read_text()) == []


def test_what_runs_upward_is_noticed() -> None:
    assert upward("ondisk", "from dmremap.sets import live") == ["dmremap.sets.live"]
    assert upward("ondisk", "def f():\n    from dmremap import dm") == ["dmremap.dm"]
    assert upward("host", "import dmremap.cli.app") == ["dmremap.cli.app"]
    assert upward("sets", "from dmremap import dm\nfrom dmremap.sets.live import Running") == []


def test_each_room_has_a_floor() -> None:
    assert {room_of(path) for path in FILES} - {"__init__"} == set(FLOOR)
