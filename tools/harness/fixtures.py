# SPDX-License-Identifier: GPL-2.0-only
"""The pytest plugin: ``pytest_plugins = ["harness.fixtures"]``.

``kernel``
    A :class:`~harness.kernels.Kernel`; a test that uses it, directly or through the
    next two, runs once for each series of ``--kernels``, or of its own mark
    ``@pytest.mark.kernels("6.12")``. Unless ``--kernels`` asks for others, it runs on the oldest
    and the newest of Debian's kernels, or where its mark ``@pytest.mark.usually("6.12")`` says,
    and on the rest with ``--long``. The debug kernels are slow: on ``debug`` run those with
    ``@pytest.mark.debug``, and all that may with ``--long``; on ``kcsan`` those with
    ``@pytest.mark.kcsan``, with ``--long``.
``machine``
    Boots a machine for one test: ``machine(disks=[...], udev=True, ...)``, any number of
    times. What is left running is closed at the end, and fails the test if a console
    has a line that nobody expected. With ``--long`` kmemleak looks first, on ``debug``.
``long``
    Whether ``--long`` was given.

Everything that a machine leaves is in ``build/artefacts/<test>/vm<n>/``.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from harness import counted, kernels, paths
from harness.machine import Machine

if TYPE_CHECKING:
    from pathlib import Path

    from harness.disks import Disk
    from harness.kernels import Kernel

MachineFactory = Callable[..., Machine]

LONG_SECONDS = 85 * 60
"""When a test counts as hung under ``--long``: each one fits a part of a long run."""
LEAK_SECONDS = 900


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    parser.addoption(
        "--kernels",
        default=",".join(kernels.ALL),
        help="series of kernels to test on, with commas between (default: the oldest and newest "
        "of Debian's, others for what is marked for them, and all of %(default)s with --long)",
    )
    parser.addoption(
        "--long",
        action="store_true",
        help="hunt for hours: what runs for a fixed time or a number of steps runs for longer",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marks."""
    config.addinivalue_line("markers", "kernels(*series): run on these series only, such as '6.12'")
    config.addinivalue_line("markers", "debug: run on the debug kernel, too, without being asked")
    config.addinivalue_line("markers", "kcsan: run on the kernel for data races, too, with --long")
    config.addinivalue_line(
        "markers", "usually(*series): not on both ends of the range, but on these"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that needs a kernel once for each."""
    if "kernel" not in metafunc.fixturenames:
        return
    chosen = str(metafunc.config.getoption("--kernels")).split(",")
    mark = metafunc.definition.get_closest_marker("kernels")
    series = [name for name in chosen if mark is None or name in mark.args]
    metafunc.parametrize("kernel", series, indirect=True, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Choose what runs on which kernel, and give the tests the time that they may take."""
    asked = config.getoption("--kernels") != ",".join(kernels.ALL)
    long = bool(config.getoption("--long"))
    chosen, others = [], []
    for item in items:
        flavour = _flavour(item)
        if not asked and not _runs_unasked(item, flavour, long=long):
            others.append(item)
            continue
        if long:
            item.add_marker(pytest.mark.timeout(LONG_SECONDS), append=False)
        elif flavour:
            seconds = item.get_closest_marker("timeout")
            if seconds is not None:
                more = seconds.args[0] * kernels.DEBUG_PATIENCE
                item.add_marker(pytest.mark.timeout(more), append=False)
        chosen.append(item)
    # What takes longest is not begun last.
    chosen.sort(key=lambda item: _flavour(item) is None)
    if others:
        config.hook.pytest_deselected(items=others)
    items[:] = chosen


def _series(item: pytest.Item) -> str | None:
    callspec = getattr(item, "callspec", None)
    return None if callspec is None else callspec.params.get("kernel")


def _flavour(item: pytest.Item) -> str | None:
    """Return the debug kernel that a test runs on, if it is one."""
    series = _series(item)
    return series if series in kernels.FLAVOURS else None


def _runs_unasked(item: pytest.Item, flavour: str | None, *, long: bool) -> bool:
    if flavour is None:
        usually = item.get_closest_marker("usually")
        series = _series(item)
        return long or series is None or series in (usually.args if usually else kernels.ENDS)
    marked = item.get_closest_marker(flavour) is not None
    return (marked and long) if flavour == kernels.KCSAN else (marked or long)


@pytest.fixture(scope="session")
def long(request: pytest.FixtureRequest) -> bool:
    """Whether the tests may take hours."""
    return bool(request.config.getoption("--long"))


@pytest.fixture(scope="session")
def kernel(request: pytest.FixtureRequest) -> Kernel:
    """One of the kernels."""
    return kernels.find(request.param)


def artefacts(node_id: str) -> Path:
    """Return an empty directory for what a test leaves."""
    directory = paths.ARTEFACTS / paths.directory_name(node_id)
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return directory


def _tell_races(machine: Machine) -> None:
    for race, times in machine.console.races.most_common():
        print(f"not of dm-remap, {times} times: {race}")


def _scan_for_leaks(machine: Machine) -> None:
    """Have kmemleak look; what it finds it tells on the console.

    Twice, and not at once: it says nothing of memory that is younger than five seconds, or that it
    has met for the first time.
    """
    twice = "sleep 5; for _ in 1 2; do echo scan >/sys/kernel/debug/kmemleak; done"
    machine.shell(twice, timeout=LEAK_SECONDS)


@contextlib.contextmanager
def _factory(kernel: Kernel, directory: Path, *, long: bool) -> Iterator[MachineFactory]:
    machines: list[Machine] = []

    def make(disks: Sequence[Disk] = (), **options: Any) -> Machine:
        options.setdefault("workdir", directory / f"vm{len(machines)}")
        machine = Machine(options.pop("kernel", kernel), disks, **options)
        machines.append(machine)
        machine.boot()
        return machine

    with contextlib.ExitStack() as all_closed:
        yield make
        for number, machine in enumerate(machines):
            all_closed.callback(_tell_races, machine)
            all_closed.callback(machine.close)
            debug = machine.kernel.series == kernels.DEBUG  # it may be another than the test's
            if machine.running and (debug or counted.environment()):
                all_closed.callback(counted.collect, machine, directory / f"gcov{number}")
            if machine.running and debug and long:
                all_closed.callback(_scan_for_leaks, machine)


@pytest.fixture
def machine(kernel: Kernel, request: pytest.FixtureRequest, long: bool) -> Iterator[MachineFactory]:
    """Boot machines for one test."""
    with _factory(kernel, artefacts(request.node.nodeid), long=long) as make:
        yield make
