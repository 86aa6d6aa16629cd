# SPDX-License-Identifier: GPL-2.0-only
"""What mutants are planted in, and the tests that each has to pass.

Of the kernel module: the loader compiled for user space, if the file is part of it; KUnit and the
files of tests/guest that run the line, on one kernel, the fastest first; and what is left then
meets everything else that runs on one kernel, once. Of a Python file: the tests on the host that
run the line, then the guests that do.
"""

from __future__ import annotations

import marshal
import re
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

from vm.inside import GUEST
from vm.test_guest import UDEVD_ONLY

from harness import kernels, paths
from harness.errors import HarnessError
from harness.mutants import build, ctokens, pytree
from harness.mutants.results import End
from harness.mutants.steps import Step

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.mutants.covered import Measured, Meter
    from harness.mutants.mutant import Mutant
    from harness.mutants.tree import Tree

KERNEL = "kernel"
SHIM = paths.ROOT / "tests/unit/kernelshim"
HARNESS_ALONE = {"test_harness.py", "test_powercut_server.py"}
"""Files of tests/vm that no line of the module has to do with."""
ELSEWHERE = {"test_guest.py", "test_kunit.py"}
"""And those that are steps of their own."""

PACKAGE = re.compile(r"\bdmremap\b|[/\"]dmremapctl\b")
"""Has to do with the package, and not only with a message that names its command."""

KUNIT = Step(
    "KUnit",
    "KUnit",
    (
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "--kernels", kernels.DEBUG),
        "tests/vm/test_kunit.py::test_every_case_passes",
    ),
    series=kernels.DEBUG,
)


class Plan(ABC):
    """What is done for one target."""

    def __init__(self, name: str) -> None:
        """Name the target."""
        self.name = name
        self.series = build.ordinary()
        """The kernel of the guests."""
        self._sources: dict[str, str] = {}

    def source(self, file: str) -> str:
        """Return a file as it was when it was first asked for: it may be edited meanwhile."""
        if file not in self._sources:
            self._sources[file] = (paths.ROOT / file).read_text()
        return self._sources[file]

    @abstractmethod
    def mutants(self) -> list[Mutant]:
        """Return all errors that can be planted."""

    @abstractmethod
    def measure(self, meter: Meter) -> None:
        """Learn what the steps are chosen by."""

    @abstractmethod
    def plant(self, mutant: Mutant | None, tree: Tree) -> End | None:
        """Plant a mutant in a copy, or none; return why it is no mutant, if it is none."""

    @abstractmethod
    def steps(self, mutant: Mutant) -> list[Step]:
        """Return what a mutant has to pass, in order."""

    @abstractmethod
    def seconds(self, step: Step) -> float | None:
        """Return how long a step takes without a mutant, or None if it fails then."""

    @abstractmethod
    def known(self, step: Step) -> bool:
        """Whether that takes no time to say."""

    @property
    @abstractmethod
    def broken(self) -> list[str]:
        """The tests that are not used, because they fail without a mutant."""


def loader_sources(shim: Path = SHIM, kernel: Path = paths.ROOT / "kernel") -> set[str]:
    """Return the files of kernel/ that the fuzzers' loader is compiled from."""
    found: set[str] = set()
    todo = [shim / "loader.c", shim / "fuzz.h"]
    while todo:
        for name in re.findall(r'^#include "([^"]+)"', todo.pop().read_text(), re.MULTILINE):
            if (kernel / name).exists() and name not in found:
                found.add(name)
                todo.append(kernel / name)
    return {f"kernel/{name}" for name in found}


def may_run_package(test: Path, tests: Path) -> bool:
    """Whether a test, or what it imports of ours, says anything of the package."""
    seen = {test}
    todo = [test]
    while todo:
        text = todo.pop().read_text()
        if PACKAGE.search(text):
            return True
        for folder, name in re.findall(r"^from (\w+)\.(\w+) import", text, re.MULTILINE):
            path = tests / folder / f"{name}.py"
            if path.exists() and path not in seen:
                seen.add(path)
                todo.append(path)
    return False


