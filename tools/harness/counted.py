# SPDX-License-Identifier: GPL-2.0-only
"""Which lines of the module and of the package the tests run.

The debug kernel's builds of the module and of its KUnit suites, which are the same lines compiled
again, count (gcov); what a guest has counted is copied out of it
when its machine is closed, to ``gcov<n>`` beside the machine's directory. The package's lines are
counted by coverage.py in every Python process, in guests too, that has :func:`environment`; a file
of the virtual environment's site-packages starts it (see tools/prepare).

``python3 -m harness.counted`` adds all up that the last run has left in ``build/artefacts``,
prints a table, and fails when less than :data:`BAR` of a file set was run, or a line of
:data:`WHOLE` that ``tests/kernel/not-run.txt`` gives no reason for. Lines are named there by their
text, which survives edits elsewhere:

    dm-remap-repair.c: <the line, without the blanks around it>
        the reason, indented
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from harness import kernels, paths
from harness.process import run

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.kernels import Kernel
    from harness.machine import Machine

BAR = 0.95
WHOLE = tuple(f"dm-remap-{part}.c" for part in ("repair", "area", "load", "commit", "identity"))
"""Every line of these is run, or there is a reason why not."""
BUILT = ("kernel", "tests/kernel")
"""Where the compiler leaves what goes with the counts, below a kernel's build."""
NOT_RUN = paths.ROOT / "tests/kernel/not-run.txt"
DEBUGFS = Path("/sys/kernel/debug/gcov")
START = "COVERAGE_PROCESS_START"
DATA = paths.ARTEFACTS / "python"
GUESTS = DATA / "guests"
"""What guests have counted: not in DATA, where the next guest would take it for its own."""


@dataclass
class Counts:
    """How often the lines of a file were run, by line number."""

    lines: dict[int, int] = field(default_factory=lambda: defaultdict(int))

    @property
    def never(self) -> list[int]:
        """The lines that were never run, ascending."""
        return sorted(number for number, count in self.lines.items() if not count)


def environment() -> dict[str, str]:
    """Return what has Python count; empty where this process does not count, either."""
    if START not in os.environ:
        return {}
    return {
        START: os.fspath(paths.HARNESS / "coverage.ini"),
        "DMREMAP_COVERAGE": os.fspath(DATA / "count"),
    }


def collect(machine: Machine, directory: Path) -> None:
    """Copy what a guest has counted; a kernel without gcov has counted nothing."""
    built = DEBUGFS / machine.kernel.build.relative_to("/")
    for name in machine.run(["find", built, "-name", "*.gcda"], check=False).stdout.split():
        directory.mkdir(exist_ok=True)
        (directory / Path(name).name).write_bytes(machine.read_file(name))
    if environment():
        # The guest sees the host's files there, too, but those have the host's name.
        pattern = f"count.{machine.run(['hostname']).stdout.strip()}.*"
        found = machine.run(["find", DATA, "-maxdepth", "1", "-name", pattern], check=False)
        GUESTS.mkdir(exist_ok=True)
        for name in found.stdout.split():
            copy = GUESTS / f"{Path(name).name}.{directory.parent.name}.{directory.name}"
            copy.write_bytes(machine.read_file(name))


def count(kernel: Kernel, directories: Iterable[Path]) -> dict[str, Counts]:
    """Return what is in the directories of :func:`collect`, added up, by file name."""
    total: dict[str, Counts] = defaultdict(Counts)
    for directory in directories:
        with tempfile.TemporaryDirectory() as scratch:
            for data in directory.glob("*.gcda"):
                shutil.copy(data, scratch)
                for where in BUILT:
                    notes = kernel.build / where / f"{data.stem}.gcno"
                    if notes.exists():
                        shutil.copy(notes, scratch)
            names = [os.fspath(path) for path in Path(scratch).glob("*.gcda")]
            for line in run(["gcov", "--json-format", "--stdout", *names]).splitlines():
                for file in json.loads(line)["files"]:
                    path = Path(file["file"])
                    tests = path.parent.parent.name == "tests"
                    if tests or path.parent.name != "kernel" or path.name[:8] != "dm-remap":
                        continue
                    for entry in file["lines"]:
                        total[path.name].lines[entry["line_number"]] += entry["count"]
    return dict(total)


def reasons(text: str) -> dict[str, set[str]]:
    """Read ``not-run.txt``: the lines that have a reason, by file.

    >>> reasons("a.c: return 0;\\n    it never fails\\n")
    {'a.c': {'return 0;'}}
    """
    found: dict[str, set[str]] = {}
    for line in text.splitlines():
        if line and not line[0].isspace() and not line.startswith("#"):
            name, _, code = line.partition(": ")
            found.setdefault(name, set()).add(code.strip())
    return found


def unexplained(name: str, counts: Counts, source: list[str], known: set[str]) -> list[str]:
    """Return the lines that were not run and have no reason."""
    return [
        f"{name}:{number}: {source[number - 1].strip()}"
        for number in counts.never
        if source[number - 1].strip() not in known
    ]


def share(counts: Iterable[Counts]) -> float:
    """Return how much was run, from 0 to 1."""
    lines = [number for one in counts for number in one.lines.values()]
    return sum(map(bool, lines)) / len(lines)


def module(artefacts: Path) -> list[str]:
    """Print the table of the module's files and return what is wrong."""
    total = count(kernels.find(kernels.DEBUG), sorted(artefacts.glob("*/gcov*")))
    if not total:
        return ["no test has run on the debug kernel: tools/test --kernels debug tests/vm"]
    known = reasons(NOT_RUN.read_text())
    wrong = [f"gcov knows nothing of {name}" for name in sorted(set(WHOLE) - total.keys())]
    for name, counts in sorted(total.items()):
        source = (paths.ROOT / "kernel" / name).read_text().splitlines()
        print(f"{share([counts]):7.1%} of {len(counts.lines):4} lines  {name}")
        if name in WHOLE:
            wrong += unexplained(name, counts, source, known.get(name, set()))
        else:
            for line in unexplained(name, counts, source, set()):
                print(f"         {line}")
    whole = share(total.values())
    print(f"{whole:7.1%} of the module")
    if whole < BAR:
        wrong.append(f"{whole:.1%} of the module's lines were run: expected {BAR:.0%}")
    return wrong


def package() -> list[str]:
    """Print the table of the package's files and return what is wrong."""
    import coverage

    os.environ["DMREMAP_COVERAGE"] = os.fspath(DATA / "count")
    counter = coverage.Coverage(config_file=os.fspath(paths.HARNESS / "coverage.ini"))
    found = [directory for directory in (DATA, GUESTS) if directory.exists()]
    counter.combine([os.fspath(directory) for directory in found], keep=True)
    whole = counter.report(show_missing=True, skip_covered=True) / 100
    return [] if whole >= BAR else [f"{whole:.1%} of the package was run: expected {BAR:.0%}"]


def main() -> int:
    """Judge what the last run has left."""
    wrong = module(paths.ARTEFACTS) + package()
    for line in wrong:
        print(f"coverage: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
