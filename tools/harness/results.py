# SPDX-License-Identifier: GPL-2.0-only
"""What became of the tests of long runs, by commit: ``build/results/<state>/``.

``results.jsonl`` has a line for each test that has run, ``plan-<M>.json`` in which of M parts each
test is, ``artefacts/`` what the machines have left. The plan is made once for a commit, by what had
been measured here until then. Copied together with the results to another machine, it is the same
there.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from harness import parts, paths
from harness.parts import Result

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

HOME = paths.BUILD / "results"
NAME = "results.jsonl"
LONGER = 1.5
"""What was cut is expected to take so many times what it had."""


def append(directory: Path, node: str, result: Result) -> None:
    """Note what became of a test."""
    row = {"node": node, **asdict(result), "at": round(time.time())}
    with (directory / NAME).open("a") as file:
        file.write(json.dumps(row) + "\n")


def _rows(directory: Path) -> list[tuple[str, Result]]:
    try:
        lines = (directory / NAME).read_text().splitlines()
    except FileNotFoundError:
        return []
    rows = []
    for line in lines:
        # A machine that was switched off leaves a part of a line.
        try:
            row = json.loads(line)
            rows.append((row["node"], Result(row["status"], row["seconds"])))
        except (ValueError, KeyError, TypeError):
            continue
    return rows


def latest(directory: Path) -> dict[str, Result]:
    """Return what became of each test when it last ran."""
    return dict(_rows(directory))


def measured(home: Path = HOME) -> dict[str, float]:
    """Return how long each test has last taken here, at whatever commit."""
    times: dict[str, float] = {}
    known = sorted(home.glob(f"*/{NAME}"), key=lambda path: path.stat().st_mtime)
    for path in known:
        for node, result in _rows(path.parent):
            if result.status == parts.PASSED:
                times[node] = result.seconds
            elif result.status == parts.CUT:
                times[node] = max(times.get(node, 0.0), result.seconds * LONGER)
    return times


def plan(
    directory: Path, nodes: Iterable[str], times: Mapping[str, float], count: int
) -> dict[str, int]:
    """Return the plan of a commit, made and kept the first time."""
    path = directory / f"plan-{count}.json"
    nodes = list(nodes)
    if not path.exists():
        part = path.with_suffix(".new")
        part.write_text(json.dumps(parts.plan(nodes, times, count), indent=0) + "\n")
        part.replace(path)
    return parts.completed(json.loads(path.read_text()), nodes, count)


def drop_artefacts(home: Path, state: str) -> None:
    """Delete what the machines of other commits have left; what became of the tests stays."""
    for path in home.glob("*/artefacts"):
        if path.parent.name != state:
            shutil.rmtree(path)
