# SPDX-License-Identifier: GPL-2.0-only
"""``tools/test --long``: run what has not passed yet at this commit, for ninety minutes at most.

``python3 -m harness.longrun`` chooses the tests, has pytest run them, and says what passed, failed
and is left. The same file is the pytest plugin that stops in time: with ``--selection FILE`` the
tests of that file run, in its order; none is begun that will not end in time by what is known of
it, and one that takes longer all the same is cut at the end. What becomes of each is noted at once,
so that a run that is killed loses only what it was about to do.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness import parts, paths, results, source
from harness.parts import Part, Result

if TYPE_CHECKING:
    from collections.abc import Generator

FOLDERS = ("tests/vm", "tests/lint", "tests/unit")
LEFT = "not begun: the time of this part is over"
EXIT_LEFT = 75
"""Nothing has failed, but there is something left to run."""
COUNT_SECONDS = 300
"""What the count of the lines may take."""
PYTEST = (sys.executable, "-m", "pytest")


def now() -> float:
    """Return a time that all processes share and nobody sets."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


# The plugin


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.addoption("--selection", type=Path, metavar="FILE", help="of tools/test --long alone")


def pytest_configure(config: pytest.Config) -> None:
    """Choose, and note what becomes of the tests: that not in each worker."""
    path = config.getoption("--selection")
    if path is not None:
        config.pluginmanager.register(Selection(json.loads(path.read_text())))
        if "PYTEST_XDIST_WORKER" not in os.environ:
            chosen = json.loads(path.read_text())
            config.pluginmanager.register(Recorder(Path(chosen["directory"]), chosen["until"]))


class Selection:
    """What runs, in which order, and until when."""

    def __init__(self, chosen: dict[str, Any]) -> None:
        """Take what :func:`select` has written."""
        self.tests: dict[str, float] = chosen["tests"]
        self.until: float = chosen["until"]

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Keep what is chosen."""
        order = {node: number for number, node in enumerate(self.tests)}
        others = [item for item in items if item.nodeid not in order]
        if others:
            config.hook.pytest_deselected(items=others)
        kept = [item for item in items if item.nodeid in order]
        items[:] = sorted(kept, key=lambda item: order[item.nodeid])

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Cut at the end what takes longer than anybody knew."""
        mark = item.get_closest_marker("timeout")
        left = max(self.until - now(), 1.0)
        seconds = min(left, mark.args[0]) if mark else left
        item.add_marker(pytest.mark.timeout(seconds), append=False)
        return (yield)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Begin nothing that will not end in time."""
        if not parts.fits(self.tests[item.nodeid], self.until - now()):
            pytest.skip(LEFT)


class Recorder:
    """Notes what becomes of the tests; with several workers their reports arrive here."""

    def __init__(self, directory: Path, until: float) -> None:
        """Note it in the directory of a commit."""
        self.directory = directory
        self.until = until
        self.reports: dict[str, list[pytest.TestReport]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take in a report; of a worker that died there is but one."""
        several = self.reports.setdefault(report.nodeid, [])
        several.append(report)
        if report.when in ("setup", "call"):
            return
        result = judged(self.reports.pop(report.nodeid), late=now() >= self.until)
        if result is not None:
            results.append(self.directory, report.nodeid, result)


def judged(reports: list[pytest.TestReport], *, late: bool) -> Result | None:
    """Return what became of a test, or nothing if it was not begun."""
    seconds = round(sum(report.duration for report in reports), 1)
    if any(report.failed for report in reports):
        return Result(parts.CUT if late else parts.FAILED, seconds)
    skipped = [report for report in reports if report.skipped]
    if any(LEFT in str(report.longrepr) for report in skipped):
        return None
    return Result(parts.SKIPPED if skipped else parts.PASSED, seconds)


# The run


def collect() -> list[str]:
    """Return all tests of a long run."""
    done = subprocess.run(
        [*PYTEST, "--collect-only", "-q", "--long", "-p", "no:cacheprovider", *FOLDERS],
        cwd=paths.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        print(done.stdout + done.stderr, file=sys.stderr)
        sys.exit(done.returncode)
    return [line for line in done.stdout.splitlines() if "::" in line]


def run_tests(directory: Path, tests: dict[str, float], until: float, options: list[str]) -> int:
    """Have pytest run tests; return its exit status."""
    selection = directory / "selection.json"
    chosen = {"directory": os.fspath(directory), "until": until, "tests": tests}
    selection.write_text(json.dumps(chosen))
    counts = directory / "artefacts/python"
    counts.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "DMREMAP_ARTEFACTS": os.fspath(directory / "artefacts"),
        "COVERAGE_PROCESS_START": os.fspath(paths.HARNESS / "coverage.ini"),
        "DMREMAP_COVERAGE": os.fspath(counts / "count"),
    }
    argv = [*PYTEST, "--long", "--selection", os.fspath(selection), *options, *FOLDERS]
    return subprocess.run(argv, cwd=paths.ROOT, env=environment, check=False).returncode


def count_lines(directory: Path) -> int:
    """Count the lines that all of it has run; 0 if they are enough."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.fspath(paths.HARNESS.parent),
        "DMREMAP_ARTEFACTS": os.fspath(directory / "artefacts"),
    }
    argv = [sys.executable, "-m", "harness.counted"]
    return subprocess.run(argv, cwd=paths.ROOT, env=environment, check=False).returncode


def verdict(dealt: dict[str, int], part: Part, known: dict[str, Result]) -> int:
    """Return the exit status of a part."""
    mine = [known.get(node) for node, number in dealt.items() if number == part.number]
    if any(one is not None and one.status == parts.FAILED for one in mine):
        return 1
    return 0 if all(one is not None and one.done for one in mine) else EXIT_LEFT


def parse(argv: list[str]) -> argparse.Namespace:
    """Read the words that tools/test passes on."""
    parser = argparse.ArgumentParser(prog="harness.longrun")
    parser.add_argument("--part", type=Part.parse, default=Part(1, 1))
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--spent", type=float, default=0.0, help="seconds since the command began")
    parser.add_argument("--report")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Run a part."""
    options = parse(argv)
    part: Part = options.part
    until = now() - options.spent + parts.LIMIT - parts.END
    state = source.state()
    directory = results.HOME / state
    directory.mkdir(parents=True, exist_ok=True)
    results.drop_artefacts(results.HOME, state)
    times = results.measured()
    dealt = results.plan(directory, collect(), times, part.of)
    known = results.latest(directory)
    tests = parts.todo(dealt, part, known, times, failed_only=options.again)
    about = parts.minutes(parts.wall(tests.values(), 1 if options.again else parts.WORKERS))
    print(f"{state}, part {part}: {len(tests)} tests to run, about {about}", flush=True)
    if tests:
        words = [] if options.again else ["-n", str(parts.WORKERS), *("--dist", "load")]
        words += [] if options.again else ["--maxschedchunk", "1"]
        words += ["--report", options.report] if options.report else []
        status = run_tests(directory, tests, until, words)
        if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            return status
    known = results.latest(directory)
    print(*parts.summary(dealt, part, known, results.measured()), sep="\n", flush=True)
    status = verdict(dealt, part, known)
    if not all(node in known and known[node].done for node in dealt):
        if status == EXIT_LEFT:
            print("The same command again goes on with it.")
        return status
    if until - now() < COUNT_SECONDS:
        print("left: the count of the lines that were run; the same command again does it.")
        return EXIT_LEFT
    return count_lines(directory)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