def pytest_step(name: str, stage: str, series: str, *words: str) -> Step:
    """Return a step that is pytest on the host."""
    argv = ("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *words)
    return Step(name, stage, argv, series=series)


class KernelPlan(Plan):
    """The module."""

    def __init__(self, name: str = KERNEL, *, lines: bool = True) -> None:
        """Without ``lines`` they are not measured: each file of tests/guest may run any."""
        super().__init__(name)
        self.lines = lines
        self.loader = loader_sources()
        self.guests = sorted({path.name for path in GUEST.glob("test_*.py")} - UDEVD_ONLY)
        self._objects: dict[tuple[Path, str], str] = {}

    def mutants(self) -> list[Mutant]:
        """Return the errors of all files, or of the one that is the target."""
        files = sorted((paths.ROOT / "kernel").glob("*.[ch]"))
        names = [str(path.relative_to(paths.ROOT)) for path in files]
        chosen = [name for name in names if self.name in (KERNEL, name)]
        return [mutant for name in chosen for mutant in ctokens.find(name, self.source(name))]

    def measure(self, meter: Meter) -> None:
        """Learn what KUnit and the guests cover; their time is taken when it is first needed."""
        self.meter = meter
        self.times = meter.times(self.series)
        self.covers = meter.module_lines(self.guests, KUNIT) if self.lines else None

    def plant(self, mutant: Mutant | None, tree: Tree) -> End | None:
        """Build the module for the guests' kernel; the debug kernel's comes when it is needed."""
        if mutant is None:
            kernel = build.make(tree, self.series)
            self._objects[tree.root, self.series] = build.objects(kernel)
            return None
        text = self.source(mutant.file)
        tree.write(mutant.file, mutant.apply(text))
        try:
            kernel = build.make(tree, self.series)
        except build.Uncompilable:
            return End.STILLBORN
        same = build.objects(kernel) == self._objects[tree.root, self.series]
        return End.EQUAL if same else None

    def steps(self, mutant: Mutant) -> list[Step]:
        """The loader, KUnit, the guests that run the line, everything else."""
        found: list[Step] = []
        if mutant.file in self.loader:
            found.append(
                Step(
                    "fuzzers",
                    "loader",
                    ("-m", "harness.mutants.loader", "{root}/kernel"),
                    here=True,
                )
            )
            words = ("tests/unit/test_check_kernel.py", "tests/unit/test_one_reader.py")
            found.append(pytest_step("check beside the loader", "loader", "", *words))
        if self.covers is None:
            # A guest takes less time than the debug kernel's start.
            covering = set(self.guests)
        else:
            covering = set(self.covers.covering(mutant.file, mutant.line, mutant.last_line))
        if KUNIT.name in covering:
            found.append(KUNIT)
        ranked = sorted(self.guests, key=self._rank)
        for stage, chosen in (
            ("guest", [name for name in ranked if name in covering]),
            ("everything", [name for name in ranked if name not in covering]),
        ):
            found += [Step(name, stage, guest=name, series=self.series) for name in chosen]
        if self.covers is None:
            found.append(KUNIT)
        return found + self._everything()

    def _rank(self, name: str) -> float:
        """Return by what guests are ordered: their time, or what is known of it."""
        for measured in (self.covers, self.times):
            if measured and name in measured.tests:
                return measured.tests[name].seconds
        return kernels.DEBUG_PATIENCE * (GUEST / name).stat().st_size

    def _everything(self) -> list[Step]:
        on = ("--kernels", self.series)
        udevd = (*on, "tests/vm/test_guest.py", "-k", "udevd or adopted")
        found = [pytest_step("guests with udevd", "everything", self.series, *udevd)]
        for path in sorted((paths.ROOT / "tests/vm").glob("test_*.py")):
            if path.name not in HARNESS_ALONE | ELSEWHERE:
                words = (*on, f"tests/vm/{path.name}")
                found.append(pytest_step(path.name, "everything", self.series, *words))
        kunit = "--ignore=tests/vm/test_kunit.py"
        debug = ("--kernels", kernels.DEBUG, "-m", "debug", "tests/vm", kunit)
        name = "marked for the debug kernel"
        found.append(pytest_step(name, "everything", kernels.DEBUG, *debug))
        return found

    def seconds(self, step: Step) -> float | None:
        """It is run without a mutant when it is first needed."""
        known = self.meter.once(self.times, step)
        return known.seconds if known.ok else None

    def known(self, step: Step) -> bool:
        """Whether it has been run."""
        return step.name in self.times.tests

    @property
    def broken(self) -> list[str]:
        """The tests that fail without a mutant."""
        return [*self.times.broken, *(self.covers.broken if self.covers else [])]


class PythonPlan(Plan):
    """A file of the package, or all of a folder."""

    def __init__(self, name: str, *, guests: bool = True) -> None:
        """Without ``guests`` the tests on the host alone count."""
        super().__init__(name)
        self.guests = guests
        path = paths.ROOT / name
        files = [path] if path.is_file() else sorted(path.rglob("*.py"))
        self.files = [
            str(file.relative_to(paths.ROOT)) for file in files if file.name != "_build.py"
        ]

    def mutants(self) -> list[Mutant]:
        """Return the errors of all files."""
        return [mutant for name in self.files for mutant in pytree.find(name, self.source(name))]

    def measure(self, meter: Meter) -> None:
        """Learn which tests run which lines."""
        tests = paths.ROOT / "tests"
        units = [p for p in sorted(tests.glob("unit/test_*.py")) if may_run_package(p, tests)]
        self.units = meter.package_lines(str(path.relative_to(paths.ROOT)) for path in units)
        self.inside: Measured | None = None
        if self.guests:
            names = {path.name: path.name in UDEVD_ONLY for path in sorted(GUEST.glob("test_*.py"))}
            self.inside = meter.package_lines_in_guests(names, self.series)

    def plant(self, mutant: Mutant | None, tree: Tree) -> End | None:
        """Replace the file; the module is needed as it is."""
        if mutant is None:
            if self.guests:
                build.make(tree, self.series)
            return None
        text = self.source(mutant.file)
        try:
            compiled = [_code(source) for source in (text, mutant.apply(text))]
        except SyntaxError:
            return End.STILLBORN
        if compiled[0] == compiled[1]:
            return End.EQUAL
        tree.write(mutant.file, mutant.apply(text))
        return None

    def steps(self, mutant: Mutant) -> list[Step]:
        """The tests on the host, all in one process, and the guests, each the fastest first."""
        where = (mutant.file, mutant.line, mutant.last_line)
        found = []
        if units := _fastest(self.units, self.units.covering(*where)):
            found.append(pytest_step("tests/unit", "unit", "", *units))
        if self.inside:
            names = _fastest(self.inside, self.inside.covering(*where))
            found += [Step(name, "guest", guest=name, series=self.series) for name in names]
        return found

    def seconds(self, step: Step) -> float | None:
        """All were timed with their lines."""
        if step.guest:
            assert self.inside is not None
            test = self.inside.tests[step.guest]
            return test.seconds if test.ok else None
        return sum(test.seconds for name, test in self.units.tests.items() if name in step.argv)

    def known(self, step: Step) -> bool:
        """All are."""
        del step
        return True

    @property
    def broken(self) -> list[str]:
        """The tests that fail without a mutant."""
        return [*self.units.broken, *(self.inside.broken if self.inside else [])]


def _code(source: str) -> bytes:
    return marshal.dumps(compile(source, "mutant", "exec", dont_inherit=True))


def _fastest(measured: Measured, names: Iterable[str]) -> list[str]:
    tests = measured.tests
    return sorted(names, key=lambda name: (tests[name].alone, tests[name].seconds))


def plan(target: str, *, lines: bool = True, guests: bool = True) -> Plan:
    """Return the plan of a target by its name."""
    path = paths.ROOT / target
    if target == KERNEL or (path.is_file() and path.parent.name == KERNEL):
        return KernelPlan(target, lines=lines)
    if target.startswith("dmremap") and (path.is_dir() or path.suffix == ".py") and path.exists():
        return PythonPlan(target.rstrip("/"), guests=guests)
    raise HarnessError(
        f"no target {target!r}: name {KERNEL}, a file of it, or a file or folder of dmremap/"
    )
