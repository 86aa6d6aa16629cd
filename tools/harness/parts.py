# SPDX-License-Identifier: GPL-2.0-only
"""The parts of a long run: what is in which, what still fits, what is left. Pure.

A *node* is a test by pytest's name for it. Times are seconds; an expected time is what the test
took when it last passed on this machine, else a number for its file and kernel.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

WORKERS = 3
LIMIT = 90 * 60
"""What a run takes at most, the preparations and the summary with it."""
END = 120
"""Of that, what is kept for the end."""

# When nothing has been measured: on Debian's kernels, and on those that look for bugs.
EXPECTED = {
    "": (1, 1),
    "tests/lint/": (60, 60),
    "tests/unit/test_corruption.py": (30, 30),
    "tests/unit/test_corruption.py::test_every_area": (900, 900),
    "tests/unit/test_guided_fuzzing.py": (60, 60),
    "tests/unit/test_guided_fuzzing.py::test_no_input_misleads": (660, 660),
    "tests/unit/test_one_reader.py": (120, 120),
    "tests/vm/": (60, 300),
    "tests/vm/test_bench.py": (150, 150),
    "tests/vm/test_concurrency.py": (2700, 3000),
    "tests/vm/test_cycles.py": (900, 3600),
    "tests/vm/test_disks.py": (240, 1200),
    "tests/vm/test_filesystems.py": (600, 2700),
    "tests/vm/test_guest.py": (90, 400),
    "tests/vm/test_hostile.py::test_devices": (2400, 2400),
    "tests/vm/test_hostile.py::test_hostile_input": (2400, 2400),
    "tests/vm/test_hostile.py::test_memory": (4300, 4300),
    "tests/vm/test_model.py": (3900, 4200),
    "tests/vm/test_powercut.py": (300, 1500),
    "tests/vm/test_unplug.py": (180, 900),
}
"""By how a node begins; the longest beginning counts."""

PASSED, FAILED, CUT, SKIPPED = "passed", "failed", "cut", "skipped"


@dataclass(frozen=True)
class Result:
    """What became of a test when it last ran."""

    status: str
    seconds: float

    @property
    def done(self) -> bool:
        """Whether it need not run again."""
        return self.status in (PASSED, SKIPPED)


@dataclass(frozen=True)
class Part:
    """A part of so many."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Part:
        """Read ``2/5``.

        >>> Part.parse("2/5")
        Part(number=2, of=5)
        """
        found = re.fullmatch(r"([1-9]\d{0,3})/([1-9]\d{0,3})", text)
        if found is None or int(found[1]) > int(found[2]):
            raise ValueError(f"--part: expected N/M, such as 2/5, not {text!r}")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        """Return what :meth:`parse` reads."""
        return f"{self.number}/{self.of}"


def unmeasured(node: str) -> float:
    """Return how long a test is expected to take that has never been measured.

    >>> unmeasured("tests/vm/test_model.py::test_random_steps[debug]")
    4200
    """
    beginning = max((name for name in EXPECTED if node.startswith(name)), key=len)
    slow = re.search(r"[\[-](debug|kcsan)[\]-]", node) is not None
    return EXPECTED[beginning][slow]


def expected(node: str, measured: Mapping[str, float]) -> float:
    """Return how long a test is expected to take."""
    return measured.get(node, unmeasured(node))


def plan(nodes: Iterable[str], measured: Mapping[str, float], count: int) -> dict[str, int]:
    """Deal tests out to parts of about the same time: the longest first, each to the least full.

    The same tests and times make the same parts, in whatever order they come.
    """
    times = {node: expected(node, measured) for node in nodes}
    full = [0.0] * count
    dealt = {}
    for node in sorted(times, key=lambda node: (-times[node], node)):
        least = full.index(min(full))
        full[least] += times[node]
        dealt[node] = least + 1
    return dealt


def completed(dealt: Mapping[str, int], nodes: Iterable[str], count: int) -> dict[str, int]:
    """Return a plan with the tests that are here now; what it did not know goes to the last part.

    Which tests there are also depends on which kernels are there.
    """
    return {node: dealt.get(node, count) for node in nodes}


def todo(
    dealt: Mapping[str, int],
    part: Part,
    results: Mapping[str, Result],
    measured: Mapping[str, float],
    *,
    failed_only: bool = False,
) -> dict[str, float]:
    """Return what a part has still to run and for how long, the longest first."""
    wanted = [
        node
        for node, number in dealt.items()
        if number == part.number
        and not (node in results and results[node].done)
        and not (failed_only and (node not in results or results[node].status != FAILED))
    ]
    times = {node: expected(node, measured) for node in wanted}
    return dict(sorted(times.items(), key=lambda item: (-item[1], item[0])))


def fits(seconds: float, left: float, whole: float = LIMIT - END) -> bool:
    """Say whether a test may be begun when so much is left of a run.

    What takes longer than a whole run by what is known of it is tried at the beginning of one.
    """
    return seconds <= left or (seconds > whole and left >= whole * 0.9)


def wall(times: Iterable[float], workers: int = WORKERS) -> float:
    """Return how long tests take that run side by side, at least.

    >>> wall([10, 10, 40])
    40
    """
    several = list(times)
    return max([sum(several) / workers, *several], default=0.0)


def minutes(seconds: float) -> str:
    """Return a time for people.

    >>> minutes(5400)
    '90 minutes'
    """
    count = max(1, round(seconds / 60))
    return f"{count} minute{'s' * (count != 1)}"


def summary(
    dealt: Mapping[str, int],
    part: Part,
    results: Mapping[str, Result],
    measured: Mapping[str, float],
) -> list[str]:
    """Return what passed, what failed and what was never run, of this part and of all."""
    lines = []
    of_all = dict.fromkeys(dealt, part.number)
    whole = [] if part.of == 1 else [("all parts", of_all)]
    for title, some in ((f"part {part}" if whole else "all", dealt), *whole):
        mine = {node for node, number in some.items() if number == part.number}
        have = {node: results[node] for node in mine if node in results}
        counts = {
            status: sum(one.status == status for one in have.values())
            for status in (PASSED, FAILED, CUT, SKIPPED)
        }
        words = [f"{count} {status}" for status, count in counts.items() if count]
        words.append(f"{len(mine) - len(have)} never run")
        lines.append(f"{title}: {', '.join(words)}")
    lines += [
        f"  {results[node].status}: {node}"
        for node in sorted(dealt)
        if node in results and results[node].status in (FAILED, CUT)
    ]
    left = todo(dealt, part, results, measured)
    if left:
        about = minutes(wall(left.values()))
        lines.append(f"left of this part: {len(left)} tests, about {about}; the longest:")
        lines += [f"  {seconds:5.0f} s  {node}" for node, seconds in list(left.items())[:10]]
    return lines
