# SPDX-License-Identifier: GPL-2.0-only
"""A step: a test as a program that a mutant passes, or that notices it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from harness import paths
from harness.errors import HarnessError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import IO

    from harness.mutants.tree import Tree

GRACE = 240.0
"""How long what was begun in time may still run."""
POLL = 0.2
MOST_CROWDED = 4.0
"""So many times as long may a step take on a busy machine: a hang is not waited for all day."""
FAILED = re.compile(r"^(?:FAILED|ERROR) (.*)$", re.MULTILINE)
NOTHING_CHOSEN, NO_SUCH_TEST = 5, 4
"""pytest's exit status where no test was chosen, and where its arguments are wrong."""


class TimeUp(Exception):
    """The run ends before the step does; it is begun anew the next time."""


class Clock:
    """How long a run may still take."""

    def __init__(self, seconds: float) -> None:
        """Begin."""
        self.begin = time.monotonic()
        self.end = self.begin + seconds

    @property
    def over(self) -> bool:
        """Whether nothing may be begun any more."""
        return time.monotonic() >= self.end

    @property
    def left(self) -> float:
        """How long what runs may still run."""
        return self.end + GRACE - time.monotonic()

    def stop(self) -> None:
        """End the run now."""
        self.end = time.monotonic() - GRACE


@dataclass(frozen=True)
class Step:
    """One test, or the one file of tests/guest that is named."""

    name: str
    stage: str
    argv: tuple[str, ...] = ()
    """What the copy's Python is given."""
    guest: str = ""
    series: str = ""
    """The kernel whose modules have to be built first, if any."""
    here: bool = False
    """Whether the checkout's own Python runs it, as the tests there are not misled by a mutant."""


@dataclass(frozen=True)
class Outcome:
    """How a step ended."""

    step: str
    ok: bool
    how: str
    seconds: float


def patience(seconds: float) -> float:
    """Return how long a step may take that takes so long without a mutant.

    What else runs on the machine may be more than when that was measured.
    """
    crowd = min(max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)), MOST_CROWDED)
    return (60.0 + 4 * seconds) * crowd


def _end(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _wait(process: subprocess.Popen[str], timeout: float, clock: Clock) -> int | None:
    """Return a program's exit status, or None when it took longer than it may."""
    deadline = time.monotonic() + timeout
    try:
        while (status := process.poll()) is None:
            if clock.left <= 0:
                raise TimeUp
            if time.monotonic() > deadline:
                return None
            time.sleep(POLL)
        return status
    finally:
        _end(process)


def _read(file: IO[str]) -> str:
    file.seek(0)
    return file.read()


def execute(
    argv: Sequence[str],
    tree: Tree,
    timeout: float,
    clock: Clock,
    *,
    env: Mapping[str, str] | None = None,
    partial: list[str] | None = None,
) -> tuple[int | None, str]:
    """Run a program in a copy; return its status (None: too long) and what it printed.

    What it had printed when the time was up goes to ``partial``.
    """
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        process = subprocess.Popen(
            argv,
            cwd=tree.root,
            env={**tree.environment, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            status = _wait(process, timeout, clock)
        finally:
            if partial is not None:
                partial.append(_read(output))
        return status, _read(output)


def pytest(tree: Tree, *words: str) -> list[str]:
    """Return the command that runs tests in a copy."""
    return [str(tree.python), "-m", "pytest", "-q", "-p", "no:cacheprovider", *words]


def judged(step: str, status: int | None, text: str, seconds: float) -> Outcome:
    """Tell by its status whether a test has passed."""
    if status is None:
        return Outcome(step, ok=False, how=f"HANG: no end in {seconds:.0f} s", seconds=seconds)
    if status in (0, NOTHING_CHOSEN):
        return Outcome(step, ok=True, how="", seconds=seconds)
    if status == NO_SUCH_TEST:
        raise HarnessError(f"{step}: {text.strip()}")
    found = FAILED.search(text)
    last = text.strip().splitlines()[-1:] or [f"exit status {status}"]
    return Outcome(step, ok=False, how=(found[1] if found else last[0])[:200], seconds=seconds)


def run(step: Step, tree: Tree, timeout: float, clock: Clock) -> Outcome:
    """Run a step that is a program of its own."""
    begin = time.monotonic()
    python, env = tree.python, {}
    if step.here:
        python = paths.ROOT / ".venv/bin/python"
        env["PYTHONPATH"] = f"{paths.ROOT / 'tools'}:{paths.ROOT / 'tests'}"
    status, text = execute([str(python), *step.argv], tree, timeout, clock, env=env)
    return judged(step.name, status, text, time.monotonic() - begin)


def outcomes(text: str) -> list[Outcome]:
    """Read what :mod:`harness.mutants.inside` has printed.

    >>> outcomes('noise\\n{"step": "a", "ok": true, "how": "", "seconds": 1.5}\\n')
    [Outcome(step='a', ok=True, how='', seconds=1.5)]
    """
    found = []
    for line in text.splitlines():
        if line.startswith('{"step"'):
            try:
                found.append(Outcome(**json.loads(line)))
            except ValueError:
                continue
    return found


def guests(
    tree: Tree,
    series: str,
    files: Mapping[str, float],
    clock: Clock,
    *options: str,
) -> list[Outcome]:
    """Run files in one guest; each may take the seconds that it has. Not all need to come about."""
    argv = [str(tree.python), "-m", "harness.mutants.inside", "--kernel", series, *options]
    argv += ["--seconds", ",".join(f"{seconds:.0f}" for seconds in files.values()), *files]
    # A hang of a file is noticed inside; this is for one of the program itself.
    timeout = 8 * sum(files.values()) + 600
    partial: list[str] = []
    try:
        status, text = execute(argv, tree, timeout, clock, partial=partial)
    except TimeUp:
        if found := outcomes(partial[-1]):
            return found
        raise
    found = outcomes(text)
    if status is None and not found:
        return [
            Outcome(
                next(iter(files)), ok=False, how=f"HANG: no end in {timeout:.0f} s", seconds=timeout
            )
        ]
    if not found:
        raise HarnessError(f"a guest for {', '.join(files)}:\n{text.strip()[-2000:]}")
    # Each file once; what the console says in the end of one that had passed comes later.
    last = {one.step: one for one in found}
    return list(last.values())


def expanded(step: Step, root: str) -> Step:
    """Return a step with the copy's path for ``{root}``."""
    return replace(step, argv=tuple(word.replace("{root}", root) for word in step.argv))
