# SPDX-License-Identifier: GPL-2.0-only
"""Which test runs which line, and how long each takes without a mutant.

Measured once for the sources as they are, in a copy without a mutant, and kept below
``build/mutants/measured``; what is missing there is measured, so that it can be done in pieces. A
test that fails without a mutant proves nothing: it is told and not used, and the next run tries
again whether it fails.

Of the module's lines gcov knows, so that each file of tests/guest, and KUnit, is run once on the
debug kernel; of the package's coverage.py knows, in tests/unit and in guests.
"""

from __future__ import annotations

import bisect
import json
import shutil
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from harness import counted, kernels
from harness.mutants import build, steps, tree
from harness.mutants.results import append

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from harness.mutants.steps import Clock, Outcome, Step
    from harness.mutants.tree import Tree

Lines = dict[str, list[int]]

LONGEST = 1400.0
"""What a test may take whose time is not known, in seconds."""
TOGETHER = 6
"""So many files share a guest where they are measured: what is done is kept after each guest."""


@dataclass
class Known:
    """What is known of a test."""

    seconds: float = 0.0
    ok: bool = True
    how: str = ""
    alone: bool = False
    """Whether it passes only in a guest of its own."""
    run: Lines = field(default_factory=dict)
    never: Lines = field(default_factory=dict)
    counts: bool = True
    """Whether its lines are known; else it may run any."""


class Measured:
    """The file of one kind of measurement of the sources as they are."""

    def __init__(self, kind: str, digest: str) -> None:
        """Read what is known."""
        self.kind = kind
        self.path = tree.HOME / "measured" / f"{kind}-{digest}.jsonl"
        self.tests: dict[str, Known] = {}
        self.read()

    def read(self) -> None:
        """Take in what has been measured."""
        if self.path.exists():
            for line in self.path.read_text().splitlines():
                fields = json.loads(line)
                name = fields.pop("name")
                if fields["ok"]:
                    self.tests[name] = Known(**fields)

    def add(self, name: str, test: Known) -> None:
        """Keep what has been measured."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        append(self.path, json.dumps({"name": name, **vars(test)}) + "\n")
        self.tests[name] = test

    def covering(self, file: str, line: int, last: int) -> list[str]:
        """Return the tests that run a piece of a file, those with unknown lines too.

        A line of which nothing is known belongs to the one before it that something is known of:
        a condition over three lines is counted on one.
        """
        known = sorted(
            {
                n
                for t in self.tests.values()
                for lines in (t.run, t.never)
                for n in lines.get(file, [])
            }
        )
        begin = max(bisect.bisect_right(known, line) - 1, 0)
        wanted = set(known[begin : bisect.bisect_right(known, last)])
        return [
            name
            for name, test in self.tests.items()
            if test.ok and (not test.counts or wanted & set(test.run.get(file, ())))
        ]

    @property
    def broken(self) -> list[str]:
        """The tests that fail without a mutant, and how."""
        return [f"{name}: {test.how}" for name, test in self.tests.items() if not test.ok]


def _batches(names: Iterable[str], alone: set[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    for name in names:
        if name in alone:
            yield [name]
        else:
            batch.append(name)
            if len(batch) == TOGETHER:
                yield batch
                batch = []
    if batch:
        yield batch


def measure_guests(
    measured: Measured,
    names: Iterable[str],
    run: Callable[[list[str]], list[Outcome]],
    lines: Callable[[str], tuple[Lines, Lines] | None],
    clock: Clock,
    say: Callable[[str], None],
) -> None:
    """Measure the files that nothing is known of.

    What fails beside others is tried in a guest of its own before it counts as broken.
    """
    alone: set[str] = set()
    while todo := [name for name in names if name not in measured.tests]:
        if clock.over:
            raise steps.TimeUp
        batch = next(_batches(todo, alone))
        say(f"measuring {', '.join(batch)}")
        found = run(batch)
        for number, outcome in enumerate(found):
            if not outcome.ok and number and outcome.step not in alone:
                alone.add(outcome.step)
                break
            test = Known(outcome.seconds, outcome.ok, outcome.how, outcome.step in alone)
            if found_lines := lines(outcome.step):
                test.run, test.never = found_lines
            else:
                test.counts = False
            measured.add(outcome.step, test)


def gcov_lines(kernel: kernels.Kernel, directories: Iterable[Path]) -> tuple[Lines, Lines]:
    """Return the module's lines that were run, and that could have been."""
    run, never = {}, {}
    for name, counts in counted.count(kernel, directories).items():
        file = f"kernel/{name}"
        never[file] = counts.never
        run[file] = sorted(counts.lines.keys() - set(counts.never))
    return run, never


def python_lines(directory: Path) -> Lines:
    """Return the package's lines that coverage.py has counted in a directory."""
    import coverage

    found: dict[str, set[int]] = defaultdict(set)
    for path in sorted(directory.glob("count*")):
        data = coverage.CoverageData(basename=str(path))
        data.read()
        for name in data.measured_files():
            # Relative to where the process was started, which may be anywhere.
            file = "dmremap/" + name.rpartition("dmremap/")[2]
            found[file] |= set(data.lines(name) or ())
    return {name: sorted(numbers) for name, numbers in found.items()}


