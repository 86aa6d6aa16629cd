# SPDX-License-Identifier: GPL-2.0-only
"""The pytest plugin behind ``tools/test --report DIR``.

For each test ``DIR/<test>/`` has ``repeat.sh`` (the command that runs it again), what it said,
and of each of its machines the console, QEMU's messages and ``repro.sh`` (the same machine with
a shell for a person). ``DIR/README.md`` is the summary: a row for each test, a column for each
kernel, and the matrices that tests have left as ``matrix.json`` among their artefacts.

A matrix is a list of objects with the same keys, of which ``ok`` says whether the row is as it
should be.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness import kernels, paths

KEPT = ("console.log", "qemu.log", "repro.sh")
"""What is copied of a machine; its disks are not."""
NO_KERNEL = "-"
SEED = re.compile(r"([A-Z]+_SEED)=(\d+)")
"""What a test prints that makes random choices; in the environment it repeats them."""
WORST = ("failed", "error", "skipped", "xfailed", "passed")


@dataclass
class Outcome:
    """What became of a test."""

    node: str
    kernel: str
    status: str = "passed"
    seconds: float = 0.0
    text: list[str] = field(default_factory=list)

    def add(self, report: pytest.TestReport) -> None:
        """Take in one of the three reports of a test: setup, call, teardown."""
        self.seconds += report.duration
        status: str = report.outcome
        if status == "failed" and report.when != "call":
            status = "error"
        if WORST.index(status) < WORST.index(self.status):
            self.status = status
        if report.longreprtext:
            self.text.append(report.longreprtext)
        if report.when == "teardown":
            self.text += [f"{title}\n{content}" for title, content in report.sections]

    @property
    def name(self) -> str:
        """The test without the kernel among its parameters."""
        if self.kernel == NO_KERNEL:
            return self.node
        base, _, parameters = self.node.partition("[")
        rest = [word for word in parameters.rstrip("]").split("-") if word != self.kernel]
        return f"{base}[{'-'.join(rest)}]" if rest else base

    @property
    def directory(self) -> str:
        """Its name as a directory, the same as that of its artefacts."""
        return paths.directory_name(self.node)

    @property
    def cell(self) -> str:
        """What stands in the table."""
        word = "ok" if self.status == "passed" else f"**{self.status}**"
        return f"[{word}]({self.directory}/) {self.seconds:.0f} s"


def summary(outcomes: list[Outcome], took: float) -> str:
    """Return the table of all tests as markdown."""
    counts = {status: sum(o.status == status for o in outcomes) for status in WORST}
    total = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    columns = [k for k in (*kernels.ALL, NO_KERNEL) if any(o.kernel == k for o in outcomes)]
    heads = ["on the host" if name == NO_KERNEL else f"Linux {name}" for name in columns]
    rows: dict[str, dict[str, str]] = {}
    small: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        # What needs no machine is a row a file: there are hundreds.
        if outcome.kernel == NO_KERNEL and outcome.status == "passed":
            small.setdefault(outcome.node.partition("::")[0], []).append(outcome)
        else:
            rows.setdefault(outcome.name, {})[outcome.kernel] = outcome.cell
    for name, group in small.items():
        seconds = sum(outcome.seconds for outcome in group)
        rows.setdefault(name, {})[NO_KERNEL] = f"ok {len(group)} tests, {seconds:.0f} s"
    lines = [
        "# Test report",
        "",
        f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC: {total}, {took / 60:.0f} minutes.",
        "",
        table(
            ["test", *heads],
            [[name, *(cells.get(k, "") for k in columns)] for name, cells in sorted(rows.items())],
        ),
    ]
    return "\n".join(lines)


def table(heads: list[str], rows: list[list[str]]) -> str:
    """Return a table in markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines
    )


def matrix(name: str, rows: list[dict[str, Any]]) -> str:
    """Return a matrix that a test has left as a section of the summary."""
    keys = [key for key in rows[0] if key != "ok"]
    cells = [
        ["ok" if row["ok"] else "**not ok**", *(str(row[key]) for key in keys)] for row in rows
    ]
    good = sum(bool(row["ok"]) for row in rows)
    return f"\n## {name}\n\n{good} of {len(rows)} are as they should be.\n\n" + table(
        ["", *keys], cells
    )


class Reporter:
    """Collects what becomes of the tests, and writes the report at the end."""

    def __init__(self, directory: Path, *, long: bool = False) -> None:
        """Report into a directory, which is made anew."""
        self.directory = directory
        self.long = long
        self.outcomes: dict[str, Outcome] = {}
        self.begin = time.monotonic()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take in a report; with several workers they arrive here all the same."""
        kernel = str(dict(report.user_properties).get("kernel", NO_KERNEL))
        outcome = self.outcomes.setdefault(report.nodeid, Outcome(report.nodeid, kernel))
        outcome.add(report)

    def pytest_sessionfinish(self) -> None:
        """Write it all down."""
        self.directory.mkdir(parents=True, exist_ok=True)
        outcomes = list(self.outcomes.values())
        parts = [summary(outcomes, time.monotonic() - self.begin)]
        for outcome in outcomes:
            if outcome.kernel != NO_KERNEL or outcome.status != "passed":
                parts += self.keep(outcome)
        (self.directory / "README.md").write_text("\n".join(parts) + "\n")

    def command(self, outcome: Outcome) -> list[str]:
        """Return the words that run a test again, on its kernel and with the seeds it has told."""
        # A test that has rounds tells the seed of each: the last one is where it ended.
        seeds = dict(SEED.findall("\n".join(outcome.text)))
        words = [f"{name}={number}" for name, number in seeds.items()]
        words += ["exec", "tools/test", *(["--long"] if self.long else [])]
        if outcome.kernel != NO_KERNEL:
            words += ["--kernels", outcome.kernel]
        return [*words, shlex.quote(outcome.node)]

    def keep(self, outcome: Outcome) -> list[str]:
        """Copy what a test has left; return its matrices."""
        target = self.directory / outcome.directory
        target.mkdir(exist_ok=True)
        script = target / "repeat.sh"
        script.write_text(f"#!/bin/sh\n# In a checkout.\n{' '.join(self.command(outcome))}\n")
        script.chmod(0o755)
        (target / "output.txt").write_text("\n".join(outcome.text) + "\n")
        left = paths.ARTEFACTS / outcome.directory
        for path in sorted(left.glob("vm*/*")):
            if path.name in KEPT:
                copy = target / path.relative_to(left)
                copy.parent.mkdir(exist_ok=True)
                shutil.copy(path, copy)
        found = left / "matrix.json"
        return [matrix(outcome.node, json.loads(found.read_text()))] if found.exists() else []


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.addoption(
        "--report", type=Path, metavar="DIR", help="leave a report of the run in a directory"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Report where it was asked for, but not once for each worker."""
    directory = config.getoption("--report")
    if directory is not None and "PYTEST_XDIST_WORKER" not in os.environ:
        directory = Path(config.invocation_params.dir, directory)
        if directory.exists():
            ours = (directory / "README.md").is_file() or not any(directory.iterdir())
            if not ours:
                raise pytest.UsageError(f"--report: {directory} holds something else: name another")
            shutil.rmtree(directory)
        long = bool(config.getoption("--long", default=False))
        config.pluginmanager.register(Reporter(directory, long=long))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Note the kernel, which the node's name has among other parameters."""
    callspec = getattr(item, "callspec", None)
    if callspec is not None and "kernel" in callspec.params:
        item.user_properties.append(("kernel", callspec.params["kernel"]))
