# SPDX-License-Identifier: GPL-2.0-only
"""What ``tools/bench`` does."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from typing import TYPE_CHECKING

from harness import kernels, paths
from harness.bench import rows, run
from harness.errors import HarnessError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.bench.rows import Row


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line; tools/bench explains it."""
    parser = argparse.ArgumentParser(prog="tools/bench", add_help=False)
    parser.add_argument("--kernels", default=",".join(kernels.SERIES))
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(argv)
    options.kernels = options.kernels.split(",")
    if unknown := [name for name in options.kernels if name not in kernels.SERIES]:
        parser.error(f"no kernel {unknown[0]!r}: choose from {', '.join(kernels.SERIES)}")
    return options


class Progress:
    """One line on a terminal that says what is being done; nothing anywhere else."""

    def __init__(self, series: str) -> None:
        """Begin."""
        self.series = series
        self.begin = time.monotonic()

    def __call__(self, text: str) -> None:
        """Say what is being done, or with "" clear the line."""
        if sys.stderr.isatty():
            seconds = time.monotonic() - self.begin
            line = f"[{seconds:3.0f} s] Linux {self.series}: {text}" if text else ""
            print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)


def measure(series: Sequence[str], *, quick: bool) -> list[Row]:
    """Measure on some kernels, one after the other."""
    found: list[Row] = []
    for name in series:
        say = Progress(name)
        directory = paths.BUILD / "bench" / name
        try:
            found += run.measure(kernels.find(name), directory, quick=quick, say=say)
        finally:
            say("")
    return found


def main(argv: Sequence[str]) -> int:
    """Do what the command line says."""
    options = parse(argv)
    logging.basicConfig(level=logging.WARNING, format="bench: %(message)s")
    try:
        found = measure(options.kernels, quick=options.quick)
    except HarnessError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    print(rows.as_json(found) if options.output == "json" else rows.text(found))
    missed = rows.missed(found)
    for row in missed:
        print(f"bench: missed: {rows.sentence(row)}", file=sys.stderr)
    return 1 if options.check and missed else 0