@dataclass
class Meter:
    """Measures in copies without a mutant."""

    clock: Clock
    say: Callable[[str], None]
    jobs: int = 1
    """How many copies it measures in at a time."""

    def sources(self, *folders: str) -> str:
        """Return the digest of what a measurement depends on."""
        return tree.digest(name for name in tree.files() if name.startswith(folders))

    def _share(
        self, measured: Measured, names: Iterable[str], work: Callable[[Tree, list[str]], None]
    ) -> Measured:
        """Have all copies measure a part each of what is not known yet."""

        def one(number: int, share: list[str]) -> None:
            with tree.original(f"{measured.kind}-{number}") as copy:
                measured.read()  # somebody else may have measured it meanwhile
                work(copy, [name for name in share if name not in measured.tests])

        if todo := [name for name in names if name not in measured.tests]:
            shares = [todo[number :: self.jobs] for number in range(self.jobs)]
            with ThreadPoolExecutor(self.jobs) as pool:
                list(pool.map(one, range(self.jobs), shares))
        return measured

    def module_lines(self, names: Iterable[str], kunit: Step) -> Measured:
        """Which lines of the module KUnit and the files of tests/guest run."""
        sources = self.sources("kernel/", "tests/guest/", "tests/kernel/")
        measured = Measured("module-lines", sources)

        def work(copy: Tree, todo: list[str]) -> None:
            if not todo:
                return
            kernel = build.make(copy, kernels.DEBUG, count=True)
            if kunit.name in todo:
                todo.remove(kunit.name)
                measured.add(kunit.name, self._kunit(copy, kernel, kunit))
            scratch = copy.root / "build/gcov"

            def run(batch: list[str]) -> list[Outcome]:
                options = ("--keep-going", "--gcov", str(scratch))
                return self._batch(copy, kernels.DEBUG, batch, scratch, options)

            def lines(name: str) -> tuple[Lines, Lines] | None:
                found = gcov_lines(kernel, [scratch / name])
                return found if found[0] else None

            measure_guests(measured, todo, run, lines, self.clock, self.say)

        return self._share(measured, [kunit.name, *names], work)

    def _batch(
        self, copy: Tree, series: str, batch: list[str], scratch: Path, options: Sequence[str]
    ) -> list[Outcome]:
        shutil.rmtree(scratch, ignore_errors=True)
        return steps.guests(copy, series, dict.fromkeys(batch, LONGEST), self.clock, *options)

    def _kunit(self, copy: Tree, kernel: kernels.Kernel, kunit: Step) -> Known:
        self.say(f"measuring {kunit.name}")
        shutil.rmtree(copy.root / "build/artefacts", ignore_errors=True)
        outcome = steps.run(kunit, copy, LONGEST, self.clock)
        run, never = gcov_lines(kernel, list((copy.root / "build/artefacts").glob("*/gcov*")))
        return Known(outcome.seconds, outcome.ok, outcome.how, run=run, never=never)

    def package_lines(self, files: Iterable[str]) -> Measured:
        """Which lines of the package the files of tests/unit run."""
        measured = Measured("unit-lines", self.sources("kernel/", "tests/unit/", "dmremap/"))

        def work(copy: Tree, todo: list[str]) -> None:
            for name in todo:
                if self.clock.over:
                    raise steps.TimeUp
                self.say(f"measuring {name}")
                measured.add(name, self._unit(copy, name))

        return self._share(measured, files, work)

    def _unit(self, copy: Tree, name: str) -> Known:
        scratch = copy.root / "build/counted"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        env = {
            counted.START: str(copy.root / "tools/harness/coverage.ini"),
            "DMREMAP_COVERAGE": str(scratch / "count"),
        }
        begin = time.monotonic()
        argv = steps.pytest(copy, name)
        status, text = steps.execute(argv, copy, LONGEST, self.clock, env=env)
        outcome = steps.judged(name, status, text, time.monotonic() - begin)
        return Known(outcome.seconds, outcome.ok, outcome.how, run=python_lines(scratch))

    def package_lines_in_guests(self, names: Mapping[str, bool], series: str) -> Measured:
        """Which lines of the package the files of tests/guest run; they may need udevd."""
        sources = self.sources("tests/guest/", "dmremap/", "kernel/")
        measured = Measured(f"guest-python-{series}", sources)

        def work(copy: Tree, todo: list[str]) -> None:
            if not todo:
                return
            build.make(copy, series)
            scratch = copy.root / "build/counted"

            def run(batch: list[str]) -> list[Outcome]:
                options = ("--keep-going", "--python", str(scratch))
                return self._batch(copy, series, batch, scratch, options)

            def lines(name: str) -> tuple[Lines, Lines]:
                return python_lines(scratch / name), {}

            for udev in (False, True):
                group = [name for name in todo if names[name] == udev]
                measure_guests(measured, group, run, lines, self.clock, self.say)

        return self._share(measured, names, work)

    def times(self, series: str) -> Measured:
        """What is known of the time that steps take on a kernel, and whether they pass."""
        folders = ("kernel/", "tests/guest/", "tests/vm/", "tests/kernel/", "dmremap/")
        return Measured(f"times-{series}", self.sources(*folders))

    def once(self, measured: Measured, step: Step) -> Known:
        """Return what is known of a step: if that is nothing, run it without a mutant."""
        if step.name not in measured.tests:
            with tree.original(measured.kind) as copy:
                measured.read()  # somebody else may have measured it meanwhile
                if step.name not in measured.tests:
                    self.say(f"measuring {step.name}")
                    if step.series:
                        build.make(copy, step.series)
                    outcome = self._run(copy, step)
                    measured.add(step.name, Known(outcome.seconds, outcome.ok, outcome.how))
        return measured.tests[step.name]

    def _run(self, copy: Tree, step: Step) -> Outcome:
        if not step.guest:
            return steps.run(steps.expanded(step, str(copy.root)), copy, LONGEST, self.clock)
        return steps.guests(copy, step.series, {step.guest: LONGEST}, self.clock)[-1]
