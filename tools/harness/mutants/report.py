# SPDX-License-Identifier: GPL-2.0-only
"""What is printed in the end: what has noticed the mutants, and those that nothing has."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.mutants.results import NO_MUTANTS, End

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from harness.mutants.mutant import Mutant
    from harness.mutants.results import Fate


@dataclass
class Report:
    """The mutants of a sample, and how they ended."""

    target: str
    seed: int
    bar: float
    killed: list[tuple[Mutant, Fate]] = field(default_factory=list)
    survived: list[Mutant] = field(default_factory=list)
    discarded: Counter[str] = field(default_factory=Counter)
    missing: int = 0
    """Of how many slots the mutant is not judged yet."""
    broken: list[str] = field(default_factory=list)

    @property
    def judged(self) -> int:
        """How many mutants there are to count."""
        return len(self.killed) + len(self.survived)

    @property
    def percent(self) -> float:
        """How many in a hundred were killed, of those that are judged."""
        return 100 * len(self.killed) / self.judged if self.judged else 0.0

    @property
    def status(self) -> int:
        """The exit status: 3 when not all are judged yet, 1 under the bar."""
        if self.missing:
            return 3
        return 0 if self.percent >= self.bar else 1


def make(
    target: str,
    seed: int,
    bar: float,
    slots: Sequence[Sequence[Mutant]],
    fates: Mapping[str, Fate],
) -> Report:
    """Look up what became of each slot's mutant."""
    report = Report(target, seed, bar)
    for slot in slots:
        for mutant in slot:
            fate = fates.get(mutant.key)
            if fate is None or fate.end is None:
                report.missing += 1
                break
            if fate.end in NO_MUTANTS:
                report.discarded[fate.end] += 1
            elif fate.end is End.SURVIVED:
                report.survived.append(mutant)
                break
            else:
                report.killed.append((mutant, fate))
                break
    return report


def text(report: Report, source: Callable[[str], str]) -> str:
    """Return it for people."""
    killed = f"{len(report.killed)} of {report.judged} mutants killed, {report.percent:.1f} %"
    lines = [f"{report.target}, seed {report.seed}: {killed}; the bar is {report.bar:g} %"]
    for stage, count in Counter(fate.stage for _, fate in report.killed).most_common():
        lines.append(f"{count:5}  killed by {stage}")
    lines.append(f"{len(report.survived):5}  survived")
    lines += [f"{count:5}  {end}, not counted" for end, count in sorted(report.discarded.items())]
    if report.missing:
        lines.append(f"{report.missing:5}  not judged yet: run it again")
    lines += [f"not used, as it fails without a mutant: {test}" for test in report.broken]
    for mutant in report.survived:
        lines += [
            "",
            f"survived: {mutant.place}: {mutant.operator}",
            mutant.diff(source(mutant.file)),
        ]
    return "\n".join(lines)


def as_json(report: Report, source: Callable[[str], str]) -> str:
    """Return it for programs."""
    fields = {
        "target": report.target,
        "seed": report.seed,
        "bar": report.bar,
        "percent": round(report.percent, 1),
        "missing": report.missing,
        "discarded": dict(report.discarded),
        "broken": report.broken,
        "killed": [
            {"mutant": mutant.key, "stage": fate.stage, "how": fate.how, "seconds": fate.seconds}
            for mutant, fate in report.killed
        ],
        "survived": [
            {
                "mutant": mutant.key,
                "file": mutant.file,
                "line": mutant.line,
                "diff": mutant.diff(source(mutant.file)),
            }
            for mutant in report.survived
        ],
    }
    return json.dumps(fields, indent=2)
