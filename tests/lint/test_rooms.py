# SPDX-License-Identifier: GPL-2.0-only
"""Imports of the control plane run one way, from room to room."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.paths import ROOT

import dmremap

FLOORS = (
    ("errors",),
    ("host",),
    ("dm", "ondisk"),
    ("sets",),
    ("health",),
    ("monitor", "selftest"),
    ("api",),
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
        if other in dmremap.__all__:
            other = "api"
        if other != room and FLOOR[other] >= FLOOR[room]:
            found.append(name)
    return found


def private(source: str) -> list[str]:
    """Return what a file of the command line imports that is neither public nor its own."""
    found = []
    for name in imported(source):
        _, *rest = name.split(".")
        if rest[0] != "cli" and (len(rest) > 1 or rest[0] not in dmremap.__all__):
            found.append(name)
    return found


def room_of(path: Path) -> str:
    """Return the room that a file is in."""
    return path.relative_to(ROOT / "dmremap").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_downward(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        # What is public is named for the type checker alone, and imported when it is asked for.
        text = path.read_text()
        begin = text.index("if TYPE_CHECKING:")
        end = text.index("\n\n", begin)
        assert list(imported(text[:begin] + text[end:])) == []
    else:
        assert upward(room, path.read_text()) == []


@pytest.mark.parametrize(
    "path", sorted((ROOT / "dmremap/cli").glob("*.py")), ids=lambda path: path.name
)
def test_the_command_line_uses_what_is_public(path: Path) -> None:
    assert private(path.read_text()) == []


def test_what_is_not_public_is_noticed() -> None:
    assert private("from dmremap import status\nfrom dmremap.cli.common import table") == []
    assert private("from dmremap.sets import live") == ["dmremap.sets.live"]
    assert private("from dmremap import dm") == ["dmremap.dm"]
    assert private("def f():\n    import dmremap.errors") == ["dmremap.errors"]


def test_what_runs_upward_is_noticed() -> None:
    assert upward("ondisk", "from dmremap.sets import live") == ["dmremap.sets.live"]
    assert upward("ondisk", "def f():\n    from dmremap import dm") == ["dmremap.dm"]
    assert upward("host", "import dmremap.cli.app") == ["dmremap.cli.app"]
    assert upward("sets", "from dmremap import status") == ["dmremap.status"]
    assert upward("sets", "from dmremap import dm\nfrom dmremap.sets.live import Running") == []


def test_each_room_has_a_floor() -> None:
    assert {room_of(path) for path in FILES} - {"__init__"} == set(FLOOR)
