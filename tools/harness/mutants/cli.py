# SPDX-License-Identifier: GPL-2.0-only
"""What ``tools/mutants`` does."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

from harness.errors import HarnessError
from harness.mutants import covered, report, sample, tree, work
from harness.mutants.plan import plan
from harness.mutants.results import Store
from harness.mutants.steps import Clock, TimeUp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.mutants.plan import Plan

LINE = threading.Lock()


def part(word: str) -> tuple[int, int]:
    """Read ``N/M``.

    >>> part("2/3")
    (2, 3)
    """
    number, _, parts = word.partition("/")
    if not (number.isdigit() and parts.isdigit() and 1 <= int(number) <= int(parts)):
        raise argparse.ArgumentTypeError(f"expected N/M, such as 2/3, not {word!r}")
    return int(number), int(parts)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line; tools/mutants explains it."""
    parser = argparse.ArgumentParser(prog="tools/mutants", add_help=False)
    parser.add_argument("target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--number", "-n", type=int, default=60)
    parser.add_argument("--part", type=part, default=(1, 1))
    parser.add_argument("--minutes", type=float, default=85.0)
    parser.add_argument("--jobs", "-j", type=int, default=2)
    parser.add_argument("--bar", type=float, default=90.0)
    parser.add_argument("--unmeasured", action="store_true")
    parser.add_argument("--host-only", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    options = parser.parse_args(argv)
    if options.number < 1 or options.jobs < 1:
        parser.error("--number and --jobs: expected at least 1")
    return options


class Progress:
    """Lines on stderr, with the time since the begin."""

    def __init__(self) -> None:
        """Begin."""
        self.begin = time.monotonic()

    def __call__(self, text: str) -> None:
        """Say what is done, or what has become of something."""
        minutes, seconds = divmod(int(time.monotonic() - self.begin), 60)
        with LINE:
            print(f"[{minutes:3}:{seconds:02}] {text}", file=sys.stderr, flush=True)


def judge(options: argparse.Namespace, chosen: Plan) -> report.Report:
    """Judge the mutants that the command line asks for."""
    clock = Clock(60 * options.minutes)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: clock.stop())  # and what is known by then is kept
    say = Progress()
    ordered = sample.order(chosen.mutants(), options.seed)
    slots = sample.slots(ordered, options.number, *options.part)
    name = options.target.rstrip("/").replace("/", "_")
    store = Store(tree.HOME / tree.commit() / f"{name}.jsonl")
    say(f"seed {options.seed}, {len(slots)} of {len(ordered)} mutants; results in {store.path}")
    broken: list[str] = []
    if not options.report:
        try:
            chosen.measure(covered.Meter(clock, say, options.jobs))
            work.run(chosen, slots, store, clock, options.jobs, say)
            broken = chosen.broken
        except TimeUp:
            say("the time is up: run it again")
    made = report.make(options.target, options.seed, options.bar, slots, store.read())
    made.broken = broken
    return made


def main(argv: Sequence[str]) -> int:
    """Do what the command line says."""
    options = parse(argv)
    try:
        chosen = plan(options.target, lines=not options.unmeasured, guests=not options.host_only)
        if options.list:
            for mutant in sample.order(chosen.mutants(), options.seed):
                print(mutant.key)
            return 0
        made = judge(options, chosen)
    except HarnessError as error:
        print(f"mutants: {error}", file=sys.stderr)
        return 2
    show = report.as_json if options.output == "json" else report.text
    print(show(made, chosen.source))
    return made.status
